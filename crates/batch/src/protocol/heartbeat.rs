//! What a worker says of itself every other second.

use serde::{Deserialize, Serialize};
use tidemill_base::Timestamp;
use tidemill_blocks::fleet::Offers;

/// How a worker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkerPhase {
    /// Takes work.
    Ready,
    /// Takes nothing new.
    Draining,
    /// Has gone, in order.
    Gone,
}

/// A task that is running now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningTask {
    /// Which job.
    pub job: String,
    /// Which stage.
    pub stage: u32,
    /// Which task.
    pub task: u64,
    /// Which try.
    pub attempt: u32,
    /// Since when.
    pub started_at: Timestamp,
    /// Resident memory at the last look, bytes.
    pub memory: u64,
}

/// An item of the worker table; it expires after a minute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// The worker's id; for a member of a fleet group the member's id.
    pub worker: String,
    /// The class of work it takes.
    pub class: String,
    /// The machine it is on.
    pub host: String,
    /// Its version of Tidemill.
    pub version: String,
    /// What it offers.
    pub offers: Offers,
    /// Since when it lives.
    pub started_at: Timestamp,
    /// When this was written.
    pub at: Timestamp,
    /// How it is.
    pub phase: WorkerPhase,
    /// What runs now.
    pub running: Vec<RunningTask>,
    /// Ranges leased, running and prefetched.
    pub ranges: u32,
    /// Tasks that it holds and has not started.
    pub waiting: u64,
    /// Slots that have had nothing to do for a moment.
    pub idle: u32,
    /// Tasks settled since it started.
    pub tasks_done: u64,
    /// Slot time used by tasks since it started, microseconds.
    pub busy_us: u64,
    /// CPU time used by tasks since it started, microseconds.
    pub cpu_us: u64,
    /// Programs of note that were found: container engines.
    pub tools: Vec<String>,
}
