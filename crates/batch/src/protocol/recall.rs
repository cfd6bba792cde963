//! Which tasks of a session workers are to let go of.

use serde::{Deserialize, Serialize};

/// Tasks of a session that nobody wants any more. An item of the control table beside the job's; it holds what is with workers only.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recall {
    /// Runs of tasks that are let go of unless they have begun.
    pub unless_begun: Vec<(u64, u64)>,
    /// Runs of tasks that are let go of, and stopped if they run: they have been settled, and what is reported of them does not count.
    pub at_once: Vec<(u64, u64)>,
}

impl Recall {
    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.unless_begun.is_empty() && self.at_once.is_empty()
    }

    /// As much of it as fits an item of the table. What is left out runs in vain and does no other harm.
    #[must_use]
    pub fn fitting(mut self) -> Self {
        let room = MAX_RUNS.saturating_sub(self.at_once.len());
        self.unless_begun.truncate(room);
        self.at_once.truncate(MAX_RUNS);
        self
    }
}

/// Runs in one item: two numbers of at most ten bytes each.
const MAX_RUNS: usize = 10_000;
