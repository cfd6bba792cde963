//! What the reactor wants done.

use std::collections::BTreeSet;
use std::sync::Arc;

use tidemill_blocks::ledger::Statement;

use crate::model::{JobState, TaskColumns, TaskFailure};
use crate::protocol::{Control, WorkItem};
use crate::reactor::Completion;

/// Statistics of one report, on their way into a segment.
#[derive(Debug, Clone)]
pub struct LiveBatch {
    /// Which job.
    pub job: Arc<str>,
    /// Which stage, from 0.
    pub stage: u32,
    /// Which range.
    pub range: u64,
    /// The report's sequence number within the range.
    pub seq: u64,
    /// Who ran the tasks.
    pub worker: Arc<str>,
    /// One row for each settled attempt.
    pub columns: Arc<TaskColumns>,
}

/// A task that failed for good.
#[derive(Debug, Clone)]
pub(crate) struct DeadTask {
    pub job: String,
    pub stage: u32,
    pub attempts: u32,
    pub failure: TaskFailure,
}

/// What has to be written and sent. The ledger comes first, in one transaction; everything else may be done twice without harm.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    pub ledger: Vec<Statement>,
    /// Ranges for the work queue of a class.
    pub sends: Vec<(String, WorkItem)>,
    pub dead: Vec<DeadTask>,
    pub control: Vec<(String, Control)>,
    /// Grouping stages whose tasks have to be found now.
    pub open: Vec<(String, u32)>,
    /// Jobs that are due and whose inputs have to be cut into tasks first.
    pub cut: Vec<String>,
    pub columns: Vec<LiveBatch>,
    /// Ranges of which nothing is left to do.
    pub finished_ranges: Vec<(String, u32, u64)>,
    pub finished_jobs: Vec<(String, JobState)>,
    /// What those are told who wait for results.
    pub completions: Vec<Completion>,
    /// Tasks of sessions that failed for good just now; whoever needs their results is skipped before the round ends.
    pub bereft: Vec<(String, u64)>,
    /// Sessions whose tasks workers have to let go of; which, [`super::Core::recall_of`] says.
    pub recalls: BTreeSet<String>,
    /// Sessions that end by themselves: nothing more is to be taken, in the same transaction.
    pub closings: Vec<String>,
}

impl Effects {
    pub(crate) fn is_empty(&self) -> bool {
        self.ledger.is_empty()
            && self.sends.is_empty()
            && self.dead.is_empty()
            && self.control.is_empty()
            && self.open.is_empty()
            && self.cut.is_empty()
            && self.columns.is_empty()
            && self.finished_ranges.is_empty()
            && self.finished_jobs.is_empty()
            && self.completions.is_empty()
            && self.recalls.is_empty()
            && self.closings.is_empty()
    }
}
