//! A store of objects whose calls go wrong.

use std::fmt;

use async_trait::async_trait;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error as StoreError, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result as StoreResult, UploadPart,
};
use tidemill_base::Error;
use tidemill_blocks::objects::Objects;

use super::Component;

#[derive(Debug)]
pub(super) struct FaultyObjects {
    pub(super) inner: Objects,
    pub(super) component: Component,
}

impl fmt::Display for FaultyObjects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Faulty({})", self.inner)
    }
}

/// The store's own errors pass through as they are; injected ones become the kind that a network's have.
async fn call<T>(component: &Component, what: &str, effect: impl Future<Output = StoreResult<T>>) -> StoreResult<T> {
    let own = std::sync::Mutex::new(None);
    let effect = async {
        effect.await.map_err(|e| {
            let shown = Error::unavailable("the store answered with an error of its own");
            *own.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(e);
            shown
        })
    };
    let answer = component.call(what, effect).await;
    let own = own.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    answer.map_err(|injected| match own {
        Some(e) if !component.is_crashed() => e,
        _ => StoreError::Generic { store: "faulty", source: Box::new(injected) },
    })
}

#[async_trait]
impl ObjectStore for FaultyObjects {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> StoreResult<PutResult> {
        call(&self.component, "objects.put", self.inner.put_opts(location, payload, opts)).await
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> StoreResult<Box<dyn MultipartUpload>> {
        let inner = call(&self.component, "objects.begin", self.inner.put_multipart_opts(location, opts)).await?;
        Ok(Box::new(FaultyUpload { inner, component: self.component.clone() }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> StoreResult<GetResult> {
        call(&self.component, "objects.get", self.inner.get_opts(location, options)).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, StoreResult<Path>>) -> BoxStream<'static, StoreResult<Path>> {
        let (inner, component) = (self.inner.clone(), self.component.clone());
        let delete = move |location: StoreResult<Path>| {
            let (inner, component) = (inner.clone(), component.clone());
            async move {
                let location = location?;
                call(&component, "objects.delete", inner.delete(&location)).await?;
                Ok(location)
            }
        };
        locations.then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        let (listed, component) = (self.inner.list(prefix), self.component.clone());
        begin_list(component, listed)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        let (listed, component) = (self.inner.list_with_offset(prefix, offset), self.component.clone());
        begin_list(component, listed)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> StoreResult<ListResult> {
        call(&self.component, "objects.list", self.inner.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> StoreResult<()> {
        call(&self.component, "objects.copy", self.inner.copy_opts(from, to, options)).await
    }
}

fn begin_list(component: Component, listed: BoxStream<'static, StoreResult<ObjectMeta>>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
    let begun = async move {
        match call(&component, "objects.list", async { Ok(()) }).await {
            Ok(()) => listed,
            Err(e) => stream::once(async { Err(e) }).boxed(),
        }
    };
    begun.flatten_stream().boxed()
}

#[derive(Debug)]
struct FaultyUpload {
    inner: Box<dyn MultipartUpload>,
    component: Component,
}

#[async_trait]
impl MultipartUpload for FaultyUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (part, component) = (self.inner.put_part(data), self.component.clone());
        async move { call(&component, "objects.put_part", part).await }.boxed()
    }

    async fn complete(&mut self) -> StoreResult<PutResult> {
        call(&self.component, "objects.complete", self.inner.complete()).await
    }

    async fn abort(&mut self) -> StoreResult<()> {
        call(&self.component, "objects.abort", self.inner.abort()).await
    }
}
