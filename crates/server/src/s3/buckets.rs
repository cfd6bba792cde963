//! Buckets: a marker object each, `system/buckets/<name>`.

use futures::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{ObjectStoreExt as _, PutMode, PutOptions};
use s3s::dto::{Bucket, Timestamp};
use s3s::{S3ErrorCode, S3Result, s3_error};
use tidemill_blocks::objects;

use super::Endpoint;
use super::access::{Action, Identity, decide};
use super::conditions::modified;
use super::errors::store_error;
use super::names::{SYSTEM, not_system};

/// Buckets that are always there. Only temporary grants write to them.
pub const BUILT_IN_BUCKETS: &[&str] = &["jobs"];

pub(super) fn is_built_in(bucket: &str) -> bool {
    BUILT_IN_BUCKETS.contains(&bucket)
}

fn folder() -> Path {
    Path::from(format!("{SYSTEM}/buckets"))
}

fn marker(bucket: &str) -> Path {
    folder().join(bucket)
}

/// Makes the bucket unless it is there: what is written by other ways than S3, or allowed to be written with S3 and with no right to
/// make buckets, is found there by S3 clients.
///
/// # Errors
/// Those of the store.
pub async fn ensure_bucket(store: &dyn object_store::ObjectStore, bucket: &str) -> tidemill_base::Result<()> {
    if bucket == SYSTEM || is_built_in(bucket) {
        return Ok(());
    }
    let marker = marker(bucket);
    match store.head(&marker).await {
        Ok(_) => Ok(()),
        Err(_) => objects::put_new(store, &marker, bytes::Bytes::new()).await.map(drop),
    }
}

impl Endpoint {
    /// `NoSuchBucket` unless it is there.
    pub(super) async fn require_bucket(&self, bucket: &str) -> S3Result<()> {
        not_system(bucket)?;
        if is_built_in(bucket) {
            return Ok(());
        }
        match self.objects.head(&marker(bucket)).await {
            Ok(_) => Ok(()),
            Err(object_store::Error::NotFound { .. }) => Err(s3_error!(NoSuchBucket, "there is no bucket of this name")),
            Err(e) => Err(store_error(e)),
        }
    }

    /// Makes `NoSuchBucket` of `NoSuchKey` where it is the bucket that is missing.
    pub(super) async fn missing_what(&self, bucket: &str, e: s3s::S3Error) -> s3s::S3Error {
        if *e.code() == S3ErrorCode::NoSuchKey { self.require_bucket(bucket).await.err().unwrap_or(e) } else { e }
    }

    pub(super) async fn make_bucket(&self, bucket: &str) -> S3Result<()> {
        if bucket == SYSTEM {
            return Err(s3_error!(InvalidBucketName, "`system` is taken; choose another name"));
        }
        if is_built_in(bucket) {
            return Err(s3_error!(BucketAlreadyOwnedByYou, "this bucket is always there"));
        }
        let options = PutOptions { mode: PutMode::Create, ..Default::default() };
        match self.objects.put_opts(&marker(bucket), bytes::Bytes::new().into(), options).await {
            Ok(_) => Ok(()),
            Err(object_store::Error::AlreadyExists { .. }) => Err(s3_error!(BucketAlreadyOwnedByYou, "this bucket is there already")),
            Err(e) => Err(store_error(e)),
        }
    }

    /// Removes an empty bucket and the uploads that were begun in it.
    pub(super) async fn remove_bucket(&self, bucket: &str) -> S3Result<()> {
        self.require_bucket(bucket).await?;
        if let Some(first) = self.objects.list(Some(&Path::from(bucket))).next().await {
            first.map_err(store_error)?;
            return Err(s3_error!(BucketNotEmpty, "the bucket still holds objects; delete them first"));
        }
        self.drop_uploads(bucket).await?;
        self.objects.delete(&marker(bucket)).await.map_err(store_error)
    }

    /// The buckets that `who` reaches, by name.
    pub(super) async fn buckets_of(&self, who: &Identity) -> S3Result<Vec<Bucket>> {
        let made: Vec<_> = self.objects.list(Some(&folder())).try_collect().await.map_err(store_error)?;
        let made = made.iter().filter_map(|m| Some((m.location.filename()?.to_owned(), modified(m))));
        let built_in = BUILT_IN_BUCKETS.iter().map(|name| ((*name).to_owned(), Timestamp::from(std::time::UNIX_EPOCH)));
        let mut all: Vec<_> = made.chain(built_in).filter(|(name, _)| decide(who, Action::Look, name).is_ok()).collect();
        all.sort();
        Ok(all.into_iter().map(|(name, at)| Bucket { name: Some(name), creation_date: Some(at), ..Default::default() }).collect())
    }
}
