//! The state of a live job.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tidemill_base::{RunSet, Timestamp};

use crate::model::{FailureClass, JobSpec, JobState, StageState, TaskColumns, Wanted};
use crate::reactor::SessionState;

/// A live job.
#[derive(Debug, Clone)]
pub(crate) struct JobEntry {
    pub user: String,
    pub class: String,
    pub priority: i32,
    pub state: JobState,
    pub wanted: Wanted,
    /// Why it is as it is, when that is not plain.
    pub reason: String,
    pub submitted_at: Timestamp,
    pub start_after: Timestamp,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    pub spec: Arc<JobSpec>,
    pub stages: Vec<StageEntry>,
    /// Jobs it waits for that have not succeeded yet.
    pub unmet: BTreeSet<String>,
    /// Its inputs have been cut into tasks.
    pub cut: bool,
    /// The service is at it.
    pub cutting: bool,
    /// The last tick of its cron line that has been looked at.
    pub last_tick: Timestamp,
}

/// A stage of a live job. At any time
/// `total = pending + waiting for upstream or results + outstanding + retrying + succeeded + failed + cancelled + skipped`.
#[derive(Debug, Clone)]
pub(crate) struct StageEntry {
    pub state: StageState,
    pub total: u64,
    /// May be released, first attempts only.
    pub pending: RunSet,
    /// Will not run because the task they take their input from has failed.
    pub skipped: RunSet,
    pub next_range: u64,
    pub succeeded: u64,
    pub failed: u64,
    pub cancelled: u64,
    pub sums: Sums,
    /// Moving average of the slot time of one task, microseconds; 0 while unknown.
    pub mean_us: f64,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    /// Released and not finished.
    pub outstanding: BTreeMap<u64, Outstanding>,
    /// Tasks whose last attempt failed.
    pub exceptions: BTreeMap<u64, Exception>,
    /// The service is finding out how many tasks a grouping stage has.
    pub opening: bool,
    /// Of a stage that takes submissions.
    pub session: Option<Box<SessionState>>,
}

/// A range in the queue or with a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outstanding {
    pub start: u64,
    pub len: u64,
    pub attempt: u32,
    pub released_at: Timestamp,
    pub folded_seq: u64,
    pub settled: RunSet,
}

impl Outstanding {
    pub(crate) fn unsettled(&self) -> u64 {
        self.len - self.settled.len()
    }
}

/// A task whose last attempt failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Exception {
    /// Attempts so far.
    pub attempts: u32,
    pub class: FailureClass,
    /// When it is released again; `None` while it is released, or dead.
    pub due: Option<Timestamp>,
    pub dead: bool,
}

/// Sums over settled attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Sums {
    pub attempts: u64,
    pub failed_attempts: u64,
    pub wait_us: u64,
    pub stage_in_us: u64,
    pub run_us: u64,
    pub stage_out_us: u64,
    /// Slot time of failed attempts.
    pub wasted_us: u64,
    pub cpu_us: u64,
    pub peak_memory: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
}

impl Sums {
    /// Adds a report's rows. Returns the slot time of all of them.
    pub(crate) fn add(&mut self, c: &TaskColumns) -> u64 {
        let mut slot_us = 0;
        for row in c.rows() {
            let busy = row.stage_in_us + row.run_us + row.stage_out_us;
            slot_us += busy;
            self.attempts += 1;
            self.wait_us += row.wait_us;
            self.stage_in_us += row.stage_in_us;
            self.run_us += row.run_us;
            self.stage_out_us += row.stage_out_us;
            self.cpu_us += row.cpu_us;
            self.peak_memory = self.peak_memory.max(row.peak_memory);
            self.bytes_in += row.bytes_in;
            self.bytes_out += row.bytes_out;
            if row.class != 0 {
                self.failed_attempts += 1;
                self.wasted_us += busy;
            }
        }
        slot_us
    }
}

impl StageEntry {
    /// A stage as it is at submit.
    pub(crate) fn new(state: StageState, total: u64, pending: RunSet) -> Self {
        Self {
            state,
            total,
            pending,
            skipped: RunSet::new(),
            next_range: 0,
            succeeded: 0,
            failed: 0,
            cancelled: 0,
            sums: Sums::default(),
            mean_us: 0.0,
            started_at: None,
            finished_at: None,
            outstanding: BTreeMap::new(),
            exceptions: BTreeMap::new(),
            opening: false,
            session: None,
        }
    }

    /// Tasks waiting for their next attempt.
    pub(crate) fn retrying(&self) -> u64 {
        self.exceptions.values().filter(|e| e.due.is_some()).count() as u64
    }

    /// Released tasks that are not settled.
    pub(crate) fn outstanding_tasks(&self) -> u64 {
        self.outstanding.values().map(Outstanding::unsettled).sum()
    }

    /// Tasks that will not change any more by themselves.
    pub(crate) fn settled(&self) -> u64 {
        self.succeeded + self.failed + self.cancelled + self.skipped.len()
    }

    /// Whether nothing is left to do.
    pub(crate) fn is_complete(&self) -> bool {
        !self.is_open_ended() && self.has_nothing_to_do()
    }

    /// Whether nothing is left to do for now.
    pub(crate) fn has_nothing_to_do(&self) -> bool {
        self.settled() >= self.total && self.outstanding.is_empty() && self.pending.is_empty() && self.retrying() == 0 && !self.opening
    }

    /// Whether all went well. Tasks of a session that somebody gave up are not missed; those that it was stopped before are.
    pub(crate) fn is_clean(&self) -> bool {
        let given_up = self.session.as_ref().is_some_and(|s| !s.stopped);
        self.failed == 0 && (self.cancelled == 0 || given_up) && self.skipped.is_empty()
    }

    /// Slot time that one task is expected to take, microseconds.
    pub(crate) fn expected_us(&self) -> f64 {
        if self.sums.attempts == 0 { 1_000_000.0 } else { self.mean_us.max(0.5) }
    }
}
