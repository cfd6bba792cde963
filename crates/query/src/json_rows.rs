//! JSON documents as rows with real columns: the columns are those that the documents have.
//!
//! An object is a row, an array a row for each element, and anything else a row with the one column `value`. A column is of the narrowest
//! type that holds all its values: a number of which some are whole is a number with a fraction, and what is nested or of several kinds is
//! text (nested values as JSON). Columns are in the order of their names, so that the order in which documents came does not show.

use std::collections::BTreeMap;

use serde_json::Value;
use tidemill_base::{Error, Result};

use crate::{ColumnValues, Scan, TableData, TableSchema, Type};

/// The column of documents that are no objects.
const VALUE: &str = "value";
/// The columns that every table has before those of its documents: the document's number, and the row's number within it.
pub(crate) const OWN: [&str; 2] = ["_task", "_row"];
/// The most columns.
const MAX_COLUMNS: usize = 2_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Kind {
    /// Only nulls so far.
    #[default]
    Nothing,
    Bool,
    Int,
    Real,
    Text,
}

impl Kind {
    fn of(value: &Value) -> Self {
        match value {
            Value::Null => Self::Nothing,
            Value::Bool(_) => Self::Bool,
            Value::Number(n) if n.is_i64() => Self::Int,
            Value::Number(_) => Self::Real,
            Value::String(_) | Value::Array(_) | Value::Object(_) => Self::Text,
        }
    }

    const fn with(self, other: Self) -> Self {
        match (self, other) {
            (Self::Nothing, kind) | (kind, Self::Nothing) => kind,
            (Self::Bool, Self::Bool) => Self::Bool,
            (Self::Int, Self::Int) => Self::Int,
            (Self::Int | Self::Real, Self::Int | Self::Real) => Self::Real,
            _ => Self::Text,
        }
    }
}

/// What is known of the columns of some documents. It grows with every document that is looked at.
#[derive(Debug, Clone, Default)]
pub struct JsonRows {
    kinds: BTreeMap<String, Kind>,
}

impl JsonRows {
    /// Takes note of a document's columns. `Invalid` when it is not JSON, or there are too many columns.
    pub fn learn(&mut self, task: u64, document: &[u8]) -> Result<()> {
        for row in rows(parse(task, document)?) {
            match row {
                Value::Object(fields) => fields.iter().for_each(|(name, value)| self.note(name, value)),
                value => self.note(VALUE, &value),
            }
        }
        if self.kinds.len() > MAX_COLUMNS {
            return Err(Error::invalid(format!(
                "the results up to task {task} have more than {MAX_COLUMNS} different fields; give names as values, and not as fields"
            )));
        }
        Ok(())
    }

    fn note(&mut self, name: &str, value: &Value) {
        let kind = Kind::of(value);
        match self.kinds.get_mut(name) {
            Some(have) => *have = have.with(kind),
            None => drop(self.kinds.insert(name.to_owned(), kind)),
        }
    }

    /// `_task`, `_row`, and the documents' columns.
    pub fn schema(&self) -> TableSchema {
        let own = OWN.iter().map(|name| ((*name).to_owned(), Type::UInt));
        let theirs =
            self.kinds.iter().filter(|(name, _)| !OWN.contains(&name.as_str())).map(|(name, kind)| (name.clone(), kind_type(*kind)));
        TableSchema::new(&own.chain(theirs).collect::<Vec<_>>())
    }

    /// The rows of documents, in those columns of [`JsonRows::schema`] that the scan reads. `Invalid` names the document that is not JSON.
    pub fn rows<'a>(&self, documents: impl IntoIterator<Item = (u64, &'a [u8])>, want: &Scan) -> Result<TableData> {
        let (mut tasks, mut numbers) = (Vec::new(), Vec::new());
        let mut columns: Vec<(&str, Cells)> = self
            .kinds
            .iter()
            .filter(|(n, _)| want.reads(n) && !OWN.contains(&n.as_str()))
            .map(|(n, k)| (n.as_str(), Cells::new(*k)))
            .collect();
        for (task, document) in documents {
            for (number, row) in (0_u64..).zip(rows(parse(task, document)?)) {
                tasks.push(task);
                numbers.push(number);
                let mut row = match row {
                    Value::Object(fields) => fields,
                    value => [(VALUE.to_owned(), value)].into_iter().collect(),
                };
                columns.iter_mut().for_each(|(name, cells)| cells.push(row.remove(*name).unwrap_or(Value::Null)));
            }
        }
        let mut table =
            TableData::with_rows(tasks.len()).column(OWN[0], ColumnValues::UInt(tasks))?.column(OWN[1], ColumnValues::UInt(numbers))?;
        for (name, cells) in columns {
            table = table.column(name, cells.values())?;
        }
        Ok(table)
    }
}

const fn kind_type(kind: Kind) -> Type {
    match kind {
        Kind::Bool => Type::Bool,
        Kind::Int => Type::Int,
        Kind::Real => Type::Real,
        Kind::Text | Kind::Nothing => Type::Text,
    }
}

fn parse(task: u64, document: &[u8]) -> Result<Value> {
    serde_json::from_slice(document).map_err(|e| {
        Error::invalid(format!("the result of task {task} is not JSON ({e}); `grid.results` has it with the others as they are"))
            .with_source(e)
    })
}

fn rows(document: Value) -> Vec<Value> {
    match document {
        Value::Array(rows) => rows,
        row => vec![row],
    }
}

/// The cells of one column. What came after its type was settled and does not fit is null.
enum Cells {
    Bool(Vec<Option<bool>>),
    Int(Vec<Option<i64>>),
    Real(Vec<Option<f64>>),
    Text(Vec<Option<String>>),
}

impl Cells {
    const fn new(kind: Kind) -> Self {
        match kind {
            Kind::Bool => Self::Bool(Vec::new()),
            Kind::Int => Self::Int(Vec::new()),
            Kind::Real => Self::Real(Vec::new()),
            Kind::Text | Kind::Nothing => Self::Text(Vec::new()),
        }
    }

    fn push(&mut self, value: Value) {
        match self {
            Self::Bool(cells) => cells.push(value.as_bool()),
            Self::Int(cells) => cells.push(value.as_i64()),
            Self::Real(cells) => cells.push(value.as_f64()),
            Self::Text(cells) => cells.push(match value {
                Value::Null => None,
                Value::String(text) => Some(text),
                other => Some(other.to_string()),
            }),
        }
    }

    fn values(self) -> ColumnValues {
        match self {
            Self::Bool(cells) => ColumnValues::BoolOpt(cells),
            Self::Int(cells) => ColumnValues::IntOpt(cells),
            Self::Real(cells) => ColumnValues::RealOpt(cells),
            Self::Text(cells) => ColumnValues::TextOpt(cells),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ColumnValues as V;

    const DOCUMENTS: [&[u8]; 4] = [
        br#"{"book": "A", "pnl": 1, "ok": true, "tags": ["x"]}"#,
        br#"[{"book": "B", "pnl": 2.5, "n": 1}, {"book": "C", "pnl": null, "n": 2}]"#,
        br"7",
        br"[]",
    ];

    #[test]
    fn columns_are_as_narrow_as_all_their_values_allow() {
        let mut known = JsonRows::default();
        for (task, document) in (5..).zip(DOCUMENTS) {
            known.learn(task, document).unwrap();
        }
        let schema = known.schema();
        let columns: Vec<(&str, Type)> = schema.columns().collect();
        let expected = [
            ("_task", Type::UInt),
            ("_row", Type::UInt),
            ("book", Type::Text),
            ("n", Type::Int),
            ("ok", Type::Bool),
            ("pnl", Type::Real),
            ("tags", Type::Text),
            ("value", Type::Int),
        ];
        assert_eq!(columns, expected);
        let want = Scan::new(columns.iter().map(|(n, _)| (*n).to_owned()).filter(|n| n != "ok").collect(), None);
        let table = known.rows((5..).zip(DOCUMENTS), &want).unwrap();
        assert_eq!(table.get("_task"), Some(&V::UInt(vec![5, 6, 6, 7])));
        assert_eq!(table.get("_row"), Some(&V::UInt(vec![0, 0, 1, 0])));
        assert_eq!(table.get("pnl"), Some(&V::RealOpt(vec![Some(1.0), Some(2.5), None, None])));
        assert_eq!(table.get("tags"), Some(&V::TextOpt(vec![Some("[\"x\"]".into()), None, None, None])));
        assert_eq!(table.get("value"), Some(&V::IntOpt(vec![None, None, None, Some(7)])));
        assert_eq!(table.get("ok"), None, "a column that is not read is not made");
    }

    #[test]
    fn what_is_of_several_kinds_is_text_and_what_is_not_json_is_named() {
        let mut known = JsonRows::default();
        known.learn(0, b"[1, \"two\", null]").unwrap();
        let want = Scan::new(vec!["value".into()], None);
        let table = known.rows([(0, &b"[1, \"two\", null]"[..])], &want).unwrap();
        assert_eq!(table.get("value"), Some(&V::TextOpt(vec![Some("1".into()), Some("two".into()), None])));
        let error = known.learn(9, b"{\"pnl\": NaN}").unwrap_err().to_string();
        assert!(error.contains("task 9 is not JSON"), "{error}");
    }
}
