//! A catalog's table as a source of the engine: rows made anew for each statement, few as they are.

use std::collections::BTreeMap;
use std::sync::Weak;

use async_trait::async_trait;
use tidemill_base::{Error, Result};
use tidemill_query::{ColumnValues, Engine, Scan, Scanned, Source, TableData, TableSchema, Type};

use super::relations;
use super::rows::{Context, Rows};

/// One value of a row.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Cell {
    Int(i64),
    Bool(bool),
    Text(String),
}

impl From<u32> for Cell {
    fn from(n: u32) -> Self {
        Self::Int(i64::from(n))
    }
}

impl From<i64> for Cell {
    fn from(n: i64) -> Self {
        Self::Int(n)
    }
}

impl From<bool> for Cell {
    fn from(b: bool) -> Self {
        Self::Bool(b)
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

/// The columns of a row that have something to say; truths are false where they have not.
pub(crate) type Row = BTreeMap<&'static str, Cell>;

pub(super) struct Catalog {
    columns: TableSchema,
    rows: Rows,
    /// What a number is that a row does not speak of: PostgreSQL's own tables have 0 there, the standard's have null.
    absent: Option<i64>,
    // The engine holds its sources, so a source does not hold the engine.
    engine: Weak<Engine>,
    version: String,
}

impl Catalog {
    pub(super) const fn new(columns: TableSchema, rows: Rows, absent: Option<i64>, engine: Weak<Engine>, version: String) -> Self {
        Self { columns, rows, absent, engine, version }
    }
}

#[async_trait]
impl Source for Catalog {
    fn schema(&self) -> TableSchema {
        self.columns.clone()
    }

    async fn scan(&self, _want: &Scan) -> Result<Scanned> {
        let engine = self.engine.upgrade().ok_or_else(|| Error::unavailable("the SQL engine is closing"))?;
        let context = Context { relations: relations(&engine), version: self.version.clone() };
        let rows = self.rows.make(&context);
        let mut table = TableData::with_rows(rows.len());
        for (name, kind) in self.columns.columns() {
            table = table.column(name, values(&rows, name, kind, self.absent))?;
        }
        Ok(table.into())
    }
}

fn values(rows: &[Row], name: &str, kind: Type, absent: Option<i64>) -> ColumnValues {
    let cells = || rows.iter().map(|row| row.get(name));
    let number = |cell: Option<&Cell>| if let Some(Cell::Int(n)) = cell { Some(*n) } else { absent };
    match kind {
        Type::Int | Type::UInt => ColumnValues::IntOpt(cells().map(number).collect()),
        Type::Real => ColumnValues::RealOpt(cells().map(|cell| number(cell).map(|n| n as f64)).collect()),
        Type::Bool => ColumnValues::Bool(cells().map(|cell| cell == Some(&Cell::Bool(true))).collect()),
        Type::Time => ColumnValues::TimeMicrosOpt(vec![None; rows.len()]),
        Type::Text => {
            let text = |cell: Option<&Cell>| if let Some(Cell::Text(text)) = cell { Some(text.clone()) } else { None };
            ColumnValues::TextOpt(cells().map(text).collect())
        }
    }
}
