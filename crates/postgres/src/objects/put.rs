//! Writing contents, and making objects name them.

use md5::{Digest, Md5};
use object_store::path::Path;
use object_store::{PutMode, PutPayload, PutResult};
use tidemill_base::Error;
use tokio::task::spawn_blocking;
use tokio_postgres::types::ToSql;

use super::error::{exists, foreign, foreign_pg, mismatch, not_found};
use super::statements::{BEGIN, CHUNK, COPY, DELETE, NAME, NUMBER, RENAME};
use super::{PostgresObjects, check_path};
use crate::link::{Block, lock_key};

/// Contents up to this size are in the object's own row.
const INLINE_BYTES: usize = 256 << 10;
/// The size of a piece of larger ones.
pub(super) const CHUNK_BYTES: usize = 1 << 20;
/// Pieces that one statement writes.
const CHUNKS: usize = 4;
/// Bytes that one statement copies within the database, and a chunk more at most.
const COPY_BYTES: i64 = 16 << 20;
/// Beyond this a digest is computed on a thread where that may take a while.
const DIGEST_HERE: usize = 128 << 10;

/// What must hold for an object to be put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Condition {
    /// Nothing.
    Any,
    /// There is no object.
    Absent,
    /// There is one with this entity tag.
    Tag(String),
}

impl From<PutMode> for Condition {
    fn from(mode: PutMode) -> Self {
        match mode {
            PutMode::Overwrite => Self::Any,
            PutMode::Create => Self::Absent,
            PutMode::Update(version) => Self::Tag(version.e_tag.unwrap_or_default()),
        }
    }
}

/// Contents that were written and that no object names yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Staged {
    pub(super) blob: i64,
    pub(super) size: u64,
    pub(super) md5: [u8; 16],
}

/// Contents to be named.
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// Small ones.
    pub(super) inline: Option<Vec<u8>>,
    /// Others, with where each begins.
    pub(super) blobs: Vec<i64>,
    pub(super) starts: Vec<i64>,
    /// The pieces of the one in `blobs`, which are not written yet.
    pub(super) pieces: Vec<Vec<u8>>,
    pub(super) size: i64,
    pub(super) e_tag: String,
}

fn size_of(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

async fn digest(payload: &PutPayload) -> object_store::Result<[u8; 16]> {
    let compute = |payload: &PutPayload| {
        let mut md5 = Md5::new();
        payload.iter().for_each(|bytes| md5.update(bytes));
        <[u8; 16]>::from(md5.finalize())
    };
    if payload.content_length() <= DIGEST_HERE {
        return Ok(compute(payload));
    }
    let payload = payload.clone();
    Ok(spawn_blocking(move || compute(&payload)).await?)
}

/// The payload's bytes in pieces of one size, but for the last.
fn pieces(payload: &PutPayload) -> Vec<Vec<u8>> {
    let mut out: Vec<Vec<u8>> = Vec::with_capacity(payload.content_length().div_ceil(CHUNK_BYTES));
    for bytes in payload {
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            if out.last().is_none_or(|piece| piece.len() == CHUNK_BYTES) {
                out.push(Vec::with_capacity(CHUNK_BYTES));
            }
            let Some(piece) = out.last_mut() else { break };
            let (now, then) = rest.split_at(rest.len().min(CHUNK_BYTES - piece.len()));
            piece.extend_from_slice(now);
            rest = then;
        }
    }
    out
}

/// Where pieces begin, the first of them at `at`.
fn starts(at: i64, count: usize) -> Vec<i64> {
    (0..count).map(|n| at + i64::try_from(n * CHUNK_BYTES).unwrap_or(i64::MAX)).collect()
}

impl PostgresObjects {
    async fn write(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> object_store::Result<Vec<tokio_postgres::Row>> {
        self.shared.link.write(Block::Objects, sql, params).await.map_err(foreign)
    }

    fn locks(&self, paths: &[&str]) -> Vec<i64> {
        let schema = &self.shared.link.target.schema;
        let mut locks: Vec<i64> = paths.iter().map(|path| lock_key(schema, "object", path.as_bytes())).collect();
        locks.sort_unstable();
        locks.dedup();
        locks
    }

    /// A number for contents, from [`NUMBER`] or [`BEGIN`].
    async fn number(&self, sql: &str) -> object_store::Result<i64> {
        let rows = self.write(sql, &[]).await?;
        let row = rows.first().ok_or_else(|| foreign(Error::internal("beginning an object gave no answer")))?;
        row.try_get(0).map_err(foreign_pg)
    }

    /// Writes contents that no object names yet.
    pub(super) async fn stage(&self, payload: &PutPayload) -> object_store::Result<Staged> {
        let (md5, blob) = (digest(payload).await?, self.number(BEGIN).await?);
        let mut at = 0_i64;
        for some in pieces(payload).chunks(CHUNKS) {
            self.write(CHUNK, &[&blob, &starts(at, some.len()), &some]).await?;
            at += some.iter().map(|piece| i64::try_from(piece.len()).unwrap_or(i64::MAX)).sum::<i64>();
        }
        Ok(Staged { blob, size: payload.content_length() as u64, md5 })
    }

    pub(super) async fn put(
        &self,
        path: &Path,
        payload: PutPayload,
        attributes: String,
        condition: Condition,
    ) -> object_store::Result<PutResult> {
        check_path(path)?;
        let contents = if payload.content_length() <= INLINE_BYTES {
            let e_tag = hex::encode(digest(&payload).await?);
            let inline: Vec<u8> = payload.iter().flat_map(|b| b.iter().copied()).collect();
            Contents { size: size_of(inline.len() as u64), inline: Some(inline), e_tag, ..Contents::default() }
        } else if payload.content_length() <= CHUNKS * CHUNK_BYTES {
            // All in one statement, and so in one commit.
            let (e_tag, blob) = (hex::encode(digest(&payload).await?), self.number(NUMBER).await?);
            let size = size_of(payload.content_length() as u64);
            Contents { blobs: vec![blob], starts: vec![0], pieces: pieces(&payload), size, e_tag, inline: None }
        } else {
            let staged = self.stage(&payload).await?;
            let (size, e_tag) = (size_of(staged.size), hex::encode(staged.md5));
            Contents { blobs: vec![staged.blob], starts: vec![0], size, e_tag, ..Contents::default() }
        };
        self.name(path, contents, &attributes, condition).await
    }

    /// Makes the object name its contents.
    pub(super) async fn name(
        &self,
        path: &Path,
        contents: Contents,
        attributes: &str,
        condition: Condition,
    ) -> object_store::Result<PutResult> {
        let text = check_path(path)?;
        let (kind, wanted) = match &condition {
            Condition::Any => (0_i16, ""),
            Condition::Absent => (1, ""),
            Condition::Tag(tag) => (2, tag.as_str()),
        };
        let Contents { inline, blobs, starts: at, pieces, size, e_tag } = contents;
        let begin = starts(0, pieces.len());
        let params: [&(dyn ToSql + Sync); 11] = [&text, &kind, &wanted, &size, &e_tag, &attributes, &inline, &blobs, &at, &begin, &pieces];
        let rows = self.shared.link.locked(Block::Objects, &self.locks(&[text]), NAME, &params).await.map_err(foreign)?;
        let row = rows.first().ok_or_else(|| foreign(Error::internal("naming an object gave no answer")))?;
        if row.try_get(0).map_err(foreign_pg)? {
            return Ok(PutResult { e_tag: Some(e_tag), version: None });
        }
        let found: Option<String> = row.try_get(1).map_err(foreign_pg)?;
        Err(match condition {
            Condition::Tag(wanted) => mismatch(text, found.as_deref().unwrap_or("none"), &wanted),
            Condition::Absent | Condition::Any => exists(text),
        })
    }

    /// Gives `to` contents of its own like those of `from`.
    pub(super) async fn copy_object(&self, from: &Path, to: &Path, condition: Condition) -> object_store::Result<()> {
        check_path(to)?;
        let record = self.find(from, true).await?;
        let (size, e_tag) = (size_of(record.meta.size), record.meta.e_tag.clone().unwrap_or_default());
        let contents = match (record.contents, record.blob) {
            (None, Some(source)) => {
                let blob = self.number(BEGIN).await?;
                let (mut at, mut copied) = (0, 0);
                while at < size {
                    let until = at + COPY_BYTES;
                    for row in self.write(COPY, &[&blob, &source, &at, &until]).await? {
                        copied += i64::from(row.try_get::<_, i32>(0).map_err(foreign_pg)?);
                    }
                    at = until;
                }
                if copied != size {
                    return Err(super::read::gone(from));
                }
                Contents { blobs: vec![blob], starts: vec![0], size, e_tag, ..Contents::default() }
            }
            (inline, _) => Contents { inline: Some(inline.unwrap_or_default().to_vec()), size, e_tag, ..Contents::default() },
        };
        self.name(to, contents, &record.attributes, condition).await.map(drop)
    }

    /// Moves the object from one path to another.
    pub(super) async fn rename_object(&self, from: &Path, to: &Path, create: bool) -> object_store::Result<()> {
        let (from, to) = (check_path(from)?, check_path(to)?);
        let locks = self.locks(&[from, to]);
        let rows = self.shared.link.locked(Block::Objects, &locks, RENAME, &[&from, &to, &create]).await.map_err(foreign)?;
        let row = rows.first().ok_or_else(|| foreign(Error::internal("renaming an object gave no answer")))?;
        let (there, taken): (bool, bool) = (row.try_get(0).map_err(foreign_pg)?, row.try_get(1).map_err(foreign_pg)?);
        match (there, taken) {
            (false, _) => Err(not_found(from)),
            (true, true) => Err(exists(to)),
            (true, false) => Ok(()),
        }
    }

    /// Deletes several; the answers are in the order asked.
    pub(super) async fn delete_some(&self, some: Vec<object_store::Result<Path>>) -> Vec<object_store::Result<Path>> {
        let paths: Vec<&str> = some.iter().flatten().map(Path::as_ref).collect();
        let done = self.shared.link.locked(Block::Objects, &self.locks(&paths), DELETE, &[&paths]).await.map(drop);
        let Err(e) = done else { return some };
        let mut answers: Vec<_> = some.into_iter().filter(Result::is_err).collect();
        answers.push(Err(foreign(e)));
        answers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_are_cut_into_equal_pieces() {
        let payload: PutPayload = [vec![1; 10], vec![2; 2 * CHUNK_BYTES], vec![], vec![3; 5]].into_iter().map(bytes::Bytes::from).collect();
        let pieces = pieces(&payload);
        assert_eq!(pieces.iter().map(Vec::len).collect::<Vec<_>>(), [CHUNK_BYTES, CHUNK_BYTES, 15]);
        assert_eq!(pieces.concat(), payload.iter().flatten().copied().collect::<Vec<u8>>());
    }
}
