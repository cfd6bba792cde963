//! The objects block: an index in the local store, contents beside it.
//!
//! A path is only ever a key in the index and never a name in the file system, so every name is possible, a conditional create is
//! atomic and listings come in order. Small contents are in the store as well and cost no file; larger ones are files that are on
//! the disk before the index names them. Completing a multipart upload names its parts and copies nothing; renaming moves one key.

mod blobs;
mod error;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod list;
mod multipart;
mod put;
mod read;
mod record;

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{
    CopyMode, CopyOptions, GetOptions, GetRange, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, RenameTargetMode,
};
use tidemill_base::{Env, Error, Result};
use tokio::task::spawn_blocking;

use crate::store::{Durability, Space, Store, Sweep};
use blobs::Blobs;
use error::{foreign, not_found};
pub use list::{ListPage, ListRequest};
pub use multipart::UploadedPart;
use put::Condition;
use read::Opened;
use record::Record;

/// Objects listed in one step.
const PAGE: usize = 1000;
/// Deletes of one stream that are under way at a time.
const DELETES_AT_ONCE: usize = 64;

/// All objects of one data folder.
#[derive(Debug, Clone)]
pub struct EmbeddedObjects {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Arc<Store>,
    env: Env,
    blobs: Arc<Blobs>,
    _sweeper: Arc<dyn Sweep>,
}

impl std::fmt::Display for EmbeddedObjects {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "EmbeddedObjects({})", self.inner.store.path().display())
    }
}

impl EmbeddedObjects {
    /// Over the index in `store` and the files in `files`.
    pub(crate) fn open(store: Arc<Store>, files: &std::path::Path, env: Env) -> Result<Self> {
        let view = store.snapshot();
        let referenced = move || {
            let mut ids = BTreeSet::new();
            for entry in view.range(Space::Objects, b"", &[0xff]) {
                let (key, stored) = entry?;
                let record: Record = record::decode(&stored, || format!("object `{}`", String::from_utf8_lossy(&key)))?;
                ids.extend(Opened::files(&record));
            }
            ids.extend(multipart::referenced(&view)?);
            Ok(ids)
        };
        let blobs = Blobs::open(files, env.clone(), referenced)?;
        let sweeper = multipart::sweeper(&store, blobs.clone());
        store.add_sweeper(Arc::downgrade(&sweeper));
        Ok(Self { inner: Arc::new(Inner { store, env, blobs, _sweeper: sweeper }) })
    }

    /// The file that holds the whole contents, when there is just one: to read in place. It must not be changed, and it goes when
    /// the object is overwritten or deleted, so open it at once. `None` when the object is small or was put in several parts.
    pub fn local_path(&self, path: &Path) -> Result<Option<PathBuf>> {
        let record = self.inner.record(path)?.ok_or_else(|| Error::not_found(format!("there is no object `{path}`")))?;
        Ok(match record.blobs.as_slice() {
            [only] if !only.inline => Some(self.inner.blobs.path(only.id)),
            _ => None,
        })
    }

    /// One page of a listing, for callers that speak S3: prefixes need not end at a `/`.
    pub async fn list_page(&self, request: ListRequest) -> Result<ListPage> {
        let view = self.inner.store.snapshot();
        spawn_blocking(move || list::page(&view, &request)).await.map_err(|e| Error::internal("list objects").with_source(e))?
    }

    fn list_from(&self, request: ListRequest) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        let this = self.clone();
        let pages = stream::try_unfold(Some(request), move |request| {
            let this = this.clone();
            async move {
                let Some(request) = request else { return Ok::<_, object_store::Error>(None) };
                let page = this.list_page(request.clone()).await.map_err(foreign)?;
                let next = page.next.map(|after| ListRequest { after: Some(after), ..request });
                Ok(Some((stream::iter(page.objects.into_iter().map(Ok)), next)))
            }
        });
        pages.try_flatten().boxed()
    }
}

impl Inner {
    fn record(&self, path: &Path) -> Result<Option<Record>> {
        let stored = self.store.get(Space::Objects, path.as_ref().as_bytes())?;
        stored.map(|s| record::decode(&s, || format!("object `{path}` in {}", self.store.path().display()))).transpose()
    }

    /// Opens the object for reading.
    fn opened(&self, path: &Path) -> object_store::Result<Opened> {
        let look = || {
            // One view for both: an overwrite in between must not take the contents away.
            let view = self.store.snapshot();
            let Some(stored) = view.get(Space::Objects, path.as_ref().as_bytes())? else { return Ok(None) };
            let record: Record = record::decode(&stored, || format!("object `{path}` in {}", self.store.path().display()))?;
            let inline = match record.blobs.as_slice() {
                [only] if only.inline => {
                    let contents = view.get(Space::SmallBlobs, &only.small_key())?;
                    Some(contents.ok_or_else(|| {
                        Error::corrupt(format!("object `{path}` has lost its contents in {}", self.store.path().display()))
                    })?)
                }
                _ => None,
            };
            Ok(Some((record, inline.map(Bytes::from))))
        };
        let files = |found: &Option<(Record, Option<Bytes>)>| found.as_ref().map(|(r, _)| Opened::files(r)).unwrap_or_default();
        let (found, pin) = self.blobs.pinned(look, files).map_err(foreign)?;
        let (record, inline) = found.ok_or_else(|| not_found(path.as_ref()))?;
        Ok(Opened { record, inline, blobs: self.blobs.clone(), _pin: pin })
    }

    async fn delete(&self, path: &Path) -> Result<()> {
        let (key, blobs) = (put::key(path), self.blobs.clone());
        let decide = move |group: &mut crate::store::Group<'_>| {
            if let Some(old) = put::current(&key, group)? {
                group.remove_seen(Space::Objects, key);
                put::release(&blobs, &old, group);
            }
            Ok(())
        };
        self.store.commit(Durability::Synced, decide).await
    }
}

#[async_trait]
impl ObjectStore for EmbeddedObjects {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> object_store::Result<PutResult> {
        let attributes = put::attributes(&opts.attributes)?;
        let contents = self.inner.write(payload).await.map_err(foreign)?;
        self.inner.put(location, contents, attributes, Condition::from(opts.mode)).await
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> object_store::Result<Box<dyn MultipartUpload>> {
        let attributes = put::attributes(&opts.attributes)?;
        Ok(Box::new(multipart::Upload::new(self.clone(), location.clone(), attributes)))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        if let Some(version) = &options.version {
            let why = Error::invalid(format!("object `{location}` has no version {version}: only the newest is kept"));
            return Err(object_store::Error::NotSupported { source: Box::new(why) });
        }
        let opened = self.inner.opened(location)?;
        let meta = opened.record.meta(location.clone());
        options.check_preconditions(&meta)?;
        let range = match &options.range {
            Some(range) => as_range(range, meta.size)?,
            None => 0..meta.size,
        };
        let attributes = opened.record.attributes.to_attributes();
        let stream = if options.head { stream::empty().boxed() } else { opened.stream(range.clone()) };
        Ok(GetResult { payload: GetResultPayload::Stream(stream), meta, range, attributes })
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> object_store::Result<Vec<Bytes>> {
        let opened = self.inner.opened(location)?;
        let ranges: Vec<_> =
            ranges.iter().map(|r| as_range(&GetRange::Bounded(r.clone()), opened.record.size)).collect::<object_store::Result<_>>()?;
        if opened.inline.is_some() {
            return ranges.iter().map(|r| opened.read(r).map_err(foreign)).collect();
        }
        spawn_blocking(move || ranges.iter().map(|r| opened.read(r).map_err(foreign)).collect()).await?
    }

    fn delete_stream(&self, locations: BoxStream<'static, object_store::Result<Path>>) -> BoxStream<'static, object_store::Result<Path>> {
        let inner = self.inner.clone();
        locations
            .map(move |location| {
                let inner = inner.clone();
                async move {
                    let location = location?;
                    inner.delete(&location).await.map_err(foreign)?;
                    Ok(location)
                }
            })
            .buffered(DELETES_AT_ONCE)
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.list_from(ListRequest { prefix: folder(prefix), max: PAGE, ..ListRequest::default() })
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        let after = Some(offset.as_ref().to_owned());
        self.list_from(ListRequest { prefix: folder(prefix), after, max: PAGE, delimited: false })
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        let mut out = ListResult { common_prefixes: Vec::new(), objects: Vec::new() };
        let mut next = Some(ListRequest { prefix: folder(prefix), delimited: true, max: PAGE, after: None });
        while let Some(request) = next {
            let page = self.list_page(request.clone()).await.map_err(foreign)?;
            out.objects.extend(page.objects);
            for prefix in &page.prefixes {
                out.common_prefixes.push(Path::parse(prefix)?);
            }
            next = page.next.map(|after| ListRequest { after: Some(after), ..request });
        }
        Ok(out)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        let opened = self.inner.opened(from)?;
        let condition = match options.mode {
            CopyMode::Overwrite => Condition::Any,
            CopyMode::Create => Condition::Absent,
        };
        self.inner.copy(opened, to, condition).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> object_store::Result<()> {
        let condition = match options.target_mode {
            RenameTargetMode::Overwrite => Condition::Any,
            RenameTargetMode::Create => Condition::Absent,
        };
        self.inner.rename(from, to, condition).await
    }
}

/// Upstream's prefixes are whole segments.
fn folder(prefix: Option<&Path>) -> String {
    match prefix {
        Some(p) if !p.as_ref().is_empty() => format!("{p}/"),
        _ => String::new(),
    }
}

fn as_range(range: &GetRange, size: u64) -> object_store::Result<Range<u64>> {
    range.as_range(size).map_err(|e| object_store::Error::Generic {
        store: error::STORE,
        source: Box::new(Error::invalid("range outside the object").with_source(e)),
    })
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
