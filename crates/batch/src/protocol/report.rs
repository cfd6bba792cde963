//! Work messages, reports and the word that there is one.

use serde::{Deserialize, Serialize};
use tidemill_base::Timestamp;

use crate::model::TaskFailure;

/// A range for a worker to work through. The body of a message on a work queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkItem {
    /// Which job.
    pub job: String,
    /// Which of its stages, from 0.
    pub stage: u32,
    /// Which range of the stage: a number never used twice.
    pub range: u64,
    /// The first task.
    pub start: u64,
    /// How many tasks, 1 to [`super::MAX_RANGE`].
    pub len: u64,
    /// Which try this is for all of them, from 1.
    pub attempt: u32,
    /// When the manager released it.
    pub released_at: Timestamp,
    /// Where the payloads of its tasks are, in order, for a stage that takes submissions.
    pub pieces: Vec<Piece>,
    /// Where the results are that its tasks need: for each task, in the order it named them.
    pub needs: Vec<(u64, Vec<ResultAt>)>,
}

/// Where some tasks' payloads are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// The first task that it holds.
    pub first: u64,
    /// How many it holds, within the range or beyond it.
    pub count: u64,
    /// The [`super::Submission`] they are in.
    pub source: PieceSource,
}

/// A submission's bytes, or where they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PieceSource {
    /// Here.
    Inline(Vec<u8>),
    /// In this object.
    Object(String),
}

/// Where the result of a task is: the page of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResultAt {
    /// The task.
    pub task: u64,
    /// The range it was made in.
    pub range: u64,
    /// The report's number.
    pub seq: u64,
}

/// What became of some tasks of a range since the report before. An item of the state table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Who reports.
    pub worker: String,
    /// Under which claim.
    pub epoch: u64,
    /// Which try it was.
    pub attempt: u32,
    /// Runs `(start, length)` of tasks that succeeded.
    pub succeeded: Vec<(u64, u64)>,
    /// Tasks that failed, each settled for this try.
    pub failed: Vec<TaskFailure>,
    /// Runs that were handed back without being started, or were stopped by a pause or drain; they may be released again.
    pub returned: Vec<(u64, u64)>,
    /// Runs that were stopped or never started because the job was cancelled.
    pub cancelled: Vec<(u64, u64)>,
    /// Nothing of the range is left with this worker.
    pub finished: bool,
    /// [`crate::model::TaskColumns::pack`] of everything that succeeded or failed.
    pub columns: Vec<u8>,
    /// When it was written.
    pub at: Timestamp,
}

/// There is a report. The body of a message on the completions queue; the report itself is in the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// Which job.
    pub job: String,
    /// Which stage.
    pub stage: u32,
    /// Which range.
    pub range: u64,
    /// The newest report's sequence number.
    pub seq: u64,
}
