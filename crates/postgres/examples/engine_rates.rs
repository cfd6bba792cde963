//! What a database gives: messages, transactions and bytes per second through the drivers.
//!
//! `cargo run --release -p tidemill-postgres --example engine_rates -- postgres://user@host/database [SECONDS]`

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::join_all;
use object_store::path::Path;
use tidemill_base::{Env, Error, Result};
use tidemill_blocks::ledger::Statement;
use tidemill_blocks::objects;
use tidemill_blocks::queue::{NewMessage, QueueSettings, Receive};
use tidemill_blocks::table::{Condition, Key, Write, sort_u64};
use tidemill_postgres::{Postgres, PostgresSettings};
use tidemill_runtime::Stopwatch;

const LEASE: Duration = Duration::from_secs(600);

/// Has `callers` call again and again for a while; prints how many things per second that makes.
async fn rate<F: Future<Output = Result<usize>>>(what: &str, callers: usize, span: Duration, call: impl Fn(u64) -> F) -> Result<()> {
    let (numbers, watch) = (AtomicU64::new(0), Stopwatch::start());
    let caller = || async {
        let mut things = 0;
        while watch.elapsed() < span {
            match call(numbers.fetch_add(1, Ordering::Relaxed)).await? {
                0 => break,
                some => things += some,
            }
        }
        Ok::<_, Error>(things)
    };
    let all = join_all((0..callers).map(|_| caller())).await.into_iter().sum::<Result<usize>>()?;
    println!("{what:<44} {callers:>2} callers {:>9.0} /s", all as f64 / watch.elapsed().as_secs_f64());
    Ok(())
}

async fn queue(postgres: &Postgres, callers: usize, batch: usize, span: Duration) -> Result<()> {
    let queue = postgres.queue();
    queue.ensure("rates", QueueSettings::default()).await?;
    queue.purge("rates").await?;
    let send = || async { queue.send("rates", vec![NewMessage::now(vec![b'x'; 200]); batch]).await.map(|ids| ids.len()) };
    rate(&format!("send, {batch} at a time"), callers, span, |_| send()).await?;
    let work = || async {
        let got = queue.receive("rates", Receive::up_to(batch, LEASE)).await?;
        let receipts: Vec<_> = got.iter().map(|d| d.receipt.clone()).collect();
        queue.ack("rates", &receipts).await.map(|done| done.len())
    };
    rate(&format!("receive and acknowledge, {batch} at a time"), callers, span, |_| work()).await
}

async fn others(postgres: &Postgres, callers: usize, span: Duration) -> Result<()> {
    let (table, ledger, store) = (postgres.table(), postgres.ledger(), postgres.objects());
    table.ensure("rates").await?;
    let run = Env::system().id("r");
    let transact = |partition: String, n: u64| {
        let (table, key) = (Arc::clone(&table), Key::new(partition, sort_u64(n)));
        async move { table.transact("rates", vec![Write::put(key, vec![b'x'; 200], Condition::Absent)]).await.map(|v| v.len()) }
    };
    rate("conditional writes, one partition", callers, span, |n| transact(run.clone(), n)).await?;
    rate("conditional writes, a partition each", callers, span, |n| transact(format!("{run}/{n}"), n)).await?;
    let key = |n: u64| Key::new(format!("{run}/{n}"), sort_u64(n));
    rate("reads of an item", callers, span, |n| {
        let (table, key) = (&table, key(n));
        async move { table.get("rates", &key).await.map(|_| 1) }
    })
    .await?;
    ledger.transact(vec![Statement::new("CREATE TABLE IF NOT EXISTS rates (id TEXT PRIMARY KEY, n BIGINT)", vec![])]).await?;
    rate("ledger transactions of two statements", callers, span, |n| {
        let id = format!("{run}/{n}");
        let insert = Statement::new("INSERT INTO rates VALUES ($1, 0)", vec![id.as_str().into()]).expecting(1);
        let update = Statement::new("UPDATE rates SET n = n + 1 WHERE id = $1", vec![id.into()]).expecting(1);
        let ledger = &ledger;
        async move { ledger.transact(vec![insert, update]).await.map(|_| 1) }
    })
    .await?;
    let body = bytes::Bytes::from(vec![b'x'; 1 << 20]);
    let path = |n: u64| Path::from(format!("rates/{}", n % 64));
    rate("objects of 1 MiB written", callers, span, |n| {
        let (store, body) = (&store, body.clone());
        async move { objects::put(store.as_ref(), &path(n), body).await.map(|()| 1) }
    })
    .await?;
    rate("objects of 1 MiB read", callers, span, |n| {
        let store = &store;
        async move { objects::get_opt(store.as_ref(), &path(n)).await.map(|_| 1) }
    })
    .await
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let url = args.next().ok_or_else(|| Error::invalid("usage: rates postgres://user@host/database [SECONDS]"))?;
    let seconds = args.next().map_or(Ok(2), |s| s.parse()).map_err(|_| Error::invalid("the seconds are not a number"))?;
    let (settings, span) =
        (PostgresSettings { schema: "tidemill_rates".into(), ..PostgresSettings::new(url) }, Duration::from_secs(seconds));
    let postgres = Postgres::connect(settings, Env::system()).await?;
    for callers in [1, 8] {
        for batch in [1, 10, 100] {
            queue(&postgres, callers, batch, span).await?;
        }
        others(&postgres, callers, span).await?;
    }
    println!("round trips: {:?}", postgres.calls());
    Ok(())
}
