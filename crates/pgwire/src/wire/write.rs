//! What the server sends.

use bytes::{BufMut, BytesMut};

use crate::error::SqlError;

/// Where a session stands between statements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transaction {
    None,
    Open,
    Failed,
}

impl Transaction {
    const fn letter(self) -> u8 {
        match self {
            Self::None => b'I',
            Self::Open => b'T',
            Self::Failed => b'E',
        }
    }
}

/// A column as it is announced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) oid: u32,
    /// The type's length in bytes, -1 when it varies.
    pub(crate) length: i16,
    /// 0 text, 1 binary.
    pub(crate) format: i16,
}

/// Messages on their way out, one after the other.
#[derive(Debug, Default)]
pub(crate) struct Reply {
    out: BytesMut,
}

impl Reply {
    /// Bytes that wait to be sent.
    pub(crate) fn len(&self) -> usize {
        self.out.len()
    }

    /// All that waits, taken out.
    pub(crate) fn take(&mut self) -> BytesMut {
        self.out.split()
    }

    /// A message with this tag and what `body` writes.
    pub(crate) fn message(&mut self, tag: u8, body: impl FnOnce(&mut BytesMut)) {
        self.out.put_u8(tag);
        let at = self.out.len();
        self.out.put_u32(0);
        body(&mut self.out);
        let length = u32::try_from(self.out.len() - at).unwrap_or(u32::MAX);
        self.out[at..at + 4].copy_from_slice(&length.to_be_bytes());
    }

    /// A message that may fail to be written, and is then not there.
    pub(crate) fn try_message<E>(&mut self, tag: u8, body: impl FnOnce(&mut BytesMut) -> Result<(), E>) -> Result<(), E> {
        let before = self.out.len();
        let mut outcome = Ok(());
        self.message(tag, |out| outcome = body(out));
        if outcome.is_err() {
            self.out.truncate(before);
        }
        outcome
    }

    pub(crate) fn ask_password(&mut self) {
        self.message(b'R', |out| out.put_u32(3));
    }

    pub(crate) fn signed_in(&mut self) {
        self.message(b'R', |out| out.put_u32(0));
    }

    pub(crate) fn parameter(&mut self, name: &str, value: &str) {
        self.message(b'S', |out| {
            text(out, name);
            text(out, value);
        });
    }

    pub(crate) fn key(&mut self, process: u32, secret: u32) {
        self.message(b'K', |out| {
            out.put_u32(process);
            out.put_u32(secret);
        });
    }

    /// Says that of what the client asked for only version 3.0 is spoken.
    pub(crate) fn version(&mut self, unknown: &[&str]) {
        self.message(b'v', |out| {
            out.put_u32(3 << 16);
            out.put_u32(u32::try_from(unknown.len()).unwrap_or(0));
            unknown.iter().for_each(|name| text(out, name));
        });
    }

    pub(crate) fn ready(&mut self, transaction: Transaction) {
        self.message(b'Z', |out| out.put_u8(transaction.letter()));
    }

    pub(crate) fn complete(&mut self, tag: &str) {
        self.message(b'C', |out| text(out, tag));
    }

    /// A message without a body: parse complete `1`, bind complete `2`, close complete `3`, no data `n`, suspended `s`, empty `I`, copy done `c`.
    pub(crate) fn bare(&mut self, tag: u8) {
        self.message(tag, |_| {});
    }

    pub(crate) fn parameters(&mut self, oids: &[u32]) {
        self.message(b't', |out| {
            out.put_u16(count(oids.len()));
            oids.iter().for_each(|oid| out.put_u32(*oid));
        });
    }

    pub(crate) fn columns(&mut self, fields: &[Field]) {
        self.message(b'T', |out| {
            out.put_u16(count(fields.len()));
            for field in fields {
                text(out, &field.name);
                out.put_u32(0);
                out.put_u16(0);
                out.put_u32(field.oid);
                out.put_i16(field.length);
                out.put_i32(-1);
                out.put_i16(field.format);
            }
        });
    }

    /// The start of a COPY TO STDOUT.
    pub(crate) fn copy_out(&mut self, binary: bool, columns: usize) {
        self.message(b'H', |out| {
            out.put_u8(u8::from(binary));
            out.put_u16(count(columns));
            (0..columns).for_each(|_| out.put_i16(i16::from(binary)));
        });
    }

    pub(crate) fn error(&mut self, error: &SqlError, severity: &str) {
        self.message(b'E', |out| problem(out, error, severity));
    }

    pub(crate) fn notice(&mut self, notice: &SqlError, severity: &str) {
        self.message(b'N', |out| problem(out, notice, severity));
    }
}

fn problem(out: &mut BytesMut, error: &SqlError, severity: &str) {
    let mut field = |tag: u8, value: &str| {
        out.put_u8(tag);
        text(out, value);
    };
    field(b'S', severity);
    field(b'V', severity);
    field(b'C', error.state);
    field(b'M', &error.message);
    if let Some(hint) = &error.hint {
        field(b'H', hint);
    }
    if let Some(position) = error.position {
        field(b'P', &position.to_string());
    }
    out.put_u8(0);
}

/// A text with the zero byte that ends it; a zero byte inside would end it too early.
fn text(out: &mut BytesMut, value: &str) {
    out.extend(value.bytes().filter(|b| *b != 0));
    out.put_u8(0);
}

/// PostgreSQL has at most 1,600 columns; what does not fit into the count is cut by the session before.
fn count(n: usize) -> u16 {
    u16::try_from(n).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_carry_their_length() {
        let mut reply = Reply::default();
        reply.complete("SELECT 3");
        reply.ready(Transaction::Open);
        assert_eq!(&reply.take()[..], b"C\0\0\0\x0dSELECT 3\0Z\0\0\0\x05T");
        assert!(
            reply
                .try_message(b'D', |out| {
                    out.put_u8(1);
                    Err::<(), ()>(())
                })
                .is_err()
        );
        assert_eq!(reply.len(), 0);
    }

    #[test]
    fn an_error_has_its_state_hint_and_position() {
        let mut reply = Reply::default();
        let error = SqlError { state: "42703", message: "no\0such".into(), hint: Some("try".into()), position: Some(8) };
        reply.error(&error, "ERROR");
        assert_eq!(&reply.take()[5..], b"SERROR\0VERROR\0C42703\0Mnosuch\0Htry\0P8\0\0");
    }
}
