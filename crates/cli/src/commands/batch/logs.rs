//! `tidemill batch logs`.

use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use tidemill_api::{JobDetail, TaskRow};
use tidemill_base::{Error, Result};
use tidemill_client::{Client, LogQuery, TaskFilter, is_final};
use tidemill_runtime::sleep;

use crate::context::Context;
use crate::exit::Exit;
use crate::output::{Format, View, note, write_bytes};

/// Between two looks at a log that grows.
const LOOK_EVERY: Duration = Duration::from_millis(700);
/// Failed tasks whose logs are shown when no task is named.
const SHOWN: u32 = 10;

/// Show what tasks wrote to standard output and error: of one task, or of the failed ones.
#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// The job's id.
    id: String,
    /// The task: its number, or STAGE/TASK in a job of several stages [default: the failed tasks, or the only one].
    task: Option<String>,
    /// Which stream.
    #[arg(long, value_enum, default_value_t = Stream::Both)]
    stream: Stream,
    /// Of this attempt, from 1 [default: the last].
    #[arg(long, value_name = "N")]
    attempt: Option<u32>,
    /// Go on until the task has ended.
    #[arg(long, short)]
    follow: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Stream {
    Stdout,
    Stderr,
    Both,
}

/// Logs of tasks, as text.
struct Read(Vec<(u32, u64, String)>);

impl Logs {
    pub(crate) async fn run(self, cx: &Context) -> Result<Exit> {
        let client = cx.client()?;
        let job = client.job(&self.id).await?;
        let wanted = match &self.task {
            Some(text) => vec![parse_task(text, &job)?],
            None => self.default_tasks(&client, &job).await?,
        };
        if cx.format == Format::Json {
            return self.as_json(cx, &client, wanted).await;
        }
        for (stage, task) in &wanted {
            if wanted.len() > 1 {
                note(&format!("==> task {stage}/{task} <=="));
            }
            self.one(&client, *stage, *task).await?;
        }
        Ok(Exit::Success)
    }

    async fn default_tasks(&self, client: &Client, job: &JobDetail) -> Result<Vec<(u32, u64)>> {
        if job.tasks.failed > 0 {
            let filter = TaskFilter { state: Some("failed".to_owned()), limit: Some(SHOWN), ..TaskFilter::default() };
            let failed = client.tasks(&self.id, &filter).await?.tasks;
            let mut tasks: Vec<_> = failed.iter().map(|t: &TaskRow| (t.stage, t.task)).collect();
            tasks.dedup();
            return Ok(tasks);
        }
        if let ([stage], 1) = (job.stages.as_slice(), job.tasks.total) {
            return Ok(vec![(stage.stage, 0)]);
        }
        Err(Error::invalid(format!(
            "job {} has {} tasks and none has failed; name one: `tidemill batch logs {} TASK`",
            self.id, job.tasks.total, self.id
        )))
    }

    fn query(&self, stage: u32, task: u64) -> LogQuery {
        let stream = self.stream.to_possible_value().map(|v| v.get_name().to_owned());
        LogQuery { stage, task, stream, attempt: self.attempt }
    }

    async fn as_json(&self, cx: &Context, client: &Client, wanted: Vec<(u32, u64)>) -> Result<Exit> {
        let mut read = Vec::new();
        for (stage, task) in wanted {
            let log = client.logs(&self.id, &self.query(stage, task)).await?;
            read.push((stage, task, String::from_utf8_lossy(&log.bytes).into_owned()));
        }
        cx.show(&Read(read)).map(|()| Exit::Success)
    }

    async fn one(&self, client: &Client, stage: u32, task: u64) -> Result<()> {
        let mut seen = Vec::new();
        loop {
            let log = client.logs(&self.id, &self.query(stage, task)).await?;
            write_bytes(fresh(&seen, &log.bytes))?;
            let nothing_yet = seen.is_empty() && log.bytes.is_empty();
            // Between its last live copy and its final place a log is nowhere for a moment: what was seen stays seen.
            if !seen.starts_with(&log.bytes) {
                seen = log.bytes.to_vec();
            }
            let waits = log.live || (nothing_yet && !is_final(&client.job(&self.id).await?.state));
            if !self.follow || !waits {
                return Ok(());
            }
            sleep(LOOK_EVERY).await;
        }
    }
}

/// What of `now` has not been seen. A log that began anew (another attempt), or whose beginning was cut away, is shown from where the
/// two still agree, or from its start.
fn fresh<'n>(seen: &[u8], now: &'n [u8]) -> &'n [u8] {
    if now.starts_with(seen) {
        return &now[seen.len()..];
    }
    if seen.starts_with(now) {
        return &[];
    }
    // The beginning was cut away: the longest end of what was seen that the new text begins with.
    let longest = seen.len().min(now.len()).min(64 << 10);
    let overlap = (1..=longest).rev().find(|n| seen[seen.len() - n..] == now[..*n]).unwrap_or(0);
    &now[overlap..]
}

/// Reads `TASK` or `STAGE/TASK`, the stage by number or name.
fn parse_task(text: &str, job: &JobDetail) -> Result<(u32, u64)> {
    let (stage, task) = text.rsplit_once('/').map_or((None, text), |(s, t)| (Some(s), t));
    let task = task.parse().map_err(|_| Error::invalid(format!("`{text}` is not a task; write its number, or STAGE/TASK")))?;
    let names = || job.stages.iter().map(|s| s.name.as_str()).collect::<Vec<_>>().join(", ");
    match (stage, job.stages.as_slice()) {
        (None, [only]) => Ok((only.stage, task)),
        (None, _) => Err(Error::invalid(format!("job {} has the stages {}; write STAGE/{task}", job.id, names()))),
        (Some(word), stages) => {
            let found = stages.iter().find(|s| s.name == word).or_else(|| stages.iter().find(|s| word.parse() == Ok(s.stage)));
            found
                .map(|s| (s.stage, task))
                .ok_or_else(|| Error::invalid(format!("job {} has no stage `{word}`; it has {}", job.id, names())))
        }
    }
}

impl View for Read {
    fn table(&self) -> String {
        self.0.iter().map(|(_, _, text)| text.as_str()).collect()
    }

    fn json(&self) -> Value {
        self.0.iter().map(|(stage, task, log)| json!({"stage": stage, "task": task, "log": log})).collect()
    }

    fn quiet(&self) -> String {
        self.table()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::tests_support::{job, stage};
    use tidemill_api::TaskCounts;

    #[test]
    fn only_what_is_new_is_shown() {
        assert_eq!(fresh(b"one\n", b"one\ntwo\n"), b"two\n");
        assert_eq!(fresh(b"", b"one\n"), b"one\n");
        assert_eq!(fresh(b"one\n", b""), b"", "gone for a moment");
        assert_eq!(fresh(b"one\ntwo\n", b"two\nthree\n"), b"three\n");
        assert_eq!(fresh(b"old", b"new log"), b"new log");
    }

    #[test]
    fn tasks_are_named_by_number_and_stage() {
        let mut j = job("running", TaskCounts::default());
        assert_eq!(parse_task("7", &j).unwrap(), (0, 7));
        j.stages.push(tidemill_api::StageDetail { stage: 1, ..stage("pack", TaskCounts::default()) });
        assert_eq!(parse_task("pack/7", &j).unwrap(), (1, 7));
        assert_eq!(parse_task("1/7", &j).unwrap(), (1, 7));
        assert!(parse_task("7", &j).unwrap_err().message().contains("run, pack"));
        assert!(parse_task("x/7", &j).unwrap_err().message().contains("no stage `x`"));
        assert!(parse_task("seven", &j).unwrap_err().message().contains("`seven`"));
    }
}
