//! A range that is open on this worker: what its tasks share, and its state behind one lock.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use object_store::path::Path;
use tidemill_base::{RunSet, Timestamp};
use tidemill_batch::model::{FailureClass, TaskInput, TaskStat};
use tidemill_batch::protocol::{RangeState, WorkItem, keys};
use tokio::sync::Notify;

use crate::inputs::Inputs;
use crate::results::TaskResult;
use crate::runner::remove_all;
use crate::stage::Stage;
use crate::work::{Failure, PendingOutput, RangeWork, Verdict};

/// Why running tasks of a range are killed. The later one counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Kill {
    No = 0,
    /// They may run again elsewhere.
    Return = 1,
    /// The job was cancelled.
    Cancel = 2,
    /// Somebody else owns the range now.
    Lost = 3,
}

impl Kill {
    /// How a task ends that was killed so.
    pub(crate) const fn verdict(self) -> Option<Verdict> {
        match self {
            Self::No => None,
            Self::Cancel => Some(Verdict::Cancelled),
            Self::Return | Self::Lost => Some(Verdict::Returned),
        }
    }
}

/// A task whose inputs lie ready in a folder of its own.
#[derive(Debug)]
pub(crate) struct Staged {
    pub(crate) task: u64,
    pub(crate) folder: PathBuf,
    pub(crate) inputs: Vec<PathBuf>,
    pub(crate) bytes: u64,
    pub(crate) took_us: u64,
    pub(crate) credential: Option<TaskCredential>,
}

/// The variables that a task's own credential is in, and until when a task may start with it.
pub(crate) struct TaskCredential {
    pub(crate) env: Vec<(OsString, OsString)>,
    pub(crate) start_until: Timestamp,
}

impl std::fmt::Debug for TaskCredential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TaskCredential").field("start_until", &self.start_until).finish_non_exhaustive()
    }
}

/// Which part of an output an upload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    File,
    Stdout,
    Stderr,
}

/// A file too large for a pack, on its way to an object of its own.
#[derive(Debug)]
pub(crate) struct Upload {
    pub(crate) part: Part,
    pub(crate) name: String,
    pub(crate) source: PathBuf,
    pub(crate) offset: u64,
    pub(crate) len: u64,
    pub(crate) target: Path,
}

/// A task that has run and whose large files must be stored before it is settled.
#[derive(Debug)]
pub(crate) struct Unstored {
    pub(crate) stat: TaskStat,
    pub(crate) verdict: Verdict,
    pub(crate) output: PendingOutput,
    pub(crate) uploads: Vec<Upload>,
    /// Removed afterwards.
    pub(crate) leftovers: Vec<PathBuf>,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) work: RangeWork,
    /// Tasks that are being fetched for.
    pub(crate) staging: usize,
    pub(crate) ready: VecDeque<Staged>,
    pub(crate) unstored: Vec<Unstored>,
    /// See [`OpenRange::ask_back`].
    asked_back: RunSet,
    /// Tasks that are to be stopped if they run: nobody wants what comes of them.
    recalled: RunSet,
    /// Nothing more is started; whether what has not been is cancelled, not handed back.
    stopped: Option<bool>,
    /// Objects written that no acknowledged report names yet.
    pub(crate) written: Vec<Path>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct OpenRange {
    pub(crate) item: WorkItem,
    pub(crate) epoch: u64,
    pub(crate) stage: Arc<Stage>,
    pub(crate) inputs: Inputs,
    /// Something is fetched before a task can start: files, or a credential.
    pub(crate) staged: bool,
    /// What all its tasks have in their environment.
    pub(crate) base_env: Vec<(OsString, OsString)>,
    pub(crate) wake: Notify,
    kill: AtomicU8,
    state: Mutex<State>,
}

impl OpenRange {
    pub(crate) fn new(
        item: WorkItem,
        claim: &RangeState,
        stage: Arc<Stage>,
        inputs: Inputs,
        staged: bool,
        base_env: Vec<(OsString, OsString)>,
    ) -> Self {
        let work = RangeWork::new(&item, claim);
        let state = State {
            work,
            staging: 0,
            ready: VecDeque::new(),
            unstored: Vec::new(),
            asked_back: RunSet::new(),
            recalled: RunSet::new(),
            stopped: None,
            written: Vec::new(),
        };
        Self {
            item,
            epoch: claim.epoch,
            stage,
            inputs,
            staged,
            base_env,
            wake: Notify::new(),
            kill: AtomicU8::new(0),
            state: Mutex::new(state),
        }
    }

    /// A range whose stage cannot be used.
    pub(crate) fn broken(item: WorkItem, claim: &RangeState) -> Self {
        Self::new(item, claim, Arc::new(Stage::unusable()), Inputs::Computed, false, Vec::new())
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets no further task start: what has not been started is handed back, or cancelled.
    pub(crate) fn stop(&self, cancel: bool) {
        let mut state = self.lock();
        let cancel = *state.stopped.get_or_insert(cancel);
        if cancel {
            state.work.cancel_unstarted();
        } else {
            state.work.return_unstarted();
        }
        let ready = std::mem::take(&mut state.ready);
        for staged in ready {
            self.drop_staged(&mut state, staged, cancel);
        }
        drop(state);
        self.wake.notify_one();
    }

    /// Hands back all but the first `keep` tasks that have not been started; those that are being fetched for stay.
    pub(crate) fn hand_back(&self, keep: u64) {
        let mut state = self.lock();
        let fetched = (state.staging + state.ready.len()) as u64;
        state.work.return_beyond(keep.saturating_sub(fetched));
        let most = usize::try_from(keep.saturating_sub(state.staging as u64)).unwrap_or(usize::MAX).min(state.ready.len());
        for staged in state.ready.split_off(most) {
            self.drop_staged(&mut state, staged, false);
        }
        drop(state);
        self.wake.notify_one();
    }

    /// Asks whoever runs the tasks from `first` on to hand back those that an engine has not begun.
    pub(crate) fn ask_back(&self, first: u64) {
        self.lock().asked_back.insert(first);
    }

    /// Whether that was asked since this was last called.
    pub(crate) fn is_asked_back(&self, first: u64) -> bool {
        self.lock().asked_back.remove_run(first, 1) > 0
    }

    /// Lets go of tasks that nobody wants any more. Those of `at_once` are to be stopped if they run.
    pub(crate) fn recall(&self, unless_begun: &[(u64, u64)], at_once: &[(u64, u64)]) {
        let mut state = self.lock();
        for (start, len) in unless_begun.iter().chain(at_once) {
            state.work.cancel_run(*start, *len);
        }
        at_once.iter().for_each(|(start, len)| _ = state.recalled.insert_run(*start, *len));
        drop(state);
        self.wake.notify_one();
    }

    /// Which tasks of a run are to be stopped, each time those that were not told before.
    pub(crate) fn take_recalled(&self, first: u64, len: u64) -> Vec<(u64, u64)> {
        let mut state = self.lock();
        let told: Vec<(u64, u64)> = state.recalled.within(first, len).collect();
        state.recalled.remove_run(first, len);
        told
    }

    fn drop_staged(&self, state: &mut State, staged: Staged, cancel: bool) {
        let verdict = if cancel { Verdict::Cancelled } else { Verdict::Returned };
        state.work.settle(self.stat(staged.task, 0), verdict, PendingOutput::default());
        remove_all(&staged.folder);
    }

    /// Takes a task to fetch its inputs, if fewer than `ahead` are fetched ahead.
    pub(crate) fn take_to_stage(&self, ahead: usize) -> Option<u64> {
        let mut state = self.lock();
        if !self.staged || state.staging + state.ready.len() >= ahead {
            return None;
        }
        let (task, _) = state.work.take(1)?;
        state.staging += 1;
        Some(task)
    }

    /// Takes back a task that has waited for a slot for so long that its credential would not last any more.
    pub(crate) fn take_stale(&self, now: Timestamp) -> Option<Staged> {
        let mut state = self.lock();
        let stale = state.ready.iter().position(|s| s.credential.as_ref().is_some_and(|c| c.start_until <= now))?;
        state.staging += 1;
        state.ready.remove(stale)
    }

    /// The inputs of a task have been fetched, or could not be.
    pub(crate) fn staged(&self, task: u64, outcome: Result<Staged, Failure>) {
        let mut state = self.lock();
        state.staging -= 1;
        match (outcome, state.stopped) {
            (Ok(staged), None) => state.ready.push_back(staged),
            (Ok(staged), Some(cancel)) => self.drop_staged(&mut state, staged, cancel),
            (Err(failure), _) => state.work.settle(self.stat(task, 0), Verdict::Failed(failure), PendingOutput::default()),
        }
        drop(state);
        self.wake.notify_one();
    }

    /// Fails every task that has not been started.
    pub(crate) fn fail_unstarted(&self, failure: &Failure, now: Timestamp) {
        let mut state = self.lock();
        while let Some((start, len)) = state.work.take(u64::MAX) {
            for task in start..start + len {
                state.work.settle(self.stat(task, now.micros()), Verdict::Failed(failure.clone()), PendingOutput::default());
            }
        }
        drop(state);
        self.wake.notify_one();
    }

    /// Asks for the running ones to be killed.
    pub(crate) fn set_kill(&self, why: Kill) {
        self.kill.fetch_max(why as u8, Ordering::SeqCst);
    }

    pub(crate) fn kill(&self) -> Kill {
        match self.kill.load(Ordering::SeqCst) {
            0 => Kill::No,
            1 => Kill::Return,
            2 => Kill::Cancel,
            _ => Kill::Lost,
        }
    }

    /// Whether a task could be taken now.
    pub(crate) fn has_takeable(&self) -> bool {
        let state = self.lock();
        self.kill() == Kill::No && if self.staged { !state.ready.is_empty() } else { state.work.unstarted() > 0 }
    }

    /// Takes the next task, or for a stage that runs nothing up to `max` of them.
    pub(crate) fn take(&self, max: u64) -> Option<(u64, u64, Option<Staged>)> {
        if self.kill() != Kill::No {
            return None;
        }
        let mut state = self.lock();
        if self.staged {
            let staged = state.ready.pop_front()?;
            self.wake.notify_one();
            return Some((staged.task, 1, Some(staged)));
        }
        state.work.take(max).map(|(start, len)| (start, len, None))
    }

    /// Tasks that have not been started.
    pub(crate) fn waiting(&self) -> u64 {
        let state = self.lock();
        state.work.unstarted() + (state.staging + state.ready.len()) as u64
    }

    /// Settles a task and, when a report is due, wakes whoever writes it.
    pub(crate) fn settle(&self, stat: TaskStat, verdict: Verdict, output: PendingOutput) {
        let mut state = self.lock();
        state.work.settle(stat, verdict, output);
        let due = state.work.is_due();
        drop(state);
        if due {
            self.wake.notify_one();
        }
    }

    /// Settles what engines gave back.
    pub(crate) fn settle_results(&self, made_by: &str, results: Vec<TaskResult>) {
        let mut state = self.lock();
        state.work.settle_results(made_by, results);
        let due = state.work.is_due();
        drop(state);
        if due {
            self.wake.notify_one();
        }
    }

    /// A task's payload and the results it needs.
    pub(crate) fn payload(&self, task: u64) -> tidemill_base::Result<(Bytes, Box<[Bytes]>)> {
        match &self.inputs {
            Inputs::Submitted(payloads) => payloads.get(task),
            _ => Err(tidemill_base::Error::internal("the range takes no submissions")),
        }
    }

    /// Settles a run of tasks that ran nothing.
    pub(crate) fn settle_run(&self, start: u64, len: u64, stat: impl Fn(u64) -> TaskStat) {
        let mut state = self.lock();
        state.work.settle_run(start, len, stat);
        let due = state.work.is_due();
        drop(state);
        if due {
            self.wake.notify_one();
        }
    }

    /// Leaves a task with large files to be stored.
    pub(crate) fn leave_unstored(&self, unstored: Unstored) {
        self.lock().unstored.push(unstored);
        self.wake.notify_one();
    }

    /// The statistics of a task of this range before it ran.
    pub(crate) fn stat(&self, task: u64, started_us: i64) -> TaskStat {
        let wait = started_us.saturating_sub(self.item.released_at.micros());
        TaskStat { task, attempt: self.item.attempt, started_us, wait_us: u64::try_from(wait).unwrap_or(0), ..TaskStat::default() }
    }

    /// What a task gets.
    pub(crate) fn input(&self, task: u64) -> Result<TaskInput, Failure> {
        self.inputs.get(&self.stage.definition, task)
    }

    /// Where a file of a task goes that has an object of its own.
    pub(crate) fn file_path(&self, task: u64, name: &str) -> Path {
        let folder = keys::attempt_folder(&self.item.job, self.item.stage, self.item.range, self.epoch);
        let task = task.to_string();
        let segments = name.split('/').filter(|s| !s.is_empty());
        segments.fold(folder.join(task.as_str()), |path, segment| path.join(segment))
    }
}

/// Turns an error of a block into a failure of a task.
pub(crate) fn failure(class: FailureClass, e: &tidemill_base::Error) -> Failure {
    Failure::new(class, e.chain())
}
