//! How fast the queue, table and objects drivers are on this machine's disk.
//!
//! `cargo run --release -p tidemill-embedded --example drivers_bench -- [FOLDER]`. Without a folder the data goes to the system's
//! temporary one, which may be in memory: then the numbers say little about durable writes.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use object_store::ObjectStoreExt;
use object_store::path::Path;
use tidemill_base::{Env, Result};
use tidemill_blocks::queue::{NewMessage, Queue, QueueSettings, Receipt, Receive};
use tidemill_blocks::table::{Condition, Key, Table, Write, sort_u64};
use tidemill_embedded::Embedded;
use tidemill_runtime::Stopwatch;
use tokio::task::JoinSet;

const LEASE: Duration = Duration::from_secs(600);
const BODY: usize = 200;
/// What each measurement takes, about.
const SPAN: Duration = Duration::from_secs(2);

fn main() -> Result<()> {
    let folder = std::env::args().nth(1).map_or_else(|| std::env::temp_dir().join("tidemill-drivers-bench"), PathBuf::from);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(run(&folder));
    drop(std::fs::remove_dir_all(&folder));
    outcome
}

async fn run(folder: &std::path::Path) -> Result<()> {
    for (callers, batch) in [(1, 1), (1, 10), (1, 100), (16, 1), (16, 10), (64, 1)] {
        drop(std::fs::remove_dir_all(folder));
        let watch = Stopwatch::start();
        let embedded = Embedded::open(folder, Env::system())?;
        let made = watch.elapsed();
        let queue = embedded.queue();
        queue.ensure("q", QueueSettings::default()).await?;
        let before = embedded.counters();
        let sent = many(callers, &queue, move |queue| send(queue, batch)).await?;
        let syncs = embedded.counters().syncs - before.syncs;
        let taken = many(callers, &queue, move |queue| receive_and_ack(queue, batch)).await?;
        println!(
            "queue  {callers:>3} callers, batch {batch:>3}: send {sent:>8.0}/s ({syncs} syncs), receive and ack {taken:>8.0}/s  (made in {made:.0?})"
        );
    }
    table(folder).await?;
    objects(folder).await?;
    reopen(folder).await
}

/// Runs `work` in `callers` tasks for a while. Returns what they did a second.
async fn many<T, F>(callers: usize, block: &Arc<T>, work: impl Fn(Arc<T>) -> F + Copy + Send + 'static) -> Result<f64>
where
    T: ?Sized + Send + Sync + 'static,
    F: Future<Output = Result<usize>> + Send,
{
    let (watch, mut tasks) = (Stopwatch::start(), JoinSet::new());
    for _ in 0..callers {
        let block = block.clone();
        tasks.spawn(async move {
            let mut done = 0;
            while watch.elapsed() < SPAN {
                match work(block.clone()).await? {
                    0 => break,
                    n => done += n,
                }
            }
            Ok(done)
        });
    }
    let mut done = 0;
    for outcome in tasks.join_all().await {
        let n: Result<usize> = outcome;
        done += n?;
    }
    Ok(done as f64 / watch.elapsed().as_secs_f64())
}

fn messages(batch: usize) -> Vec<NewMessage> {
    let body: Vec<u8> = (0..BODY).map(|n| if n < BODY / 2 { b'x' } else { (n * 7 % 251) as u8 }).collect();
    (0..batch).map(|_| NewMessage::now(body.clone())).collect()
}

async fn send(queue: Arc<dyn Queue>, batch: usize) -> Result<usize> {
    queue.send("q", messages(batch)).await.map(|ids| ids.len())
}

async fn receive_and_ack(queue: Arc<dyn Queue>, batch: usize) -> Result<usize> {
    let got = queue.receive("q", Receive::up_to(batch, LEASE)).await?;
    let receipts: Vec<Receipt> = got.into_iter().map(|d| d.receipt).collect();
    queue.ack("q", &receipts).await.map(|outcomes| outcomes.len())
}

async fn table(folder: &std::path::Path) -> Result<()> {
    for (callers, batch) in [(1, 1), (1, 10), (1, 100), (16, 1), (64, 1)] {
        drop(std::fs::remove_dir_all(folder));
        let embedded = Embedded::open(folder, Env::system())?;
        let table = embedded.table();
        table.ensure("t").await?;
        let work = move |table: Arc<dyn Table>| async move {
            let env = Env::system();
            let key = || Key::new("p", sort_u64(env.random_u64()));
            let writes = (0..batch).map(|_| Write::put(key(), vec![7; 100], Condition::Absent)).collect();
            table.transact("t", writes).await.map(|versions| versions.len())
        };
        let written = many(callers, &table, work).await?;
        println!("table  {callers:>3} callers, {batch:>3} writes a transaction: {written:>8.0} writes/s");
    }
    Ok(())
}

async fn objects(folder: &std::path::Path) -> Result<()> {
    for (callers, size) in [(1, 1 << 10), (16, 1 << 10), (1, 1 << 20), (4, 8 << 20)] {
        drop(std::fs::remove_dir_all(folder));
        let embedded = Embedded::open(folder, Env::system())?;
        let objects = embedded.local_objects();
        let put = many(callers, &objects, move |objects| async move {
            let path = Path::from(Env::system().id("o"));
            tidemill_blocks::objects::put(objects.as_ref(), &path, vec![5_u8; size]).await.map(|()| 1)
        });
        let put = put.await?;
        let path = Path::from("read");
        tidemill_blocks::objects::put(objects.as_ref(), &path, vec![5_u8; size]).await?;
        let got = many(callers, &objects, |objects| async move {
            let path = Path::from("read");
            let got = objects.get(&path).await.map_err(|e| tidemill_blocks::objects::error("read", &path, e))?;
            got.bytes().await.map(|_| 1).map_err(|e| tidemill_blocks::objects::error("read", &path, e))
        });
        let got = got.await?;
        let mib = size as f64 / f64::from(1 << 20);
        println!(
            "objects {callers:>2} callers, {size:>8} bytes: put {put:>6.0}/s ({:.0} MiB/s), get {got:>6.0}/s ({:.0} MiB/s)",
            put * mib,
            got * mib
        );
    }
    Ok(())
}

async fn reopen(folder: &std::path::Path) -> Result<()> {
    drop(std::fs::remove_dir_all(folder));
    let embedded = Embedded::open(folder, Env::system())?;
    let queue = embedded.queue();
    queue.ensure("q", QueueSettings::default()).await?;
    let before = resident();
    for _ in 0..1000 {
        queue.send("q", messages(1000)).await?;
    }
    println!("1,000,000 messages waiting: {} MiB resident, {} before", resident() >> 20, before >> 20);
    drop((queue, embedded));
    let watch = Stopwatch::start();
    let embedded = Embedded::open(folder, Env::system())?;
    let opened = watch.elapsed();
    println!("reopened with 1,000,000 messages in {opened:.0?}");
    let queue = embedded.queue();
    let watch = Stopwatch::start();
    let mut done = 0;
    while done < 900_000 {
        done += receive_and_ack(queue.clone(), 1000).await?;
    }
    println!("drained {done} at {:.0}/s, batch 1000", done as f64 / watch.elapsed().as_secs_f64());
    drop((queue, embedded));
    let watch = Stopwatch::start();
    let embedded = Embedded::open(folder, Env::system())?;
    println!("reopened behind {done} acknowledged messages in {:.0?}, {} left", watch.elapsed(), embedded.queue().stats("q").await?.ready);
    Ok(())
}

/// Bytes of memory that this process holds.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096
}
