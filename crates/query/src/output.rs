//! Answers as text: JSON, CSV, and a table for people.

use bytes::Bytes;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::Schema;
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::json::LineDelimitedWriter;
use datafusion::arrow::json::writer::{LineDelimited, WriterBuilder};
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use futures::Stream;
use tidemill_base::{Error, Result};

use crate::Answer;

/// The widest that a cell of [`Answer::to_table`] gets, in characters.
const MAX_CELL: usize = 60;

impl Answer {
    /// One JSON object per row, one row per line. Times are RFC 3339 in UTC, null is `null`, not-a-number and infinities are `null`.
    pub fn into_json_lines(self) -> impl Stream<Item = Result<Bytes>> + Send {
        self.into_text(String::new(), |batch, _| json_lines(batch), String::new())
    }

    /// One JSON array of objects, `[]` when there are no rows. An error on the way leaves it unclosed, so that a reader that missed
    /// the error does not take a part for the whole.
    pub fn into_json_array(self) -> impl Stream<Item = Result<Bytes>> + Send {
        let rows = |batch: &RecordBatch, first: bool| {
            let lines = json_lines(batch)?;
            Ok(format!("{}{}", if first { "" } else { ",\n" }, lines.trim_end().replace('\n', ",\n")))
        };
        self.into_text("[".to_owned(), rows, "]\n".to_owned())
    }

    /// CSV by RFC 4180 with a header line. Null is empty, and the empty text is `""`, so that they differ.
    pub fn into_csv(self) -> impl Stream<Item = Result<Bytes>> + Send {
        let head = csv_header(&self.schema());
        self.into_text(head, |batch, _| csv_lines(batch), String::new())
    }

    /// All rows as JSON objects, held in memory at once.
    pub async fn to_json_rows(mut self) -> Result<Vec<serde_json::Value>> {
        let mut rows = Vec::new();
        while let Some(batch) = self.next().await? {
            for line in json_lines(&batch)?.lines() {
                rows.push(serde_json::from_str(line).map_err(|e| Error::internal("a row is not JSON").with_source(e))?);
            }
        }
        Ok(rows)
    }

    /// All rows as a table in ASCII lines, numbers to the right, long cells shortened, with the number of rows below.
    pub async fn to_table(mut self) -> Result<String> {
        let right: Vec<bool> = self.schema().fields().iter().map(|f| f.data_type().is_numeric()).collect();
        let mut rows = vec![self.columns().into_iter().map(|c| c.name).collect::<Vec<_>>()];
        while let Some(batch) = self.next().await? {
            let cells = Cells::new(&batch)?;
            for row in 0..batch.num_rows() {
                rows.push((0..batch.num_columns()).map(|column| shortened(&cells.text(column, row))).collect());
            }
        }
        let more = if self.is_cut() { ", and there are more" } else { "" };
        let count = self.rows();
        let noun = if count == 1 { "row" } else { "rows" };
        Ok(format!("{}({count} {noun}{more})\n", draw(&rows, &right)))
    }

    fn into_text(
        self,
        head: String,
        rows: impl Fn(&RecordBatch, bool) -> Result<String> + Send,
        tail: String,
    ) -> impl Stream<Item = Result<Bytes>> + Send {
        enum State {
            Head(Answer),
            Rows(Answer, bool),
            End,
        }
        futures::stream::try_unfold((State::Head(self), rows, head, tail), |(state, rows, head, tail)| async move {
            let (text, state) = match state {
                State::Head(answer) => (head.clone(), State::Rows(answer, true)),
                State::Rows(mut answer, first) => match answer.next().await? {
                    Some(batch) => (rows(&batch, first)?, State::Rows(answer, false)),
                    None => (tail.clone(), State::End),
                },
                State::End => return Ok(None),
            };
            Ok(Some((Bytes::from(text), (state, rows, head, tail))))
        })
    }
}

fn unprintable(e: ArrowError) -> Error {
    Error::invalid("a column has a type that has no text form; cast it in the statement").with_source(e)
}

pub(crate) fn json_lines(batch: &RecordBatch) -> Result<String> {
    let mut writer: LineDelimitedWriter<Vec<u8>> =
        WriterBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(Vec::with_capacity(batch.num_rows() * 64));
    writer.write(batch).and_then(|()| writer.finish()).map_err(unprintable)?;
    String::from_utf8(writer.into_inner()).map_err(|e| Error::internal("JSON that is not UTF-8").with_source(e))
}

/// The names of the columns as the first line of a CSV file.
pub(crate) fn csv_header(schema: &Schema) -> String {
    let names: Vec<String> = schema.fields().iter().map(|f| quoted(f.name())).collect();
    format!("{}\r\n", names.join(","))
}

pub(crate) fn csv_lines(batch: &RecordBatch) -> Result<String> {
    let cells = Cells::new(batch)?;
    let mut out = String::new();
    for row in 0..batch.num_rows() {
        for column in 0..batch.num_columns() {
            if column > 0 {
                out.push(',');
            }
            if !cells.is_null(column, row) {
                out.push_str(&quoted(&cells.text(column, row)));
            }
        }
        out.push_str("\r\n");
    }
    Ok(out)
}

/// A field of CSV, quoted if it has to be.
fn quoted(text: &str) -> String {
    let plain = !text.is_empty() && !text.contains([',', '"', '\n', '\r']);
    if plain { text.to_owned() } else { format!("\"{}\"", text.replace('"', "\"\"")) }
}

/// The cells of a batch as text.
struct Cells<'a> {
    batch: &'a RecordBatch,
    columns: Vec<ArrayFormatter<'a>>,
}

impl<'a> Cells<'a> {
    fn new(batch: &'a RecordBatch) -> Result<Self> {
        const OPTIONS: &FormatOptions<'static> = &FormatOptions::new();
        let columns = batch.columns().iter().map(|c| ArrayFormatter::try_new(c, OPTIONS)).collect::<Result<_, _>>();
        Ok(Self { batch, columns: columns.map_err(unprintable)? })
    }

    fn is_null(&self, column: usize, row: usize) -> bool {
        self.batch.column(column).is_null(row)
    }

    fn text(&self, column: usize, row: usize) -> String {
        self.columns[column].value(row).to_string()
    }
}

/// One line, without control characters, not longer than [`MAX_CELL`].
fn shortened(text: &str) -> String {
    let clean: String = text.chars().take(MAX_CELL + 1).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if clean.chars().count() <= MAX_CELL { clean } else { clean.chars().take(MAX_CELL - 3).chain("...".chars()).collect() }
}

/// A header and rows between ASCII lines.
fn draw(rows: &[Vec<String>], right: &[bool]) -> String {
    let widths: Vec<usize> = (0..right.len()).map(|c| rows.iter().map(|row| row[c].chars().count()).max().unwrap_or_default()).collect();
    let rule: String = widths.iter().map(|w| format!("+{}", "-".repeat(w + 2))).collect::<String>() + "+\n";
    let mut out = rule.clone();
    for (i, row) in rows.iter().enumerate() {
        for (c, cell) in row.iter().enumerate() {
            let width = widths[c];
            if right[c] {
                out.push_str(&format!("| {cell:>width$} "));
            } else {
                out.push_str(&format!("| {cell:<width$} "));
            }
        }
        out.push_str("|\n");
        if i == 0 {
            out.push_str(&rule);
        }
    }
    out + &rule
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_quotes_only_what_must_be() {
        assert_eq!(["a", "", "a,b", "a\"b", "a\nb"].map(quoted), ["a", "\"\"", "\"a,b\"", "\"a\"\"b\"", "\"a\nb\""]);
    }

    #[test]
    fn cells_are_one_line_and_bounded() {
        assert_eq!(shortened("a\tb\u{1b}[31m"), "a b [31m");
        let long = shortened(&"ä".repeat(61));
        assert_eq!((long.chars().count(), long.ends_with("ää...")), (60, true));
        assert_eq!(shortened(&"ä".repeat(60)).chars().count(), 60);
    }
}
