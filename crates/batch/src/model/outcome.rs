//! How a task can fail.

use serde::{Deserialize, Serialize};

/// Why an attempt failed. Retry policy, statistics and dead letters go by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// It ended with an exit code that is not a success.
    Exit,
    /// It was ended by a signal from outside.
    Signal,
    /// It took more memory than it asked for, or the machine had none left.
    OutOfMemory,
    /// It ran longer than its timeout.
    Timeout,
    /// The worker that ran it was lost.
    LostWorker,
    /// The command could not be started: not found, not executable, image missing, secret missing.
    Start,
    /// Its input was not there or could not be read.
    Input,
    /// It did not write the output it should have.
    Output,
    /// Staging in or out failed: disk full, object store unreachable.
    Storage,
    /// The function that an engine called for it said so.
    Error,
}

impl FailureClass {
    /// All of them, in the order of their codes.
    pub const ALL: [Self; 10] = [
        Self::Exit,
        Self::Signal,
        Self::OutOfMemory,
        Self::Timeout,
        Self::LostWorker,
        Self::Start,
        Self::Input,
        Self::Output,
        Self::Storage,
        Self::Error,
    ];

    /// The word used in the ledger, on the wire and by people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exit => "exit",
            Self::Signal => "signal",
            Self::OutOfMemory => "out_of_memory",
            Self::Timeout => "timeout",
            Self::LostWorker => "lost_worker",
            Self::Start => "start",
            Self::Input => "input",
            Self::Output => "output",
            Self::Storage => "storage",
            Self::Error => "error",
        }
    }

    /// The inverse of [`FailureClass::as_str`].
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|c| c.as_str() == word)
    }

    /// Its code in statistics columns, from 1; 0 is success.
    pub fn code(self) -> u8 {
        Self::ALL.iter().zip(1..).find(|(c, _)| **c == self).map_or(0, |(_, n)| n)
    }

    /// The inverse of [`FailureClass::code`].
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code).checked_sub(1)?).copied()
    }
}

/// One failed attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskFailure {
    /// Which task.
    pub task: u64,
    /// Why.
    pub class: FailureClass,
    /// Its exit code, if it had one.
    pub exit: Option<i32>,
    /// The signal that ended it, if one did.
    pub signal: Option<i32>,
    /// For people: what happened and to what, at most 600 characters.
    pub message: String,
}
