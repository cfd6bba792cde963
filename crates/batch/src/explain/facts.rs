//! What an explanation is made from.

use std::collections::BTreeMap;

use tidemill_base::{RunSet, Timestamp};
use tidemill_blocks::fleet::Group;
use tidemill_blocks::queue::QueueStats;

use super::SessionFacts;
use crate::model::{FailureClass, JobSpec, JobState, StageSpec};
use crate::protocol::{Heartbeat, RangeState, RunningTask};
use crate::service::SILENT_AFTER;
use crate::store::read::{ExceptionRow, JobRow, StageRow};

/// What is known of a job and of whatever it depends on.
#[derive(Debug, Clone)]
pub struct Facts {
    /// When it was asked.
    pub now: Timestamp,
    /// Whether a manager leads the batch system; without one nothing is released and nothing is counted.
    pub led: bool,
    /// The job.
    pub job: JobRow,
    /// As it was submitted.
    pub spec: JobSpec,
    /// Whether its inputs have been cut into tasks.
    pub cut: bool,
    /// Its stages in order.
    pub stages: Vec<StageFacts>,
    /// The jobs it waits for and their states; `None` for one that is not there any more.
    pub after: Vec<(String, Option<JobState>)>,
    /// Tasks whose last attempt failed, counted; the most frequent first.
    pub failures: Vec<FailureCount>,
    /// Of the tasks asked about and those that they take their input from: the last failure, by stage and task.
    pub exceptions: BTreeMap<(u32, u64), ExceptionRow>,
    /// Settled attempts of the task asked about, oldest first.
    pub attempts: Vec<Attempt>,
    /// What it has beside its stage if it is a session.
    pub session: Option<SessionFacts>,
    /// Every worker heard of within the last minute.
    pub workers: Vec<Heartbeat>,
    /// Every group of workers.
    pub groups: Vec<GroupFacts>,
    /// The work queue of the job's class.
    pub queue: QueueStats,
    /// Other jobs that use the same class of workers, the highest priority first.
    pub rivals: Vec<Rival>,
}

/// A stage, its unstarted tasks and what is out.
#[derive(Debug, Clone)]
pub struct StageFacts {
    /// Its counts.
    pub row: StageRow,
    /// Tasks that may be released.
    pub pending: RunSet,
    /// Tasks that will not run because the task they take their input from has failed.
    pub skipped: RunSet,
    /// Ranges in the queue or with workers, in order of their number.
    pub ranges: Vec<RangeFacts>,
    /// When the first of the tasks that wait for another attempt is due.
    pub first_retry: Option<Timestamp>,
}

/// A range that is out.
#[derive(Debug, Clone)]
pub struct RangeFacts {
    /// Its number.
    pub range: u64,
    /// Its first task.
    pub start: u64,
    /// How many tasks.
    pub len: u64,
    /// Which try it is for them.
    pub attempt: u32,
    /// When it was put on the queue.
    pub released_at: Timestamp,
    /// Tasks of which the manager has counted the outcome.
    pub settled: RunSet,
    /// Its fence; `None` while nobody has claimed it.
    pub fence: Option<RangeState>,
}

/// Failed tasks of one kind.
#[derive(Debug, Clone)]
pub struct FailureCount {
    /// The stage, from 0.
    pub stage: u32,
    /// The failure's class.
    pub class: String,
    /// Failed for good; otherwise they are or will be tried again.
    pub dead: bool,
    /// How many.
    pub tasks: u64,
    /// The first of them.
    pub first: u64,
    /// What happened to the first.
    pub message: String,
}

/// A settled attempt, from the statistics.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// Which try, from 1.
    pub attempt: u32,
    /// `None`: it succeeded.
    pub class: Option<FailureClass>,
    /// Who ran it.
    pub worker: String,
    /// How long it ran, microseconds.
    pub run_us: u64,
}

/// A group of workers.
#[derive(Debug, Clone)]
pub struct GroupFacts {
    /// As it is.
    pub group: Group,
    /// Why it is not as it should be.
    pub trouble: Option<String>,
}

/// Another job that uses the same class of workers.
#[derive(Debug, Clone)]
pub struct Rival {
    /// Its id.
    pub id: String,
    /// Whose it is.
    pub user: String,
    /// Its priority.
    pub priority: i32,
    /// Tasks that are not settled.
    pub open: u64,
}

impl Facts {
    pub(super) fn is_silent(&self, worker: &Heartbeat) -> bool {
        self.now.since(worker.at) > SILENT_AFTER
    }

    pub(super) fn worker(&self, id: &str) -> Option<&Heartbeat> {
        self.workers.iter().find(|w| w.worker == id)
    }

    /// Tasks of this job that workers say they are running.
    pub(super) fn running(&self) -> impl Iterator<Item = (&Heartbeat, &RunningTask)> {
        self.workers.iter().flat_map(|w| w.running.iter().map(move |t| (w, t))).filter(|(_, t)| t.job == self.job.id)
    }

    pub(super) fn spec_of(&self, stage: &StageFacts) -> Option<&StageSpec> {
        self.spec.stages.get(stage.row.stage as usize)
    }
}

impl StageFacts {
    /// Succeeded, failed, cancelled or skipped.
    pub(super) fn settled(&self) -> u64 {
        self.row.succeeded + self.row.failed + self.row.cancelled + self.row.skipped
    }

    pub(super) fn is_done(&self) -> bool {
        self.row.state == crate::model::StageState::Done.as_str()
    }

    pub(super) fn is_blocked(&self) -> bool {
        self.row.state == crate::model::StageState::Blocked.as_str()
    }

    pub(super) fn label(&self) -> String {
        format!("stage {} `{}`", self.row.stage, self.row.name)
    }
}

impl RangeFacts {
    /// Whether the outcome of `task` is still to come from here.
    pub(super) fn holds(&self, task: u64) -> bool {
        task >= self.start && task - self.start < self.len && !self.settled.contains(task)
    }

    pub(super) fn open(&self) -> u64 {
        self.len.saturating_sub(self.settled.len())
    }

    /// The fence of a claim whose lease runs.
    pub(super) fn claim(&self, now: Timestamp) -> Option<&RangeState> {
        self.fence.as_ref().filter(|f| !f.finished && f.lease_until > now)
    }
}
