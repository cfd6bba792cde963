//! A job as submitted, and the states that jobs and stages go through.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tidemill_base::Timestamp;

use super::{InputSpec, StageSpec, Terms};

/// A job as submitted: checked, with all defaults filled in. The user's TOML or JSON becomes this in [`crate::spec`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobSpec {
    /// For people; need not be unique.
    pub name: String,
    /// The class of workers that runs it: the name of a fleet group and of a work queue.
    pub class: String,
    /// Higher goes first, -1000 to 1000.
    pub priority: i32,
    /// Jobs that must have succeeded before this one starts.
    pub after: Vec<String>,
    /// Not started before this.
    pub at: Option<Timestamp>,
    /// Submits a fresh copy at each tick of this cron line (five fields, `spec.timezone`).
    pub cron: Option<String>,
    /// IANA name of the zone that `cron` is read in.
    pub timezone: String,
    /// For people and for searching.
    pub labels: BTreeMap<String, String>,
    /// In the order given; a stage may only take input from one before it.
    pub stages: Vec<StageSpec>,
}

impl JobSpec {
    /// Whether its tasks come in submissions.
    pub fn is_session(&self) -> bool {
        self.stages.iter().any(|s| matches!(s.input, InputSpec::Submitted { .. }))
    }

    /// How long it stays open by itself and how much may be done in it, if its tasks come in submissions.
    pub fn terms(&self) -> Option<&Terms> {
        self.stages.iter().find_map(|s| match &s.input {
            InputSpec::Submitted { terms } => Some(terms.as_ref()),
            _ => None,
        })
    }
}

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Waits for its time, its tick or the jobs it depends on.
    Waiting,
    /// Tasks are released as the fleet takes them.
    Running,
    /// Nothing new is released.
    Paused,
    /// Running tasks are being stopped.
    Cancelling,
    /// Every task of every stage succeeded.
    Succeeded,
    /// It came to its end with failed tasks.
    Failed,
    /// It was cancelled.
    Cancelled,
}

impl JobState {
    /// The word used in the ledger, on the wire and by people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Cancelling => "cancelling",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// The inverse of [`JobState::as_str`].
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Waiting, Self::Running, Self::Paused, Self::Cancelling, Self::Succeeded, Self::Failed, Self::Cancelled]
            .into_iter()
            .find(|s| s.as_str() == word)
    }

    /// Whether nothing more will happen unless somebody asks for a retry.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

/// What a user last asked of a job; the manager brings the job's state in line with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wanted {
    /// To run.
    Run,
    /// To release nothing new and take unstarted work back.
    Pause,
    /// To stop, running tasks included.
    Cancel,
}

impl Wanted {
    /// The word used in the ledger.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Pause => "pause",
            Self::Cancel => "cancel",
        }
    }

    /// The inverse of [`Wanted::as_str`].
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Run, Self::Pause, Self::Cancel].into_iter().find(|s| s.as_str() == word)
    }
}

/// Where a stage stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StageState {
    /// Waits for the stage it takes its input from.
    Blocked,
    /// Its tasks may be released.
    Open,
    /// Every task is settled.
    Done,
}

impl StageState {
    /// The word used in the ledger and on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Blocked => "blocked",
            Self::Open => "open",
            Self::Done => "done",
        }
    }

    /// The inverse of [`StageState::as_str`].
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Blocked, Self::Open, Self::Done].into_iter().find(|s| s.as_str() == word)
    }
}
