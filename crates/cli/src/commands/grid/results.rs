//! `tidemill grid results`.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};
use tidemill_base::Result;
use tidemill_client::{Client, ResultEvent, TaskOutcome};

use super::outcome::{failure, line};
use super::sink::Sink;
use crate::context::Context;
use crate::exit::Exit;
use crate::human;
use crate::output::{Align, TextTable, View, note};

/// Show a session's results, or write them to files.
///
/// Results come in deliveries, which are numbered from 1. Whoever has seen some goes on with `--after` the last of those.
#[derive(Debug, Args)]
pub(crate) struct Results {
    /// The session's id.
    id: String,
    /// Only what was delivered after this one.
    #[arg(long, default_value_t = 0, value_name = "N")]
    after: u64,
    /// Go on until the session ends; results are written as JSON lines.
    #[arg(long, short)]
    follow: bool,
    /// Write them here: a file of JSON lines, `-` for standard output, or a folder with a file for each.
    #[arg(long, value_name = "FILE|DIR")]
    to: Option<PathBuf>,
    /// Write them in the order in which they came, not in that of their tasks.
    #[arg(long)]
    unordered: bool,
}

/// Results that there are.
struct Shown {
    outcomes: Vec<TaskOutcome>,
    next: u64,
}

impl Results {
    pub(crate) async fn run(self, cx: &Context) -> Result<Exit> {
        let client = cx.client()?;
        if self.to.is_some() || self.follow {
            return self.write(cx, &client).await;
        }
        let mut results = client.session_results(&self.id, self.after, false);
        let mut outcomes = Vec::new();
        while let Some(event) = results.next().await? {
            if let ResultEvent::Delivery { outcomes: more, .. } = event {
                outcomes.extend(more);
            }
        }
        if !self.unordered {
            // Stable: a task that was tried again after it had failed has its last outcome last.
            outcomes.sort_by_key(|o| o.task);
        }
        cx.show(&Shown { outcomes, next: results.cursor() }).map(|()| Exit::Success)
    }

    async fn write(&self, cx: &Context, client: &Client) -> Result<Exit> {
        let path = self.to.as_deref().unwrap_or(Path::new("-"));
        // After a cursor the first tasks never come, so there is no order to wait for.
        let mut sink = Sink::open(path, !self.unordered && self.after == 0)?;
        let mut results = client.session_results(&self.id, self.after, self.follow);
        let mut exit = Exit::Success;
        loop {
            let event = tokio::select! {
                biased;
                event = results.next() => event?,
                pressed = tokio::signal::ctrl_c() => {
                    pressed?;
                    exit = Exit::Interrupted;
                    break;
                }
            };
            match event {
                Some(ResultEvent::Delivery { outcomes, .. }) => sink.take(outcomes)?,
                Some(ResultEvent::Lost(e)) => note(&format!("lost the server ({}); trying to reach it again", e.message())),
                Some(ResultEvent::End(_)) => {}
                None => break,
            }
        }
        sink.finish()?;
        note(&format!(" next: `{}`", cx.command(&format!("grid results {} --after {}", self.id, results.cursor()))));
        Ok(exit)
    }
}

impl View for Shown {
    fn table(&self) -> String {
        let columns = [("TASK", Align::Right), ("RUN", Align::Right), ("OUTCOME", Align::Left), ("VALUE", Align::Left)];
        let mut table = TextTable::new("no results", &columns);
        for o in &self.outcomes {
            let (word, text) = if o.ok {
                let text = std::str::from_utf8(&o.bytes).map_or_else(|_| human::bytes(o.bytes.len() as u64), |t| human::one_line(t, 100));
                ("ok", text)
            } else {
                let why = failure(o);
                ("failed", human::one_line(&format!("{}: {}", why.kind, why.message), 100))
            };
            table.row([human::count(o.task), human::micros(o.run_us.into()), word.to_owned(), text]);
        }
        table.render()
    }

    fn json(&self) -> Value {
        let results: Vec<Value> = self.outcomes.iter().filter_map(|o| serde_json::from_str(&line(o)).ok()).collect();
        json!({"results": results, "next": self.next})
    }

    fn quiet(&self) -> String {
        self.outcomes.iter().map(|o| line(o).trim_end().to_owned()).collect::<Vec<_>>().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn results_are_shown_in_each_form() {
        let outcome = |task, ok, bytes: &'static str| TaskOutcome { task, run_us: 1500, ok, bytes: Bytes::from(bytes) };
        let outcomes = vec![outcome(0, true, "2.5"), outcome(1, false, r#"{"kind": "ValueError", "message": "no"}"#)];
        let shown = Shown { outcomes, next: 4 };
        assert_eq!(shown.table(), "TASK    RUN  OUTCOME  VALUE\n   0  1.5ms  ok       2.5\n   1  1.5ms  failed   ValueError: no\n");
        assert_eq!((&shown.json()["next"], &shown.json()["results"][0]["value"]), (&json!(4), &json!(2.5)));
        assert_eq!(shown.quiet().lines().next(), Some(r#"{"task":0,"run_us":1500,"value":2.5}"#));
    }
}
