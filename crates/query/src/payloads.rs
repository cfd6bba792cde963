//! Rows of files as payloads of tasks.
//!
//! Files are read one after the other and never as a whole beside each other; what comes out depends on nothing but their bytes and order, so
//! that whoever is interrupted can do it again and get the same payloads.

mod ipc;

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use datafusion::arrow::array::{RecordBatch, UInt64Array};
use datafusion::arrow::compute::{SortColumn, cast_with_options, concat_batches, lexsort_to_indices, partition, take_record_batch};
use datafusion::arrow::csv::reader::Format;
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::ipc::writer::StreamWriter;
use datafusion::arrow::json::ReaderBuilder;
use datafusion::arrow::json::writer::{JsonArray, WriterBuilder};
use datafusion::arrow::{compute::CastOptions, csv};
use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tidemill_base::{Error, Result};

/// Rows decoded at once.
const STEP: usize = 8_192;
/// Rows that are grouped are held in memory, up to so many bytes.
const GROUPED_BYTES: usize = 1 << 30;

/// How rows lie in a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// A JSON array of objects, one a row; null where there is no value.
    Json,
    /// An Arrow IPC stream.
    Arrow,
}

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// With a header line; the types are those that all values of the first file fit.
    Csv,
    /// Parquet.
    Parquet,
    /// Arrow's IPC format, as a file or as a stream.
    Arrow,
}

impl FileKind {
    /// By the end of its name. `Invalid` names the ends that are known.
    pub fn of(name: &str) -> Result<Self> {
        match name.rsplit_once('.').map(|(_, end)| end.to_ascii_lowercase()).as_deref() {
            Some("csv") => Ok(Self::Csv),
            Some("parquet" | "pq") => Ok(Self::Parquet),
            Some("arrow" | "arrows" | "feather" | "ipc") => Ok(Self::Arrow),
            _ => Err(Error::invalid(format!(
                "`{name}` is no file of rows by its name; use .csv, .parquet, .arrow, .arrows, .feather or .ipc"
            ))),
        }
    }
}

/// Which rows a payload gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Split {
    /// So many, in their order, over the borders of files; at least 1. The last payload gets what is left.
    Rows(usize),
    /// All rows with one value of this column, in order of the values; within one, in the order of the rows.
    Group(String),
}

/// What becomes of rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// How they lie in a payload.
    pub encoding: Encoding,
    /// Which go together.
    pub split: Split,
    /// The columns that are kept, in this order; empty: all.
    pub columns: Vec<String>,
}

/// Makes payloads of files that are given in order, and hands each to `out`. Computes for long: not for a thread that serves.
///
/// `Invalid` names the file that is not what its name says, whose columns are not those of the first, or that lacks a column; `Exhausted`
/// when more is to be grouped than fits into memory.
pub fn split(
    files: impl Iterator<Item = Result<(String, FileKind, Bytes)>>,
    cut: &Cut,
    out: &mut dyn FnMut(Bytes) -> Result<()>,
) -> Result<()> {
    let mut splitter = Splitter { cut, schema: None, waiting: Vec::new(), rows: 0, bytes: 0, out };
    for file in files {
        let (name, kind, bytes) = file?;
        // Decoders give up on some damaged files by panicking. What they were at is not looked at again.
        let read = catch_unwind(AssertUnwindSafe(|| splitter.file(kind, &bytes)));
        let read = read.unwrap_or_else(|_| Err(Error::invalid("it is damaged, or not what its name says")));
        read.map_err(|e| e.context(format!("read the rows of `{name}`")))?;
    }
    splitter.finish()
}

struct Splitter<'a> {
    cut: &'a Cut,
    /// The columns of the first file, which the others have to have too.
    schema: Option<SchemaRef>,
    waiting: Vec<RecordBatch>,
    rows: usize,
    bytes: usize,
    out: &'a mut dyn FnMut(Bytes) -> Result<()>,
}

fn wrong(e: ArrowError) -> Error {
    Error::invalid(e.to_string())
}

impl Splitter<'_> {
    fn file(&mut self, kind: FileKind, bytes: &Bytes) -> Result<()> {
        match kind {
            FileKind::Csv => {
                let format = Format::default().with_header(true);
                let (found, _) = format.infer_schema(Cursor::new(bytes), None).map_err(wrong)?;
                // The first file's types hold for the others; their columns are their own.
                let schema = match &self.schema {
                    Some(first) => Schema::new(found.fields().iter().map(|f| known(first, f)).collect::<Vec<_>>()),
                    None => found,
                };
                let reader = csv::ReaderBuilder::new(Arc::new(schema)).with_header(true).with_batch_size(STEP);
                self.read(reader.build(Cursor::new(bytes)).map_err(wrong)?)
            }
            FileKind::Parquet => {
                let reader = ParquetRecordBatchReaderBuilder::try_new(bytes.clone()).and_then(|b| b.with_batch_size(STEP).build());
                self.read(reader.map_err(|e| Error::invalid(e.to_string()))?)
            }
            FileKind::Arrow => ipc::batches(bytes, &mut |batch| self.take(&batch)),
        }
    }

    fn read(&mut self, mut batches: impl Iterator<Item = Result<RecordBatch, ArrowError>>) -> Result<()> {
        batches.try_for_each(|batch| self.take(&batch.map_err(wrong)?))
    }

    fn take(&mut self, batch: &RecordBatch) -> Result<()> {
        let schema = match &self.schema {
            Some(schema) => Arc::clone(schema),
            None => {
                let first = check_columns(&batch.schema(), self.cut)?;
                self.schema = Some(Arc::clone(&first));
                first
            }
        };
        self.push(fit(batch, &schema)?)
    }

    fn push(&mut self, batch: RecordBatch) -> Result<()> {
        self.rows += batch.num_rows();
        self.bytes += batch.get_array_memory_size();
        self.waiting.push(batch);
        match &self.cut.split {
            Split::Rows(n) => {
                let n = (*n).max(1);
                while self.rows >= n {
                    self.payload_of(n)?;
                }
                Ok(())
            }
            Split::Group(column) if self.bytes > GROUPED_BYTES => Err(Error::exhausted(format!(
                "the rows to be grouped by `{column}` take more than {GROUPED_BYTES} bytes; take fewer columns, or divide the objects"
            ))),
            Split::Group(_) => Ok(()),
        }
    }

    /// The first `n` of the rows that wait.
    fn payload_of(&mut self, n: usize) -> Result<()> {
        let Some(schema) = self.schema.clone() else { return Ok(()) };
        let (mut parts, mut left, mut used) = (Vec::new(), n, 0);
        for batch in &mut self.waiting {
            let len = batch.num_rows().min(left);
            parts.push(batch.slice(0, len));
            left -= len;
            if len < batch.num_rows() {
                *batch = batch.slice(len, batch.num_rows() - len);
            } else {
                used += 1;
            }
            if left == 0 {
                break;
            }
        }
        self.waiting.drain(..used);
        self.rows -= n;
        let batch = concat_batches(&schema, &parts).map_err(wrong)?;
        self.give(&batch)
    }

    fn finish(mut self) -> Result<()> {
        let Some(schema) = self.schema.clone() else { return Ok(()) };
        let Split::Group(key) = &self.cut.split else {
            return if self.rows > 0 { self.payload_of(self.rows) } else { Ok(()) };
        };
        let rows = concat_batches(&schema, &std::mem::take(&mut self.waiting)).map_err(wrong)?;
        let at = schema.index_of(key).map_err(wrong)?;
        let numbers = UInt64Array::from_iter_values(0..rows.num_rows() as u64);
        let by = [rows.column(at).clone(), Arc::new(numbers) as _].map(|values| SortColumn { values, options: None });
        let order = lexsort_to_indices(&by, None).map_err(|e| Error::invalid(format!("`{key}` cannot be grouped by: {e}")))?;
        let sorted = take_record_batch(&rows, &order).map_err(wrong)?;
        drop(rows);
        for range in partition(&[sorted.column(at).clone()]).map_err(wrong)?.ranges() {
            self.give(&sorted.slice(range.start, range.len()))?;
        }
        Ok(())
    }

    fn give(&mut self, batch: &RecordBatch) -> Result<()> {
        let kept = self.cut.columns.iter().map(|c| batch.schema().index_of(c)).collect::<Result<Vec<_>, _>>().map_err(wrong)?;
        let projected;
        let batch = if kept.is_empty() {
            batch
        } else {
            projected = batch.project(&kept).map_err(wrong)?;
            &projected
        };
        (self.out)(encode(batch, self.cut.encoding).map_err(|e| Error::internal("write rows as a payload").with_source(e))?)
    }
}

fn known(first: &Schema, field: &Arc<Field>) -> Arc<Field> {
    first.field_with_name(field.name()).map_or_else(|_| Arc::clone(field), |f| Arc::new(f.clone()))
}

/// The columns of the first file that are needed. `Invalid` names one that is not there, and those that are.
fn check_columns(schema: &SchemaRef, cut: &Cut) -> Result<SchemaRef> {
    let key = match &cut.split {
        Split::Group(key) => Some(key),
        Split::Rows(_) => None,
    };
    let names = || schema.fields().iter().map(|f| f.name().as_str()).collect::<Vec<_>>().join(", ");
    if let Some(missing) = cut.columns.iter().chain(key).find(|c| schema.index_of(c).is_err()) {
        return Err(Error::invalid(format!("there is no column `{}`; there are {}", missing.escape_debug(), names())));
    }
    if schema.fields().is_empty() {
        return Err(Error::invalid("it has no columns"));
    }
    let wanted = |f: &&Arc<Field>| cut.columns.is_empty() || cut.columns.contains(f.name()) || key == Some(f.name());
    let fields: Vec<_> = schema.fields().iter().filter(wanted).map(|f| f.as_ref().clone().with_nullable(true)).collect();
    Ok(Arc::new(Schema::new(fields)))
}

/// The columns of the first file, from another one's rows.
fn fit(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let columns = schema.fields().iter().map(|field| {
        let found = batch.column_by_name(field.name());
        let found = found.ok_or_else(|| Error::invalid(format!("there is no column `{}`, which the first file has", field.name())))?;
        if found.data_type() == field.data_type() {
            return Ok(Arc::clone(found));
        }
        let strict = CastOptions { safe: false, ..CastOptions::default() };
        cast_with_options(found, field.data_type(), &strict).map_err(|e| {
            let (have, want) = (found.data_type(), field.data_type());
            Error::invalid(format!("column `{}` is {have} and in the first file {want}: {e}", field.name()))
        })
    });
    RecordBatch::try_new(Arc::clone(schema), columns.collect::<Result<_>>()?).map_err(wrong)
}

fn encode(batch: &RecordBatch, encoding: Encoding) -> Result<Bytes, ArrowError> {
    match encoding {
        Encoding::Json => {
            let mut writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, JsonArray>(Vec::new());
            writer.write(batch)?;
            writer.finish()?;
            Ok(writer.into_inner().into())
        }
        Encoding::Arrow => {
            let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema())?;
            writer.write(batch)?;
            writer.finish()?;
            writer.into_inner().map(Bytes::from)
        }
    }
}

/// What a column of a database's answer holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnKind {
    /// True or false.
    Bool,
    /// 64 bits with a sign.
    Int,
    /// 64 bits of IEEE 754.
    Real,
    /// Days.
    Date,
    /// Microseconds, without a time zone.
    LocalTime,
    /// Microseconds, an instant.
    Time,
    /// Text.
    Text,
}

/// Rows that come as JSON objects, written as one Arrow IPC stream.
pub struct JsonToArrow {
    schema: SchemaRef,
    writer: StreamWriter<Vec<u8>>,
}

impl std::fmt::Debug for JsonToArrow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JsonToArrow").field("schema", &self.schema).finish_non_exhaustive()
    }
}

impl JsonToArrow {
    /// For rows with these columns.
    pub fn new(columns: &[(String, ColumnKind)]) -> Result<Self> {
        let kind = |kind: ColumnKind| match kind {
            ColumnKind::Bool => DataType::Boolean,
            ColumnKind::Int => DataType::Int64,
            ColumnKind::Real => DataType::Float64,
            ColumnKind::Date => DataType::Date32,
            ColumnKind::LocalTime => DataType::Timestamp(TimeUnit::Microsecond, None),
            ColumnKind::Time => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            ColumnKind::Text => DataType::Utf8,
        };
        let fields: Vec<_> = columns.iter().map(|(name, k)| Field::new(name, kind(*k), true)).collect();
        let schema = Arc::new(Schema::new(fields));
        let writer = StreamWriter::try_new(Vec::new(), &schema).map_err(|e| Error::internal("begin an Arrow stream").with_source(e))?;
        Ok(Self { schema, writer })
    }

    /// The next bytes of the stream, with these rows. `Invalid` for a row that does not fit the columns.
    pub fn push(&mut self, rows: &[String]) -> Result<Bytes> {
        let builder = ReaderBuilder::new(Arc::clone(&self.schema)).with_batch_size(rows.len().max(1));
        let mut decoder = builder.build_decoder().map_err(wrong)?;
        for row in rows {
            decoder.decode(row.as_bytes()).map_err(wrong)?;
        }
        if let Some(batch) = decoder.flush().map_err(wrong)? {
            self.writer.write(&batch).map_err(|e| Error::internal("write an Arrow stream").with_source(e))?;
        }
        Ok(std::mem::take(self.writer.get_mut()).into())
    }

    /// The last bytes.
    pub fn finish(mut self) -> Result<Bytes> {
        self.writer.finish().map_err(|e| Error::internal("end an Arrow stream").with_source(e))?;
        Ok(std::mem::take(self.writer.get_mut()).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::arrow::array::{Float64Array, Int64Array, StringArray};
    use datafusion::arrow::ipc::reader::StreamReader;
    use datafusion::arrow::ipc::writer::FileWriter;
    use datafusion::parquet::arrow::ArrowWriter;
    use serde_json::{Value, json};

    fn cut(split: Split) -> Cut {
        Cut { encoding: Encoding::Json, split, columns: Vec::new() }
    }

    fn payloads(files: &[(&str, Bytes)], cut: &Cut) -> Result<Vec<Bytes>> {
        let mut out = Vec::new();
        let files = files.iter().map(|(name, bytes)| Ok(((*name).to_owned(), FileKind::of(name)?, bytes.clone())));
        split(files, cut, &mut |payload| {
            out.push(payload);
            Ok(())
        })?;
        Ok(out)
    }

    fn json(files: &[(&str, Bytes)], cut: &Cut) -> Result<Vec<Value>> {
        Ok(payloads(files, cut)?.iter().map(|p| serde_json::from_slice(p).unwrap()).collect())
    }

    fn rows(ids: std::ops::Range<i64>) -> RecordBatch {
        let names: Vec<String> = ids.clone().map(|i| format!("desk{}", i % 3)).collect();
        let schema = Schema::new(vec![
            Field::new("id", DataType::Int64, false),
            Field::new("desk", DataType::Utf8, false),
            Field::new("x", DataType::Float64, true),
        ]);
        let x: Float64Array = ids.clone().map(|i| (i % 4 != 0).then_some(i as f64 / 2.0)).collect();
        let ids = Int64Array::from_iter_values(ids);
        RecordBatch::try_new(Arc::new(schema), vec![Arc::new(ids), Arc::new(StringArray::from(names)), Arc::new(x)]).unwrap()
    }

    fn parquet(batch: &RecordBatch) -> Bytes {
        let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
        writer.write(batch).unwrap();
        writer.into_inner().unwrap().into()
    }

    #[test]
    fn rows_go_over_the_borders_of_files_whatever_those_are() {
        let ipc = |stream: bool| -> Bytes {
            let batch = rows(7..9);
            if stream {
                return encode(&batch, Encoding::Arrow).unwrap();
            }
            let mut writer = FileWriter::try_new(Vec::new(), &batch.schema()).unwrap();
            writer.write(&batch).unwrap();
            writer.into_inner().unwrap().into()
        };
        let csv = Bytes::from_static(b"id,desk,x\n0,desk0,\n1,desk1,0.5\n2,desk2,1\n");
        for stream in [true, false] {
            let files = [("a.csv", csv.clone()), ("b.parquet", parquet(&rows(3..7))), ("c.arrow", ipc(stream))];
            let found = json(&files, &cut(Split::Rows(4))).unwrap();
            let ids: Vec<Vec<i64>> =
                found.iter().map(|p| p.as_array().unwrap().iter().map(|r| r["id"].as_i64().unwrap()).collect()).collect();
            assert_eq!(ids, [vec![0, 1, 2, 3], vec![4, 5, 6, 7], vec![8]]);
            assert_eq!(found[0][0], json!({"id": 0, "desk": "desk0", "x": null}), "what is missing is said");
            assert_eq!(found[0][1]["x"], 0.5);
        }
    }

    #[test]
    fn more_rows_than_are_decoded_at_once_come_in_order() {
        let found = json(&[("a.parquet", parquet(&rows(0..20_000)))], &cut(Split::Rows(7_000))).unwrap();
        let lens: Vec<usize> = found.iter().map(|p| p.as_array().unwrap().len()).collect();
        assert_eq!(lens, [7_000, 7_000, 6_000]);
        assert_eq!(found[2][5_999]["id"], 19_999);
    }

    #[test]
    fn a_group_is_one_payload_in_the_order_of_its_rows() {
        let files = [("a.parquet", parquet(&rows(0..5))), ("b.parquet", parquet(&rows(5..9)))];
        let by_desk = Cut { columns: vec!["id".into()], ..cut(Split::Group("desk".into())) };
        let found = json(&files, &by_desk).unwrap();
        assert_eq!(found[1], json!([{"id": 1}, {"id": 4}, {"id": 7}]));
        assert_eq!(found.len(), 3);
        assert_eq!(payloads(&files, &by_desk).unwrap(), payloads(&files, &by_desk).unwrap());
    }

    #[test]
    fn arrow_payloads_hold_the_columns_that_were_asked_for() {
        let cut = Cut { encoding: Encoding::Arrow, split: Split::Rows(2), columns: vec!["x".into(), "id".into()] };
        let found = payloads(&[("a.parquet", parquet(&rows(0..3)))], &cut).unwrap();
        let mut reader = StreamReader::try_new(Cursor::new(found[1].clone()), None).unwrap();
        let batch = reader.next().unwrap().unwrap();
        assert_eq!((batch.num_rows(), batch.schema().field(0).name().as_str(), batch.num_columns()), (1, "x", 2));
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let wrong = |files: &[(&str, Bytes)], cut: &Cut, word: &str| {
            let e = payloads(files, cut).unwrap_err();
            assert!(e.message().contains(word), "{e}");
        };
        let good = parquet(&rows(0..3));
        let all = cut(Split::Rows(2));
        wrong(&[("a.txt", good.clone())], &all, "`a.txt` is no file of rows");
        wrong(&[("a.parquet", good.slice(..50))], &all, "`a.parquet`");
        wrong(&[("a.arrow", Bytes::from_static(b"junk"))], &all, "`a.arrow`");
        wrong(&[("a.parquet", good.clone())], &cut(Split::Group("book".into())), "no column `book`; there are id, desk, x");
        wrong(&[("a.parquet", good.clone()), ("b.csv", Bytes::from_static(b"id,desk\n1,a\n"))], &all, "`b.csv`: there is no column `x`");
        wrong(&[("a.csv", Bytes::from_static(b"id\n1\n")), ("b.csv", Bytes::from_static(b"id\nten\n"))], &all, "`b.csv`");
        assert!(payloads(&[("a.csv", Bytes::from_static(b"id\n"))], &all).unwrap().is_empty(), "no rows, no tasks");
    }

    #[test]
    fn a_databases_rows_become_typed_columns() {
        use ColumnKind::{Bool, Date, Int, LocalTime, Real, Text, Time};
        let kinds = [Bool, Int, Real, Date, LocalTime, Time, Text];
        let columns: Vec<_> = kinds.into_iter().zip('a'..).map(|(kind, name)| (name.to_string(), kind)).collect();
        let mut rows = JsonToArrow::new(&columns).unwrap();
        let one = r#"{"a":true,"b":9007199254740993,"c":0.1,"d":"2026-02-28","e":"2026-02-28T10:00:00.5","f":"2026-02-28T10:00:00+02:00","g":"x\"y"}"#;
        let two = r#"{"a":null,"b":null,"c":null,"d":null,"e":null,"f":null,"g":null}"#;
        let mut stream = rows.push(&[one.to_owned(), two.to_owned()]).unwrap().to_vec();
        stream.extend(rows.push(&[one.to_owned()]).unwrap());
        stream.extend(rows.finish().unwrap());
        let found = json(&[("q.arrows", stream.into())], &cut(Split::Rows(2))).unwrap();
        assert_eq!(found[0][0]["b"], 9_007_199_254_740_993_i64, "all digits");
        assert_eq!(found[0][0]["f"], "2026-02-28T08:00:00Z");
        assert_eq!((&found[0][0]["d"], &found[0][0]["g"]), (&json!("2026-02-28"), &json!("x\"y")));
        assert_eq!((&found[0][1]["a"], found.len()), (&Value::Null, 2));
        let mut rows = JsonToArrow::new(&columns).unwrap();
        assert!(rows.push(&[r#"{"b":"ten"}"#.to_owned()]).is_err());
    }

    #[test]
    fn what_a_file_only_claims_takes_no_memory_and_damage_is_named() {
        let whole = encode(&rows(0..9), Encoding::Arrow).unwrap();
        // The first message, of the schema, would have a body of an exabyte.
        let mut claims = whole.to_vec();
        let from = claims.len();
        for at in 0..from.min(64) {
            let mut hostile = whole.to_vec();
            hostile[at] = 0x7f;
            drop(payloads(&[("a.arrow", hostile.into())], &cut(Split::Rows(4))));
        }
        claims.truncate(from / 2);
        for (name, bytes) in [("a.arrow", Bytes::from(claims)), ("b.arrow", "ARROW1 and so on".into()), ("c.parquet", "PAR1PAR1".into())] {
            let e = payloads(&[(name, bytes)], &cut(Split::Rows(4))).unwrap_err();
            assert!(e.kind() == tidemill_base::ErrorKind::Invalid && e.to_string().contains(name), "{e}");
        }
    }
}
