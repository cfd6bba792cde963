//! An upload in parts. The manager holds the store's own upload and puts the parts in their order; we send several at once.

use std::sync::Arc;

use async_trait::async_trait;
use futures::FutureExt;
use object_store::path::Path;
use object_store::{MultipartUpload, PutPayload, PutResult, Result, UploadPart};

use super::{RemoteObjects, with_payload};
use crate::wire::objects::{AbortUpload, CompleteUpload, PART_PATH};

/// An upload that has been started.
#[derive(Debug)]
pub(super) struct RemoteUpload {
    store: Arc<RemoteObjects>,
    path: Path,
    id: String,
    parts: u64,
}

impl RemoteUpload {
    pub(super) fn new(store: RemoteObjects, path: Path, id: String) -> Self {
        Self { store: Arc::new(store), path, id, parts: 0 }
    }
}

#[async_trait]
impl MultipartUpload for RemoteUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (store, path) = (self.store.clone(), self.path.clone());
        let target = format!("{PART_PATH}/{}/{}", self.id, self.parts);
        self.parts += 1;
        async move {
            let request = with_payload(store.http.post(&target), data);
            store.answer(request, path.as_ref()).await.map(drop)
        }
        .boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let call = CompleteUpload { id: self.id.clone(), parts: self.parts };
        self.store.call(&call, self.path.as_ref()).await.map(PutResult::from)
    }

    async fn abort(&mut self) -> Result<()> {
        self.store.call(&AbortUpload { id: self.id.clone() }, self.path.as_ref()).await
    }
}
