//! Tasks that only take time. Each is a task of the runtime, so a paused clock runs through them at once.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tidemill_base::Env;
use tidemill_batch::model::FailureClass;
use tidemill_batch::protocol::{TaskError, WorkItem, encode};
use tidemill_runtime::{Kind, Stopwatch, Tasks, sleep};
use tokio::sync::Notify;

use super::Runner;
use crate::floor::{Assignment, Floor};
use crate::range::{Kill, OpenRange};
use crate::results::TaskResult;
use crate::stage;
use crate::work::{Failure, PendingFile, PendingOutput, Verdict};

/// What becomes of a simulated task.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SimOutcome {
    /// How long it runs.
    pub took: Duration,
    /// How it fails; `None`: it succeeds.
    pub failure: Option<FailureClass>,
    /// The content of its output file, if it writes one; the file is called `output-` and the task's number.
    pub output: Option<Bytes>,
}

/// Says what becomes of a task of a range.
pub type Draw = Arc<dyn Fn(&WorkItem, u64) -> SimOutcome + Send + Sync>;

/// See the module.
pub(crate) struct Simulated(Arc<Inner>);

/// The range of each run, and what stops it.
type Running = BTreeMap<u64, (Arc<OpenRange>, Arc<Notify>)>;

struct Inner {
    draw: Draw,
    floor: Arc<Floor>,
    env: Env,
    tasks: Tasks,
    running: Mutex<Running>,
}

impl fmt::Debug for Simulated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Simulated").finish_non_exhaustive()
    }
}

impl Simulated {
    pub(crate) fn new(draw: Draw, floor: Arc<Floor>, env: Env, tasks: Tasks) -> Self {
        Self(Arc::new(Inner { draw, floor, env, tasks, running: Mutex::default() }))
    }
}

impl Runner for Simulated {
    fn nudge(&self) {
        start_all(&self.0);
    }

    fn kill(&self, range: &Arc<OpenRange>) {
        for (owner, stop) in self.0.lock().values() {
            if Arc::ptr_eq(owner, range) {
                stop.notify_one();
            }
        }
    }

    fn recall(&self, range: &Arc<OpenRange>) {
        // Whoever wakes for nothing goes on.
        self.kill(range);
    }

    fn uses_files(&self) -> bool {
        false
    }

    fn stop(&self) {
        self.0.floor.stop();
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn start_all(inner: &Arc<Inner>) {
    while let Some(assignment) = inner.floor.take(|| inner.env.now()) {
        let stop = Arc::new(Notify::new());
        inner.lock().insert(assignment.run, (assignment.range.clone(), stop.clone()));
        let me = inner.clone();
        inner.tasks.spawn("simulated task", Kind::Request, async move {
            run(&me, &assignment, &stop).await;
            me.lock().remove(&assignment.run);
            start_all(&me);
            Ok(())
        });
    }
}

async fn run(inner: &Inner, a: &Assignment, stop: &Notify) {
    let range = &a.range;
    let started = inner.env.now().micros();
    let watch = Stopwatch::start();
    if range.stage.kind == stage::Kind::Noop {
        range.settle_run(a.task, a.len, |task| range.stat(task, started));
        return inner.floor.release(a, Duration::ZERO, 0);
    }
    if range.stage.kind == stage::Kind::Engine {
        for task in a.task..a.task + a.len {
            call(inner, a, task, stop).await;
        }
        let took = watch.elapsed();
        return inner.floor.release(a, took, u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }
    let mut stat = range.stat(a.task, started);
    let (verdict, output) = match range.input(a.task) {
        Err(failure) => (Verdict::Failed(failure), PendingOutput::default()),
        Ok(_) => {
            let outcome = (inner.draw)(&range.item, a.task);
            tokio::select! {
                biased;
                () = stop.notified() => {}
                () = sleep(outcome.took) => {}
            }
            conclude(range.kill(), a.task, outcome)
        }
    };
    let took = watch.elapsed();
    stat.run_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    stat.cpu_us = stat.run_us;
    stat.bytes_out = output.files.iter().map(PendingFile::len).sum();
    range.settle(stat, verdict, output);
    inner.floor.release(a, took, stat.cpu_us);
}

/// Runs a task as an engine would: its result follows from its payload and the results that it needs.
async fn call(inner: &Inner, a: &Assignment, task: u64, stop: &Notify) {
    let range = &a.range;
    let mut stat = range.stat(task, inner.env.now().micros());
    let (payload, needs) = match range.payload(task) {
        Ok(given) => given,
        Err(e) => return range.settle(stat, Verdict::Failed(Failure::new(FailureClass::Input, e.chain())), PendingOutput::default()),
    };
    let outcome = (inner.draw)(&range.item, task);
    let watch = Stopwatch::start();
    let mut recalled = !range.take_recalled(task, 1).is_empty();
    while range.kill() == Kill::No && !recalled && watch.elapsed() < outcome.took {
        tokio::select! {
            biased;
            () = stop.notified() => recalled = !range.take_recalled(task, 1).is_empty(),
            () = sleep(outcome.took.saturating_sub(watch.elapsed())) => {}
        }
    }
    stat.run_us = u64::try_from(watch.elapsed().as_micros()).unwrap_or(u64::MAX);
    let stopped = range.kill().verdict().or_else(|| recalled.then_some(Verdict::Returned));
    if let Some(verdict) = stopped {
        return range.settle(stat, verdict, PendingOutput::default());
    }
    let result = match outcome.failure {
        None => TaskResult { stat, failure: None, bytes: simulated_result(&payload, &needs) },
        Some(class) => {
            let error = TaskError { kind: "Simulated".into(), message: "no".into(), traceback: String::new(), value: Vec::new() };
            TaskResult { stat, failure: Some((class, "simulated failure".into())), bytes: encode(&error).unwrap_or_default().into() }
        }
    };
    range.settle_results("simulated", vec![result]);
}

/// One in so many simulated results is large.
const LARGE_ONE_IN: u64 = 3;
/// More than a report holds in itself, so that it goes into an object.
const LARGE_BYTES: usize = 168 << 10;

/// What a simulated engine makes of a payload and the results that it needs: eight bytes that depend on all of them (FNV-1a), and now and
/// then those bytes again and again.
pub fn simulated_result(payload: &[u8], needs: &[Bytes]) -> Bytes {
    let parts = std::iter::once(payload).chain(needs.iter().map(|n| n.as_ref()));
    let hash = parts.flatten().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3));
    // The low bits of the hash of a short payload hardly differ.
    let times = if (hash >> 32).is_multiple_of(LARGE_ONE_IN) { LARGE_BYTES / size_of::<u64>() } else { 1 };
    hash.to_le_bytes().repeat(times).into()
}

fn conclude(kill: Kill, task: u64, outcome: SimOutcome) -> (Verdict, PendingOutput) {
    if let Some(verdict) = kill.verdict() {
        return (verdict, PendingOutput::default());
    }
    let name = format!("output-{task}");
    let files = outcome.output.map(|bytes| PendingFile::Small { name, bytes }).into_iter().collect();
    let verdict = match outcome.failure {
        None => Verdict::Succeeded,
        Some(class) => Verdict::Failed(Failure::new(class, "simulated failure")),
    };
    (verdict, PendingOutput { files, ..PendingOutput::default() })
}
