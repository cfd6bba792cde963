//! The kit: what a program in Rust needs to be an engine.
//!
//! ```no_run
//! use tidemill_engine::TaskError;
//! use tidemill_engine::kit::{Call, Kit, Opening};
//!
//! fn main() -> tidemill_base::Result<()> {
//!     Kit::new("discounting", "1.0")
//!         .function("discount", |opening: &Opening<'_>| {
//!             // Once a session: the curve, kept warm. Then once a task:
//!             let rate: f64 = opening.parameter("rate")?.parse().map_err(|_| TaskError::new("rate", "not a number"))?;
//!             Ok(move |call: Call<'_>| {
//!                 let years: f64 = call.text()?.parse().map_err(|_| TaskError::new("years", "not a number"))?;
//!                 Ok((-rate * years).exp().to_string().into_bytes())
//!             })
//!         })
//!         .serve()
//! }
//! ```
//!
//! The kit keeps the pipes of the protocol for itself: the program's standard input is empty and its standard output goes to standard
//! error, which the host keeps as the log. A function that panics fails its task and no other.

mod held;
mod pipes;
mod program;
mod serve;

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use tidemill_base::{Error, Result};

use crate::session::{Function, Session, TaskError};
use crate::wire::{Library, Start};
use held::Held;
use serve::Server;

pub use program::{program, programs};

/// Runs the tasks of one session, one after the other.
pub trait Handler {
    /// The result of one task.
    fn run(&mut self, call: Call<'_>) -> Result<Vec<u8>, TaskError>;
}

impl<F: FnMut(Call<'_>) -> Result<Vec<u8>, TaskError>> Handler for F {
    fn run(&mut self, call: Call<'_>) -> Result<Vec<u8>, TaskError> {
        self(call)
    }
}

/// One task, as its function sees it.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// The task's number.
    pub task: u64,
    /// What it was given, in the session's input format.
    pub payload: &'a [u8],
    /// Results of the tasks that it depends on.
    pub dependencies: &'a [Bytes],
}

impl<'a> Call<'a> {
    /// The payload as text.
    pub fn text(&self) -> Result<&'a str, TaskError> {
        std::str::from_utf8(self.payload).map_err(|e| TaskError::new("invalid", format!("the payload is not UTF-8: {e}")))
    }
}

/// A session that is being opened, as its function sees it.
#[derive(Debug, Clone, Copy)]
pub struct Opening<'a> {
    /// What the host asked for.
    pub session: &'a Session,
    /// What it said when the engine started: scratch folder, packages.
    pub start: &'a Start,
}

impl Opening<'_> {
    /// The session's set-up data; empty if there is none.
    pub fn data(&self) -> &[u8] {
        self.session.set_up.data.as_deref().unwrap_or_default()
    }

    /// A parameter that must be there.
    pub fn parameter(&self, name: &str) -> Result<&str, TaskError> {
        let found = self.session.parameters.get(name).map(String::as_str);
        found.ok_or_else(|| TaskError::new("invalid", format!("the session has no parameter `{name}`; give it one")))
    }

    /// The folder of a package of static data.
    pub fn package(&self, name: &str) -> Result<&Path, TaskError> {
        package(self.start, name)
    }
}

fn package<'a>(start: &'a Start, name: &str) -> Result<&'a Path, TaskError> {
    let found = start.packages.iter().find(|p| p.name == name).map(|p| p.path.as_path());
    found.ok_or_else(|| TaskError::new("not_found", format!("this engine was not given the package `{name}`; pin it in the session")))
}

type Opener = Box<dyn Fn(&Opening<'_>) -> Result<Box<dyn Handler>, TaskError>>;

/// An engine in the making. See the module.
pub struct Kit {
    name: String,
    version: String,
    loaded: Vec<Library>,
    functions: BTreeMap<String, Opener>,
}

impl std::fmt::Debug for Kit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let functions: Vec<_> = self.functions.keys().collect();
        f.debug_struct("Kit").field("name", &self.name).field("functions", &functions).finish_non_exhaustive()
    }
}

impl Kit {
    /// An engine of this name and version, which stand in the record of every result.
    pub fn new(name: &str, version: &str) -> Self {
        let itself = Library { name: name.to_owned(), version: version.to_owned() };
        Self { name: name.to_owned(), version: version.to_owned(), loaded: vec![itself], functions: BTreeMap::new() }
    }

    /// Says that the engine has a library in it.
    #[must_use]
    pub fn library(mut self, name: &str, version: &str) -> Self {
        self.loaded.push(Library { name: name.to_owned(), version: version.to_owned() });
        self
    }

    /// Adds a function under a name. `open` makes its handler, once a session; what it makes ready there stays warm.
    #[must_use]
    pub fn function<H: Handler + 'static>(mut self, name: &str, open: impl Fn(&Opening<'_>) -> Result<H, TaskError> + 'static) -> Self {
        self.functions.insert(name.to_owned(), Box::new(move |opening| Ok(Box::new(open(opening)?))));
        self
    }

    /// Serves the host until it closes the engine's input. Call it first of all in `main`: it takes the standard streams away.
    pub fn serve(self) -> Result<()> {
        let (input, output) = pipes::take().map_err(|e| Error::from(e).context("take over the standard streams"))?;
        Server::new(self, input, Held::new(output)).serve()
    }

    fn open(&self, opening: &Opening<'_>) -> Result<Box<dyn Handler>, TaskError> {
        let Function::Named(name) = &opening.session.function else {
            let what = &opening.session.function;
            return Err(TaskError::new(
                "invalid",
                format!("{what:?} cannot be run by `{}`, which has functions of its own: {}", self.name, self.names()),
            ));
        };
        match self.functions.get(name) {
            Some(open) => open(opening),
            None => {
                let message = format!("`{}` has no function `{name}`; it has {}", self.name, self.names());
                Err(TaskError::new("not_found", message))
            }
        }
    }

    fn names(&self) -> String {
        self.functions.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
    }
}
