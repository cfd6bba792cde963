//! The simulator's harness: a scenario on one thread and simulated time, everything following from a seed.
//!
//! What a scenario does goes into its [`Trace`]: notes of its own and, through [`Faults::traced`], every call on a block with its
//! outcome. Two runs of one seed must leave the same trace; when they do not, something in the code asks the real world, and the
//! first line that differs says where to look. That keeps each failing seed replayable.
//!
//! ```no_run
//! use std::time::Duration;
//! use tidemill_blocks_test::sim;
//!
//! // In a test: a thousand seeds; `TIDEMILL_SIM_SEED=17 cargo test ...` runs just the one.
//! sim::sweep(1000, Duration::from_secs(3600), async |sim| {
//!     let blocks = sim.component("manager").blocks(sim.blocks());
//!     sim.note("started");
//!     // ... run the system on `blocks`, check its invariants ...
//!     # drop(blocks);
//!     Ok(())
//! });
//! ```

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidemill_base::{Env, Error, Result, Timestamp};
use tidemill_blocks::Blocks;
use tidemill_blocks::memory::{self, MemoryFleet, MemoryGrants, MemoryQueue, MemoryTable};
use tidemill_runtime::{Stopwatch, TokioClock, timeout};

use crate::SqliteMemoryLedger;
use crate::faulty::{Component, FaultPlan, Faults};

/// When every simulation begins: 2024-01-01T00:00:00Z.
pub const EPOCH: Timestamp = Timestamp::from_millis(1_704_067_200_000);
/// The variable that names one seed to run instead of many.
pub const SEED_VARIABLE: &str = "TIDEMILL_SIM_SEED";
/// The variable that names the first seed of a sweep, when that is not 0.
pub const FIRST_VARIABLE: &str = "TIDEMILL_SIM_FIRST";

/// Lines shown before the first that differs between two runs.
const BEFORE: usize = 20;

/// All blocks in memory, without a thread and without a fault.
pub fn memory_blocks(env: &Env) -> Result<Blocks> {
    Ok(Blocks {
        objects: memory::objects(),
        queue: Arc::new(MemoryQueue::new(env.clone())),
        table: Arc::new(MemoryTable::new(env.clone())),
        ledger: Arc::new(SqliteMemoryLedger::open()?),
        grants: Arc::new(MemoryGrants::new(env.clone())),
        fleet: Arc::new(MemoryFleet::new(env.clone())),
    })
}

/// What has happened in a run; clones share it.
#[derive(Debug, Clone)]
pub struct Trace {
    env: Env,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Trace {
    /// Nothing yet; `env` dates the lines.
    pub fn new(env: Env) -> Self {
        Self { env, lines: Arc::default() }
    }

    /// Adds a line, with the simulated time.
    pub fn note(&self, what: &str) {
        let line = format!("{:.6} {what}", self.env.now().since(EPOCH).as_secs_f64());
        self.lock().push(line);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<String>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A run's world, as its scenario sees it.
#[derive(Debug)]
pub struct Sim {
    seed: u64,
    env: Env,
    trace: Trace,
    faults: Faults,
    blocks: Blocks,
}

impl Sim {
    fn new(seed: u64) -> Result<Self> {
        let env = Env::seeded(Arc::new(TokioClock::starting_at(EPOCH)), seed);
        let trace = Trace::new(env.clone());
        let faults = Faults::traced(FaultPlan::rough(seed), trace.clone());
        let blocks = memory_blocks(&env)?;
        Ok(Self { seed, env, trace, faults, blocks })
    }

    /// What everything follows from; scenarios draw their shape from it, too.
    pub const fn seed(&self) -> u64 {
        self.seed
    }

    /// Clock, randomness and ids.
    pub const fn env(&self) -> &Env {
        &self.env
    }

    /// The faults: rough ones from this seed. [`Faults::calm`] ends them.
    pub const fn faults(&self) -> &Faults {
        &self.faults
    }

    /// A process of this run.
    pub fn component(&self, name: &str) -> Component {
        self.faults.component(name)
    }

    /// The blocks as they are, without faults: to wrap for components, and to check invariants on.
    pub const fn blocks(&self) -> &Blocks {
        &self.blocks
    }

    /// Adds a line to the trace.
    pub fn note(&self, what: &str) {
        self.trace.note(what);
    }
}

/// Names what happened in a run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TraceHash([u8; 32]);

impl fmt::Debug for TraceHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in &self.0[..8] {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

/// A run that has ended.
#[derive(Debug)]
pub struct Run<T> {
    /// What the scenario returned, or `Unavailable` when simulated time ran out.
    pub outcome: Result<T>,
    /// What happened, line by line.
    pub trace: Vec<String>,
    /// How much simulated time it took.
    pub simulated: Duration,
}

impl<T> Run<T> {
    /// The hash over the trace.
    pub fn hash(&self) -> TraceHash {
        let mut hasher = blake3::Hasher::new();
        for line in &self.trace {
            hasher.update(line.as_bytes());
            hasher.update(b"\n");
        }
        TraceHash(*hasher.finalize().as_bytes())
    }
}

/// Runs `scenario` once, for at most `limit` of simulated time.
pub fn run_seed<T>(seed: u64, limit: Duration, scenario: impl AsyncFnOnce(&Sim) -> Result<T>) -> Run<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime can be built");
    runtime.block_on(async {
        let started = Stopwatch::start();
        let sim = match Sim::new(seed) {
            Ok(sim) => sim,
            Err(e) => return Run { outcome: Err(e), trace: Vec::new(), simulated: Duration::ZERO },
        };
        let outcome = timeout(limit, "the scenario", scenario(&sim)).await.flatten();
        let trace = std::mem::take(&mut *sim.trace.lock());
        Run { outcome, trace, simulated: started.elapsed() }
    })
}

/// Runs `scenario` twice and compares the traces. `Internal`, with the first line that differs, when the seed does not replay.
pub fn run_and_replay<T>(seed: u64, limit: Duration, scenario: impl AsyncFn(&Sim) -> Result<T>) -> Result<Run<T>> {
    let first = run_seed(seed, limit, &scenario);
    let second = run_seed(seed, limit, &scenario);
    if first.hash() == second.hash() {
        return Ok(first);
    }
    let same = first.trace.iter().zip(&second.trace).take_while(|(a, b)| a == b).count();
    let line = |run: &Run<T>| run.trace.get(same).cloned().unwrap_or_else(|| "(the end)".to_owned());
    let before = first.trace[same.saturating_sub(BEFORE)..same].join("\n");
    Err(Error::internal(format!(
        "seed {seed} does not replay: line {same} is `{}` in the first run and `{}` in the second; look for time, randomness or \
         hash-map order that does not come from the environment. Before it:\n{before}",
        line(&first),
        line(&second)
    )))
}

/// Runs `scenario` on `count` seeds from 0 or from [`FIRST_VARIABLE`], or on the one that [`SEED_VARIABLE`] names. Each tenth is run
/// twice, to see that it replays.
///
/// # Panics
/// When a seed fails, after printing the end of its trace and how to run it again.
pub fn sweep(count: u64, limit: Duration, scenario: impl AsyncFn(&Sim) -> Result<()>) {
    if let Some(seed) = seed_from(SEED_VARIABLE) {
        return one_of_sweep(seed, limit, true, &scenario);
    }
    let first = seed_from(FIRST_VARIABLE).unwrap_or(0);
    for seed in first..first.saturating_add(count) {
        one_of_sweep(seed, limit, seed % 10 == 0, &scenario);
    }
}

fn seed_from(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is `{text}`, which is not a seed; give it a whole number")))
}

fn one_of_sweep(seed: u64, limit: Duration, replay: bool, scenario: &impl AsyncFn(&Sim) -> Result<()>) {
    let run = || if replay { run_and_replay(seed, limit, scenario) } else { Ok(run_seed(seed, limit, scenario)) };
    let again = format!("seed {seed} failed; run it again with {SEED_VARIABLE}={seed}");
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(Run { outcome: Ok(()), .. })) => {}
        Ok(Ok(Run { outcome: Err(e), trace, simulated })) => {
            let tail = trace[trace.len().saturating_sub(40)..].join("\n");
            panic!("{again}\n{e:?}, after {simulated:?} of simulated time. The end of its trace:\n{tail}");
        }
        Ok(Err(e)) => panic!("{again}\n{e:?}"),
        // An assertion of the scenario's has been printed already.
        Err(_) => panic!("{again}"),
    }
}
