//! What the manager asks of workers, by way of the control table's feed.

use serde::{Deserialize, Serialize};

use crate::model::Wanted;

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

impl From<Wanted> for Control {
    fn from(wanted: Wanted) -> Self {
        match wanted {
            Wanted::Run => Self::Run,
            Wanted::Pause => Self::Pause,
            Wanted::Cancel => Self::Cancel,
        }
    }
}
