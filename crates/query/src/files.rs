//! Answers as files: Parquet, Arrow, CSV, JSON lines.
//!
//! The same rows in the same order give the same bytes: batches are cut to one size before they are written, however they came, and nothing
//! of the day or the machine is written along.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use datafusion::arrow::array::{ArrayRef, RecordBatch};
use datafusion::arrow::compute::{BatchCoalescer, cast};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::ipc::writer::FileWriter;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::basic::Compression;
use datafusion::parquet::file::properties::WriterProperties;
use tidemill_base::{Error, Result};

use crate::Answer;
use crate::output::{csv_header, csv_lines, json_lines};

/// Rows that are written at once.
const STEP: usize = 8_192;

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FileFormat {
    /// Parquet, LZ4.
    #[default]
    Parquet,
    /// Arrow's IPC file format, which is Feather's second version.
    Arrow,
    /// CSV by RFC 4180 with a header line; null is empty, and the empty text is `""`.
    Csv,
    /// One JSON object a line.
    JsonLines,
}

impl FileFormat {
    /// By its word: `parquet`, `arrow`, `csv`, `jsonl`. `Invalid` names them.
    pub fn from_word(word: &str) -> Result<Self> {
        match word {
            "parquet" => Ok(Self::Parquet),
            "arrow" => Ok(Self::Arrow),
            "csv" => Ok(Self::Csv),
            "jsonl" => Ok(Self::JsonLines),
            other => Err(Error::invalid(format!("`{}` is no format of files; use parquet, arrow, csv or jsonl", other.escape_debug()))),
        }
    }

    /// What such a file's name ends with; also the word.
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::Parquet => "parquet",
            Self::Arrow => "arrow",
            Self::Csv => "csv",
            Self::JsonLines => "jsonl",
        }
    }
}

/// One file of an answer.
#[derive(Debug, Clone)]
pub struct WrittenFile {
    /// Its bytes.
    pub bytes: Bytes,
    /// Its rows.
    pub rows: u64,
}

/// An answer on its way into files: see [`Answer::into_files`].
pub struct Files {
    answer: Answer,
    schema: SchemaRef,
    format: FileFormat,
    steps: usize,
    cut: BatchCoalescer,
    /// The file that is being written; `None` after the last.
    writer: Option<Writer>,
    /// Of that file.
    written: usize,
    rows: u64,
    files: u64,
}

impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Files").field("format", &self.format).field("files", &self.files).finish_non_exhaustive()
    }
}

impl Answer {
    /// The rows as files of at most `steps` times 8,192 rows each; at least one, which has the columns when there are no rows. `Invalid` when
    /// a column has a type that the format does not have.
    pub fn into_files(self, format: FileFormat, steps: usize) -> Result<Files> {
        let schema = plain_schema(&self.schema());
        let (cut, writer) = (BatchCoalescer::new(Arc::clone(&schema), STEP), Some(Writer::new(format, &schema)?));
        Ok(Files { answer: self, schema, format, steps: steps.max(1), cut, writer, written: 0, rows: 0, files: 0 })
    }
}

impl Files {
    /// The next file, or `None` after the last. After an error there are no more.
    pub async fn next(&mut self) -> Result<Option<WrittenFile>> {
        loop {
            while let Some(batch) = self.cut.next_completed_batch() {
                let full = if self.written == self.steps { Some(self.finish(true)?) } else { None };
                let Some(writer) = &mut self.writer else { return Ok(None) };
                writer.write(&batch, self.format)?;
                self.written += 1;
                self.rows += batch.num_rows() as u64;
                if full.is_some() {
                    return Ok(full);
                }
            }
            if self.writer.is_none() {
                return Ok(None);
            }
            match self.answer.next().await? {
                Some(batch) => self.cut.push_batch(plain(&batch, &self.schema)?).map_err(|e| unwritable(self.format, e))?,
                None if self.cut.is_empty() => {
                    let nothing = self.written == 0 && self.files > 0;
                    let last = self.finish(false)?;
                    return Ok((!nothing).then_some(last));
                }
                None => self.cut.finish_buffered_batch().map_err(|e| unwritable(self.format, e))?,
            }
        }
    }

    /// Ends the file that is being written, and begins the next if there are `more`.
    fn finish(&mut self, more: bool) -> Result<WrittenFile> {
        let next = if more { Some(Writer::new(self.format, &self.schema)?) } else { None };
        let writer = std::mem::replace(&mut self.writer, next);
        let bytes = writer.map_or_else(|| Ok(Bytes::new()), |w| w.finish(self.format))?;
        let file = WrittenFile { bytes, rows: self.rows };
        (self.written, self.rows, self.files) = (0, 0, self.files + 1);
        Ok(file)
    }
}

/// Text as every reader knows it: views are newer than many of them.
fn plain_schema(schema: &Schema) -> SchemaRef {
    let plain = |field: &Arc<Field>| match field.data_type() {
        DataType::Utf8View => Field::new(field.name(), DataType::Utf8, true),
        DataType::BinaryView => Field::new(field.name(), DataType::Binary, true),
        _ => field.as_ref().clone(),
    };
    Arc::new(Schema::new(schema.fields().iter().map(plain).collect::<Vec<_>>()))
}

fn plain(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let columns: Vec<ArrayRef> = batch
        .columns()
        .iter()
        .zip(schema.fields())
        .map(|(column, field)| cast(column, field.data_type()))
        .collect::<Result<_, ArrowError>>()
        .map_err(|e| Error::internal("turn views of text into text").with_source(e))?;
    RecordBatch::try_new(Arc::clone(schema), columns).map_err(|e| Error::internal("build a batch of rows").with_source(e))
}

enum Writer {
    Parquet(Box<ArrowWriter<Vec<u8>>>),
    Arrow(Box<FileWriter<Vec<u8>>>),
    Text(Vec<u8>),
}

impl Writer {
    fn new(format: FileFormat, schema: &SchemaRef) -> Result<Self> {
        Ok(match format {
            FileFormat::Parquet => {
                let properties = WriterProperties::builder()
                    .set_compression(Compression::LZ4_RAW)
                    .set_created_by(concat!("tidemill ", env!("CARGO_PKG_VERSION")).to_owned())
                    .build();
                let writer = ArrowWriter::try_new(Vec::new(), Arc::clone(schema), Some(properties));
                Self::Parquet(Box::new(writer.map_err(|e| unwritable(format, e))?))
            }
            FileFormat::Arrow => Self::Arrow(Box::new(FileWriter::try_new(Vec::new(), schema).map_err(|e| unwritable(format, e))?)),
            FileFormat::Csv => Self::Text(csv_header(schema).into_bytes()),
            FileFormat::JsonLines => Self::Text(Vec::new()),
        })
    }

    fn write(&mut self, batch: &RecordBatch, format: FileFormat) -> Result<()> {
        match self {
            Self::Parquet(writer) => writer.write(batch).map_err(|e| unwritable(format, e)),
            Self::Arrow(writer) => writer.write(batch).map_err(|e| unwritable(format, e)),
            Self::Text(out) => {
                let text = if format == FileFormat::Csv { csv_lines(batch)? } else { json_lines(batch)? };
                out.extend_from_slice(text.as_bytes());
                Ok(())
            }
        }
    }

    fn finish(self, format: FileFormat) -> Result<Bytes> {
        let bytes = match self {
            Self::Parquet(writer) => writer.into_inner().map_err(|e| unwritable(format, e))?,
            Self::Arrow(writer) => writer.into_inner().map_err(|e| unwritable(format, e))?,
            Self::Text(out) => out,
        };
        Ok(Bytes::from(bytes))
    }
}

fn unwritable(format: FileFormat, e: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::invalid(format!("the rows cannot be written as {}: {e}; cast the column in the statement", format.suffix())).with_source(e)
}
