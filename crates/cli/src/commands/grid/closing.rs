//! What is said when a session has ended: counts, rate, failures with their traceback, and where the results are.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tidemill_api::JobDetail;
use tidemill_base::Result;
use tidemill_client::{Client, TaskFilter};

use super::outcome::Failure;
use crate::context::Context;
use crate::exit::Exit;
use crate::human;
use crate::output::{View, note, to_json};

/// Failed tasks that are named; more are counted.
pub(super) const SHOWN_FAILURES: usize = 5;

/// Of a line of a traceback no more is shown, characters.
const MAX_LINE: usize = 300;

/// A task that failed for good.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) task: u64,
    pub(super) why: Failure,
}

/// A session that has ended.
#[derive(Debug)]
pub(super) struct Closing {
    session: JobDetail,
    failures: Vec<Failed>,
    elapsed: Option<Duration>,
    results_hint: String,
}

/// The person stopped watching.
pub(super) fn interrupted(cx: &Context, id: &str) -> Exit {
    note(&format!(
        "\nthe session goes on; `{}` watches it again, `{}` ends it",
        cx.command(&format!("grid watch {id}")),
        cx.command(&format!("grid cancel {id}"))
    ));
    Exit::Interrupted
}

/// The first failures of a session, by its list of attempts, which has no tracebacks.
pub(super) async fn failures(client: &Client, session: &JobDetail) -> Result<Vec<Failed>> {
    if session.tasks.failed == 0 {
        return Ok(Vec::new());
    }
    let filter = TaskFilter { state: Some("failed".to_owned()), limit: u32::try_from(SHOWN_FAILURES).ok(), ..TaskFilter::default() };
    let list = client.tasks(&session.id, &filter).await?.tasks;
    let failed = list.into_iter().map(|t| {
        let why = Failure { kind: t.class.unwrap_or_default(), message: t.message.unwrap_or_default(), traceback: String::new() };
        Failed { task: t.task, why }
    });
    Ok(failed.collect())
}

impl Closing {
    /// `results` is where they were written.
    pub(super) fn new(cx: &Context, session: JobDetail, failures: Vec<Failed>, results: Option<&Path>) -> Self {
        let elapsed = human::between(session.started_at.as_deref(), session.finished_at.as_deref(), cx.env.now());
        let results_hint = match results {
            Some(path) => path.display().to_string(),
            None => format!("`{}`", cx.command(&format!("grid results {}", session.id))),
        };
        Self { session, failures, elapsed, results_hint }
    }

    /// Shows it, on standard error if results have the other stream. The exit says whether every task succeeded.
    pub(super) fn show(self, cx: &Context, aside: bool) -> Result<Exit> {
        let exit = if self.session.state == "succeeded" { Exit::Success } else { Exit::Failed };
        if aside {
            note(self.table().trim_end());
        } else {
            cx.show(&self)?;
        }
        Ok(exit)
    }

    fn counts(&self) -> String {
        let t = &self.session.tasks;
        let words = [(t.succeeded, "succeeded"), (t.failed, "failed"), (t.skipped, "skipped"), (t.cancelled, "cancelled")];
        let parts: Vec<String> = words.iter().filter(|(n, _)| *n > 0).map(|(n, w)| format!("{} {w}", human::count(*n))).collect();
        format!("{}: {}", human::plural(t.total, "task"), if parts.is_empty() { "none ran".to_owned() } else { parts.join(", ") })
    }

    fn speed(&self) -> String {
        let Some(elapsed) = self.elapsed.filter(|e| !e.is_zero()) else { return String::new() };
        let done = self.session.tasks.succeeded + self.session.tasks.failed;
        format!(" in {} ({})", human::span(elapsed), human::rate(done as f64 / elapsed.as_secs_f64()))
    }
}

/// `ValueError: math domain error`; the kind is not said twice.
fn sentence(why: &Failure) -> String {
    let message = human::one_line(&why.message, 160);
    if why.kind.is_empty() || message.starts_with(&why.kind) { message } else { format!("{}: {message}", why.kind) }
}

impl View for Closing {
    fn table(&self) -> String {
        let s = &self.session;
        let mut out = format!("session {} ({}) {}\n{}{}\n", s.id, human::one_line(&s.name, 60), s.state, self.counts(), self.speed());
        if !s.reason.is_empty() {
            out.push_str(&format!("reason: {}\n", human::one_line(&s.reason, 200)));
        }
        for failed in &self.failures {
            out.push_str(&format!("failed: task {}: {}\n", failed.task, sentence(&failed.why)));
        }
        let shown = u64::try_from(self.failures.len()).unwrap_or(u64::MAX);
        let more = s.tasks.failed.saturating_sub(shown);
        if more > 0 && shown > 0 {
            out.push_str(&format!("        and {}\n", human::plural(more, "more task")));
        }
        if let Some(first) = self.failures.iter().find(|f| !f.why.traceback.trim().is_empty()) {
            out.push_str(&format!("traceback of task {}:\n", first.task));
            for line in first.why.traceback.trim().lines() {
                let clean: String = line.chars().filter(|c| !c.is_control()).take(MAX_LINE).collect();
                out.push_str(&format!("  {clean}\n"));
            }
        }
        out.push_str(&format!("results: {}\n", self.results_hint));
        out
    }

    fn json(&self) -> Value {
        let mut json = to_json(&self.session);
        let failures = self
            .failures
            .iter()
            .map(|f| json!({"task": f.task, "kind": f.why.kind, "message": f.why.message, "traceback": f.why.traceback}));
        json["failures"] = failures.collect();
        json
    }

    fn quiet(&self) -> String {
        self.session.id.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::tests_support::job;
    use tidemill_api::TaskCounts;

    fn closing() -> Closing {
        let tasks = TaskCounts { total: 100, succeeded: 98, failed: 2, ..TaskCounts::default() };
        let why =
            Failure { kind: "ValueError".into(), message: "math domain\nerror".into(), traceback: "Traceback:\n  File \"x\"\n".into() };
        let failures = vec![Failed { task: 4, why }];
        Closing { session: job("failed", tasks), failures, elapsed: Some(Duration::from_secs(10)), results_hint: "out.jsonl".into() }
    }

    #[test]
    fn a_summary_names_counts_rate_failures_and_the_first_traceback() {
        assert_eq!(
            closing().table(),
            "session j1 (thumbs) failed\n100 tasks: 98 succeeded, 2 failed in 10s (10.0/s)\nfailed: task 4: ValueError: math domain error\n        \
             and 1 more task\ntraceback of task 4:\n  Traceback:\n    File \"x\"\nresults: out.jsonl\n"
        );
    }

    #[test]
    fn json_has_the_words_that_scripts_rely_on() {
        let json = closing().json();
        assert_eq!((json["state"].as_str(), json["failures"][0]["kind"].as_str()), (Some("failed"), Some("ValueError")));
        assert_eq!((json["tasks"]["succeeded"].as_u64(), closing().quiet().as_str()), (Some(98), "j1"));
    }
}
