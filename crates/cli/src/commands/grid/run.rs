//! `tidemill grid run`.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};
use tidemill_api::JobDetail;
use tidemill_base::{ErrorKind, Result, RetryPolicy};
use tidemill_client::{Client, ResultEvent, Results, submission};
use tidemill_runtime::sleep;

use super::closing::{Closing, Failed, SHOWN_FAILURES, interrupted};
use super::options::SessionOptions;
use super::outcome::failure;
use super::sink::Sink;
use super::tasks::{Input, Tasks};
use crate::context::Context;
use crate::exit::Exit;
use crate::output::{View, note};
use crate::progress::{Style, Subject};
use crate::watch::{Watched, watch};

/// Tasks in one submission.
const PART_TASKS: usize = 100_000;
/// About so many bytes in one submission.
const PART_BYTES: usize = 16 << 20;

/// Call a function once for each value, line, row or number, or for each portion of rows, and wait for the results.
///
/// Tasks and results are JSON. A function is named by its module, which the engine imports, or by the name that the engine has for it.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  tidemill grid run --module math:sqrt --range 1-1000 --results roots.jsonl\n  \
tidemill grid run --module risk:value --csv trades.csv --setup market.json --retries 2 --timeout 30s\n  \
tidemill grid run --module risk:desk --from 's3://trades/2026-01-30/*.parquet' --group-by desk --results desks.jsonl\n  \
tidemill grid run --module risk:part --source book --query 'SELECT * FROM trades' --rows 500 --as arrow\n  \
echo '{\"type\":\"call\",\"spot\":60,\"strike\":65,\"rate\":0.08,\"volatility\":0.3,\"years\":0.25}' |\n    \
tidemill grid run --engine pricing --name european --json - --results -")]
pub(crate) struct Run {
    #[command(flatten)]
    input: Input,
    #[command(flatten)]
    options: SessionOptions,
    /// Where results go as they come: a file of JSON lines, `-` for standard output, or a folder (one that is there, or a name with a slash
    /// at the end) with a file for each.
    #[arg(long, value_name = "FILE|DIR")]
    results: Option<PathBuf>,
    /// Write results in the order in which they come, not in that of their tasks.
    #[arg(long, requires = "results")]
    unordered: bool,
    /// Print the session's id and do not wait.
    #[arg(long, conflicts_with = "results")]
    detach: bool,
}

/// A session that nobody waits for.
struct Opened {
    id: String,
    tasks: u64,
}

/// What came of reading all results.
#[derive(Debug, Default)]
struct Read {
    failures: Vec<Failed>,
}

impl Run {
    pub(crate) async fn run(self, cx: &Context) -> Result<Exit> {
        let tasks = self.input.read()?;
        let setup = self.options.setup()?;
        let sink = self.results.as_deref().map(|path| Sink::open(path, !self.unordered)).transpose()?;
        let client = cx.client()?;
        let request = self.options.request(&client, setup, self.input.encoding(), cx.env.id("cli-")).await?;
        let id = again(cx, async || client.open_session(&request).await).await?.id;
        let count = match submit(cx, &client, &id, &tasks).await {
            Ok(count) => count,
            Err(e) => {
                // Half of the tasks are of no use, and nobody else knows of the session.
                drop(client.cancel_session(&id).await);
                return Err(e);
            }
        };
        if self.detach {
            return cx.show(&Opened { id, tasks: count }).map(|()| Exit::Success);
        }
        note(&format!("session {id}"));
        let to_stdout = self.results.as_deref() == Some(Path::new("-"));
        // Bars would be torn apart by results that are written between them.
        let style = if to_stdout && cx.progress() == Style::Bars { Style::Lines } else { cx.progress() };
        let Some((read, job)) = wait(&client, &id, style, sink).await? else { return Ok(interrupted(cx, &id)) };
        let closing = Closing::new(cx, *job, read.failures, self.results.as_deref());
        closing.show(cx, to_stdout)
    }
}

/// Shows progress and reads results until both have come to their end; `None` when the person had enough.
async fn wait(client: &Client, id: &str, style: Style, sink: Option<Sink>) -> Result<Option<(Read, Box<JobDetail>)>> {
    let reading = read(client.session_results(id, 0, true), sink);
    let watching = watch(client, Subject::Session(id), style);
    tokio::pin!(reading, watching);
    // Whichever ends first, the other is waited for; but an interruption and an error end both.
    tokio::select! {
        biased;
        watched = &mut watching => match watched? {
            Watched::Ended(job) => Ok(Some((reading.await?, job))),
            Watched::Interrupted => Ok(None),
        },
        read = &mut reading => {
            let read = read?;
            match watching.await? {
                Watched::Ended(job) => Ok(Some((read, job))),
                Watched::Interrupted => Ok(None),
            }
        }
    }
}

/// Makes a call that carries a token again when its answer was lost.
async fn again<T>(cx: &Context, call: impl AsyncFn() -> Result<T>) -> Result<T> {
    let policy = RetryPolicy::default();
    let mut attempt = 1;
    loop {
        match call().await {
            Err(e) if e.kind() == ErrorKind::Unavailable && policy.allows_another(attempt) => {
                sleep(policy.delay(attempt, &cx.env)).await;
                attempt += 1;
            }
            outcome => return outcome,
        }
    }
}

/// Hands all tasks over, or has the grid make them, and closes the session. How many there are.
async fn submit(cx: &Context, client: &Client, id: &str, tasks: &Tasks) -> Result<u64> {
    let mut from = 0;
    if let Tasks::Rows(rows) = tasks {
        let request = rows.request(cx, client).await?;
        from = again(cx, async || client.tasks_from(id, &request).await).await?.count;
    }
    while from < tasks.len() {
        let part = tasks.part(from, PART_TASKS, PART_BYTES);
        let (bytes, token) = (submission(&part)?, cx.env.id("cli-"));
        let taken = again(cx, async || client.submit_tasks(id, bytes.clone(), Some(&token)).await).await?;
        from += taken.count;
    }
    again(cx, async || client.close_session(id).await).await?;
    Ok(from)
}

async fn read(mut results: Results, mut sink: Option<Sink>) -> Result<Read> {
    let mut read = Read::default();
    while let Some(event) = results.next().await? {
        // That the server went away is said by whoever watches.
        let ResultEvent::Delivery { outcomes, .. } = event else { continue };
        for outcome in outcomes.iter().filter(|o| !o.ok).take(SHOWN_FAILURES.saturating_sub(read.failures.len())) {
            read.failures.push(Failed { task: outcome.task, why: failure(outcome) });
        }
        if let Some(sink) = &mut sink {
            sink.take(outcomes)?;
        }
    }
    sink.map_or(Ok(()), Sink::finish)?;
    Ok(read)
}

impl View for Opened {
    fn table(&self) -> String {
        format!("{}\n", self.id)
    }

    fn json(&self) -> Value {
        json!({"id": self.id, "tasks": self.tasks})
    }

    fn quiet(&self) -> String {
        self.id.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Only {
        #[command(flatten)]
        run: Run,
    }

    #[tokio::test]
    async fn what_is_wrong_is_said_before_a_server_is_looked_for() {
        let cx = Context::new(Some(PathBuf::from("/nowhere")), crate::output::Format::Table);
        let run = |words: &str| Only::try_parse_from(std::iter::once("run").chain(words.split(' ')));
        for (words, want) in [
            ("--module a:b --range 9-1", "--range"),
            ("--module a:b --json /nowhere/x", "--json /nowhere/x cannot be read"),
            ("--module a:b --range 1-2 --setup /nowhere/x", "--setup /nowhere/x cannot be read"),
            ("--module a:b --range 1-2 --results /nowhere/x", "cannot be written to /nowhere/x"),
            ("--module a:b --range 1-2 --rows 3", "--rows is about rows"),
            ("--module a:b --from /nowhere/*.csv", "matches no file"),
            ("--module a:b --source book", "needs --query"),
        ] {
            let error = run(words).unwrap().run.run(&cx).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{words}: {error}");
            assert!(error.message().contains(want), "{words}: {error}");
        }
        let error = run("--module a:b --range 1-2").unwrap().run.run(&cx).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        for words in [
            "--range 1-2",
            "--module a:b",
            "--module a:b --name c --range 1-2",
            "--module a:b --range 1-2 --json -",
            "--module a:b --from x --source y",
        ] {
            assert!(run(words).is_err(), "{words}");
        }
    }
}
