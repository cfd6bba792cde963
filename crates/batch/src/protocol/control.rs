//! What the manager asks of workers, by way of the control table's feed.

use serde::{Deserialize, Serialize};

/// The value of an item in the control table. No item: run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Control {
    /// Of a job: go on.
    Run,
    /// Of a job: hand back what has not been started.
    Pause,
    /// Of a job: stop everything, running tasks included.
    Cancel,
    /// Of a worker: take nothing new, finish, and go.
    Drain,
}
