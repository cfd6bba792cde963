//! How many tasks a second a pool carries: no-ops of a given shape over so many engines, and what each costs in processor time on either side.
//!
//! `cargo run --release -p tidemill-engine --example noop_bench -- [python|rust] [TASKS [ENGINES [ROUNDS]]]`. `TIDEMILL_PYTHON` names
//! another interpreter.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use tidemill_base::{Env, Error, Result};
use tidemill_engine::{EngineSpec, Format, Function, Pool, PoolSettings, Session, Task, TaskResult};
use tidemill_runtime::{Shutdown, Stopwatch, Tasks};

/// `pickle.dumps(((1,), {}), 5)`.
const ONE: &[u8] = b"\x80\x05\x95\x09\x00\x00\x00\x00\x00\x00\x00K\x01\x85\x94}\x94\x86\x94.";

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let kind = args.first().map_or("python", String::as_str);
    let number = |at: usize, default: u64| match args.get(at) {
        Some(a) => a.parse().map_err(|_| Error::invalid(format!("`{a}` is not a number"))),
        None => Ok(default),
    };
    let (tasks, engines, rounds) = (number(1, 1_000_000)?, number(2, 2)?, number(3, 3)?);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(run(kind, tasks, usize::try_from(engines).unwrap_or(2), rounds))
}

async fn run(kind: &str, count: u64, engines: usize, rounds: u64) -> Result<()> {
    let scratch = std::env::temp_dir().join(Env::system().id("engine-bench-"));
    let (spec, session) = if kind == "rust" { rust(&scratch)? } else { python(&scratch) };
    let shutdown = Shutdown::new();
    let supervised = Tasks::new("bench", shutdown);
    let (pool, mut batches) = Pool::start(spec, PoolSettings::new(engines), Env::system(), &supervised)?;
    let session = pool.open(session);
    // Boots the engines and opens the session.
    pool.submit(session, (0..10_000).map(|id| Task::new(id, Bytes::from_static(ONE))).collect()).await?;
    drain(&mut batches, 10_000).await?;
    trips(&pool, session, &mut batches).await?;
    for _ in 0..rounds {
        let (ours, theirs) = (cpu_us("self")?, engines_us(&pool)?);
        let watch = Stopwatch::start();
        for first in (0..count).step_by(10_000) {
            let last = count.min(first + 10_000);
            pool.submit(session, (first..last).map(|id| Task::new(id, Bytes::from_static(ONE))).collect()).await?;
            // A worker leases ahead, and not everything at once.
            while pool.waiting() > 40_000 {
                take(&mut batches).await?;
            }
        }
        let left = pool.unsettled();
        drain_rest(&mut batches, &pool, left).await?;
        let seconds = watch.elapsed().as_secs_f64();
        println!(
            "{kind}, {engines} engines: {count} tasks in {seconds:.3} s = {:.0}/s; processor time a task: host {:.2} us, engine {:.2} us",
            count as f64 / seconds,
            (cpu_us("self")? - ours) / count as f64,
            (engines_us(&pool)? - theirs) / count as f64,
        );
    }
    drop(pool);
    while batches.next().await.is_some() {}
    drop(std::fs::remove_dir_all(scratch));
    Ok(())
}

/// Single tasks, one after the other, on idle engines.
async fn trips(pool: &Pool, session: u32, batches: &mut tidemill_engine::Batches) -> Result<()> {
    let mut times = Vec::new();
    for id in 0..1000 {
        let watch = Stopwatch::start();
        pool.submit(session, vec![Task::new(id, Bytes::from_static(ONE))]).await?;
        drain(batches, 1).await?;
        times.push(watch.elapsed());
    }
    times.sort_unstable();
    println!("round trip of one task: median {:?}, 99th percentile {:?}", times[times.len() / 2], times[times.len() * 99 / 100]);
    Ok(())
}

async fn take(batches: &mut tidemill_engine::Batches) -> Result<u64> {
    let batch = batches.next().await.ok_or_else(|| Error::internal("the pool is gone"))?;
    for outcome in &batch.outcomes {
        if let TaskResult::Failed(e) = &outcome.result {
            return Err(Error::invalid(format!("a task failed: {e:?}")));
        }
    }
    Ok(batch.outcomes.len() as u64)
}

async fn drain(batches: &mut tidemill_engine::Batches, count: u64) -> Result<()> {
    let mut had = 0;
    while had < count {
        had += take(batches).await?;
    }
    Ok(())
}

/// Until nothing is unsettled and nothing waits to be taken.
async fn drain_rest(batches: &mut tidemill_engine::Batches, pool: &Pool, mut left: usize) -> Result<()> {
    while left > 0 {
        take(batches).await?;
        left = pool.unsettled();
    }
    while batches.try_next().is_some() {}
    Ok(())
}

fn python(scratch: &Path) -> (EngineSpec, Session) {
    let program = std::env::var_os("TIDEMILL_PYTHON").map_or_else(|| PathBuf::from("python3"), PathBuf::from);
    let mut spec = EngineSpec::python(program, scratch);
    let kit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../python");
    spec.env.insert("PYTHONPATH".into(), kit.into());
    (spec, Session::new(Function::Module("operator:pos".to_owned())))
}

fn rust(scratch: &Path) -> Result<(EngineSpec, Session)> {
    let engine = std::env::current_exe()?.with_file_name("tiny_engine");
    let mut session = Session::new(Function::Named("noop".to_owned()));
    (session.input, session.output) = (Format::Raw, Format::Raw);
    Ok((EngineSpec::new(engine, scratch), session))
}

fn engines_us(pool: &Pool) -> Result<f64> {
    pool.status().engines.iter().map(|e| cpu_us(&e.pid.to_string())).sum()
}

/// Processor time that a process has used, microseconds.
fn cpu_us(process: &str) -> Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    let (_, rest) = text.rsplit_once(") ").ok_or_else(|| Error::corrupt("/proc is not as it should be"))?;
    let ticks: u64 = rest.split(' ').skip(11).take(2).filter_map(|t| t.parse::<u64>().ok()).sum();
    // A tick is a hundredth of a second on Linux.
    Ok(ticks as f64 * 10_000.0)
}
