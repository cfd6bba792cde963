//! How long a stage that takes submissions stays open by itself, and how much may be done in it.

use serde::{Deserialize, Serialize};
use tidemill_base::{HumanDuration, Timestamp};

/// The terms of a stage that takes submissions. By default it is open until somebody closes it, and may take anything.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Terms {
    /// It is closed when it had nothing to do for so long, and nobody has submitted anything or read results. `None`: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<HumanDuration>,
    /// Whoever opened it is heard of at least so often, as long as it is open. `None`: need not be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_alive: Option<HumanDuration>,
    /// What happens when that is not so.
    pub on_abandon: OnAbandon,
    /// How much may be done.
    pub budget: Budget,
}

/// What becomes of work whose client has gone without a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnAbandon {
    /// All of it is stopped, what runs included.
    #[default]
    Cancel,
    /// No more is taken, and what was submitted is done.
    Close,
}

/// How much may be done. What is not said is not limited.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Budget {
    /// Tasks that may be submitted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tasks: Option<u64>,
    /// Time in engines, over all attempts of all tasks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine_time: Option<HumanDuration>,
    /// With so many tasks that failed for good, the rest is not worth running.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failures: Option<u64>,
    /// Time from its opening on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wall: Option<HumanDuration>,
    /// It is over then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Timestamp>,
    /// What becomes of tasks that run when any of it but `tasks` is used up. What has not begun is not run.
    pub on_met: OnBudget,
}

/// What becomes of tasks that run when a budget is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnBudget {
    /// They run to their end, and their results count.
    #[default]
    Finish,
    /// They are stopped.
    Cancel,
}

impl Budget {
    /// When it is over, for a stage that was opened at `opened`.
    pub fn ends_at(&self, opened: Timestamp) -> Option<Timestamp> {
        let wall = self.wall.map(|wall| opened + wall.0);
        wall.into_iter().chain(self.deadline).min()
    }
}
