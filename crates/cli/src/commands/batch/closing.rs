//! What is said when a job has ended: counts, rate, failures with their next step, and where the results are.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tidemill_api::{JobDetail, TaskRow};
use tidemill_base::Result;
use tidemill_client::{Client, TaskFilter};

use crate::context::Context;
use crate::exit::Exit;
use crate::human;
use crate::output::{View, note, to_json};
use crate::transfer::{all_results, download};

/// Failed tasks that are named; more are counted.
const SHOWN_FAILURES: u32 = 5;

/// A job that has ended.
#[derive(Debug)]
pub(crate) struct Closing {
    pub(crate) job: JobDetail,
    pub(crate) failures: Vec<TaskRow>,
    pub(crate) elapsed: Option<Duration>,
    /// Commands to type next.
    pub(crate) results_hint: String,
    pub(crate) logs_hint: String,
}

/// Fetches what the summary needs, downloads results when a folder was named, and shows the summary. The exit says whether every
/// task succeeded.
pub(crate) async fn close(cx: &Context, client: &Client, job: JobDetail, results: Option<&Path>) -> Result<Exit> {
    let failures = failures(client, &job).await?;
    let mut results_hint = String::new();
    let has_outputs = job.stages.iter().any(|s| s.bytes_out > 0);
    match results {
        Some(folder) => {
            let files = all_results(client, &job.id, None).await?;
            download(client, &cx.env, &files, folder, cx.progress()).await?;
            results_hint = folder.display().to_string();
        }
        None if has_outputs => results_hint = format!("`{}`", cx.command(&format!("batch results {} --to DIR", job.id))),
        None => {}
    }
    let exit = if job.state == "succeeded" { Exit::Success } else { Exit::Failed };
    let elapsed = human::between(job.started_at.as_deref(), job.finished_at.as_deref(), cx.env.now());
    let logs_hint = cx.command(&format!("batch logs {}", job.id));
    cx.show(&Closing { job, failures, elapsed, results_hint, logs_hint })?;
    Ok(exit)
}

async fn failures(client: &Client, job: &JobDetail) -> Result<Vec<TaskRow>> {
    if job.tasks.failed == 0 {
        return Ok(Vec::new());
    }
    let filter = TaskFilter { state: Some("failed".to_owned()), limit: Some(SHOWN_FAILURES), ..TaskFilter::default() };
    client.tasks(&job.id, &filter).await.map(|list| list.tasks)
}

impl Closing {
    /// The person stopped watching.
    pub(crate) fn interrupted(cx: &Context, id: &str) -> Exit {
        note(&format!(
            "\nthe job goes on; `{}` watches it again, `{}` ends it",
            cx.command(&format!("batch watch {id}")),
            cx.command(&format!("batch cancel {id}"))
        ));
        Exit::Interrupted
    }

    fn counts(&self) -> String {
        let t = &self.job.tasks;
        let words = [(t.succeeded, "succeeded"), (t.failed, "failed"), (t.skipped, "skipped"), (t.cancelled, "cancelled")];
        let parts: Vec<String> = words.iter().filter(|(n, _)| *n > 0).map(|(n, w)| format!("{} {w}", human::count(*n))).collect();
        format!("{}: {}", human::plural(t.total, "task"), if parts.is_empty() { "none ran".to_owned() } else { parts.join(", ") })
    }

    fn speed(&self) -> String {
        let Some(elapsed) = self.elapsed.filter(|e| !e.is_zero()) else { return String::new() };
        format!(
            " in {} ({})",
            human::span(elapsed),
            human::rate((self.job.tasks.succeeded + self.job.tasks.failed) as f64 / elapsed.as_secs_f64())
        )
    }
}

fn why(task: &TaskRow) -> String {
    let class = task.class.as_deref().unwrap_or("failed");
    let message = task.message.as_deref().map(|m| human::one_line(m, 120)).filter(|m| !m.is_empty());
    let exit = task.exit.map(|code| format!("exit code {code}"));
    format!("{class}: {}", message.or(exit).unwrap_or_else(|| "no message".to_owned()))
}

impl View for Closing {
    fn table(&self) -> String {
        let job = &self.job;
        let mut out = format!("job {} ({}) {}\n{}{}\n", job.id, job.name, job.state, self.counts(), self.speed());
        if !job.reason.is_empty() {
            out.push_str(&format!("reason: {}\n", human::one_line(&job.reason, 200)));
        }
        let many = job.stages.len() > 1;
        for task in &self.failures {
            let stage = job.stages.iter().find(|s| s.stage == task.stage).map(|s| s.name.as_str()).unwrap_or_default();
            let name = if many { format!("{stage}/{}", task.task) } else { task.task.to_string() };
            out.push_str(&format!("failed: task {name} after {}: {}\n", human::plural(u64::from(task.attempt), "attempt"), why(task)));
        }
        let more = job.tasks.failed.saturating_sub(u64::try_from(self.failures.len()).unwrap_or(u64::MAX));
        if more > 0 {
            out.push_str(&format!("        and {}\n", human::plural(more, "more task")));
        }
        if job.tasks.failed > 0 {
            out.push_str(&format!("   logs: `{}`\n", self.logs_hint));
        }
        if !self.results_hint.is_empty() {
            out.push_str(&format!("results: {}\n", self.results_hint));
        }
        out
    }

    fn json(&self) -> Value {
        let mut json = to_json(&self.job);
        if let Value::Object(map) = &mut json {
            map.insert("failures".to_owned(), to_json(&self.failures));
        }
        json
    }

    fn quiet(&self) -> String {
        self.job.id.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::tests_support::job;
    use tidemill_api::TaskCounts;

    fn failed(task: u64, message: Option<&str>, exit: Option<i32>) -> TaskRow {
        let json = serde_json::json!({"stage": 0, "task": task, "attempt": 3, "state": "failed", "class": "exit", "exit": exit, "message": message,
            "worker": "w1", "started_at": null, "wait_us": 0, "stage_in_us": 0, "run_us": 0, "stage_out_us": 0, "cpu_us": 0, "peak_memory": 0});
        serde_json::from_value(json).unwrap()
    }

    fn closing() -> Closing {
        let tasks = TaskCounts { total: 100, succeeded: 93, failed: 7, ..TaskCounts::default() };
        Closing {
            job: job("failed", tasks),
            failures: vec![failed(4, Some("no such\nfile"), Some(1)), failed(9, None, Some(2))],
            elapsed: Some(Duration::from_secs(10)),
            results_hint: "out".to_owned(),
            logs_hint: "tidemill batch logs j1".to_owned(),
        }
    }

    #[test]
    fn a_summary_names_counts_rate_failures_and_the_next_step() {
        assert_eq!(
            closing().table(),
            "job j1 (thumbs) failed\n100 tasks: 93 succeeded, 7 failed in 10s (10.0/s)\n\
             failed: task 4 after 3 attempts: exit: no such file\nfailed: task 9 after 3 attempts: exit: exit code 2\n        and 5 more tasks\n   \
             logs: `tidemill batch logs j1`\nresults: out\n"
        );
    }

    #[test]
    fn json_has_the_words_that_scripts_rely_on() {
        let json = closing().json();
        assert_eq!(
            (json["state"].as_str(), json["tasks"]["succeeded"].as_u64(), json["attempts"].as_u64()),
            (Some("failed"), Some(93), Some(100))
        );
        assert_eq!(json["failures"][0]["task"], 4);
        assert_eq!(closing().quiet(), "j1");
    }
}
