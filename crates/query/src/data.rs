//! Columns as a caller has them, with no Arrow in sight, and their way into Arrow.

use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, RecordBatchOptions, StringViewArray, StringViewBuilder,
    TimestampMicrosecondArray, UInt64Array,
};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use tidemill_base::{Error, Result};

/// The type of a column. Every column may hold nulls, so that a segment written before a column existed can still be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Type {
    /// A signed 64-bit number; SQL `BIGINT`.
    Int,
    /// An unsigned 64-bit number; SQL `BIGINT UNSIGNED`.
    UInt,
    /// A 64-bit floating point number; SQL `DOUBLE`. Not-a-number and the infinities are `null` in JSON.
    Real,
    /// UTF-8 text; SQL `VARCHAR`.
    Text,
    /// SQL `BOOLEAN`.
    Bool,
    /// Microseconds since 1970-01-01T00:00:00Z; SQL `TIMESTAMP WITH TIME ZONE`, shown in UTC.
    Time,
}

impl Type {
    /// How Arrow and Parquet hold it.
    fn arrow(self) -> DataType {
        match self {
            Self::Int => DataType::Int64,
            Self::UInt => DataType::UInt64,
            Self::Real => DataType::Float64,
            Self::Text => DataType::Utf8View,
            Self::Bool => DataType::Boolean,
            Self::Time => DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into())),
        }
    }
}

/// The columns of a table, in order. It exists without any rows, so an empty table still has its columns.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TableSchema {
    columns: Vec<(String, Type)>,
}

impl TableSchema {
    /// From a constant description. Names that are all lower case need no quotes in SQL.
    pub fn new<N: Into<String> + Clone>(columns: &[(N, Type)]) -> Self {
        Self { columns: columns.iter().map(|(name, kind)| (name.clone().into(), *kind)).collect() }
    }

    /// Names and types, in order.
    pub fn columns(&self) -> impl Iterator<Item = (&str, Type)> {
        self.columns.iter().map(|(name, kind)| (name.as_str(), *kind))
    }

    pub(crate) fn arrow(&self) -> SchemaRef {
        let fields: Vec<Field> = self.columns().map(|(name, kind)| Field::new(name, kind.arrow(), true)).collect();
        Arc::new(Schema::new(fields))
    }
}

/// The values of one column. The `Opt` forms hold `None` for null.
#[derive(Debug, Clone, PartialEq)]
pub enum ColumnValues {
    /// [`Type::Int`].
    Int(Vec<i64>),
    /// [`Type::Int`] with nulls.
    IntOpt(Vec<Option<i64>>),
    /// [`Type::UInt`].
    UInt(Vec<u64>),
    /// [`Type::UInt`] with nulls.
    UIntOpt(Vec<Option<u64>>),
    /// [`Type::Real`].
    Real(Vec<f64>),
    /// [`Type::Real`] with nulls.
    RealOpt(Vec<Option<f64>>),
    /// [`Type::Text`].
    Text(Vec<String>),
    /// [`Type::Text`] with nulls.
    TextOpt(Vec<Option<String>>),
    /// [`Type::Bool`].
    Bool(Vec<bool>),
    /// [`Type::Bool`] with nulls.
    BoolOpt(Vec<Option<bool>>),
    /// [`Type::Time`]: microseconds since the epoch.
    TimeMicros(Vec<i64>),
    /// [`Type::Time`] with nulls.
    TimeMicrosOpt(Vec<Option<i64>>),
    /// [`Type::Text`] of few distinct words: each row is an index into `words`; an index past its end is null. The words are
    /// held once, however many rows point at them.
    Dict {
        /// One index per row.
        rows: Vec<u32>,
        /// The distinct values.
        words: Vec<String>,
    },
}

impl ColumnValues {
    /// The type of the column.
    pub const fn kind(&self) -> Type {
        match self {
            Self::Int(_) | Self::IntOpt(_) => Type::Int,
            Self::UInt(_) | Self::UIntOpt(_) => Type::UInt,
            Self::Real(_) | Self::RealOpt(_) => Type::Real,
            Self::Text(_) | Self::TextOpt(_) | Self::Dict { .. } => Type::Text,
            Self::Bool(_) | Self::BoolOpt(_) => Type::Bool,
            Self::TimeMicros(_) | Self::TimeMicrosOpt(_) => Type::Time,
        }
    }

    /// How many rows.
    pub const fn len(&self) -> usize {
        match self {
            Self::Int(v) | Self::TimeMicros(v) => v.len(),
            Self::IntOpt(v) | Self::TimeMicrosOpt(v) => v.len(),
            Self::UInt(v) => v.len(),
            Self::UIntOpt(v) => v.len(),
            Self::Real(v) => v.len(),
            Self::RealOpt(v) => v.len(),
            Self::Text(v) => v.len(),
            Self::TextOpt(v) => v.len(),
            Self::Bool(v) => v.len(),
            Self::BoolOpt(v) => v.len(),
            Self::Dict { rows, .. } => rows.len(),
        }
    }

    /// Whether there are no rows.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn to_arrow(&self) -> Result<ArrayRef> {
        Ok(match self {
            Self::Int(v) => Arc::new(Int64Array::from(v.clone())),
            Self::IntOpt(v) => Arc::new(Int64Array::from(v.clone())),
            Self::UInt(v) => Arc::new(UInt64Array::from(v.clone())),
            Self::UIntOpt(v) => Arc::new(UInt64Array::from(v.clone())),
            Self::Real(v) => Arc::new(Float64Array::from(v.clone())),
            Self::RealOpt(v) => Arc::new(Float64Array::from(v.clone())),
            Self::Text(v) => Arc::new(StringViewArray::from_iter_values(v)),
            Self::TextOpt(v) => Arc::new(v.iter().map(Option::as_deref).collect::<StringViewArray>()),
            Self::Bool(v) => Arc::new(BooleanArray::from(v.clone())),
            Self::BoolOpt(v) => Arc::new(BooleanArray::from(v.clone())),
            Self::TimeMicros(v) => Arc::new(TimestampMicrosecondArray::from(v.clone()).with_timezone("+00:00")),
            Self::TimeMicrosOpt(v) => Arc::new(TimestampMicrosecondArray::from(v.clone()).with_timezone("+00:00")),
            Self::Dict { rows, words } => Arc::new(dict_views(rows, words)?),
        })
    }
}

/// Text views that all point into one block with each word once.
fn dict_views(rows: &[u32], words: &[String]) -> Result<StringViewArray> {
    let too_long = || Error::invalid("the words of a dictionary column pass 4 GiB; write them as several tables");
    let mut spans = Vec::with_capacity(words.len());
    let mut block = Vec::new();
    for word in words {
        let start = u32::try_from(block.len()).map_err(|_| too_long())?;
        block.extend_from_slice(word.as_bytes());
        spans.push((start, u32::try_from(word.len()).map_err(|_| too_long())?));
    }
    u32::try_from(block.len()).map_err(|_| too_long())?;
    let mut out = StringViewBuilder::with_capacity(rows.len());
    let block = out.append_block(block.into());
    for row in rows {
        match usize::try_from(*row).ok().and_then(|i| spans.get(i)) {
            Some((start, len)) => {
                out.try_append_view(block, *start, *len)
                    .map_err(|e| Error::internal("a dictionary word is out of range").with_source(e))?;
            }
            None => out.append_null(),
        }
    }
    Ok(out.finish())
}

/// One named column.
#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    /// The name, unique in its table.
    pub name: String,
    /// The values, one per row.
    pub values: ColumnValues,
}

/// Rows of a table, column by column, all of one length.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TableData {
    rows: usize,
    columns: Vec<Column>,
}

impl TableData {
    /// No columns yet, `rows` rows. A table that only counts needs no columns at all.
    pub const fn with_rows(rows: usize) -> Self {
        Self { rows, columns: Vec::new() }
    }

    /// Adds a column. `Invalid` if its length is not the table's or its name is taken.
    pub fn column(mut self, name: impl Into<String>, values: ColumnValues) -> Result<Self> {
        let name = name.into();
        if values.len() != self.rows {
            return Err(Error::invalid(format!("column `{name}` has {} rows where the table has {}", values.len(), self.rows)));
        }
        if self.get(&name).is_some() {
            return Err(Error::invalid(format!("column `{name}` is given twice; names are unique in a table")));
        }
        self.columns.push(Column { name, values });
        Ok(self)
    }

    /// How many rows.
    pub const fn rows(&self) -> usize {
        self.rows
    }

    /// The columns, in the order in which they were added.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// The values of a column.
    pub fn get(&self, name: &str) -> Option<&ColumnValues> {
        self.columns.iter().find(|c| c.name == name).map(|c| &c.values)
    }

    /// The schema that these columns have.
    pub fn schema(&self) -> TableSchema {
        TableSchema { columns: self.columns.iter().map(|c| (c.name.clone(), c.values.kind())).collect() }
    }

    /// As an Arrow batch with exactly the columns of `schema`; other columns are left out. `Invalid` if one is missing or of another
    /// type.
    pub(crate) fn to_batch(&self, schema: &SchemaRef) -> Result<RecordBatch> {
        let mut arrays = Vec::with_capacity(schema.fields().len());
        for field in schema.fields() {
            let name = field.name();
            let values = self.get(name).ok_or_else(|| Error::invalid(format!("column `{name}` is missing from the data")))?;
            if values.kind().arrow() != *field.data_type() {
                let found = values.kind();
                return Err(Error::invalid(format!("column `{name}` holds {found:?} where the schema says {}", field.data_type())));
            }
            arrays.push(values.to_arrow()?);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
        RecordBatch::try_new_with_options(Arc::clone(schema), arrays, &options)
            .map_err(|e| Error::internal("build a batch of rows").with_source(e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::arrow::array::Array;

    #[test]
    fn lengths_and_names_are_checked() {
        let two = TableData::with_rows(2).column("a", ColumnValues::Int(vec![1, 2])).unwrap();
        let short = two.clone().column("b", ColumnValues::Bool(vec![true])).unwrap_err();
        assert_eq!(short.to_string(), "column `b` has 1 rows where the table has 2");
        let twice = two.clone().column("a", ColumnValues::Int(vec![1, 2])).unwrap_err();
        assert!(twice.to_string().contains("given twice"));
        let wrong = two.to_batch(&TableSchema::new(&[("a", Type::Text)]).arrow()).unwrap_err();
        assert!(wrong.to_string().contains("holds Int where the schema says Utf8View"), "{wrong}");
        let missing = two.to_batch(&TableSchema::new(&[("z", Type::Int)]).arrow()).unwrap_err();
        assert_eq!(missing.to_string(), "column `z` is missing from the data");
    }

    #[test]
    fn dictionary_rows_share_their_words() {
        let words = vec!["a word that is too long to be inlined in a view".to_owned(), "ok".to_owned(), String::new()];
        let views = dict_views(&[0, 1, 0, 9, 2], &words).unwrap();
        assert_eq!((views.value(0), views.value(1), views.value(2), views.value(4)), (&*words[0], "ok", &*words[0], ""));
        assert!(views.is_null(3));
        let many = dict_views(&vec![0; 10_000], &words).unwrap();
        assert!(many.get_buffer_memory_size() < 10_000 * 17 + 4096, "{}", many.get_buffer_memory_size());
    }
}
