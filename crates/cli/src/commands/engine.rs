//! `tidemill engine`: the program as an engine of the grid. Workers start it; a person who does sees nothing happen.

use std::collections::BTreeMap;
use std::ffi::OsString;

use clap::Subcommand;
use tidemill_base::{Error, Result};
use tidemill_engine::kit;
use tidemill_pricing_engine as pricing;

/// The name under which workers know the engine that starts other programs.
const PROGRAM: &str = "program";

/// Engines that workers start.
#[derive(Debug, Clone, Copy, Subcommand)]
pub(crate) enum Engine {
    /// Standard financial products.
    Pricing,
    /// Programs that read files and write files for each task.
    Program,
}

impl Engine {
    /// Serves the host on the standard streams until it closes them.
    pub(crate) fn serve(self) -> Result<()> {
        match self {
            Self::Pricing => pricing::serve(),
            Self::Program => kit::programs("tidemill-program", env!("CARGO_PKG_VERSION")).serve(),
        }
    }
}

/// The engines that are in this program, as workers start them.
pub(crate) fn programs() -> Result<BTreeMap<String, Vec<OsString>>> {
    let program = std::env::current_exe().map_err(|e| Error::from(e).context("find this program to start engines with"))?;
    let start = |name: &str| (name.to_owned(), vec![program.clone().into(), "engine".into(), name.into()]);
    Ok([pricing::NAME, PROGRAM].map(start).into())
}
