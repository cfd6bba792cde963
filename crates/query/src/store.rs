//! The object store as statements see it: it reads and nothing else, and it reads on the caller's runtime.
//!
//! A connection to a remote store is looked after by the runtime that opened it. Opened from a statement's threads it would stand
//! still while they compute, for everybody who shares it.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result,
};
use tokio::runtime::Handle;

#[derive(Debug)]
pub(crate) struct ReadAtHome {
    inner: Arc<dyn ObjectStore>,
    home: Handle,
}

impl ReadAtHome {
    pub(crate) fn new(inner: Arc<dyn ObjectStore>, home: Handle) -> Self {
        Self { inner, home }
    }

    async fn at_home<T: Send + 'static>(&self, work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
        self.home.spawn(work).await?
    }
}

impl fmt::Display for ReadAtHome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

fn refused<T>(what: &str) -> Result<T> {
    Err(Error::NotSupported { source: format!("SQL does not {what} objects").into() })
}

#[async_trait]
impl ObjectStore for ReadAtHome {
    async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        let (inner, at) = (Arc::clone(&self.inner), at.clone());
        // The body is read there too. It is a footer or some pages: whole segments are never asked for.
        self.at_home(async move {
            let got = inner.get_opts(&at, options).await?;
            let (meta, range, attributes) = (got.meta.clone(), got.range.clone(), got.attributes.clone());
            let bytes = got.bytes().await?;
            let payload = GetResultPayload::Stream(futures::stream::once(async move { Ok(bytes) }).boxed());
            Ok(GetResult { payload, meta, range, attributes })
        })
        .await
    }

    async fn get_ranges(&self, at: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let (inner, at, ranges) = (Arc::clone(&self.inner), at.clone(), ranges.to_vec());
        self.at_home(async move { inner.get_ranges(&at, &ranges).await }).await
    }

    async fn put_opts(&self, _at: &Path, _payload: PutPayload, _options: PutOptions) -> Result<PutResult> {
        refused("write")
    }

    async fn put_multipart_opts(&self, _at: &Path, _options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        refused("write")
    }

    fn delete_stream(&self, _at: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        futures::stream::once(async { refused("delete") }).boxed()
    }

    fn list(&self, _prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        futures::stream::once(async { refused("list") }).boxed()
    }

    async fn list_with_delimiter(&self, _prefix: Option<&Path>) -> Result<ListResult> {
        refused("list")
    }

    async fn copy_opts(&self, _from: &Path, _to: &Path, _options: CopyOptions) -> Result<()> {
        refused("copy")
    }
}
