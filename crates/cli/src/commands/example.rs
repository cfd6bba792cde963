//! `tidemill example`: the programs that the tour's tasks run.

use std::path::PathBuf;

use clap::Subcommand;
use tidemill_base::Result;

use crate::exit::Exit;
use crate::human;
use crate::output::note;
use crate::tour::claims::{price_file, summarise};

/// The programs that the tour's tasks run.
#[derive(Debug, Subcommand)]
pub(crate) enum Example {
    /// Check and price one part of a claims file.
    ClaimsPrice {
        /// The part, with its header.
        input: PathBuf,
        /// The folder for priced claims and rejects.
        out: PathBuf,
        /// The part's number, for the files' names.
        #[arg(long, default_value_t = 0)]
        part: u64,
    },
    /// Add up priced parts by provider and collect the rejects.
    ClaimsSummary {
        /// A file that lists the parts' files, one to a line.
        list: PathBuf,
        /// The folder for the summary.
        out: PathBuf,
    },
}

impl Example {
    pub(crate) fn run(self) -> Result<Exit> {
        match self {
            Self::ClaimsPrice { input, out, part } => {
                let counts = price_file(&input, &out, part)?;
                note(&format!("part {part}: {} priced, {} rejected", human::count(counts.priced), human::count(counts.rejected)));
            }
            Self::ClaimsSummary { list, out } => {
                let totals = summarise(&list, &out)?;
                note(&format!("{}, {} rejected", human::plural(totals.records, "record"), human::count(totals.bad())));
            }
        }
        Ok(Exit::Success)
    }
}
