//! What a report's tasks left behind in objects: output files and logs.

use serde::{Deserialize, Serialize};

/// The outputs and logs of one report's tasks. An item of the state table, at most 2,000 tasks long.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputPage {
    /// The range it was made in.
    pub range: u64,
    /// The claim it was made under.
    pub epoch: u64,
    /// The report it belongs to; small files are in [`super::keys::pack`] of it.
    pub seq: u64,
    /// In ascending order of the task.
    pub tasks: Vec<TaskOutput>,
}

/// What one attempt left behind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskOutput {
    /// Which task.
    pub task: u64,
    /// Which try.
    pub attempt: u32,
    /// Whether it succeeded. Outputs of failed attempts are not results.
    pub ok: bool,
    /// Its output files.
    pub files: Vec<StoredFile>,
    /// Its standard output and error as they were written, one after the other.
    pub stdout: Option<StoredFile>,
    /// Standard error, likewise.
    pub stderr: Option<StoredFile>,
}

/// Where a file's bytes are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredFile {
    /// The file's name: relative to the task's output folder, with `/` between segments.
    pub name: String,
    /// The object that holds it.
    pub path: String,
    /// Where in the object it begins.
    pub offset: u64,
    /// How many bytes.
    pub len: u64,
    /// Whether the object holds nothing else.
    pub whole: bool,
}
