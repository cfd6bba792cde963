//! Uploads in parts.
//!
//! An upload through [`ObjectStore::put_multipart_opts`](object_store::ObjectStore::put_multipart_opts) lives in its handle: what is
//! not completed is gone with it. An upload by id, as S3 clients make it over many requests, is kept in the store and survives a
//! restart; it is dropped when it has not been completed within a week.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use fjall::Slice;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{MultipartId, MultipartUpload, PutMode, PutMultipartOptions, PutPayload, PutResult, UploadPart};
use tidemill_base::{Error, Result, Timestamp};

use super::EmbeddedObjects;
use super::blobs::{Blobs, Unclaimed};
use super::error::{foreign, not_found};
use super::put::{self, Condition, Contents};
use super::record::{self, Blob, Record, StoredAttributes, UploadRecord};
use crate::store::{Durability, Group, Space, Store, Sweep, View};

const KEEP_UPLOADS: Duration = Duration::from_secs(7 * 24 * 3600);

/// A part that has been uploaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadedPart {
    /// Its number; parts are put together in the order of their numbers.
    pub number: u32,
    /// Its size in bytes.
    pub size: u64,
    /// MD5 of its contents in hexadecimal.
    pub e_tag: String,
}

/// An upload that lives in its handle.
#[derive(Debug)]
pub(super) struct Upload {
    objects: EmbeddedObjects,
    path: Path,
    attributes: StoredAttributes,
    parts: Arc<Mutex<BTreeMap<usize, Unclaimed>>>,
    started: usize,
}

impl Upload {
    pub(super) fn new(objects: EmbeddedObjects, path: Path, attributes: StoredAttributes) -> Self {
        Self { objects, path, attributes, parts: Arc::default(), started: 0 }
    }
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (inner, parts, number) = (self.objects.inner.clone(), self.parts.clone(), self.started);
        self.started += 1;
        Box::pin(async move {
            let blob = inner.write_file(data).await.map_err(foreign)?;
            parts.lock().unwrap_or_else(PoisonError::into_inner).insert(number, blob);
            Ok(())
        })
    }

    async fn complete(&mut self) -> object_store::Result<PutResult> {
        let parts = std::mem::take(&mut *self.parts.lock().unwrap_or_else(PoisonError::into_inner));
        if parts.len() != self.started {
            let e = Error::invalid(format!(
                "{} of {} parts of `{}` are uploaded; wait for all, then complete",
                parts.len(),
                self.started,
                self.path
            ));
            return Err(foreign(e));
        }
        let contents = Contents { blobs: parts.into_values().collect(), inline: None };
        let (now, attributes) = (self.objects.inner.env.now(), self.attributes.clone());
        self.objects.inner.name(&self.path, contents, move |blobs| Record::multipart(blobs, now, attributes), Condition::Any).await
    }

    async fn abort(&mut self) -> object_store::Result<()> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner).clear();
        Ok(())
    }
}

fn parse_id(id: &MultipartId) -> object_store::Result<u64> {
    u64::from_str_radix(id, 16).map_err(|_| not_found(&format!("upload {id}")))
}

/// The upload, if it is one to `path`.
fn upload(key: &Slice, path: &Path, group: &Group<'_>) -> Result<Option<UploadRecord>> {
    let stored = group.get(Space::Uploads, key)?;
    let record: Option<UploadRecord> = stored.map(|s| record::decode(&s, || format!("an upload to `{path}`"))).transpose()?;
    Ok(record.filter(|r| r.path == path.as_ref()))
}

impl EmbeddedObjects {
    /// Begins an upload by id.
    pub async fn create_upload(&self, path: &Path, opts: PutMultipartOptions) -> object_store::Result<MultipartId> {
        let attributes = put::attributes(&opts.attributes)?;
        let id = self.inner.env.random_u64();
        let record = UploadRecord { path: path.to_string(), attributes, started: self.inner.env.now().micros() };
        let stored = record::encode(&record).map_err(foreign)?;
        let decide = move |group: &mut Group<'_>| {
            group.put_seen(Space::Uploads, record::upload_key(id), stored);
            Ok(())
        };
        self.inner.store.commit(Durability::Synced, decide).await.map_err(foreign)?;
        Ok(format!("{id:016x}"))
    }

    /// Uploads a part, over an earlier one of the same number. `NotFound` when there is no such upload to `path`.
    pub async fn upload_part(&self, path: &Path, id: &MultipartId, number: u32, data: PutPayload) -> object_store::Result<UploadedPart> {
        let upload_id = parse_id(id)?;
        let part = self.inner.write_file(data).await.map_err(foreign)?;
        let (path, blobs) = (path.clone(), self.inner.blobs.clone());
        let decide = move |group: &mut Group<'_>| {
            let Some(blob) = part.blob().cloned() else { return Ok(None) };
            if upload(&record::upload_key(upload_id), &path, group)?.is_none() {
                return Ok(None);
            }
            let key = record::part_key(upload_id, number);
            let old: Option<Blob> =
                group.get(Space::Uploads, &key)?.map(|s| record::decode(&s, || format!("part {number}"))).transpose()?;
            group.put_seen(Space::Uploads, key, record::encode(&blob)?);
            part.claim();
            if let Some(old) = old {
                group.after(move || blobs.discard(vec![old.id]));
            }
            Ok(Some(uploaded(number, &blob)))
        };
        let done = self.inner.store.commit(Durability::Synced, decide).await.map_err(foreign)?;
        done.ok_or_else(|| not_found(&format!("upload {id}")))
    }

    /// The parts of an upload that are there, by number.
    pub async fn uploaded_parts(&self, path: &Path, id: &MultipartId) -> object_store::Result<Vec<UploadedPart>> {
        let id = parse_id(id)?;
        let view = self.inner.store.snapshot();
        let record = view.get(Space::Uploads, &record::upload_key(id)).map_err(foreign)?;
        let record: Option<UploadRecord> =
            record.map(|s| record::decode(&s, || format!("an upload to `{path}`"))).transpose().map_err(foreign)?;
        record.filter(|r| r.path == path.as_ref()).ok_or_else(|| not_found(&format!("upload {id:016x}")))?;
        Ok(parts(&view, id).map_err(foreign)?.iter().map(|(number, blob)| uploaded(*number, blob)).collect())
    }

    /// Makes the object of the parts named, in ascending order of their numbers, with their entity tags. Parts not named are
    /// dropped. `NotFound` when there is no such upload to `path`, `Generic` with `Invalid` inside when a part is not there or has
    /// another tag.
    pub async fn complete_upload(
        &self,
        path: &Path,
        id: &MultipartId,
        named: Vec<(u32, String)>,
        mode: PutMode,
    ) -> object_store::Result<PutResult> {
        let upload_id = parse_id(id)?;
        if !named.is_sorted_by(|a, b| a.0 < b.0) {
            return Err(foreign(Error::invalid("the parts of an upload must be named in ascending order, each once")));
        }
        let known = parts(&self.inner.store.snapshot(), upload_id).map_err(foreign)?;
        let (path, condition, blobs, now) = (path.clone(), Condition::from(mode), self.inner.blobs.clone(), self.inner.env.now());
        let decide = move |group: &mut Group<'_>| {
            let key = record::upload_key(upload_id);
            let Some(upload) = upload(&key, &path, group)? else { return Ok(Err(not_found(&format!("upload {upload_id:016x}")))) };
            let chosen = match choose(upload_id, &named, group)? {
                Ok(chosen) => chosen,
                Err(e) => return Ok(Err(foreign(e))),
            };
            let record = Record::multipart(chosen, now, upload.attributes);
            let put = put::name(put::key(&path), &condition, &record, &blobs, group)?;
            if put.is_ok() {
                forget(upload_id, &known, Some(&record), &blobs, group);
            }
            Ok(put)
        };
        self.inner.store.commit(Durability::Synced, decide).await.map_err(foreign)?
    }

    /// Drops an upload and its parts. Dropping what is not there is no error.
    pub async fn abort_upload(&self, id: &MultipartId) -> object_store::Result<()> {
        let id = parse_id(id)?;
        let known = parts(&self.inner.store.snapshot(), id).map_err(foreign)?;
        let blobs = self.inner.blobs.clone();
        let decide = move |group: &mut Group<'_>| {
            forget(id, &known, None, &blobs, group);
            Ok(())
        };
        self.inner.store.commit(Durability::Synced, decide).await.map_err(foreign)
    }
}

fn uploaded(number: u32, blob: &Blob) -> UploadedPart {
    UploadedPart { number, size: blob.len, e_tag: hex::encode(blob.md5) }
}

/// The blobs of the parts named, or what is wrong with the names.
fn choose(upload: u64, named: &[(u32, String)], group: &Group<'_>) -> Result<Result<Vec<Blob>>> {
    let mut chosen = Vec::with_capacity(named.len());
    for (number, tag) in named {
        let stored = group.get(Space::Uploads, &record::part_key(upload, *number))?;
        let blob: Option<Blob> = stored.map(|s| record::decode(&s, || format!("part {number}"))).transpose()?;
        match blob {
            Some(blob) if hex::encode(blob.md5) == *tag => chosen.push(blob),
            Some(blob) => {
                return Ok(Err(Error::invalid(format!(
                    "part {number} has the entity tag {} and not {tag}; upload it again",
                    hex::encode(blob.md5)
                ))));
            }
            None => return Ok(Err(Error::invalid(format!("part {number} has not been uploaded")))),
        }
    }
    Ok(Ok(chosen))
}

/// Removes an upload's records, and the blobs of parts that did not become part of `object`.
fn forget(id: u64, known: &[(u32, Blob)], object: Option<&Record>, blobs: &Arc<Blobs>, group: &mut Group<'_>) {
    group.remove_seen(Space::Uploads, record::upload_key(id));
    let mut unused = Vec::new();
    for (number, blob) in known {
        group.remove_seen(Space::Uploads, record::part_key(id, *number));
        if object.is_none_or(|o| o.blobs.iter().all(|b| b.id != blob.id)) {
            unused.push(blob.id);
        }
    }
    if !unused.is_empty() {
        let blobs = blobs.clone();
        group.after(move || blobs.discard(unused));
    }
}

/// The parts of an upload, by number.
fn parts(view: &View, id: u64) -> Result<Vec<(u32, Blob)>> {
    let (from, until) = (record::part_key(id, 0), record::upload_key(id.saturating_add(1)));
    let mut out = Vec::new();
    for entry in view.range(Space::Uploads, &from, &until) {
        let (key, stored) = entry?;
        let Some(number) = key.get(8..12).and_then(|n| n.try_into().ok()).map(u32::from_be_bytes) else { continue };
        out.push((number, record::decode(&stored, || format!("part {number}"))?));
    }
    Ok(out)
}

/// The blobs of all parts of all uploads.
pub(super) fn referenced(view: &View) -> Result<BTreeSet<u64>> {
    let mut ids = BTreeSet::new();
    for entry in view.range(Space::Uploads, b"", &[0xff; 13]) {
        let (key, stored) = entry?;
        if key.len() == 12 {
            let blob: Blob = record::decode(&stored, || "an uploaded part".to_owned())?;
            ids.insert(blob.id);
        }
    }
    Ok(ids)
}

/// Drops uploads that nobody completed.
#[derive(Debug)]
struct DropOld {
    store: Weak<Store>,
    blobs: Arc<Blobs>,
}

pub(super) fn sweeper(store: &Arc<Store>, blobs: Arc<Blobs>) -> Arc<dyn Sweep> {
    Arc::new(DropOld { store: Arc::downgrade(store), blobs })
}

impl Sweep for DropOld {
    fn sweep(&self, group: &mut Group<'_>) -> Result<()> {
        let Some(store) = self.store.upgrade() else { return Ok(()) };
        let (view, limit) = (store.snapshot(), group.now() - KEEP_UPLOADS);
        for entry in view.range(Space::Uploads, b"", &[0xff; 13]) {
            let (key, stored) = entry?;
            let Ok(id) = <[u8; 8]>::try_from(&*key).map(u64::from_be_bytes) else { continue };
            let upload: UploadRecord = record::decode(&stored, || format!("upload {id:016x}"))?;
            // It may have been completed in this very group.
            if Timestamp(upload.started) < limit && group.get(Space::Uploads, &key)?.is_some() {
                forget(id, &parts(&view, id)?, None, &self.blobs, group);
            }
        }
        Ok(())
    }
}

#[async_trait]
impl MultipartStore for EmbeddedObjects {
    async fn create_multipart(&self, path: &Path) -> object_store::Result<MultipartId> {
        self.create_upload(path, PutMultipartOptions::default()).await
    }

    async fn put_part(&self, path: &Path, id: &MultipartId, part_idx: usize, data: PutPayload) -> object_store::Result<PartId> {
        let number = u32::try_from(part_idx).map_err(|_| foreign(Error::invalid(format!("part number {part_idx} is too large"))))?;
        self.upload_part(path, id, number, data).await.map(|part| PartId { content_id: part.e_tag })
    }

    async fn complete_multipart(&self, path: &Path, id: &MultipartId, parts: Vec<PartId>) -> object_store::Result<PutResult> {
        let named = (0..).zip(parts).map(|(number, part)| (number, part.content_id)).collect();
        self.complete_upload(path, id, named, PutMode::Overwrite).await
    }

    async fn abort_multipart(&self, _path: &Path, id: &MultipartId) -> object_store::Result<()> {
        self.abort_upload(id).await
    }
}
