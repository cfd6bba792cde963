//! What an engine is asked to do, and what became of it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;

/// How payloads and results are encoded. The host passes them through and never looks inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Format {
    /// Python's pickle, protocol 5: a task is `(args, kwargs)`, a result any value.
    #[default]
    Pickle,
    /// Bytes as they are.
    Raw,
    /// UTF-8 JSON: the function gets the value.
    Json,
    /// An Arrow IPC stream.
    Arrow,
}

impl Format {
    /// On the wire.
    pub const fn number(self) -> u8 {
        match self {
            Self::Pickle => 0,
            Self::Raw => 1,
            Self::Json => 2,
            Self::Arrow => 3,
        }
    }

    /// The inverse of [`Format::number`].
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Pickle,
            1 => Self::Raw,
            2 => Self::Json,
            3 => Self::Arrow,
            _ => return None,
        })
    }
}

/// What runs a task.
#[derive(Clone, PartialEq, Eq)]
pub enum Function {
    /// A pickled function, as cloudpickle makes it.
    Pickled(Bytes),
    /// `module:name`: the engine imports the module. The name may have dots.
    Module(String),
    /// A name that the engine itself has given to one of its functions.
    Named(String),
}

impl Function {
    pub(crate) const fn number(&self) -> u8 {
        match self {
            Self::Pickled(_) => 1,
            Self::Module(_) => 2,
            Self::Named(_) => 3,
        }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Pickled(bytes) => bytes,
            Self::Module(name) | Self::Named(name) => name.as_bytes(),
        }
    }

    pub(crate) fn from_parts(number: u8, bytes: Bytes) -> Option<Self> {
        let name = |bytes: &Bytes| {
            let name = std::str::from_utf8(bytes).ok()?;
            (name.len() <= crate::wire::NAME_BYTES).then(|| name.to_owned())
        };
        Some(match number {
            1 => Self::Pickled(bytes),
            2 => Self::Module(name(&bytes)?),
            3 => Self::Named(name(&bytes)?),
            _ => return None,
        })
    }
}

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pickled(bytes) => write!(f, "Pickled({} bytes)", bytes.len()),
            Self::Module(name) => write!(f, "Module({name:?})"),
            Self::Named(name) => write!(f, "Named({name:?})"),
        }
    }
}

/// What a session keeps warm in each engine: curves, a portfolio. Without function and data it keeps nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SetUp {
    /// Makes the state from the data, once a session and engine. Without it the data itself is the state.
    pub function: Option<Function>,
    /// In the session's input format.
    pub data: Option<Bytes>,
}

/// A session: one function over many tasks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// What runs a task.
    pub function: Function,
    /// How payloads and dependencies are encoded.
    pub input: Format,
    /// How results are encoded.
    pub output: Format,
    /// What is kept warm.
    pub set_up: SetUp,
    /// Free for user and engine to agree on.
    pub parameters: BTreeMap<String, String>,
    /// One task's limit of time, kept by the host; `None`: that of the engine.
    pub limit: Option<Duration>,
}

impl Session {
    /// A session without state, of pickled payloads.
    pub fn new(function: Function) -> Self {
        Self {
            function,
            input: Format::default(),
            output: Format::default(),
            set_up: SetUp::default(),
            parameters: BTreeMap::new(),
            limit: None,
        }
    }
}

/// One call of a session's function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// The caller's own number, unique among the session's tasks that are not finished.
    pub id: u64,
    /// In the session's input format.
    pub payload: Bytes,
    /// Results of other tasks that this one needs, in the session's output format.
    pub dependencies: Box<[Bytes]>,
}

impl Task {
    /// A task without dependencies.
    pub fn new(id: u64, payload: impl Into<Bytes>) -> Self {
        Self { id, payload: payload.into(), dependencies: Box::default() }
    }

    /// Bytes on the way to an engine.
    pub fn len(&self) -> usize {
        16 + self.payload.len() + self.dependencies.iter().map(|d| 4 + d.len()).sum::<usize>()
    }

    /// Never; there is always the number.
    pub fn is_empty(&self) -> bool {
        false
    }
}

/// What became of a task. Every task that was submitted has exactly one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The task's number.
    pub task: u64,
    /// Microseconds that the engine spent in it; 0 when it was not run to its end.
    pub run_us: u64,
    /// How it ended.
    pub result: TaskResult,
}

/// How a task ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskResult {
    /// What the function returned, in the session's output format. Small values share the memory of the frame that they came in.
    Value(Bytes),
    /// It failed, for good as far as the engine's host is concerned.
    Failed(Box<TaskError>),
    /// It was cancelled.
    Cancelled,
}

/// Why a task failed, or a session could not be opened.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TaskError {
    /// The engine's name for the kind of error (`ValueError`, `QuantLib.Error`), or one of the host's: see [`class`].
    pub class: String,
    /// One line or a few, for people.
    pub message: String,
    /// Where it happened, in the form of the engine's language; may be empty.
    pub traceback: String,
    /// The error itself in the session's output format, for a client that speaks the engine's language; may be empty.
    pub value: Box<[u8]>,
    /// The end of what the engine wrote to its standard error, when the engine itself has failed.
    pub log: String,
}

/// The host's own classes of errors.
pub mod class {
    /// The task ended its engine, alone, as often as [`PoolSettings::strikes`](crate::PoolSettings::strikes) allows.
    pub const CRASH: &str = "crash";
    /// The task ran longer than its limit.
    pub const TIMEOUT: &str = "timeout";
    /// The task took its engine over the limit of memory.
    pub const MEMORY: &str = "memory";
    /// No engine can be started.
    pub const START: &str = "start";
    /// The payload is longer than a frame may be.
    pub const TOO_LARGE: &str = "too_large";
}

impl TaskError {
    /// An error of the given class.
    pub fn new(class: &str, message: impl Into<String>) -> Self {
        Self { class: class.to_owned(), message: message.into(), ..Self::default() }
    }
}
