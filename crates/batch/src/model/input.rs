//! How a stage's input is cut into tasks, and what one task gets.

use serde::{Deserialize, Serialize};

use super::Terms;

/// How a stage's input is cut into tasks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum InputSpec {
    /// One task for each number from `first` to `last`, both included.
    Array {
        /// The first index.
        first: i64,
        /// The last index.
        last: i64,
    },
    /// Objects whose path matches one of the patterns (`*` within a segment, `**` across segments, `?`), in order of their path,
    /// `per_task` of them to a task.
    Objects {
        /// Patterns; the first segment is the bucket and may not hold a wildcard.
        patterns: Vec<String>,
        /// At least 1.
        per_task: u64,
    },
    /// One task for every `per_task` lines of a text object; empty lines count.
    Lines {
        /// The object.
        object: String,
        /// At least 1.
        per_task: u64,
    },
    /// Parts of large objects, one to a task.
    Parts {
        /// Patterns as in `Objects`.
        patterns: Vec<String>,
        /// A part has about this many bytes: it ends at the first boundary at or after them.
        bytes: u64,
        /// Where an object may be cut.
        boundary: Boundary,
        /// The first record of the object stands at the head of every part.
        header: bool,
    },
    /// Tasks come in submissions while the stage is open, each with a payload for its engine.
    Submitted {
        /// How long it stays open by itself, and how much may be done in it.
        #[serde(default)]
        terms: Box<Terms>,
    },
    /// The outputs of an earlier stage.
    Stage {
        /// Its name.
        stage: String,
        /// How its tasks become ours.
        mode: ChainMode,
    },
}

/// Where a large object may be cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Boundary {
    /// After a newline.
    Line,
    /// After a newline that is not inside double quotes (RFC 4180).
    Csv,
    /// Anywhere.
    Byte,
}

/// How an earlier stage's tasks become ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ChainMode {
    /// Our task n takes the outputs of its task n, as soon as that has succeeded.
    Stream,
    /// When the earlier stage is done, its outputs in runs of `per_task` of its tasks; `None`: all to one task.
    Gather {
        /// How many of its tasks to one of ours.
        per_task: Option<u64>,
    },
    /// When the earlier stage is done, one task for each distinct key, in order of the key.
    Group {
        /// A regular expression over output names; its first capture group is the key. Outputs that do not match are left out.
        key: String,
    },
}

/// An object, or a part of one, that a task gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputRef {
    /// The object's path.
    pub path: String,
    /// What the file is called in the task's folder; a plain file name.
    pub name: String,
    /// Where the part begins.
    pub offset: u64,
    /// How long the part is, in bytes.
    pub len: u64,
    /// This many bytes from the object's beginning go in front of the part.
    pub header: u64,
    /// Whether the part is the whole object.
    pub whole: bool,
}

/// What one task gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TaskInput {
    /// What its submission holds for it.
    Payload,
    /// Its index.
    Index(i64),
    /// Its lines, without the last newline.
    Lines(String),
    /// Its files, and for a grouped task the key.
    Files {
        /// In order.
        files: Vec<InputRef>,
        /// Of [`ChainMode::Group`].
        key: Option<String>,
    },
}
