//! What the manager asks of workers, by way of the control table's feed.

use serde::{Deserialize, Serialize};
use tidemill_base::Timestamp;
use tidemill_blocks::fleet::Offers;

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

/// What the manager asks of a worker that holds tasks it has not started while others have nothing to do: to hand back what it would not
/// start soon. An item of the control table, beside what is asked of the worker otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandBack {
    /// Slots of others that wait for what this worker hands back.
    pub idle: u32,
    /// What those others offer: what none of them can run is not asked for.
    pub offers: Vec<Offers>,
    /// When this was asked.
    pub at: Timestamp,
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
