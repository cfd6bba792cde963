//! The three forms.

use tidemill_base::{Error, Result};

use super::{Output, View, write};

/// Tables and sentences for people.
#[derive(Debug)]
pub(crate) struct Table;

/// One JSON document.
#[derive(Debug)]
pub(crate) struct Json;

/// Ids and values only.
#[derive(Debug)]
pub(crate) struct Quiet;

impl Output for Table {
    fn show(&self, data: &dyn View) -> Result<()> {
        write(&data.table())
    }
}

impl Output for Json {
    fn show(&self, data: &dyn View) -> Result<()> {
        write(&serde_json::to_string_pretty(&data.json()).map_err(|e| Error::internal("the answer is no JSON").with_source(e))?)
    }
}

impl Output for Quiet {
    fn show(&self, data: &dyn View) -> Result<()> {
        write(&data.quiet())
    }
}
