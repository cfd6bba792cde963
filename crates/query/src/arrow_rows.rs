//! Arrow streams as rows: each document is a stream of batches in Arrow's IPC format, all of one schema.

use std::io::Cursor;
use std::sync::Arc;

use bytes::Bytes;
use datafusion::arrow::array::{ArrayRef, RecordBatch, UInt64Array};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::ipc::reader::StreamReader;
use tidemill_base::{Error, Result};

use crate::json_rows::OWN;

/// The columns of documents that are Arrow streams, by the first of them. A later one may have them in another order, and in types that can
/// be turned into the first one's; what it has beyond them is left out.
#[derive(Debug, Clone)]
pub struct ArrowRows {
    schema: SchemaRef,
}

impl ArrowRows {
    /// Takes the columns from a document. `Invalid` when it is no Arrow stream.
    pub fn learn(task: u64, document: &Bytes) -> Result<Self> {
        let reader = open(task, document)?;
        let theirs = reader.schema();
        let own = OWN.iter().map(|name| Arc::new(Field::new(*name, DataType::UInt64, true)));
        let theirs =
            theirs.fields().iter().filter(|f| !OWN.contains(&f.name().as_str())).map(|f| Arc::new(f.as_ref().clone().with_nullable(true)));
        Ok(Self { schema: Arc::new(Schema::new(own.chain(theirs).collect::<Vec<_>>())) })
    }

    /// `_task`, `_row`, and the documents' columns.
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// The rows of a document. `Invalid` names the document, and the column that does not fit.
    pub fn rows(&self, task: u64, document: &Bytes) -> Result<Vec<RecordBatch>> {
        let mut out = Vec::new();
        let mut row = 0_u64;
        for batch in open(task, document)? {
            let batch = batch.map_err(|e| broken(task, e))?;
            let rows = batch.num_rows() as u64;
            let mut columns: Vec<ArrayRef> =
                vec![Arc::new(UInt64Array::from_value(task, batch.num_rows())), Arc::new(UInt64Array::from_iter_values(row..row + rows))];
            row += rows;
            for field in self.schema.fields().iter().skip(OWN.len()) {
                let column = batch.column_by_name(field.name()).ok_or_else(|| {
                    Error::invalid(format!("the result of task {task} has no column `{}`, which the first result has", field.name()))
                })?;
                columns.push(cast(column, field.data_type()).map_err(|e| {
                    let what =
                        format!("column `{}` of the result of task {task} is not {}, as the first one's", field.name(), field.data_type());
                    Error::invalid(what).with_source(e)
                })?);
            }
            out.push(RecordBatch::try_new(Arc::clone(&self.schema), columns).map_err(|e| broken(task, e))?);
        }
        Ok(out)
    }
}

fn open(task: u64, document: &Bytes) -> Result<StreamReader<Cursor<Bytes>>> {
    StreamReader::try_new(Cursor::new(document.clone()), None).map_err(|e| broken(task, e))
}

fn broken(task: u64, e: ArrowError) -> Error {
    Error::invalid(format!("the result of task {task} is not a stream in Arrow's format ({e})")).with_source(e)
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::arrow::array::{Float64Array, Int64Array, StringArray};
    use datafusion::arrow::ipc::writer::StreamWriter;

    fn stream(columns: Vec<(&str, ArrayRef)>) -> Bytes {
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let mut writer = StreamWriter::try_new(Vec::new(), batch.schema_ref()).unwrap();
        writer.write(&batch).unwrap();
        writer.write(&batch).unwrap();
        Bytes::from(writer.into_inner().unwrap())
    }

    #[test]
    fn rows_have_their_task_their_number_and_the_first_ones_types() {
        let book = || Arc::new(StringArray::from(vec!["a", "b"])) as ArrayRef;
        let first = stream(vec![("book", book()), ("pnl", Arc::new(Float64Array::from(vec![1.5, 2.5])))]);
        let later = stream(vec![("more", book()), ("pnl", Arc::new(Int64Array::from(vec![3, 4]))), ("book", book())]);
        let known = ArrowRows::learn(0, &first).unwrap();
        let names: Vec<String> = known.schema().fields().iter().map(|f| f.name().clone()).collect();
        assert_eq!(names, ["_task", "_row", "book", "pnl"]);
        let batches = known.rows(7, &later).unwrap();
        let last = batches.last().unwrap();
        assert_eq!((batches.len(), last.num_rows()), (2, 2));
        assert_eq!(last.column(0).as_ref(), &UInt64Array::from(vec![7, 7]) as &dyn datafusion::arrow::array::Array);
        assert_eq!(last.column(1).as_ref(), &UInt64Array::from(vec![2, 3]) as &dyn datafusion::arrow::array::Array);
        assert_eq!(last.column(3).as_ref(), &Float64Array::from(vec![3.0, 4.0]) as &dyn datafusion::arrow::array::Array);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let first = stream(vec![("pnl", Arc::new(Float64Array::from(vec![1.5])))]);
        let known = ArrowRows::learn(0, &first).unwrap();
        let other = stream(vec![("loss", Arc::new(Float64Array::from(vec![1.5])))]);
        let error = known.rows(4, &other).unwrap_err().to_string();
        assert!(error.contains("task 4 has no column `pnl`"), "{error}");
        let error = known.rows(5, &Bytes::from_static(b"{}")).unwrap_err().to_string();
        assert!(error.contains("task 5 is not a stream"), "{error}");
    }
}
