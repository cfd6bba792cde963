//! `tidemill check`.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};
use tidemill_base::Result;
use tidemill_blocks::check::Found;
use tidemill_server::assembly::{Checked, check};

use crate::context::Context;
use crate::exit::Exit;
use crate::output::{Align, TextTable, View};

/// Connect to every engine of the configuration and say what is there, and what is missing: tables, queues, buckets, permissions.
///
/// Ends with 0 when everything is ready, with 1 when something is not, with 3 when an engine cannot be reached.
#[derive(Debug, Args)]
pub(crate) struct Check {
    /// Make what is missing.
    #[arg(long)]
    create: bool,
    /// The configuration file; `tidemill.toml` in the data folder when it is there.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Check {
    pub(crate) async fn run(self, cx: &Context) -> Result<Exit> {
        let config = super::serve::options(cx, self.config, Vec::new()).config()?;
        let report = Report(check(&config, &cx.env, self.create).await?);
        cx.show(&report)?;
        Ok(report.exit())
    }
}

struct Report(Vec<Checked>);

impl Report {
    fn exit(&self) -> Exit {
        let mut found = self.0.iter().map(|c| c.finding.found);
        match found.clone().any(|f| f == Found::Unreachable) {
            true => Exit::Unreachable,
            false if found.all(Found::is_ready) => Exit::Success,
            false => Exit::Failed,
        }
    }
}

const fn word(found: Found) -> &'static str {
    match found {
        Found::Ready => "ready",
        Found::Made => "made",
        Found::Missing => "missing",
        Found::Denied => "denied",
        Found::Unreachable => "unreachable",
    }
}

impl View for Report {
    fn table(&self) -> String {
        let columns = [("PLACE", Align::Left), ("WHAT", Align::Left), ("FOUND", Align::Left), ("NOTE", Align::Left)];
        let mut table = TextTable::new("nothing to check", &columns);
        for Checked { place, finding } in &self.0 {
            table.row([place.clone(), finding.what.clone(), word(finding.found).to_owned(), finding.note.clone()]);
        }
        table.render()
    }

    fn json(&self) -> Value {
        let row = |c: &Checked| json!({"place": c.place, "what": c.finding.what, "found": word(c.finding.found), "note": c.finding.note});
        self.0.iter().map(row).collect()
    }

    /// What is not ready, a line each: nothing when all is well.
    fn quiet(&self) -> String {
        let wrong = self.0.iter().filter(|c| !c.finding.found.is_ready());
        wrong.map(|c| format!("{} {}: {}", c.place, c.finding.what, word(c.finding.found))).collect::<Vec<_>>().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use tidemill_blocks::check::Finding;

    use super::*;

    fn report(found: &[Found]) -> Report {
        let checked = |f: &Found| Checked { place: "aws".to_owned(), finding: Finding::new("bucket b", *f, "why") };
        Report(found.iter().map(checked).collect())
    }

    #[test]
    fn the_exit_says_how_bad_it_is() {
        assert_eq!(report(&[]).exit(), Exit::Success);
        assert_eq!(report(&[Found::Ready, Found::Made]).exit(), Exit::Success);
        assert_eq!(report(&[Found::Ready, Found::Missing]).exit(), Exit::Failed);
        assert_eq!(report(&[Found::Denied]).exit(), Exit::Failed);
        assert_eq!(report(&[Found::Missing, Found::Unreachable]).exit(), Exit::Unreachable);
    }

    #[test]
    fn each_form_names_what_is_missing() {
        let report = report(&[Found::Ready, Found::Missing]);
        assert!(report.table().contains("bucket b  missing  why"), "{}", report.table());
        assert_eq!(report.json()[1], json!({"place": "aws", "what": "bucket b", "found": "missing", "note": "why"}));
        assert_eq!(report.quiet(), "aws bucket b: missing");
    }
}
