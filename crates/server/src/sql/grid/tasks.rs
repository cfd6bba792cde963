//! `grid.tasks`.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use futures::stream::{self, BoxStream};
use futures::{StreamExt as _, TryStreamExt as _};
use tidemill_base::{Error, Result};
use tidemill_batch::store::read;
use tidemill_grid::{Outcome, Record};
use tidemill_query::{ColumnValues as V, Pages, Rows, Scan, Scanned, Source, TableData, TableSchema, Type};

use super::reader::{Reader, Session};

/// Rows of tasks without a result that are given at once.
const STEP: usize = 8_192;
/// Failures of a session that are looked at for those that are tried again.
const FAILURES: u64 = 10_000_000;

pub(super) struct Tasks(pub(super) Reader);

#[async_trait]
impl Source for Tasks {
    fn schema(&self) -> TableSchema {
        TableSchema::new(&[
            ("session", Type::Text),
            ("task", Type::UInt),
            ("state", Type::Text),
            ("attempts", Type::UInt),
            ("class", Type::Text),
            ("message", Type::Text),
            ("run_us", Type::UInt),
            ("made_by", Type::Text),
        ])
    }

    async fn scan(&self, want: &Scan) -> Result<Scanned> {
        let sessions = self.0.wanted(want).await?;
        let reader = self.0.clone();
        let pages = Pages::new(move || {
            let reader = reader.clone();
            stream::iter(sessions.clone()).flat_map(move |session| of_session(reader.clone(), session))
        });
        Ok(pages.into())
    }
}

/// One row of the table.
#[derive(Debug, Clone, Default)]
struct Line {
    task: u64,
    state: &'static str,
    attempts: u32,
    class: Option<String>,
    message: Option<String>,
    run_us: Option<u64>,
    made_by: Option<String>,
}

impl Line {
    fn of(record: &Record) -> Self {
        let (state, class, message) = match &record.outcome {
            Outcome::Value(..) => ("succeeded", None, None),
            Outcome::Failed { class: None, message } => ("skipped", None, Some(message.clone())),
            Outcome::Failed { class, message } => ("failed", class.clone(), Some(message.clone())),
            Outcome::Cancelled { message } => ("cancelled", None, Some(message.clone())),
        };
        let ran = record.attempt > 0;
        let (run_us, made_by) = (ran.then_some(record.run_us), ran.then(|| record.made_by.to_string()));
        Self { task: record.task, state, attempts: record.attempt, class, message, run_us, made_by }
    }
}

/// What is left when all that was delivered has been read.
#[derive(Default)]
struct Rest {
    /// Tasks with a result, as runs: first to one past the last.
    done: BTreeMap<u64, u64>,
    /// Tasks that failed. A retry may have brought a result since, and takes them out.
    failed: BTreeMap<u64, Line>,
}

impl Rest {
    /// Takes note of what was delivered; the rows of results can be given at once.
    fn take(&mut self, page: &[Record]) -> Vec<Line> {
        let mut out = Vec::new();
        for record in page {
            let line = Line::of(record);
            if record.value().is_some() {
                self.failed.remove(&record.task);
                self.mark(record.task);
                out.push(line);
            } else {
                self.failed.insert(record.task, line);
            }
        }
        out
    }

    fn mark(&mut self, task: u64) {
        let before = self.done.range(..=task).next_back().map(|(first, end)| (*first, *end));
        let first = match before {
            Some((_, end)) if end > task => return,
            Some((first, end)) if end == task => first,
            _ => task,
        };
        let end = self.done.remove(&(task + 1)).unwrap_or(task + 1);
        self.done.insert(first, end);
    }

    /// The rows of all tasks up to `total` that have no result. `again` are those that will be tried again, and `state` is that of the others.
    fn lines(&self, total: u64, again: &BTreeSet<u64>, state: &'static str) -> Vec<Line> {
        let mut out = Vec::new();
        let mut at = 0;
        let ends = self.done.iter().map(|(first, end)| (*first, *end)).chain([(total, total)]);
        for (first, end) in ends {
            for task in at..first.min(total) {
                let line = match self.failed.get(&task) {
                    _ if again.contains(&task) => Line { task, state: "retrying", ..Line::default() },
                    Some(line) => line.clone(),
                    None => Line { task, state, ..Line::default() },
                };
                out.push(line);
            }
            at = end;
        }
        out
    }
}

/// A session's rows: results as they are read, then all the other tasks.
fn of_session(reader: Reader, session: Session) -> BoxStream<'static, Result<Rows>> {
    enum At {
        Reading(BoxStream<'static, Result<(u64, Vec<Record>)>>, Box<Rest>),
        Left(std::vec::IntoIter<Line>),
    }
    let begin = At::Reading(reader.records(&session, 0, false), Box::default());
    stream::try_unfold(begin, move |mut at| {
        let (reader, session) = (reader.clone(), session.clone());
        async move {
            loop {
                let (lines, next) = match at {
                    At::Reading(mut records, mut rest) => match records.try_next().await? {
                        Some((_, page)) => (rest.take(&page), At::Reading(records, rest)),
                        None => (Vec::new(), At::Left(left(&reader, &session, &rest).await?.into_iter())),
                    },
                    At::Left(mut lines) => {
                        let step: Vec<Line> = lines.by_ref().take(STEP).collect();
                        if step.is_empty() {
                            return Ok::<_, Error>(None);
                        }
                        (step, At::Left(lines))
                    }
                };
                at = next;
                if !lines.is_empty() {
                    return Ok(Some((Rows::Table(table(&session, lines)?), at)));
                }
            }
        }
    })
    .boxed()
}

async fn left(reader: &Reader, session: &Session, rest: &Rest) -> Result<Vec<Line>> {
    let Some(row) = &session.row else {
        let manifest = reader.archive().manifest(&session.id).await?;
        return Ok(rest.lines(manifest.tasks, &BTreeSet::new(), "cancelled"));
    };
    let total = read::stages(reader.ledger(), Some(&session.id)).await?.first().map_or(0, |s| s.total);
    let failures = read::exceptions(reader.ledger(), &session.id, None, FAILURES).await?;
    let again = failures.iter().filter(|e| !e.dead).map(|e| e.task).collect();
    let state = if row.state.is_final() { "cancelled" } else { "waiting" };
    Ok(rest.lines(total, &again, state))
}

fn table(session: &Session, lines: Vec<Line>) -> Result<TableData> {
    let n = lines.len();
    TableData::with_rows(n)
        .column("session", V::Dict { rows: vec![0; n], words: vec![session.id.clone()] })?
        .column("task", V::UInt(lines.iter().map(|l| l.task).collect()))?
        .column("state", V::Text(lines.iter().map(|l| l.state.to_owned()).collect()))?
        .column("attempts", V::UInt(lines.iter().map(|l| u64::from(l.attempts)).collect()))?
        .column("class", V::TextOpt(lines.iter().map(|l| l.class.clone()).collect()))?
        .column("message", V::TextOpt(lines.iter().map(|l| l.message.clone()).collect()))?
        .column("run_us", V::UIntOpt(lines.iter().map(|l| l.run_us).collect()))?
        .column("made_by", V::TextOpt(lines.into_iter().map(|l| l.made_by).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn value(task: u64) -> Record {
        Record { task, attempt: 1, run_us: 5, made_by: "w".into(), outcome: Outcome::Value(0, Bytes::new()) }
    }

    fn failed(task: u64, class: Option<&str>) -> Record {
        let outcome = Outcome::Failed { class: class.map(str::to_owned), message: "why".into() };
        Record { outcome, attempt: u32::from(class.is_some()), ..value(task) }
    }

    #[test]
    fn every_task_has_one_row_and_the_last_word_counts() {
        let mut rest = Rest::default();
        let first = rest.take(&[value(2), failed(0, Some("error")), value(3), value(1), failed(5, None)]);
        assert_eq!(first.iter().map(|l| l.task).collect::<Vec<_>>(), [2, 3, 1]);
        // Task 0 was tried again and has a result now; task 7 is being tried again.
        assert_eq!(rest.take(&[value(0), failed(7, Some("error"))]).len(), 1);
        assert_eq!(rest.done, [(0, 4)].into());
        let left = rest.lines(9, &[7].into(), "waiting");
        let shown: Vec<(u64, &str)> = left.iter().map(|l| (l.task, l.state)).collect();
        assert_eq!(shown, [(4, "waiting"), (5, "skipped"), (6, "waiting"), (7, "retrying"), (8, "waiting")]);
        assert!(rest.lines(4, &BTreeSet::new(), "waiting").is_empty());
    }
}
