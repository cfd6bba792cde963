//! Reading objects, piece by piece.

use std::ops::Range;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use tidemill_base::Error;

use super::error::{foreign, foreign_pg, not_found};
use super::put::CHUNK_BYTES;
use super::record::{Record, meta};
use super::{PostgresObjects, check_path};
use crate::link::Block;

/// Pieces read by one statement.
const CHUNKS: i64 = 4;

const FIND: &str = "
SELECT path, size, etag, modified, attributes, blob, CASE WHEN $2 THEN contents END FROM tidemill_objects WHERE path = $1";

/// What of each piece lies within bytes `$2` to `$3`. A piece begins less than `$5` before its end.
const READ: &str = "
SELECT at, substring(data FROM (GREATEST($2 - at, 0) + 1)::int FOR (LEAST(at + size, $3) - GREATEST(at, $2))::int)
FROM tidemill_chunks WHERE blob = $1 AND at > $2 - $5 AND at < $3 AND at + size > $2 ORDER BY at LIMIT $4";

/// The contents have gone while they were read.
pub(super) fn gone(path: &Path) -> object_store::Error {
    foreign(Error::unavailable(format!("object `{path}` was overwritten or deleted a while ago and is still being read; read it again")))
}

impl PostgresObjects {
    /// The object, with small contents if `contents`.
    pub(super) async fn find(&self, path: &Path, contents: bool) -> object_store::Result<Record> {
        let text = check_path(path)?;
        let rows = self.shared.link.read(Block::Objects, FIND, &[&text, &contents]).await.map_err(foreign)?;
        let row = rows.first().ok_or_else(|| not_found(text))?;
        let read = || -> Result<Record, tokio_postgres::Error> {
            Ok(Record {
                meta: meta(row, 0)?,
                attributes: row.try_get(4)?,
                blob: row.try_get(5)?,
                contents: row.try_get::<_, Option<&[u8]>>(6)?.map(Bytes::copy_from_slice),
            })
        };
        read().map_err(foreign_pg)
    }

    /// The bytes of `range`, as they come. No connection is held between two of them.
    pub(super) fn stream(&self, record: Record, range: Range<u64>) -> BoxStream<'static, object_store::Result<Bytes>> {
        let size = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        if let Some(contents) = &record.contents {
            let (start, end) = (size(range.start).min(contents.len()), size(range.end).min(contents.len()));
            return stream::iter([Ok(contents.slice(start..end))]).boxed();
        }
        let Some(blob) = record.blob else { return stream::empty().boxed() };
        let (this, path) = (self.clone(), record.meta.location);
        let pages = stream::try_unfold(range, move |range| {
            let (this, path) = (this.clone(), path.clone());
            async move {
                if range.is_empty() {
                    return Ok(None);
                }
                let page = this.page(blob, &range, &path).await?;
                let next = range.start + page.iter().map(|b| b.len() as u64).sum::<u64>();
                Ok::<_, object_store::Error>(Some((stream::iter(page.into_iter().map(Ok)), next..range.end)))
            }
        });
        pages.try_flatten().boxed()
    }

    /// The first few pieces of `range`.
    async fn page(&self, blob: i64, range: &Range<u64>, path: &Path) -> object_store::Result<Vec<Bytes>> {
        let (start, end) = (i64::try_from(range.start).unwrap_or(i64::MAX), i64::try_from(range.end).unwrap_or(i64::MAX));
        let longest = CHUNK_BYTES as i64;
        let rows = self.shared.link.read(Block::Objects, READ, &[&blob, &start, &end, &CHUNKS, &longest]).await.map_err(foreign)?;
        let (mut page, mut at) = (Vec::with_capacity(rows.len()), start);
        for row in &rows {
            let (begins, bytes): (i64, &[u8]) = (row.try_get(0).map_err(foreign_pg)?, row.try_get(1).map_err(foreign_pg)?);
            if begins > at || bytes.is_empty() {
                return Err(gone(path));
            }
            at += bytes.len() as i64;
            page.push(Bytes::copy_from_slice(bytes));
        }
        if page.is_empty() { Err(gone(path)) } else { Ok(page) }
    }

    /// The bytes of `range`, as one.
    pub(super) async fn bytes(&self, record: &Record, range: Range<u64>) -> object_store::Result<Bytes> {
        let parts: Vec<Bytes> = self.stream(record.clone(), range).try_collect().await?;
        Ok(match <[Bytes; 1]>::try_from(parts) {
            Ok([only]) => only,
            Err(parts) => parts.concat().into(),
        })
    }
}
