//! What every command is given.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use tidemill_base::{Env, Result};
use tidemill_client::{Client, Discovery};

use crate::output::{Format, Output, View};
use crate::progress::Style;

/// What every command is given.
#[derive(Debug)]
pub(crate) struct Context {
    /// The data folder that was named.
    pub(crate) data: Option<PathBuf>,
    /// How data is written.
    pub(crate) format: Format,
    output: Box<dyn Output>,
    /// Clock and randomness.
    pub(crate) env: Env,
    /// Where servers are looked for.
    pub(crate) discovery: Discovery,
}

impl Context {
    pub(crate) fn new(data: Option<PathBuf>, format: Format) -> Self {
        Self { data, format, output: format.output(), env: Env::system(), discovery: Discovery::from_env() }
    }

    /// The server that is meant. Nothing is sent yet.
    pub(crate) fn client(&self) -> Result<Client> {
        self.discovery.find(self.data.as_deref())?.connect()
    }

    /// The data folder that is meant.
    pub(crate) fn data_folder(&self) -> PathBuf {
        self.data.clone().unwrap_or_else(|| self.discovery.default_data())
    }

    /// Writes data to standard output.
    pub(crate) fn show(&self, data: &dyn View) -> Result<()> {
        self.output.show(data)
    }

    /// How progress is shown: bars to people, lines to logs, nothing when quiet.
    pub(crate) fn progress(&self) -> Style {
        match self.format {
            Format::Quiet => Style::Silent,
            _ if std::io::stderr().is_terminal() => Style::Bars,
            _ => Style::Lines,
        }
    }

    /// The start of a command that the user may type next, with the data folder if one was given.
    pub(crate) fn command(&self, rest: &str) -> String {
        command(self.data.as_deref(), rest)
    }
}

fn command(data: Option<&Path>, rest: &str) -> String {
    match data {
        Some(data) => format!("tidemill --data {} {rest}", data.display()),
        None => format!("tidemill {rest}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_to_type_next_keep_the_folder() {
        assert_eq!(command(None, "batch list"), "tidemill batch list");
        assert_eq!(command(Some(Path::new("mill")), "batch list"), "tidemill --data mill batch list");
    }
}
