//! What a system implements to have a table in SQL.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use object_store::path::Path;
use tidemill_base::Result;

use crate::{TableData, TableSchema};

/// A table that the engine can read. One scan is one consistent look: rows must not be both in `tables` and in `segments`.
#[async_trait]
pub trait Source: Send + Sync {
    /// The columns. They must not change while the source is registered; register again to change them.
    fn schema(&self) -> TableSchema;

    /// The rows that a statement may need. A source leaves out what `want` rules out if that is cheap, and may always give more: the
    /// engine filters again.
    async fn scan(&self, want: &Scan) -> Result<Scanned>;
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
}

impl From<TableData> for Scanned {
    fn from(table: TableData) -> Self {
        Self { tables: vec![table], segments: Vec::new() }
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
