//! Several engines that share one list of tasks.

mod slot;
mod state;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidemill_base::{Env, Error, Result};
use tidemill_runtime::{Kind, Stopwatch, Tasks};
use tokio::sync::{Notify, mpsc};

use crate::session::{Outcome, Session, Task};
use crate::spec::EngineSpec;
use crate::tally::Tally;
use crate::wire::{Hello, Library};
use state::State;

/// Batches that wait for the caller before engines are no longer read.
const BATCHES: usize = 64;

/// How a pool works.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolSettings {
    /// How many engines.
    pub engines: usize,
    /// Each engine is given work for about this long ahead.
    pub ahead: Duration,
    /// An engine that has not answered for this long, while another has nothing to do, loses what it has not begun.
    pub stuck: Duration,
    /// A task fails when it has ended its engine so often, the last time alone in a fresh one. At least 2.
    pub strikes: u32,
    /// Sessions open in one engine at a time; the least recently used is closed for another.
    pub open_sessions: usize,
    /// Bytes of payloads in one engine's hands, but for a single task that is larger.
    pub hand_bytes: usize,
    /// A running task that has been cancelled may end by itself for this long; then its engine is killed.
    pub cancel_grace: Duration,
    /// When the pool ends, what engines have in hand may end by itself for this long; then they are killed.
    pub stop_grace: Duration,
    /// An engine is replaced after so many tasks.
    pub recycle_tasks: Option<u64>,
    /// An engine is replaced, between tasks, when its memory has grown to this multiple of what it had when its first session was open.
    pub recycle_growth: Option<f64>,
    /// An engine is replaced, between tasks, when it has so many bytes of resident memory.
    pub recycle_memory: Option<u64>,
    /// How often engines are held against the files that they were started from.
    pub version_check: Duration,
    /// What has become of engines is counted here.
    pub tally: Tally,
    /// Set by the pool from the engine's limits.
    frame_bytes: u32,
}

impl PoolSettings {
    /// So many engines, and the defaults.
    pub fn new(engines: usize) -> Self {
        Self {
            engines,
            ahead: Duration::from_millis(40),
            stuck: Duration::from_millis(150),
            strikes: 2,
            open_sessions: 8,
            hand_bytes: 8 << 20,
            cancel_grace: Duration::from_secs(2),
            stop_grace: Duration::from_secs(5),
            recycle_tasks: None,
            recycle_growth: None,
            recycle_memory: None,
            version_check: Duration::from_secs(2),
            tally: Tally::default(),
            frame_bytes: 0,
        }
    }

    fn check(&self) -> Result<()> {
        let sound = self.engines > 0 && self.strikes >= 2 && self.open_sessions > 0 && self.recycle_growth.is_none_or(|g| g > 1.0);
        if sound && !self.ahead.is_zero() {
            return Ok(());
        }
        Err(Error::invalid(
            "a pool needs an engine, two strikes, one open session, some time ahead, and memory that may grow; mend its settings",
        ))
    }
}

/// An engine, for the record of what made a result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineRecord {
    /// What the pool calls it.
    pub id: String,
    /// What it has said of itself, with what it loaded at boot.
    pub hello: Hello,
    /// What it has loaded for the session.
    pub loaded: Vec<Library>,
    /// Its packages of static data: name and version.
    pub packages: Vec<Library>,
}

/// Some tasks' outcomes. The batches of a session hold each of its tasks exactly once.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The session's number.
    pub session: u32,
    /// What became of some of its tasks.
    pub outcomes: Vec<Outcome>,
    /// What ran them; `None` where no engine did.
    pub engine: Option<Arc<EngineRecord>>,
    /// What the engine has written to its standard error since its last batch, at most 64 KiB.
    pub log: String,
    /// Resident memory of the engine when it was last looked at, bytes.
    pub resident: u64,
}

/// How an engine of the pool is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EngineStatus {
    /// What the pool calls it; empty while it is being started.
    pub id: String,
    /// Its process; 0 while it is being started.
    pub pid: u32,
    /// Resident memory, bytes.
    pub resident: u64,
    /// What it runs now: the session and the task.
    pub running: Option<(u32, u64)>,
    /// Tasks that it has in hand, that one included.
    pub in_hand: usize,
    /// Tasks that it has finished.
    pub finished: u64,
    /// Engines that this one has replaced.
    pub replaced: u64,
    /// How the last one ended, if it did not just stop.
    pub last_loss: Option<String>,
    /// What it has said of itself.
    pub record: Option<Arc<EngineRecord>>,
    /// Sessions whose state it holds, with what it has loaded for each.
    pub sessions: BTreeMap<u32, Arc<EngineRecord>>,
}

/// How a pool is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolStatus {
    /// Each engine.
    pub engines: Vec<EngineStatus>,
    /// Tasks that are not settled.
    pub unsettled: usize,
    /// Those of them that wait for an engine.
    pub waiting: usize,
}

/// What the engines' keepers share.
#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    spec: RwLock<Arc<EngineSpec>>,
    settings: PoolSettings,
    bells: Vec<Notify>,
    batches: mpsc::Sender<Batch>,
    status: Mutex<Vec<EngineStatus>>,
    clock: Stopwatch,
    env: Env,
    stopping: std::sync::atomic::AtomicBool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spec(&self) -> Arc<EngineSpec> {
        self.spec.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn now(&self) -> Duration {
        self.clock.elapsed()
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(std::sync::atomic::Ordering::SeqCst)
    }

    /// Does something with the state, and wakes whom it concerns.
    fn with<T>(&self, what: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state();
        let result = what(&mut state);
        let wakes = state.take_wakes();
        drop(state);
        for at in wakes {
            self.bells[at].notify_one();
        }
        result
    }

    async fn send(&self, batch: Batch) {
        if !batch.outcomes.is_empty() {
            // An error means that the caller has gone. The pool goes with its handle.
            drop(self.batches.send(batch).await);
        }
    }

    /// Sends what no engine has run.
    async fn send_unrun(&self, session: u32, outcomes: Vec<Outcome>) {
        self.send(Batch { session, outcomes, engine: None, log: String::new(), resident: 0 }).await;
    }
}

/// Several engines that share one list of tasks. When the last clone is dropped, the engines end.
#[derive(Debug, Clone)]
pub struct Pool(Arc<Handle>);

#[derive(Debug)]
struct Handle(Arc<Shared>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.stopping.store(true, std::sync::atomic::Ordering::SeqCst);
        self.0.bells.iter().for_each(Notify::notify_one);
    }
}

/// Where a pool's outcomes come out.
#[derive(Debug)]
pub struct Batches(mpsc::Receiver<Batch>);

impl Batches {
    /// The next batch; `None` when the pool and all its engines are gone. While nobody asks, engines soon stand still.
    pub async fn next(&mut self) -> Option<Batch> {
        self.0.recv().await
    }

    /// A batch, if there is one now.
    pub fn try_next(&mut self) -> Option<Batch> {
        self.0.try_recv().ok()
    }
}

impl Pool {
    /// Starts the engines. They boot while this returns; tasks may be submitted at once.
    pub fn start(spec: EngineSpec, mut settings: PoolSettings, env: Env, tasks: &Tasks) -> Result<(Self, Batches)> {
        settings.check()?;
        spec.limits.check()?;
        settings.frame_bytes = spec.limits.frame_bytes;
        let (batches, receiver) = mpsc::channel(BATCHES);
        let shared = Arc::new(Shared {
            state: Mutex::new(State::new(settings.clone())),
            spec: RwLock::new(Arc::new(spec)),
            bells: (0..settings.engines).map(|_| Notify::new()).collect(),
            batches,
            status: Mutex::new(vec![EngineStatus::default(); settings.engines]),
            clock: Stopwatch::start(),
            settings,
            env,
            stopping: std::sync::atomic::AtomicBool::new(false),
        });
        for at in 0..shared.settings.engines {
            tasks.spawn("engine", Kind::Request, slot::keep(shared.clone(), at));
        }
        Ok((Self(Arc::new(Handle(shared))), Batches(receiver)))
    }

    fn shared(&self) -> &Shared {
        &self.0.0
    }

    /// Opens a session; engines open it when they get its first task. Its number.
    pub fn open(&self, session: Session) -> u32 {
        self.shared().with(|state| state.open(session))
    }

    /// Adds tasks to a session's list. Each is settled exactly once, in a [`Batch`].
    pub async fn submit(&self, session: u32, tasks: Vec<Task>) -> Result<()> {
        let settled = self.shared().with(|state| state.submit(session, tasks));
        let settled = settled.ok_or_else(|| Error::not_found(format!("session {session} is not open in this pool")))?;
        self.shared().send_unrun(session, settled).await;
        Ok(())
    }

    /// Cancels all tasks of a session, or those named. What runs may end by itself for
    /// [`cancel_grace`](PoolSettings::cancel_grace); what has a result all the same is settled with it.
    pub async fn cancel(&self, session: u32, tasks: Option<&BTreeSet<u64>>) {
        let now = self.shared().now();
        let settled = self.shared().with(|state| state.cancel(session, tasks, now));
        self.shared().send_unrun(session, settled).await;
    }

    /// Takes back those of the tasks that no engine has begun, so that somebody else can run them: they are settled as cancelled, at once.
    /// What runs goes on. For a caller whose engines are all stuck in long tasks while others have nothing to do.
    pub async fn withdraw(&self, session: u32, tasks: &BTreeSet<u64>) {
        let now = self.shared().now();
        let settled = self.shared().with(|state| state.withdraw(session, tasks, now));
        self.shared().send_unrun(session, settled).await;
    }

    /// Cancels what there is of a session, and lets engines forget it.
    pub async fn close(&self, session: u32) {
        let now = self.shared().now();
        let settled = self.shared().with(|state| state.close(session, now));
        self.shared().send_unrun(session, settled).await;
    }

    /// From now on engines are started from `spec`; those that were not are replaced when they have finished what they have in hand.
    pub fn replace(&self, spec: EngineSpec) -> Result<()> {
        spec.limits.check()?;
        *self.shared().spec.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(spec);
        self.shared().with(|state| (0..self.shared().settings.engines).for_each(|at| state.replace(at)));
        Ok(())
    }

    /// Tasks that wait for an engine. A caller that keeps this above nothing keeps all engines busy.
    pub fn waiting(&self) -> usize {
        self.shared().state().waiting()
    }

    /// Tasks that are not settled.
    pub fn unsettled(&self) -> usize {
        self.shared().state().unsettled()
    }

    /// How it is.
    pub fn status(&self) -> PoolStatus {
        let mut engines = self.shared().status.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let state = self.shared().state();
        for (at, engine) in engines.iter_mut().enumerate() {
            (engine.in_hand, engine.finished) = state.load(at);
            engine.running = state.running(at);
        }
        PoolStatus { engines, unsettled: state.unsettled(), waiting: state.waiting() }
    }
}
