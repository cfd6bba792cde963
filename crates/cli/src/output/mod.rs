//! Data goes to standard output, in the form that was asked for; everything else goes to standard error.
//!
//! A command makes a [`View`] of what it found. A view has to say how it looks in each form, so none can be forgotten.

mod forms;
mod table;
#[cfg(test)]
pub(crate) mod tests_support;

use std::io::Write as _;

use clap::ValueEnum;
use serde_json::Value;
use tidemill_base::{Error, Result};

pub(crate) use forms::{Json, Quiet, Table};
pub(crate) use table::{Align, TextTable, fields};

/// In which form data is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs: one JSON document.
    Json,
    /// For scripts: ids or values only, one a line.
    Quiet,
    /// Comma-separated values (`sql` only).
    Csv,
}

impl Format {
    /// What writes in this form. CSV is written by the one command that takes it.
    pub(crate) fn output(self) -> Box<dyn Output> {
        match self {
            Self::Table | Self::Csv => Box::new(Table),
            Self::Json => Box::new(Json),
            Self::Quiet => Box::new(Quiet),
        }
    }
}

/// Data that a command found.
pub(crate) trait View {
    /// For people.
    fn table(&self) -> String;
    /// For programs.
    fn json(&self) -> Value;
    /// For scripts: what another command would be given, one a line; empty when there is nothing to say.
    fn quiet(&self) -> String;
}

/// Writes views to standard output.
pub(crate) trait Output: std::fmt::Debug {
    /// Writes one.
    fn show(&self, data: &dyn View) -> Result<()>;
}

/// Writes to standard output, with a line's end. Whoever reads may have gone: that is an error and not a panic.
pub(crate) fn write(text: &str) -> Result<()> {
    let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    write_bytes(text.as_bytes()).and_then(|()| write_bytes(end.as_bytes()))
}

/// Writes bytes to standard output as they are.
pub(crate) fn write_bytes(bytes: &[u8]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(|e| Error::from(e).context("standard output"))
}

/// Says something to the person, on standard error. That nobody listens is no reason to stop.
pub(crate) fn note(text: &str) {
    drop(writeln!(std::io::stderr().lock(), "{text}"));
}

/// JSON of something that always has one.
pub(crate) fn to_json(data: &impl serde::Serialize) -> Value {
    serde_json::to_value(data).unwrap_or(Value::Null)
}
