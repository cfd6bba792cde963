//! `tidemill batch list`.

use clap::Args;
use serde_json::Value;
use tidemill_api::{JobList, TaskCounts};
use tidemill_base::{Result, Timestamp};
use tidemill_client::JobFilter;

use crate::context::Context;
use crate::exit::Exit;
use crate::human;
use crate::output::{Align, TextTable, View, note, to_json};

/// List jobs, newest first.
#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only jobs in this state: waiting, running, paused, cancelling, succeeded, failed or cancelled.
    #[arg(long)]
    state: Option<String>,
    /// Only jobs of this user.
    #[arg(long)]
    user: Option<String>,
    /// No more than this.
    #[arg(long, default_value_t = 50, value_name = "N")]
    limit: u32,
    /// From here on: what the page before named.
    #[arg(long, value_name = "CURSOR")]
    after: Option<String>,
}

struct Jobs {
    list: JobList,
    now: Timestamp,
}

impl List {
    pub(crate) async fn run(self, cx: &Context) -> Result<Exit> {
        let filter = JobFilter { state: self.state, user: self.user, after: self.after, limit: Some(self.limit) };
        let list = cx.client()?.jobs(&filter).await?;
        let next = list.next.clone();
        cx.show(&Jobs { list, now: cx.env.now() })?;
        if let Some(next) = next {
            note(&format!("there are more: --after {next}"));
        }
        Ok(Exit::Success)
    }
}

/// `93/100`, and what failed.
pub(in super::super) fn progress(t: &TaskCounts) -> String {
    let failed = if t.failed > 0 { format!(" ({} failed)", human::count(t.failed)) } else { String::new() };
    format!("{}/{}{failed}", human::count(t.succeeded), human::count(t.total))
}

impl View for Jobs {
    fn table(&self) -> String {
        let columns = [
            ("JOB", Align::Left),
            ("NAME", Align::Left),
            ("USER", Align::Left),
            ("STATE", Align::Left),
            ("DONE", Align::Right),
            ("PRIORITY", Align::Right),
            ("SUBMITTED", Align::Right),
            ("TOOK", Align::Right),
        ];
        let mut table = TextTable::new("no jobs", &columns);
        for j in &self.list.jobs {
            let took = human::between(j.started_at.as_deref(), j.finished_at.as_deref(), self.now).map(human::span);
            table.row([
                j.id.clone(),
                human::one_line(&j.name, 30),
                j.user.clone(),
                j.state.clone(),
                progress(&j.tasks),
                j.priority.to_string(),
                human::ago(&j.submitted_at, self.now),
                took.unwrap_or_default(),
            ]);
        }
        table.render()
    }

    fn json(&self) -> Value {
        to_json(&self.list)
    }

    fn quiet(&self) -> String {
        self.list.jobs.iter().map(|j| j.id.clone()).collect::<Vec<_>>().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_shown_in_each_form() {
        let json = r#"{"jobs":[{"id":"j1","name":"thumbs","user":"ann","class":"default","priority":0,"state":"failed","reason":"",
            "tasks":{"total":1000,"succeeded":998,"failed":2,"running":0,"waiting":0,"retrying":0,"cancelled":0,"skipped":0},
            "submitted_at":"2026-01-01T00:00:00Z","started_at":"2026-01-01T00:00:01Z","finished_at":"2026-01-01T00:00:11Z"}],"next":null}"#;
        let jobs = Jobs { list: serde_json::from_str(json).unwrap(), now: human::parse_time("2026-01-01T00:05:00Z").unwrap() };
        let table = jobs.table();
        let row: Vec<&str> = table.lines().nth(1).unwrap().split("  ").filter(|c| !c.is_empty()).collect();
        assert_eq!(
            row.iter().map(|c| c.trim()).collect::<Vec<_>>(),
            ["j1", "thumbs", "ann", "failed", "998/1,000 (2 failed)", "0", "5m00s ago", "10s"]
        );
        assert_eq!(jobs.quiet(), "j1");
        assert_eq!(jobs.json()["jobs"][0]["tasks"]["total"], 1000);
    }
}
