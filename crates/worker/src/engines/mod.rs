//! Engines of this worker: pools of warm processes, one for each kind of engine with its packages, shared by all sessions that use it.

mod packages;
mod picture;
mod programs;
mod retire;
mod route;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidemill_base::{Env, Error, Result};
use tidemill_batch::model::{EngineSpec, FailureClass, FunctionRef};
use tidemill_batch::protocol::{TaskError, encode};
use tidemill_blocks::objects::{self, Objects};
use tidemill_engine::{Format, Function, Outcome, Pool, PoolSettings, Session, SetUp, Tally, Task, TaskResult as Ended, class};
use tidemill_runtime::Tasks;
use tokio::runtime::Handle;

use self::packages::{OnDisk, PackageCache};
use crate::range::{Kill, OpenRange};
use crate::results::TaskResult;
use crate::stage::Stage;
use crate::work::{Failure, Verdict};

pub use programs::EnginePrograms;
use route::Routes;

/// Pools that are kept warm; the one that was not used for longest ends for another.
const POOLS: usize = 4;
/// Sessions that a pool remembers.
const SESSIONS: usize = 64;
/// How often a slot that waits for results looks whether they are still wanted.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// See the module.
#[derive(Debug)]
pub(crate) struct Engines {
    programs: EnginePrograms,
    packages: PackageCache,
    scratch: PathBuf,
    slots: usize,
    objects: Objects,
    env: Env,
    tasks: Tasks,
    runtime: Handle,
    pools: Mutex<Vec<(String, Arc<Warm>)>>,
    tally: Tally,
}

/// A pool, and the sessions that are open in it.
#[derive(Debug)]
struct Warm {
    pool: Pool,
    routes: Arc<Routes>,
    /// Kept on disk for as long as the pool lives.
    _packages: Vec<Arc<OnDisk>>,
    /// What it is but for the versions of its packages.
    line: String,
    /// When a session last used it, microseconds since the epoch.
    used: AtomicI64,
    /// By job; the newest last.
    sessions: tokio::sync::Mutex<Vec<(String, u32)>>,
}

impl Engines {
    /// Must be called on the runtime that the engines' pipes are to be read on.
    pub(crate) fn new(
        programs: EnginePrograms,
        scratch: PathBuf,
        package_bytes: u64,
        slots: u32,
        objects: Objects,
        env: Env,
        tasks: Tasks,
    ) -> Self {
        let slots = usize::try_from(slots).unwrap_or(1).max(1);
        let packages = PackageCache::open(scratch.join("packages"), package_bytes, objects.clone(), env.clone());
        Self {
            programs,
            packages,
            scratch,
            slots,
            objects,
            env,
            tasks,
            runtime: Handle::current(),
            pools: Mutex::default(),
            tally: Tally::default(),
        }
    }

    fn pools(&self) -> MutexGuard<'_, Vec<(String, Arc<Warm>)>> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs tasks `first..first + len` of the range to their end and settles them. Blocks the thread; returns the time that they took
    /// by the engines' account.
    pub(crate) fn run(&self, range: &OpenRange, first: u64, len: u64) -> Duration {
        let started = self.env.now().micros();
        let (warm, session) = match self.runtime.block_on(self.session(&range.item.job, &range.stage)) {
            Ok(found) => found,
            Err(e) => {
                let failure = Failure::new(
                    if e.kind() == tidemill_base::ErrorKind::Unavailable { FailureClass::Storage } else { FailureClass::Start },
                    e.chain(),
                );
                for task in first..first + len {
                    range.settle(range.stat(task, started), Verdict::Failed(failure.clone()), Default::default());
                }
                return Duration::ZERO;
            }
        };
        let mut tasks = Vec::with_capacity(usize::try_from(len).unwrap_or(0));
        for task in first..first + len {
            match range.payload(task) {
                Ok((payload, dependencies)) => tasks.push(Task { id: task, payload, dependencies }),
                Err(e) => {
                    let failure = Failure::new(FailureClass::Input, e.chain());
                    range.settle(range.stat(task, started), Verdict::Failed(failure), Default::default());
                }
            }
        }
        if tasks.is_empty() {
            return Duration::ZERO;
        }
        let ids: BTreeSet<u64> = tasks.iter().map(|t| t.id).collect();
        let (portion, outcomes) = warm.routes.expect(session, first, len);
        if let Err(e) = self.runtime.block_on(warm.pool.submit(session, tasks)) {
            warm.routes.forget(session, portion);
            for task in ids {
                let failure = Failure::new(FailureClass::Start, e.chain());
                range.settle(range.stat(task, started), Verdict::Failed(failure), Default::default());
            }
            return Duration::ZERO;
        }
        let (mut left, mut busy, mut cancelled) = (ids.len(), 0, false);
        while left > 0 {
            match outcomes.recv_timeout(LOOK_EVERY) {
                Ok((made_by, batch)) => {
                    left -= batch.len().min(left);
                    busy += batch.iter().map(|o| o.run_us).sum::<u64>();
                    self.settle(range, &made_by, batch, started);
                }
                Err(RecvTimeoutError::Timeout) => {
                    if range.kill() != Kill::No && !cancelled {
                        cancelled = true;
                        self.runtime.block_on(warm.pool.cancel(session, Some(&ids)));
                    } else if range.is_asked_back(first) {
                        self.runtime.block_on(warm.pool.withdraw(session, &ids));
                    }
                    let recalled: BTreeSet<u64> =
                        range.take_recalled(first, len).into_iter().flat_map(|(start, len)| start..start + len).collect();
                    if !recalled.is_empty() {
                        self.runtime.block_on(warm.pool.cancel(session, Some(&recalled)));
                    }
                }
                Err(RecvTimeoutError::Disconnected) => {
                    // The pool is gone, with the worker.
                    for task in &ids {
                        range.settle(range.stat(*task, started), Verdict::Returned, Default::default());
                    }
                    break;
                }
            }
        }
        warm.routes.forget(session, portion);
        Duration::from_micros(busy)
    }

    fn settle(&self, range: &OpenRange, made_by: &str, batch: Vec<Outcome>, started: i64) {
        let mut results = Vec::with_capacity(batch.len());
        for outcome in batch {
            let mut stat = range.stat(outcome.task, started);
            stat.run_us = outcome.run_us;
            match outcome.result {
                Ended::Value(bytes) => {
                    stat.bytes_out = bytes.len() as u64;
                    results.push(TaskResult { stat, failure: None, bytes });
                }
                Ended::Failed(mut e) => {
                    if is_of_host(&e.class) {
                        // Nothing else in such an error says which of the engine's tasks it was.
                        e.message = format!("task {}, attempt {}: {}", outcome.task, range.item.attempt, e.message);
                    }
                    let message = format!("{}: {}", e.class, e.message);
                    let traceback = if e.traceback.is_empty() { e.log } else { e.traceback };
                    let failed = failure_class(&e.class);
                    let error = TaskError { kind: e.class, message: e.message, traceback, value: e.value.to_vec() };
                    let bytes = encode(&error).unwrap_or_default().into();
                    results.push(TaskResult { stat, failure: Some((failed, message)), bytes });
                }
                Ended::Cancelled => {
                    let verdict = range.kill().verdict().unwrap_or(Verdict::Returned);
                    range.settle(stat, verdict, Default::default());
                }
            }
        }
        range.settle_results(made_by, results);
    }

    /// The pool of the stage's engine, and the number of the job's session in it.
    async fn session(&self, job: &str, stage: &Stage) -> Result<(Arc<Warm>, u32)> {
        let Some(spec) = stage.engine() else { return Err(Error::internal("the stage has no engine")) };
        let warm = self.warm(spec, stage).await?;
        let mut sessions = warm.sessions.lock().await;
        if let Some(at) = sessions.iter().position(|(j, _)| j == job) {
            let found = sessions[at].1;
            return Ok((warm.clone(), found));
        }
        let number = warm.pool.open(self.describe(spec, stage).await?);
        sessions.push((job.to_owned(), number));
        if sessions.len() > SESSIONS
            && let Some(at) = sessions.iter().position(|(_, n)| !warm.routes.is_expected(*n))
        {
            let (_, old) = sessions.remove(at);
            warm.pool.close(old).await;
        }
        drop(sessions);
        Ok((warm, number))
    }

    async fn warm(&self, spec: &EngineSpec, stage: &Stage) -> Result<Arc<Warm>> {
        let memory = stage.definition.spec.resources.memory;
        let key = format!("{}\n{:?}\n{:?}\n{memory}", spec.engine, spec.packages, stage.definition.spec.env);
        if let Some(warm) = self.find(&key) {
            return Ok(warm);
        }
        let mut packages = Vec::with_capacity(spec.packages.len());
        for pin in &spec.packages {
            packages.push(self.packages.get(pin).await?);
        }
        let mut program = self.programs.engine(&spec.engine, &packages, &self.scratch.join("engines")).await?;
        program.limits.memory = (memory > 0).then_some(memory);
        program.packages = packages.iter().map(|p| p.package()).collect();
        programs::give(&mut program, &stage.definition.spec.env)?;
        // Another slot may have been faster.
        let mut pools = self.pools();
        if let Some((_, warm)) = pools.iter().find(|(k, _)| *k == key) {
            return Ok(warm.clone());
        }
        let mut settings = PoolSettings::new(self.slots);
        settings.tally = self.tally.clone();
        let (pool, batches) = Pool::start(program, settings, self.env.clone(), &self.tasks)?;
        let routes = Arc::new(Routes::default());
        self.tasks.spawn("engine-results", tidemill_runtime::Kind::Request, route::carry(routes.clone(), batches));
        let names: Vec<&str> = spec.packages.iter().map(|pin| pin.name.as_str()).collect();
        let line = format!("{}\n{names:?}\n{:?}\n{memory}", spec.engine, stage.definition.spec.env);
        let used = AtomicI64::new(self.env.now().micros());
        let warm = Arc::new(Warm { pool, routes, _packages: packages, line, used, sessions: tokio::sync::Mutex::default() });
        pools.push((key, warm.clone()));
        if pools.len() > POOLS {
            pools.remove(0);
        }
        Ok(warm)
    }

    /// The pool of this kind, if there is one; it is the one used last from now on.
    fn find(&self, key: &str) -> Option<Arc<Warm>> {
        let mut pools = self.pools();
        let at = pools.iter().position(|(k, _)| k == key)?;
        let found = pools.remove(at);
        let warm = found.1.clone();
        warm.used.store(self.env.now().micros(), Ordering::Relaxed);
        pools.push(found);
        Some(warm)
    }

    /// What is opened in each engine. Function and set-up data are read once a session.
    async fn describe(&self, spec: &EngineSpec, stage: &Stage) -> Result<Session> {
        let object = async |path: &str| objects::get(self.objects.as_ref(), &objects::parse_path(path)?).await;
        let function = async |what: &FunctionRef| {
            Ok::<_, Error>(match what {
                FunctionRef::Packed(path) => Function::Pickled(object(path).await?),
                FunctionRef::Module(name) => Function::Module(name.clone()),
                FunctionRef::Name(name) => Function::Named(name.clone()),
            })
        };
        let make = match &spec.setup_function {
            Some(what) => Some(function(what).await?),
            None => None,
        };
        let data = match &spec.setup {
            Some(path) => Some(object(path).await?),
            None => None,
        };
        Ok(Session {
            input: format(&spec.input)?,
            output: format(&spec.output)?,
            set_up: SetUp { function: make, data },
            parameters: spec.parameters.clone(),
            limit: stage.definition.spec.timeout.map(|t| t.0),
            ..Session::new(function(&spec.function).await?)
        })
    }
}

fn format(word: &str) -> Result<Format> {
    Ok(match word {
        "pickle" => Format::Pickle,
        "bytes" => Format::Raw,
        "json" => Format::Json,
        "arrow" => Format::Arrow,
        other => return Err(Error::invalid(format!("`{other}` is no way to encode payloads; there are pickle, json, arrow and bytes"))),
    })
}

/// Whether the error is not the function's own: its engine has ended, or had to be ended.
fn is_of_host(kind: &str) -> bool {
    [class::CRASH, class::TIMEOUT, class::MEMORY].contains(&kind)
}

fn failure_class(engine: &str) -> FailureClass {
    match engine {
        class::CRASH => FailureClass::Signal,
        class::TIMEOUT => FailureClass::Timeout,
        class::MEMORY => FailureClass::OutOfMemory,
        class::START => FailureClass::Start,
        class::TOO_LARGE => FailureClass::Input,
        _ => FailureClass::Error,
    }
}
