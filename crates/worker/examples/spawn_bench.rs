//! What a worker adds to the bare cost of starting a process: the same program, so many times on so many slots, first by nothing but
//! spawn and wait on threads, then by a whole worker over in-memory blocks (claim, own folder and process group, captured logs,
//! usage, statistics, reports). Rounds alternate, so that the machine's mood falls on both; the best round of each counts.
//!
//! `cargo run --release -p tidemill-worker --example spawn_bench -- [TASKS [SLOTS [ROUNDS]]]`

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tidemill_base::{Env, Error, Result};
use tidemill_batch::cut::StageDefinition;
use tidemill_batch::model::{InputSpec, KeepSpec, OutputSpec, Resources, RetrySpec, RunSpec, StageSpec, SuccessSpec, UpstreamPolicy};
use tidemill_batch::protocol::keys::{self, CONTROL_TABLE, DONE_QUEUE, STATE_TABLE, WORKER_TABLE};
use tidemill_batch::protocol::{RangeState, WorkItem, decode, encode};
use tidemill_blocks::fleet::Offers;
use tidemill_blocks::memory::{self, MemoryQueue, MemoryTable};
use tidemill_blocks::queue::{NewMessage, Queue, QueueSettings};
use tidemill_blocks::table::Table;
use tidemill_runtime::{Kind, Shutdown, Stopwatch, Tasks, sleep};
use tidemill_worker::{Runners, WorkerBlocks, WorkerNode, WorkerSettings};

const PROGRAM: &str = "/bin/true";
const RANGE: u64 = 1000;

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1).map(|a| a.parse::<u64>().map_err(|_| Error::invalid(format!("`{a}` is not a number"))));
    let tasks = args.next().transpose()?.unwrap_or(10_000);
    let slots = u32::try_from(args.next().transpose()?.unwrap_or(2)).unwrap_or(2);
    let rounds = args.next().transpose()?.unwrap_or(3);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let (mut floor, mut ours, mut noop) = (f64::MAX, f64::MAX, f64::MAX);
    for round in 0..rounds {
        let bare = bare(tasks, slots);
        let whole = runtime.block_on(worker(tasks, slots, RunSpec::Command { argv: vec![PROGRAM.into()], shell: false }))?;
        println!("round {round}: floor {:.0}/s, worker {:.0}/s", tasks as f64 / bare, tasks as f64 / whole);
        (floor, ours) = (floor.min(bare), ours.min(whole));
        noop = noop.min(runtime.block_on(worker(1_000_000, slots, RunSpec::Noop))?);
    }
    println!("{PROGRAM} x {tasks} on {slots} slots: worker at {:.3} of the floor; no-op {:.0}/s", floor / ours, 1_000_000.0 / noop);
    Ok(())
}

/// Seconds for spawning and waiting on threads and nothing else.
fn bare(tasks: u64, slots: u32) -> f64 {
    let left = Arc::new(AtomicU64::new(tasks));
    let watch = Stopwatch::start();
    std::thread::scope(|scope| {
        for _ in 0..slots {
            scope.spawn(|| {
                while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok() {
                    let mut command = Command::new(PROGRAM);
                    command.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
                    assert!(command.status().is_ok_and(|s| s.success()), "{PROGRAM} does not run here");
                }
            });
        }
    });
    watch.elapsed().as_secs_f64()
}

/// Seconds from the first release to the last acknowledged report.
async fn worker(tasks: u64, slots: u32, run: RunSpec) -> Result<f64> {
    let env = Env::system();
    let queue = Arc::new(MemoryQueue::new(env.clone()));
    let table = Arc::new(MemoryTable::new(env.clone()));
    for name in [keys::work_queue("c"), DONE_QUEUE.to_owned()] {
        queue.ensure(&name, QueueSettings::default()).await?;
    }
    for name in [STATE_TABLE, WORKER_TABLE, CONTROL_TABLE] {
        table.ensure(name).await?;
    }
    let blocks = WorkerBlocks { queue: queue.clone(), table: table.clone(), objects: memory::objects(), grants: None };
    definition(run, tasks).store(&blocks.objects, "j", 0).await?;
    let scratch = std::env::temp_dir().join(env.id("spawn-bench-"));
    let offers = Offers { slots, memory: 1 << 30, named: BTreeMap::new() };
    let shutdown = Shutdown::new();
    let supervised = Tasks::new("worker", shutdown.clone());
    let settings = WorkerSettings::new("w", "c", &scratch, offers);
    let node = WorkerNode::new(settings, blocks, &Runners::processes(), env.clone(), supervised.clone())?;
    supervised.spawn("node", Kind::Essential, node.run());
    let size = if tasks > 100_000 { 10_000 } else { RANGE };
    let watch = Stopwatch::start();
    let ranges = tasks.div_ceil(size);
    for range in 0..ranges {
        let start = range * size;
        let len = size.min(tasks - start);
        let item = WorkItem {
            job: "j".into(),
            stage: 0,
            range,
            start,
            len,
            attempt: 1,
            released_at: env.now(),
            pieces: Vec::new(),
            needs: Vec::new(),
        };
        queue.send(&keys::work_queue("c"), vec![NewMessage::now(encode(&item)?)]).await?;
    }
    for range in 0..ranges {
        while !is_finished(table.as_ref(), range).await? {
            sleep(Duration::from_millis(1)).await;
        }
    }
    let took = watch.elapsed().as_secs_f64();
    shutdown.drain();
    supervised.join(Duration::from_secs(5)).await;
    std::fs::remove_dir_all(&scratch)?;
    Ok(took)
}

async fn is_finished(table: &dyn Table, range: u64) -> Result<bool> {
    let item = table.get(STATE_TABLE, &keys::fence("j", 0, range)).await?;
    Ok(match item {
        Some(item) => decode::<RangeState>("fence", &item.value)?.finished,
        None => false,
    })
}

fn definition(run: RunSpec, total: u64) -> StageDefinition {
    let spec = StageSpec {
        name: "bench".into(),
        input: InputSpec::Array { first: 0, last: i64::MAX },
        run,
        resources: Resources::default(),
        timeout: None,
        retry: RetrySpec::default(),
        success: SuccessSpec::default(),
        output: OutputSpec::default(),
        upstream: UpstreamPolicy::default(),
        env: BTreeMap::new(),
        secrets: BTreeMap::new(),
        credentials: false,
        keep: KeepSpec::default(),
    };
    StageDefinition { job_name: "bench".into(), spec, total, manifest: None, upstream: None }
}
