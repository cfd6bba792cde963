//! What a system implements to have a table in SQL.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use futures::Stream;
use futures::stream::BoxStream;
use object_store::path::Path;
use tidemill_base::Result;

use crate::{TableData, TableSchema};

/// A table that the engine can read. One scan is one consistent look: rows must not be both in `tables` and in `segments`.
#[async_trait]
pub trait Source: Send + Sync {
    /// The columns. They must not change while the source is registered; register again to change them.
    fn schema(&self) -> TableSchema;

    /// The columns in Arrow's types, for a source whose pages are Arrow's own ([`Rows::Arrow`]) and have more types than [`Self::schema`]
    /// can say. It goes before that.
    fn arrow_schema(&self) -> Option<SchemaRef> {
        None
    }

    /// The rows that a statement may need. A source leaves out what `want` rules out if that is cheap, and may always give more: the
    /// engine filters again.
    async fn scan(&self, want: &Scan) -> Result<Scanned>;
}

/// Tables that are made when a statement names them: one for each of something, too many to register and to list.
#[async_trait]
pub trait Family: Send + Sync {
    /// The table of that name. `NotFound` says what there is instead; `Invalid` why it cannot be a table.
    async fn table(&self, name: &str) -> Result<Arc<dyn Source>>;
}

/// What a statement needs from a table.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scan {
    columns: Vec<String>,
    words: BTreeMap<String, BTreeSet<String>>,
    ranges: BTreeMap<String, (i64, i64)>,
    limit: Option<usize>,
}

impl Scan {
    pub(crate) const fn new(columns: Vec<String>, limit: Option<usize>) -> Self {
        Self { columns, words: BTreeMap::new(), ranges: BTreeMap::new(), limit }
    }

    /// The columns that are read; live tables need hold no others. Empty for `count(*)`.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// Whether the column is read.
    pub fn reads(&self, column: &str) -> bool {
        self.columns.iter().any(|c| c == column)
    }

    /// The only values of a text column that can matter (from `=` and `IN`); `None` when any can.
    pub fn words(&self, column: &str) -> Option<&BTreeSet<String>> {
        self.words.get(column)
    }

    /// Whether rows with this value in a text column can matter.
    pub fn wants(&self, column: &str, word: &str) -> bool {
        self.words.get(column).is_none_or(|set| set.contains(word))
    }

    /// The only values of a time (microseconds since the epoch) or number column that can matter, both ends included; `None` when
    /// any can. An impossible range has its low end above its high end.
    pub fn range(&self, column: &str) -> Option<(i64, i64)> {
        self.ranges.get(column).copied()
    }

    /// Whether rows whose values in a time or number column lie between `low` and `high`, both included, can matter.
    pub fn overlaps(&self, column: &str, low: i64, high: i64) -> bool {
        self.ranges.get(column).is_none_or(|(from, to)| *from <= high && low <= *to && from <= to)
    }

    /// No more rows than these are needed, when that is known.
    pub const fn limit(&self) -> Option<usize> {
        self.limit
    }

    /// Narrows a text column to `words` as well.
    pub(crate) fn narrow_words(&mut self, column: &str, words: BTreeSet<String>) {
        match self.words.get_mut(column) {
            Some(have) => have.retain(|w| words.contains(w)),
            None => drop(self.words.insert(column.to_owned(), words)),
        }
    }

    /// Narrows a time or number column to `low..=high` as well.
    pub(crate) fn narrow_range(&mut self, column: &str, low: i64, high: i64) {
        let have = self.ranges.entry(column.to_owned()).or_insert((i64::MIN, i64::MAX));
        *have = (have.0.max(low), have.1.min(high));
    }
}

/// What a source answers.
#[derive(Debug, Clone, Default)]
pub struct Scanned {
    /// Rows in memory. Each holds at least the columns that the scan reads.
    pub tables: Vec<TableData>,
    /// Rows in Parquet, read by the engine with only the columns, row groups and pages that the statement needs.
    pub segments: Vec<SegmentRef>,
    /// Rows that are read while the statement runs, so that a large table is never in memory as a whole.
    pub pages: Vec<Pages>,
}

/// Rows of one page.
#[derive(Debug, Clone)]
pub enum Rows {
    /// At least the columns that the scan reads.
    Table(TableData),
    /// Likewise, for a source with an [`Source::arrow_schema`].
    Arrow(RecordBatch),
}

/// Pages of rows, read one after the other. A plan may read them more than once, and each time from the beginning; what a statement has no
/// use for any more is not read.
#[derive(Clone)]
pub struct Pages(Arc<dyn Fn() -> BoxStream<'static, Result<Rows>> + Send + Sync>);

impl Pages {
    /// Pages from a stream that `begin` makes.
    pub fn new<S>(begin: impl Fn() -> S + Send + Sync + 'static) -> Self
    where
        S: Stream<Item = Result<Rows>> + Send + 'static,
    {
        Self(Arc::new(move || Box::pin(begin())))
    }

    pub(crate) fn begin(&self) -> BoxStream<'static, Result<Rows>> {
        (self.0)()
    }
}

impl fmt::Debug for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pages")
    }
}

impl From<Pages> for Scanned {
    fn from(pages: Pages) -> Self {
        Self { pages: vec![pages], ..Self::default() }
    }
}

impl From<TableData> for Scanned {
    fn from(table: TableData) -> Self {
        Self { tables: vec![table], ..Self::default() }
    }
}

/// One Parquet object, as [`crate::parquet::encode`] writes it. Segments never change: the engine remembers their footers by path,
/// and answers `count(*)` from `rows` without opening them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentRef {
    /// Where it is in the object store that the engine was given.
    pub path: Path,
    /// Its rows.
    pub rows: u64,
    /// Its length in bytes; it must be exact, because the footer is read from the end.
    pub bytes: u64,
}
