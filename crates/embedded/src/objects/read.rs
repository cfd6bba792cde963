//! Reading objects in pieces.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use tidemill_base::{Error, Result};
use tokio::task::spawn_blocking;

use super::blobs::{Blobs, Pin};
use super::error::foreign;
use super::record::{Blob, Record};

/// How much is read at once.
const CHUNK_BYTES: u64 = 256 << 10;

/// An object opened for reading. Overwriting or deleting the object does not disturb it.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) record: Record,
    /// The contents, when they are kept in the store.
    pub(super) inline: Option<Bytes>,
    pub(super) blobs: Arc<Blobs>,
    /// Held for what it does when it goes.
    pub(super) _pin: Pin,
}

/// A piece of a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Piece {
    blob: Blob,
    offset: u64,
    len: u64,
}

impl Opened {
    fn pieces(&self, range: &Range<u64>) -> VecDeque<Piece> {
        cut(&self.record.blobs, range)
    }

    /// The bytes of `range`, as one. Blocks.
    pub(super) fn read(&self, range: &Range<u64>) -> Result<Bytes> {
        if let Some(contents) = &self.inline {
            return slice(contents, range);
        }
        let pieces = self.pieces(range);
        let read = |p: &Piece| self.blobs.read(&p.blob, p.offset, to_usize(p.len)?);
        if let [only] = pieces.as_slices().0 {
            return read(only);
        }
        let mut out = Vec::with_capacity(to_usize(range.end - range.start)?);
        for piece in &pieces {
            out.extend_from_slice(&read(piece)?);
        }
        Ok(out.into())
    }

    /// The bytes of `range`, as they come.
    pub(super) fn stream(self, range: Range<u64>) -> BoxStream<'static, object_store::Result<Bytes>> {
        if let Some(contents) = &self.inline {
            return stream::iter([slice(contents, &range).map_err(foreign)]).boxed();
        }
        let pieces = self.pieces(&range);
        let opened = Arc::new(self);
        stream::unfold((opened, pieces), |(opened, mut pieces)| async move {
            let piece = pieces.pop_front()?;
            let reader = opened.clone();
            let read = spawn_blocking(move || reader.blobs.read(&piece.blob, piece.offset, to_usize(piece.len)?)).await;
            let read = read.map_err(object_store::Error::from).and_then(|r| r.map_err(foreign));
            // After an error there is nothing more to be had.
            let rest = if read.is_ok() { pieces } else { VecDeque::new() };
            Some((read, (opened, rest)))
        })
        // Whoever collects the bytes of an empty object asks once more after the end.
        .fuse()
        .boxed()
    }

    /// The blobs that are files.
    pub(super) fn files(record: &Record) -> Vec<u64> {
        record.blobs.iter().filter(|b| !b.inline).map(|b| b.id).collect()
    }
}

/// What of each blob lies within `range` of the whole, in pieces that can be read at once.
fn cut(blobs: &[Blob], range: &Range<u64>) -> VecDeque<Piece> {
    let (mut out, mut start) = (VecDeque::new(), 0);
    for blob in blobs {
        let (from, until) = (range.start.max(start), range.end.min(start + blob.len));
        let mut offset = from;
        while offset < until {
            let len = (until - offset).min(CHUNK_BYTES);
            out.push_back(Piece { blob: blob.clone(), offset: offset - start, len });
            offset += len;
        }
        start += blob.len;
    }
    out
}

fn slice(contents: &Bytes, range: &Range<u64>) -> Result<Bytes> {
    let (start, end) = (to_usize(range.start)?, to_usize(range.end)?);
    if end > contents.len() {
        return Err(Error::corrupt(format!("an object kept in the store has {} bytes, fewer than its record says", contents.len())));
    }
    Ok(contents.slice(start..end))
}

fn to_usize(n: u64) -> Result<usize> {
    usize::try_from(n).map_err(|_| Error::invalid(format!("{n} bytes do not fit into memory; read a smaller range")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_cut_at_blobs_and_chunks() {
        let blob = |id, len| Blob { id, len, md5: [0; 16], inline: false };
        let blobs = [blob(1, 10), blob(2, CHUNK_BYTES + 5), blob(3, 1)];
        let cut = |range| cut(&blobs, &range).iter().map(|p| (p.blob.id, p.offset, p.len)).collect::<Vec<_>>();
        assert_eq!(cut(8..12), [(1, 8, 2), (2, 0, 2)]);
        assert_eq!(cut(10..15 + CHUNK_BYTES), [(2, 0, CHUNK_BYTES), (2, CHUNK_BYTES, 5)]);
        assert_eq!(cut(16 + CHUNK_BYTES - 1..16 + CHUNK_BYTES), [(3, 0, 1)]);
        assert_eq!(cut(4..4), []);
    }
}
