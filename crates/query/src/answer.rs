//! Rows as they are made, within the time and the number that the statement may have.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use datafusion::arrow::array::{RecordBatch, RecordBatchOptions};
use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};
use futures::Stream;
use tidemill_base::{Error, Result};
use tidemill_runtime::{Stopwatch, timeout};

use crate::run::Running;

/// The time that is left for a statement.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    started: Stopwatch,
    limit: Duration,
}

impl Deadline {
    pub(crate) const fn new(started: Stopwatch, limit: Duration) -> Self {
        Self { started, limit }
    }

    /// The future's value, or `Unavailable` when the statement's time runs out first.
    pub(crate) async fn run<T>(self, future: impl Future<Output = T>) -> Result<T> {
        let left = self.limit.saturating_sub(self.started.elapsed());
        let late = || {
            let limit = self.limit;
            Error::unavailable(format!("the statement took longer than {limit:?}; read fewer rows, or raise the timeout of SQL"))
        };
        if left.is_zero() {
            return Err(late());
        }
        timeout(left, "the statement", future).await.map_err(|_| late())
    }
}

/// A column of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnswerColumn {
    /// Its name. Names are unique in an answer: a second `id` is `id_2`.
    pub name: String,
    /// Its type in Arrow's words, such as `Int64`, `Utf8View` or `Timestamp(µs, "+00:00")`.
    pub kind: String,
}

/// The answer to a statement: its columns at once, its rows as they are made. Dropping it stops the work and frees its memory.
pub struct Answer {
    schema: SchemaRef,
    running: Option<Running>,
    deadline: Deadline,
    max_rows: u64,
    rows: u64,
    cut: bool,
    is_cut: bool,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").field("columns", &self.columns()).field("rows", &self.rows).finish_non_exhaustive()
    }
}

impl Answer {
    pub(crate) fn new(running: Running, deadline: Deadline, max_rows: u64, cut: bool) -> Self {
        let schema = unique_names(running.schema());
        Self { schema, running: Some(running), deadline, max_rows, rows: 0, cut, is_cut: false }
    }

    /// The columns, in order; there before any row and without any.
    pub fn columns(&self) -> Vec<AnswerColumn> {
        self.schema.fields().iter().map(|f| AnswerColumn { name: f.name().clone(), kind: f.data_type().to_string() }).collect()
    }

    /// The columns as Arrow has them.
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// Rows given so far.
    pub const fn rows(&self) -> u64 {
        self.rows
    }

    /// Whether rows were left out at the row limit, which happens only to who asked for it by [`crate::Limits::cut`].
    pub const fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// The next rows, or `None` after the last. After an error or the end there are no more.
    pub async fn next(&mut self) -> Result<Option<RecordBatch>> {
        let got = self.advance().await;
        if !matches!(got, Ok(Some(_))) || self.is_cut {
            // What ran for this statement ends now, and not when the caller gets round to dropping the answer.
            self.running = None;
        }
        got
    }

    async fn advance(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            let Some(running) = self.running.as_mut() else { return Ok(None) };
            let Some(batch) = self.deadline.run(running.next()).await?.transpose()? else { return Ok(None) };
            if batch.num_rows() > 0 {
                return self.within_limit(batch).map(Some);
            }
        }
    }

    fn within_limit(&mut self, batch: RecordBatch) -> Result<RecordBatch> {
        let left = usize::try_from(self.max_rows - self.rows).unwrap_or(usize::MAX);
        let kept = batch.num_rows().min(left);
        if kept < batch.num_rows() {
            if !self.cut {
                let most = self.max_rows;
                return Err(Error::exhausted(format!("the answer has more than {most} rows; add LIMIT, or raise the row limit of SQL")));
            }
            self.is_cut = true;
        }
        self.rows += u64::try_from(kept).unwrap_or(u64::MAX);
        let columns = batch.columns().iter().map(|c| c.slice(0, kept)).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(kept));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)
            .map_err(|e| Error::internal("the rows are not of the type that was announced").with_source(e))
    }

    /// The rows as a stream, for who needs one.
    pub fn into_stream(self) -> impl Stream<Item = Result<RecordBatch>> + Send {
        futures::stream::unfold(self, |mut answer| async move { answer.next().await.transpose().map(|batch| (batch, answer)) })
    }

    /// All rows. They are held in memory at once, so this is for answers known to be small.
    pub async fn collect(mut self) -> Result<Vec<RecordBatch>> {
        let mut batches = Vec::new();
        while let Some(batch) = self.next().await? {
            batches.push(batch);
        }
        Ok(batches)
    }
}

/// SQL allows two columns of one name, objects in JSON do not. Nullability is dropped as well: batches differ in it.
fn unique_names(schema: &Schema) -> SchemaRef {
    let mut names: Vec<String> = Vec::with_capacity(schema.fields().len());
    let mut fields = Vec::with_capacity(schema.fields().len());
    for field in schema.fields() {
        let mut name = field.name().clone();
        let mut n = 2;
        while names.contains(&name) {
            name = format!("{}_{n}", field.name());
            n += 1;
        }
        names.push(name.clone());
        fields.push(Field::new(name, field.data_type().clone(), true));
    }
    Arc::new(Schema::new(fields))
}
