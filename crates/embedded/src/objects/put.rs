//! Making the index name new contents, and letting go of the old.

use std::sync::Arc;

use bytes::Bytes;
use fjall::Slice;
use object_store::path::Path;
use object_store::{Attributes, PutPayload, PutResult};
use tidemill_base::{Error, Result};
use tokio::task::spawn_blocking;

use super::Inner;
use super::blobs::{Blobs, Unclaimed};
use super::error::{exists, foreign, mismatch, not_found};
use super::read::Opened;
use super::record::{self, INLINE_BYTES, Record, StoredAttributes};
use crate::store::{Durability, Group, Space};

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

/// New contents of an object, in blobs that nobody owns yet.
#[derive(Debug)]
pub(super) struct Contents {
    pub(super) blobs: Vec<Unclaimed>,
    /// Of the first blob, when it is kept in the store.
    pub(super) inline: Option<Bytes>,
}

/// Why an object was not put. A decision's own errors mean that the store failed; these are answers.
pub(super) type Refused = object_store::Error;

pub(super) fn key(path: &Path) -> Slice {
    path.as_ref().as_bytes().into()
}

pub(super) fn attributes(attributes: &Attributes) -> object_store::Result<StoredAttributes> {
    StoredAttributes::new(attributes).ok_or_else(|| object_store::Error::NotSupported {
        source: Box::new(Error::invalid("the object has an attribute of a kind that cannot be kept")),
    })
}

/// The object under `key` as the group has it.
pub(super) fn current(key: &Slice, group: &Group<'_>) -> Result<Option<Record>> {
    let stored = group.get(Space::Objects, key)?;
    stored.map(|s| record::decode(&s, || format!("object `{}`", String::from_utf8_lossy(key)))).transpose()
}

/// Has the contents of an object that is no longer named removed.
pub(super) fn release(blobs: &Arc<Blobs>, old: &Record, group: &mut Group<'_>) {
    for blob in old.blobs.iter().filter(|b| b.inline) {
        group.remove(Space::SmallBlobs, blob.small_key());
    }
    let files = Opened::files(old);
    if !files.is_empty() {
        let blobs = blobs.clone();
        group.after(move || blobs.discard(files));
    }
}

/// Names `record` under `key` if the condition holds.
pub(super) fn name(
    key: Slice,
    condition: &Condition,
    record: &Record,
    blobs: &Arc<Blobs>,
    group: &mut Group<'_>,
) -> Result<Result<PutResult, Refused>> {
    let old = current(&key, group)?;
    let path = String::from_utf8_lossy(&key);
    match (condition, &old) {
        (Condition::Absent, Some(_)) => return Ok(Err(exists(&path))),
        (Condition::Tag(wanted), None) => return Ok(Err(mismatch(&path, "none", wanted))),
        (Condition::Tag(wanted), Some(old)) if old.e_tag() != *wanted => return Ok(Err(mismatch(&path, &old.e_tag(), wanted))),
        _ => {}
    }
    let stored = record::encode(record)?;
    if let Some(old) = old {
        release(blobs, &old, group);
    }
    group.put_seen(Space::Objects, key, stored);
    Ok(Ok(PutResult { e_tag: Some(record.e_tag()), version: None }))
}

impl Inner {
    /// Writes contents: into memory when they are small, else to a file.
    pub(super) async fn write(&self, payload: PutPayload) -> Result<Contents> {
        if payload.content_length() <= INLINE_BYTES {
            let contents = Bytes::from(payload);
            return Ok(Contents { blobs: vec![self.blobs.inline(&contents)], inline: Some(contents) });
        }
        Ok(Contents { blobs: vec![self.write_file(payload).await?], inline: None })
    }

    /// Writes contents to a file.
    pub(super) async fn write_file(&self, payload: PutPayload) -> Result<Unclaimed> {
        self.store.check_room_for(payload.content_length() as u64)?;
        let blobs = self.blobs.clone();
        spawn_blocking(move || blobs.write(&payload)).await.map_err(|e| Error::internal("write an object").with_source(e))?
    }

    /// Puts an object of one blob.
    pub(super) async fn put(
        &self,
        path: &Path,
        contents: Contents,
        attributes: StoredAttributes,
        condition: Condition,
    ) -> object_store::Result<PutResult> {
        let now = self.env.now();
        let make = move |blobs: Vec<_>| match <[_; 1]>::try_from(blobs) {
            Ok([blob]) => Record::single(blob, now, attributes),
            Err(blobs) => Record::multipart(blobs, now, attributes),
        };
        self.name(path, contents, make, condition).await
    }

    /// Names the object that `make` makes of the contents' blobs.
    pub(super) async fn name(
        &self,
        path: &Path,
        contents: Contents,
        make: impl FnOnce(Vec<record::Blob>) -> Record + Send + 'static,
        condition: Condition,
    ) -> object_store::Result<PutResult> {
        let (key, blobs) = (key(path), self.blobs.clone());
        let decide = move |group: &mut Group<'_>| {
            let record = make(contents.blobs.iter().filter_map(|b| b.blob().cloned()).collect());
            let named = name(key, &condition, &record, &blobs, group)?;
            if named.is_ok() {
                if let (Some(bytes), Some(blob)) = (contents.inline, record.blobs.first()) {
                    group.put(Space::SmallBlobs, blob.small_key(), bytes);
                }
                // From here on the files may be named on the disk, even if the commit is reported to have failed.
                contents.blobs.into_iter().for_each(Unclaimed::claim);
            }
            Ok(named)
        };
        self.store.commit(Durability::Synced, decide).await.map_err(foreign)?
    }

    /// Gives `to` the same contents as the opened object.
    pub(super) async fn copy(&self, opened: Opened, to: &Path, condition: Condition) -> object_store::Result<()> {
        let (record, blobs) = (opened.record.clone(), self.blobs.clone());
        let contents = match &opened.inline {
            Some(inline) => Contents { blobs: vec![blobs.inline(inline)], inline: Some(inline.clone()) },
            None => {
                let duplicate = move || opened.record.blobs.iter().map(|b| blobs.duplicate(b)).collect::<Result<Vec<_>>>();
                Contents { blobs: spawn_blocking(duplicate).await?.map_err(foreign)?, inline: None }
            }
        };
        let modified = self.env.now().micros();
        self.name(to, contents, move |blobs| Record { blobs, modified, ..record }, condition).await.map(drop)
    }

    /// Moves the object from one key to another.
    pub(super) async fn rename(&self, from: &Path, to: &Path, condition: Condition) -> object_store::Result<()> {
        let (from, to, blobs) = (key(from), key(to), self.blobs.clone());
        let decide = move |group: &mut Group<'_>| {
            let Some(record) = current(&from, group)? else { return Ok(Err(not_found(&String::from_utf8_lossy(&from)))) };
            if from == to && condition == Condition::Any {
                return Ok(Ok(()));
            }
            let named = name(to, &condition, &record, &blobs, group)?;
            if named.is_ok() {
                group.remove_seen(Space::Objects, from);
            }
            Ok(named.map(drop))
        };
        self.store.commit(Durability::Synced, decide).await.map_err(foreign)?
    }
}
