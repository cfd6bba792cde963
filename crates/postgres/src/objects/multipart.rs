//! Uploads in parts. One lives in its handle: what is not completed goes away by itself after a day.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use md5::{Digest, Md5};
use object_store::path::Path;
use object_store::{MultipartUpload, PutPayload, PutResult, UploadPart};
use tidemill_base::Error;

use super::PostgresObjects;
use super::error::foreign;
use super::put::{Condition, Contents, Staged};
use crate::link::Block;

const ABORT: &str = "UPDATE tidemill_garbage SET due = statement_timestamp() WHERE blob = ANY($1::bigint[])";

/// An upload under way.
#[derive(Debug)]
pub(super) struct Upload {
    objects: PostgresObjects,
    path: Path,
    attributes: String,
    parts: Arc<Mutex<BTreeMap<usize, Staged>>>,
    started: usize,
}

impl Upload {
    pub(super) fn new(objects: PostgresObjects, path: Path, attributes: String) -> Self {
        Self { objects, path, attributes, parts: Arc::default(), started: 0 }
    }

    fn take(&self) -> BTreeMap<usize, Staged> {
        std::mem::take(&mut *self.parts.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (objects, parts, number) = (self.objects.clone(), Arc::clone(&self.parts), self.started);
        self.started += 1;
        Box::pin(async move {
            let staged = objects.stage(&data).await?;
            parts.lock().unwrap_or_else(PoisonError::into_inner).insert(number, staged);
            Ok(())
        })
    }

    async fn complete(&mut self) -> object_store::Result<PutResult> {
        let parts = self.take();
        if parts.len() != self.started {
            let (done, path) = (parts.len(), &self.path);
            let why = format!("{done} of {} parts of `{path}` are uploaded; wait for all, then complete", self.started);
            return Err(foreign(Error::invalid(why)));
        }
        self.objects.name(&self.path, joined(parts.into_values()), &self.attributes, Condition::Any).await
    }

    async fn abort(&mut self) -> object_store::Result<()> {
        let blobs: Vec<i64> = self.take().into_values().map(|part| part.blob).collect();
        let done = self.objects.shared.link.write(Block::Objects, ABORT, &[&blobs]).await;
        done.map(drop).map_err(foreign)
    }
}

/// The parts, each behind the other. The entity tag is formed as S3 does it.
fn joined(parts: impl Iterator<Item = Staged>) -> Contents {
    let (mut contents, mut digest, mut count) = (Contents::default(), Md5::new(), 0_usize);
    for part in parts {
        digest.update(part.md5);
        contents.blobs.push(part.blob);
        contents.starts.push(contents.size);
        contents.size = contents.size.saturating_add(i64::try_from(part.size).unwrap_or(i64::MAX));
        count += 1;
    }
    contents.e_tag = format!("{}-{count}", hex::encode(digest.finalize()));
    contents
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_stand_behind_each_other() {
        let part = |blob, size| Staged { blob, size, md5: [0; 16] };
        let contents = joined([part(7, 10), part(9, 0), part(8, 5)].into_iter());
        assert_eq!((contents.blobs, contents.starts, contents.size), (vec![7, 9, 8], vec![0, 10, 10], 15));
        assert!(contents.e_tag.ends_with("-3"));
    }
}
