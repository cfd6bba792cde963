//! Reading and writing the pieces that messages are made of: little-endian numbers, and byte strings with their length before them.

use bytes::{BufMut, Bytes, BytesMut};
use tidemill_base::{Error, Result};

use super::{LIST_ITEMS, NAME_BYTES};

/// Reads a message's body from its beginning. Every read is checked, and says what was being read.
#[derive(Debug)]
pub(super) struct Reader {
    message: &'static str,
    rest: Bytes,
}

impl Reader {
    pub(super) fn new(message: &'static str, body: Bytes) -> Self {
        Self { message, rest: body }
    }

    pub(super) fn wrong(&self, what: impl std::fmt::Display) -> Error {
        Error::invalid(format!("{} frame: {what}", self.message))
    }

    /// The next `len` bytes, shared and not copied.
    pub(super) fn take(&mut self, len: usize, what: &str) -> Result<Bytes> {
        if len > self.rest.len() {
            return Err(self.wrong(format_args!("{what} needs {len} bytes, {} are left", self.rest.len())));
        }
        Ok(self.rest.split_to(len))
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N]> {
        let Some((head, _)) = self.rest.split_first_chunk::<N>() else {
            return Err(self.wrong(format_args!("{what} needs {N} bytes, {} are left", self.rest.len())));
        };
        let head = *head;
        drop(self.rest.split_to(N));
        Ok(head)
    }

    pub(super) fn u8(&mut self, what: &str) -> Result<u8> {
        Ok(u8::from_le_bytes(self.array(what)?))
    }

    pub(super) fn u16(&mut self, what: &str) -> Result<u16> {
        Ok(u16::from_le_bytes(self.array(what)?))
    }

    pub(super) fn u32(&mut self, what: &str) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    pub(super) fn u64(&mut self, what: &str) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    /// A number of things that is at most `most`.
    pub(super) fn count(&mut self, most: usize, what: &str) -> Result<usize> {
        let count = self.u32(what)? as usize;
        if count > most { Err(self.wrong(format_args!("{count} {what}, at most {most}"))) } else { Ok(count) }
    }

    /// Bytes with their length before them.
    pub(super) fn blob(&mut self, what: &str) -> Result<Bytes> {
        let len = self.u32(what)? as usize;
        self.take(len, what)
    }

    /// UTF-8 with its length in bytes before it, at most `most` bytes.
    pub(super) fn text(&mut self, most: usize, what: &str) -> Result<String> {
        let len = self.count(most, what)?;
        let bytes = self.take(len, what)?;
        match std::str::from_utf8(&bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(self.wrong(format_args!("{what} is not UTF-8"))),
        }
    }

    pub(super) fn name(&mut self, what: &str) -> Result<String> {
        self.text(NAME_BYTES, what)
    }

    /// A list: how many, then one after the other.
    pub(super) fn list<T>(&mut self, what: &str, mut one: impl FnMut(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        let count = self.count(LIST_ITEMS, what)?;
        (0..count).map(|_| one(self)).collect()
    }

    /// A column of `count` numbers of `N` bytes.
    pub(super) fn column<const N: usize, T>(&mut self, count: usize, what: &str, number: impl Fn([u8; N]) -> T) -> Result<Vec<T>> {
        let bytes = self.take(count.saturating_mul(N), what)?;
        let (numbers, _) = bytes.as_chunks::<N>();
        Ok(numbers.iter().map(|n| number(*n)).collect())
    }

    /// Nothing may be left.
    pub(super) fn end(self) -> Result<()> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.wrong(format_args!("{} bytes too many at its end", self.rest.len()))) }
    }

    /// What is left.
    pub(super) fn rest(self) -> Bytes {
        self.rest
    }
}

/// Lengths are checked where values come from; one that does not fit after all is cut, so that a frame stays readable.
pub(super) fn length(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

pub(super) fn put_blob(out: &mut BytesMut, bytes: &[u8]) {
    let len = length(bytes.len());
    out.put_u32_le(len);
    out.put_slice(&bytes[..len as usize]);
}

pub(super) fn put_name(out: &mut BytesMut, name: &str) {
    put_blob(out, cut(name, NAME_BYTES).as_bytes());
}

/// The beginning of a text, at most `most` bytes, whole characters.
pub(super) fn cut(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}
