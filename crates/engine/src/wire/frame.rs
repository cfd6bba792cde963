//! Frames: how the stream of bytes is cut into messages.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tidemill_base::{Error, Result};

use super::HEADER_BYTES;

/// The stream's buffer grows by at least this much ...
const GROWTH: usize = 64 << 10;
/// ... when it has less room than this.
const LEAST: usize = 4 << 10;

/// One message, not yet looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// See [`super::kind`].
    pub kind: u8,
    /// What it says.
    pub body: Bytes,
}

/// Cuts a stream into frames, however it is cut on its way.
#[derive(Debug)]
pub struct Frames {
    buffer: BytesMut,
    longest: u32,
}

impl Frames {
    /// Frames whose bodies have at most `longest` bytes.
    pub fn new(longest: u32) -> Self {
        Self { buffer: BytesMut::new(), longest }
    }

    /// Other frames may be longer, or must be shorter, from now on.
    pub fn set_longest(&mut self, longest: u32) {
        self.longest = longest;
    }

    /// Where to put what comes next. It has room.
    pub fn buffer(&mut self) -> &mut BytesMut {
        let missing = self.missing();
        // As long as there is room for a good read, the rest of a buffer is used up before there is a new one.
        if self.buffer.capacity() - self.buffer.len() < missing.max(LEAST) {
            self.buffer.reserve(missing.max(GROWTH));
        }
        &mut self.buffer
    }

    /// How many more bytes the frame that has begun needs.
    fn missing(&self) -> usize {
        let Some((head, _)) = self.buffer.split_first_chunk::<4>() else { return 0 };
        // Only as much as a frame may have, whatever its length claims.
        let len = u32::from_le_bytes(*head).min(self.longest) as usize;
        (HEADER_BYTES + len).saturating_sub(self.buffer.len())
    }

    /// The next whole frame. An error is final: nobody can say where the next frame begins.
    pub fn next_frame(&mut self) -> Result<Option<Frame>> {
        let Some((head, _)) = self.buffer.split_first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let &[a, b, c, d, kind] = head;
        let len = u32::from_le_bytes([a, b, c, d]);
        if len > self.longest {
            return Err(Error::invalid(format!("a frame of kind {kind:#04x} claims {len} bytes, at most {} are allowed", self.longest)));
        }
        let end = HEADER_BYTES + len as usize;
        if self.buffer.len() < end {
            return Ok(None);
        }
        let mut frame = self.buffer.split_to(end).freeze();
        frame.advance(HEADER_BYTES);
        Ok(Some(Frame { kind, body: frame }))
    }

    /// Whether the stream has ended within a frame.
    pub fn is_within_frame(&self) -> bool {
        !self.buffer.is_empty()
    }
}

/// Writes a frame: `body` writes what is in it, and the length is filled in afterwards.
pub(super) fn write(out: &mut BytesMut, kind: u8, body: impl FnOnce(&mut BytesMut)) {
    let start = out.len();
    out.put_u32_le(0);
    out.put_u8(kind);
    body(out);
    let len = super::bytes::length(out.len() - start - HEADER_BYTES);
    out[start..start + 4].copy_from_slice(&len.to_le_bytes());
}
