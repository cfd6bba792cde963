//! How an engine ended, and what that says about the tasks it had.

use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use tidemill_base::Error;

use crate::session::{TaskError, class};

/// Why an engine is no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// It was asked to stop and did.
    Stopped,
    /// It could not be started.
    Start(String),
    /// It ended by itself.
    Exit(i32),
    /// The system, or something in it, ended it.
    Signal(i32),
    /// It closed its output and did not end, or how it ended is not known.
    Closed,
    /// It broke the protocol.
    Violation(String),
    /// It did not say HELLO in time.
    Boot(Duration),
    /// A session was not open in time.
    Open(Duration),
    /// A task ran longer than its limit.
    Task(Duration),
    /// It did not answer a PING while it had nothing else to do.
    Ping(Duration),
    /// It and its children took so many bytes, over their limit.
    Memory {
        /// What was seen, bytes.
        seen: u64,
        /// What is allowed, bytes.
        limit: u64,
    },
    /// The host killed it because a cancelled task did not end.
    Cancelled,
}

impl Cause {
    pub(crate) fn of_exit(status: Option<ExitStatus>) -> Self {
        match status.map(|s| (s.code(), s.signal())) {
            Some((Some(code), _)) => Self::Exit(code),
            Some((None, Some(signal))) => Self::Signal(signal),
            _ => Self::Closed,
        }
    }

    /// The class of the error for the task that is to blame.
    pub fn class(&self) -> &'static str {
        match self {
            Self::Task(_) | Self::Open(_) => class::TIMEOUT,
            Self::Memory { .. } => class::MEMORY,
            Self::Start(_) | Self::Boot(_) => class::START,
            _ => class::CRASH,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped => f.write_str("the engine has stopped as it was asked to"),
            Self::Start(why) => write!(f, "the engine was not started: {why}"),
            Self::Exit(code) => write!(f, "the engine ended with exit code {code}"),
            Self::Signal(signal) => write!(f, "the engine was ended by signal {signal}{}", named(*signal)),
            Self::Closed => f.write_str("the engine closed its output"),
            Self::Violation(what) => write!(f, "the engine broke the protocol: {what}"),
            Self::Boot(limit) => write!(f, "the engine was not ready within {limit:?} and was killed"),
            Self::Open(limit) => write!(f, "the session was not open within {limit:?} and the engine was killed"),
            Self::Task(limit) => write!(f, "the task ran longer than its limit of {limit:?} and its engine was killed"),
            Self::Ping(limit) => write!(f, "the idle engine did not answer within {limit:?} and was killed"),
            Self::Memory { seen, limit } => {
                write!(f, "the engine and its children took {seen} bytes of memory, their limit is {limit}, and were killed")
            }
            Self::Cancelled => f.write_str("the engine was killed because a cancelled task did not end"),
        }
    }
}

/// What people call a signal.
fn named(signal: i32) -> &'static str {
    match signal {
        4 => " (illegal instruction)",
        6 => " (abort)",
        7 => " (bus error)",
        8 => " (arithmetic error)",
        9 => " (kill; the system's memory may have run out)",
        11 => " (segmentation fault)",
        15 => " (terminate)",
        24 => " (processor time limit)",
        _ => "",
    }
}

/// The end of an engine. Results that it had sent before have been handed out before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// Why.
    pub cause: Cause,
    /// Tasks that it had and did not answer, as (session, task), in the order in which it was to run them. What it was running when it
    /// ended is among the first: those before it ran within the last [`Limits::flush`](crate::Limits::flush). When results were sent one by
    /// one, it is the first.
    pub unfinished: Vec<(u32, u64)>,
    /// The session that it was opening, if it was.
    pub opening: Option<u32>,
    /// The end of what it wrote to its standard error.
    pub log: String,
}

impl Loss {
    /// The error for a task or session that is to blame.
    pub fn to_error(&self) -> TaskError {
        TaskError { log: self.log.clone(), ..TaskError::new(self.cause.class(), self.to_string()) }
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cause.fmt(f)?;
        match self.log.lines().rev().map(str::trim).find(|l| !l.is_empty()) {
            Some(last) => write!(f, ": {}", last.chars().take(400).collect::<String>()),
            None => Ok(()),
        }
    }
}

impl From<Loss> for Error {
    fn from(loss: Loss) -> Self {
        match loss.cause {
            Cause::Start(_) | Cause::Boot(_) => Self::invalid(loss.to_string()),
            _ => Self::unavailable(loss.to_string()),
        }
    }
}
