//! Multipart uploads. An upload is a record and its parts are objects under `system/multipart/<bucket>/<upload id>/`, so an upload
//! goes on after a restart and on another server. Completing one writes the parts, one after the other, as the object.

use std::collections::BTreeMap;

use futures::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt as _};
use s3s::dto::{
    AbortMultipartUploadInput, Checksum, CompleteMultipartUploadInput, CompleteMultipartUploadOutput, CompletedPart, CopyPartResult,
    CreateMultipartUploadInput, CreateMultipartUploadOutput, ETag, Range, UploadPartCopyInput, UploadPartCopyOutput, UploadPartInput,
    UploadPartOutput,
};
use s3s::{S3Request, S3Result, s3_error};
use serde::{Deserialize, Serialize};
use tidemill_base::Timestamp;
use tidemill_blocks::objects::Objects;

use super::Endpoint;
use super::access::copy_source;
use super::attributes::{Described, described, refuse_unsupported};
use super::checksums::Checks;
use super::conditions::{ReadConditions, WriteCondition, e_tag, modified};
use super::errors::store_error;
use super::names::{SYSTEM, existing_path, object_path};
use super::transfer::{Incoming, Upload, check_length, incoming, reading, source_gone};

/// The smallest part but for the last, in bytes, as on AWS.
const MIN_PART: u64 = 5 << 20;
const MAX_PART_NUMBER: i32 = 10_000;
/// Uploads from this size on, in bytes, are answered before their parts are joined: the answer begins with white space until they
/// are, so that no client gives up meanwhile. An error then comes in the body of a 200, as on AWS; clients know that.
const ANSWER_FIRST: u64 = 16 << 20;
pub(super) const RECORD: &str = "upload";

/// What is known of an upload.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) key: String,
    pub(super) begun: Timestamp,
    described: Described,
    /// The entity tag of what came of it. The record stays a while for a client that did not get the answer and asks again.
    pub(super) completed: Option<String>,
}

pub(super) fn uploads_folder(bucket: &str) -> Path {
    Path::from(format!("{SYSTEM}/multipart/{bucket}"))
}

fn upload_folder(bucket: &str, id: &str) -> S3Result<Path> {
    let ours = !id.is_empty() && id.len() <= 64 && id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    if ours { Ok(uploads_folder(bucket).join(id)) } else { Err(no_such_upload()) }
}

fn no_such_upload() -> s3s::S3Error {
    s3_error!(NoSuchUpload, "there is no such upload of this key; it may have been completed or aborted")
}

fn part_path(folder: &Path, number: i32) -> S3Result<Path> {
    if !(1..=MAX_PART_NUMBER).contains(&number) {
        return Err(s3_error!(InvalidArgument, "part numbers are 1 to 10000"));
    }
    Ok(folder.clone().join(format!("{number:05}")))
}

fn part_number(path: &Path) -> Option<i32> {
    path.filename()?.parse().ok()
}

impl Endpoint {
    pub(super) async fn record(&self, bucket: &str, id: &str) -> S3Result<Record> {
        let path = upload_folder(bucket, id)?.join(RECORD);
        let bytes = match self.objects.get(&path).await {
            Ok(got) => got.bytes().await.map_err(store_error)?,
            Err(object_store::Error::NotFound { .. }) => return Err(no_such_upload()),
            Err(e) => return Err(store_error(e)),
        };
        serde_json::from_slice(&bytes).map_err(|e| s3_error!(e, InternalError, "the record of the upload cannot be read"))
    }

    async fn write_record(&self, folder: &Path, record: &Record) -> S3Result<()> {
        let bytes = serde_json::to_vec(record).map_err(|e| s3_error!(e, InternalError))?;
        self.objects.put(&folder.clone().join(RECORD), bytes.into()).await.map(drop).map_err(store_error)
    }

    /// The upload `id`, if it is of this key and not yet completed.
    pub(super) async fn open_upload(&self, bucket: &str, key: &str, id: &str) -> S3Result<(Record, Path)> {
        let record = self.record(bucket, id).await?;
        if record.key != key || record.completed.is_some() {
            return Err(no_such_upload());
        }
        Ok((record, upload_folder(bucket, id)?))
    }

    pub(super) async fn parts(&self, folder: &Path) -> S3Result<BTreeMap<i32, ObjectMeta>> {
        let all: Vec<_> = self.objects.list(Some(folder)).try_collect().await.map_err(store_error)?;
        Ok(all.into_iter().filter_map(|meta| Some((part_number(&meta.location)?, meta))).collect())
    }

    async fn delete_paths(&self, paths: Vec<Path>) -> S3Result<()> {
        let paths = futures::stream::iter(paths.into_iter().map(Ok)).boxed();
        let mut deleted = self.objects.delete_stream(paths);
        while let Some(outcome) = deleted.next().await {
            match outcome {
                Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
                Err(e) => return Err(store_error(e)),
            }
        }
        Ok(())
    }

    /// Removes every upload of a bucket.
    pub(super) async fn drop_uploads(&self, bucket: &str) -> S3Result<()> {
        let all: Vec<_> = self.objects.list(Some(&uploads_folder(bucket))).try_collect().await.map_err(store_error)?;
        self.delete_paths(all.into_iter().map(|m| m.location).collect()).await
    }

    pub(super) async fn create_upload(&self, mut input: CreateMultipartUploadInput) -> S3Result<CreateMultipartUploadOutput> {
        refuse_unsupported!(input);
        object_path(&input.bucket, &input.key)?;
        self.require_bucket(&input.bucket).await?;
        let id = self.env.id("u");
        let record = Record { key: input.key.clone(), begun: self.env.now(), described: described!(input), completed: None };
        self.write_record(&upload_folder(&input.bucket, &id)?, &record).await?;
        Ok(CreateMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(id),
            checksum_algorithm: input.checksum_algorithm,
            checksum_type: input.checksum_type,
            ..Default::default()
        })
    }

    pub(super) async fn upload_part(&self, mut req: S3Request<UploadPartInput>) -> S3Result<UploadPartOutput> {
        let checks = Checks::of(&req.headers, req.trailing_headers.take())?;
        let input = &mut req.input;
        let (_, folder) = self.open_upload(&input.bucket, &input.key, &input.upload_id).await?;
        let path = part_path(&folder, input.part_number)?;
        let upload = Upload {
            body: incoming(input.body.take()),
            length: check_length(input.content_length)?,
            checks,
            described: Described::default(),
            condition: WriteCondition::Any,
        };
        let stored = self.store(&path, upload).await?;
        Ok(UploadPartOutput {
            e_tag: Some(stored.e_tag),
            checksum_crc32: stored.sums.checksum_crc32,
            checksum_crc32c: stored.sums.checksum_crc32c,
            checksum_crc64nvme: stored.sums.checksum_crc64nvme,
            checksum_sha1: stored.sums.checksum_sha1,
            checksum_sha256: stored.sums.checksum_sha256,
            ..Default::default()
        })
    }

    pub(super) async fn upload_part_copy(&self, req: S3Request<UploadPartCopyInput>) -> S3Result<UploadPartCopyOutput> {
        let (bucket, key) = copy_source(&req, &req.input.copy_source)?;
        let from = existing_path(bucket, key)?;
        let input = &req.input;
        let (_, folder) = self.open_upload(&input.bucket, &input.key, &input.upload_id).await?;
        let path = part_path(&folder, input.part_number)?;
        let range = input.copy_source_range.as_deref().map(Range::parse).transpose();
        let range = range.map_err(|_| s3_error!(InvalidArgument, "the range to copy is not of the form bytes=FIRST-LAST"))?;
        let got = self.open(bucket, &from, range, false).await?;
        let conditions = ReadConditions {
            if_match: input.copy_source_if_match.clone(),
            if_none_match: input.copy_source_if_none_match.clone(),
            if_modified_since: input.copy_source_if_modified_since.clone(),
            if_unmodified_since: input.copy_source_if_unmodified_since.clone(),
        };
        conditions.check_source(&got.meta)?;
        let length = Some(got.range.end - got.range.start);
        let upload = Upload {
            body: reading(got.into_stream()),
            length,
            checks: Checks::none(),
            described: Described::default(),
            condition: WriteCondition::Any,
        };
        let stored = self.store(&path, upload).await?;
        let meta = self.objects.head(&path).await.map_err(store_error)?;
        let result = CopyPartResult { e_tag: Some(stored.e_tag), last_modified: Some(modified(&meta)), ..Default::default() };
        Ok(UploadPartCopyOutput { copy_part_result: Some(result), ..Default::default() })
    }

    pub(super) async fn complete_upload(&self, input: CompleteMultipartUploadInput) -> S3Result<CompleteMultipartUploadOutput> {
        let mut record = self.record(&input.bucket, &input.upload_id).await?;
        if record.key != input.key {
            return Err(no_such_upload());
        }
        if let Some(tag) = record.completed.take() {
            return Ok(completed(&input.bucket, input.key, tag, Checksum::default()));
        }
        let folder = upload_folder(&input.bucket, &input.upload_id)?;
        let there = self.parts(&folder).await?;
        let wanted = input.multipart_upload.as_ref().and_then(|m| m.parts.as_deref()).unwrap_or_default();
        let parts = chosen_parts(wanted, &there)?;
        let size = parts.iter().map(|m| m.size).sum::<u64>();
        if input.mpu_object_size.is_some_and(|s| u64::try_from(s) != Ok(size)) {
            return Err(s3_error!(InvalidRequest, "the parts have {} bytes, which is not the size that was announced", size));
        }
        let upload = Upload {
            body: joined(self.objects.clone(), parts),
            length: Some(size),
            condition: WriteCondition::of(input.if_match.clone(), input.if_none_match.clone())?,
            described: record.described.clone(),
            checks: Checks::over_object(expected_sums(&input)),
        };
        self.require_bucket(&input.bucket).await?;
        self.check_condition(&object_path(&input.bucket, &input.key)?, &upload.condition).await?;
        let parts = there.into_values().map(|m| m.location).collect();
        let (this, bucket) = (self.clone(), input.bucket);
        let finish = async move { this.finish_upload(bucket, folder, record, upload, parts).await };
        if size < ANSWER_FIRST {
            return finish.await;
        }
        Ok(CompleteMultipartUploadOutput { future: Some(Box::pin(finish)), ..Default::default() })
    }

    async fn finish_upload(
        &self,
        bucket: String,
        folder: Path,
        mut record: Record,
        upload: Upload,
        parts: Vec<Path>,
    ) -> S3Result<CompleteMultipartUploadOutput> {
        let stored = self.store(&object_path(&bucket, &record.key)?, upload).await?;
        let tag = stored.e_tag.into_value();
        record.completed = Some(tag.clone());
        self.write_record(&folder, &record).await?;
        self.delete_paths(parts).await?;
        Ok(completed(&bucket, record.key, tag, stored.sums))
    }

    pub(super) async fn abort_upload(&self, input: &AbortMultipartUploadInput) -> S3Result<()> {
        let (_, folder) = self.open_upload(&input.bucket, &input.key, &input.upload_id).await?;
        let mut paths: Vec<_> = self.parts(&folder).await?.into_values().map(|m| m.location).collect();
        paths.push(folder.join(RECORD));
        self.delete_paths(paths).await
    }
}

fn completed(bucket: &str, key: String, tag: String, sums: Checksum) -> CompleteMultipartUploadOutput {
    CompleteMultipartUploadOutput {
        location: Some(format!("/{bucket}/{key}")),
        bucket: Some(bucket.to_owned()),
        key: Some(key),
        e_tag: Some(ETag::Strong(tag)),
        checksum_crc32: sums.checksum_crc32,
        checksum_crc32c: sums.checksum_crc32c,
        checksum_crc64nvme: sums.checksum_crc64nvme,
        checksum_sha1: sums.checksum_sha1,
        checksum_sha256: sums.checksum_sha256,
        ..Default::default()
    }
}

fn expected_sums(input: &CompleteMultipartUploadInput) -> Checksum {
    Checksum {
        checksum_crc32: input.checksum_crc32.clone(),
        checksum_crc32c: input.checksum_crc32c.clone(),
        checksum_crc64nvme: input.checksum_crc64nvme.clone(),
        checksum_sha1: input.checksum_sha1.clone(),
        checksum_sha256: input.checksum_sha256.clone(),
        ..Default::default()
    }
}

/// The parts that the client names, checked: ascending, there, with the tag that they have, and large enough.
fn chosen_parts(wanted: &[CompletedPart], there: &BTreeMap<i32, ObjectMeta>) -> S3Result<Vec<ObjectMeta>> {
    if wanted.is_empty() {
        return Err(s3_error!(MalformedXML, "an upload is completed with at least one part"));
    }
    let (mut out, mut last) = (Vec::<ObjectMeta>::with_capacity(wanted.len()), 0);
    for part in wanted {
        let number = part.part_number.unwrap_or(0);
        if number <= last {
            return Err(s3_error!(InvalidPartOrder, "part {} does not follow part {} in ascending order", number, last));
        }
        if out.last().is_some_and(|m| m.size < MIN_PART) {
            return Err(s3_error!(EntityTooSmall, "part {} is smaller than 5 MiB and not the last", last));
        }
        match there.get(&number) {
            Some(meta) if part.e_tag.as_ref().is_some_and(|t| t.value() == e_tag(meta).value()) => out.push(meta.clone()),
            _ => return Err(s3_error!(InvalidPart, "part {} was not uploaded, or its ETag is another", number)),
        }
        last = number;
    }
    Ok(out)
}

/// The parts one after the other. A part that another request removes meanwhile ends it.
fn joined(store: Objects, parts: Vec<ObjectMeta>) -> Incoming {
    let bodies = futures::stream::iter(parts).then(move |meta| {
        let store = store.clone();
        async move {
            let got = store.get(&meta.location).await.map_err(|e| source_gone(store_error(e)))?;
            Ok::<_, s3s::S3Error>(reading(got.into_stream()))
        }
    });
    bodies.try_flatten().boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there(sizes: &[(i32, u64)]) -> BTreeMap<i32, ObjectMeta> {
        let meta = |n: i32, size| ObjectMeta {
            location: format!("system/multipart/b/u/{n:05}").into(),
            last_modified: std::time::UNIX_EPOCH.into(),
            size,
            e_tag: Some(format!("t{n}")),
            version: None,
        };
        sizes.iter().map(|(n, size)| (*n, meta(*n, *size))).collect()
    }

    fn part(n: i32, tag: &str) -> CompletedPart {
        CompletedPart { part_number: Some(n), e_tag: Some(ETag::Strong(tag.into())), ..Default::default() }
    }

    #[test]
    fn parts_must_ascend_exist_match_and_be_large_enough() {
        let all = there(&[(1, MIN_PART), (2, MIN_PART - 1), (4, 1)]);
        let code = |parts: &[CompletedPart]| chosen_parts(parts, &all).map(|p| p.len()).map_err(|e| e.code().as_str().to_owned());
        assert_eq!(code(&[part(1, "t1"), part(2, "t2")]), Ok(2));
        assert_eq!(code(&[part(1, "t1"), part(4, "t4")]), Ok(2));
        assert_eq!(code(&[part(1, "t1"), part(2, "t2"), part(4, "t4")]), Err("EntityTooSmall".into()));
        assert_eq!(code(&[part(2, "t2"), part(1, "t1")]), Err("InvalidPartOrder".into()));
        assert_eq!(code(&[part(1, "t1"), part(1, "t1")]), Err("InvalidPartOrder".into()));
        assert_eq!(code(&[part(1, "t2")]), Err("InvalidPart".into()));
        assert_eq!(code(&[part(3, "t3")]), Err("InvalidPart".into()));
        assert_eq!(code(&[]), Err("MalformedXML".into()));
    }

    #[test]
    fn upload_ids_are_names_and_nothing_else() {
        assert!(upload_folder("photos", "u01abc").is_ok());
        for bad in ["", "..", "a/b", "A", "../../jobs", "a%2F"] {
            assert!(upload_folder("photos", bad).is_err(), "{bad}");
        }
        assert!(part_path(&Path::from("a"), 0).is_err() && part_path(&Path::from("a"), 10_001).is_err());
    }
}
