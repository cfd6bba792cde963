//! The rows of an answer on their way to a client, as far as it asks for them.

use std::time::Duration;

use bytes::BytesMut;
use tidemill_base::Result;
use tidemill_query::Answer;
use tidemill_query::arrow::datatypes::SchemaRef;
use tidemill_runtime::Stopwatch;
use tokio::sync::watch;

use super::copy::CopyOptions;
use crate::error::{SqlError, SqlResult};
use crate::link::{Halt, Link, SEND_AT};
use crate::rewrite::TWICE;
use crate::value::{Column, Format, columns, of_arrow};
use crate::wire::Field;

/// PostgreSQL's own limit on what is selected, which clients count on.
const MAX_COLUMNS: usize = 1_664;

/// An answer that is being read.
pub(super) struct Rows {
    answer: Answer,
    formats: Vec<Format>,
    /// Rows that have come and are not sent.
    batch: Option<Batch>,
    opened: Stopwatch,
    /// What goes before the first row, in one message with it: readers of binary COPY count on that.
    pub(super) head: BytesMut,
    /// There are no more; the engine's threads are free again.
    done: bool,
}

struct Batch {
    columns: Vec<Column>,
    next: usize,
    rows: usize,
}

/// Where rows go.
#[derive(Debug, Clone, Copy)]
pub(super) enum Sink<'a> {
    Client,
    Copy(&'a CopyOptions),
    /// Past them: MOVE.
    Nowhere,
}

/// The columns of an answer as they are announced.
pub(super) fn fields(schema: &SchemaRef, formats: &[Format]) -> SqlResult<Vec<Field>> {
    if schema.fields().len() > MAX_COLUMNS {
        let have = schema.fields().len();
        return Err(SqlError::new("54011", format!("the answer has {have} columns where {MAX_COLUMNS} is the limit")));
    }
    let one = |(i, field): (usize, &tidemill_query::arrow::datatypes::FieldRef)| {
        let (oid, length) = of_arrow(field.data_type());
        let name = field.name().split(TWICE).next().unwrap_or_default().to_owned();
        Field { name, oid, length, format: formats.get(i).copied().unwrap_or(Format::Text).code() }
    };
    Ok(schema.fields().iter().enumerate().map(one).collect())
}

/// The format of each column, from none (all text), one for all, or one each.
pub(super) fn formats(codes: &[i16], columns: usize) -> SqlResult<Vec<Format>> {
    let known =
        |code: &i16| Format::from_code(*code).ok_or_else(|| SqlError::new("22023", format!("{code} is no format; 0 is text, 1 binary")));
    let given: Vec<Format> = codes.iter().map(known).collect::<SqlResult<_>>()?;
    match given.as_slice() {
        [] => Ok(vec![Format::Text; columns]),
        [one] => Ok(vec![*one; columns]),
        each if each.len() == columns => Ok(given),
        each => Err(SqlError::new("08P01", format!("{} formats for {columns} columns", each.len()))),
    }
}

impl Rows {
    pub(super) fn new(answer: Answer, codes: &[i16]) -> SqlResult<Self> {
        let formats = formats(codes, answer.schema().fields().len())?;
        Ok(Self { answer, formats, batch: None, opened: Stopwatch::start(), head: BytesMut::new(), done: false })
    }

    pub(super) fn fields(&self) -> SqlResult<Vec<Field>> {
        fields(&self.answer.schema(), &self.formats)
    }

    /// Other formats from here on: a cursor's rows are asked for by FETCH, which says how.
    pub(super) fn set_formats(&mut self, codes: &[i16]) -> SqlResult<()> {
        self.formats = formats(codes, self.formats.len())?;
        Ok(())
    }

    /// How long it has held the engine's threads; `None` when it does not any more.
    pub(super) fn age(&self) -> Option<Duration> {
        (!self.done).then(|| self.opened.elapsed())
    }

    /// Sends up to `most` rows. How many were sent, and whether there are no more.
    pub(super) async fn send(
        &mut self,
        link: &mut Link,
        asked: &mut watch::Receiver<u64>,
        most: u64,
        sink: Sink<'_>,
    ) -> std::result::Result<(u64, bool), Halt> {
        let mut sent = 0;
        loop {
            let Some(batch) = &mut self.batch else {
                match link.attend(asked, self.answer.next()).await?? {
                    None => {
                        self.done = true;
                        return Ok((sent, true));
                    }
                    Some(rows) => self.batch = Some(Batch { columns: columns(&rows)?, next: 0, rows: rows.num_rows() }),
                }
                continue;
            };
            while batch.next < batch.rows && sent < most {
                write(link, &mut self.head, &batch.columns, &self.formats, batch.next, sink)?;
                batch.next += 1;
                sent += 1;
                if link.reply.len() >= SEND_AT {
                    link.flush().await?;
                }
            }
            if batch.next == batch.rows {
                self.batch = None;
            }
            if sent == most {
                return Ok((sent, false));
            }
        }
    }
}

fn write(link: &mut Link, head: &mut BytesMut, columns: &[Column], formats: &[Format], row: usize, sink: Sink<'_>) -> Result<()> {
    match sink {
        Sink::Nowhere => Ok(()),
        Sink::Copy(options) => link.reply.try_message(b'd', |out| {
            out.extend_from_slice(&head.split());
            options.row(columns, row, out)
        }),
        Sink::Client => link.reply.try_message(b'D', |out| {
            out.extend_from_slice(&u16::try_from(columns.len()).unwrap_or(u16::MAX).to_be_bytes());
            columns.iter().zip(formats).try_for_each(|(column, format)| column.write_sized(row, *format, out))
        }),
    }
}
