//! Single objects: get, head, put, copy, delete.

use object_store::path::Path;
use object_store::{GetOptions, GetRange, GetResult, ObjectStoreExt as _};
use s3s::dto::{
    Checksum, ChecksumMode, ChecksumType, CopyObjectInput, CopyObjectOutput, CopyObjectResult, DeleteObjectInput, DeleteObjectsInput,
    DeleteObjectsOutput, DeletedObject, Error as DeleteError, GetObjectInput, GetObjectOutput, HeadObjectInput, HeadObjectOutput,
    MetadataDirective, PutObjectInput, PutObjectOutput, Range, StorageClass,
};
use s3s::{S3Request, S3Result, s3_error};

use super::Endpoint;
use super::access::{Action, Identity, copy_source, decide, identity};
use super::attributes::{Described, described, refuse_unsupported};
use super::checksums::Checks;
use super::conditions::{ReadConditions, WriteCondition, e_tag, modified};
use super::errors::{not_supported, store_error};
use super::names::{existing_path, object_path};
use super::transfer::{Upload, check_length, incoming, outgoing, reading};

/// The most keys of one delete-many, as on AWS.
const MAX_DELETES: usize = 1000;

/// The one version there is is called `null`.
fn only_version(version: Option<&str>) -> S3Result<()> {
    match version {
        None | Some("null" | "") => Ok(()),
        Some(_) => Err(s3_error!(NoSuchVersion, "objects have no versions here")),
    }
}

fn store_range(range: Option<Range>) -> S3Result<Option<GetRange>> {
    Ok(match range {
        None => None,
        Some(Range::Suffix { length: 0 }) => return Err(s3_error!(InvalidRange, "the range is empty")),
        Some(Range::Suffix { length }) => Some(GetRange::Suffix(length)),
        Some(Range::Int { first, last: None }) => Some(GetRange::Offset(first)),
        Some(Range::Int { first, last: Some(last) }) => Some(GetRange::Bounded(first..last.saturating_add(1))),
    })
}

/// The sums to show: only when asked for, and only with the whole object.
fn sums_shown(described: &Described, mode: Option<&ChecksumMode>, whole: bool) -> (Checksum, Option<ChecksumType>) {
    if !whole || described.checksums.is_empty() || mode.is_none_or(|m| m.as_str() != ChecksumMode::ENABLED) {
        return (Checksum::default(), None);
    }
    let sums = Checksum {
        checksum_crc32: described.checksum("crc32"),
        checksum_crc32c: described.checksum("crc32c"),
        checksum_crc64nvme: described.checksum("crc64nvme"),
        checksum_sha1: described.checksum("sha1"),
        checksum_sha256: described.checksum("sha256"),
        ..Default::default()
    };
    (sums, Some(ChecksumType::from_static(ChecksumType::FULL_OBJECT)))
}

impl Endpoint {
    /// Opens an object for reading. `InvalidRange` when the range lies beyond its end.
    pub(super) async fn open(&self, bucket: &str, path: &Path, range: Option<Range>, head: bool) -> S3Result<GetResult> {
        let wanted = store_range(range)?;
        let ranged = wanted.is_some();
        let options = GetOptions { range: wanted, head, ..Default::default() };
        match self.objects.get_opts(path, options).await {
            Ok(got) if ranged && got.range.is_empty() => Err(s3_error!(InvalidRange, "the object ends before the range begins")),
            Ok(got) => Ok(got),
            // Stores do not agree on the error for a range beyond the end, so the size decides what went wrong.
            Err(e) if !matches!(e, object_store::Error::NotFound { .. }) && range.is_some() => {
                let size = self.objects.head(path).await.map_err(store_error)?.size;
                let beyond = range.is_some_and(|r| r.check(size).is_err());
                Err(if beyond { s3_error!(InvalidRange, "the object ends before the range begins") } else { store_error(e) })
            }
            Err(e) => Err(self.missing_what(bucket, store_error(e)).await),
        }
    }

    pub(super) async fn get(&self, input: GetObjectInput) -> S3Result<GetObjectOutput> {
        only_version(input.version_id.as_deref())?;
        if input.part_number.is_some_and(|n| n != 1) {
            return Err(s3_error!(InvalidArgument, "objects are kept as one part; leave partNumber out"));
        }
        let path = existing_path(&input.bucket, &input.key)?;
        let got = self.open(&input.bucket, &path, input.range, false).await?;
        let conditions = ReadConditions {
            if_match: input.if_match,
            if_none_match: input.if_none_match,
            if_modified_since: input.if_modified_since,
            if_unmodified_since: input.if_unmodified_since,
        };
        conditions.check(&got.meta)?;
        let d = Described::from_attributes(&got.attributes);
        let (sums, checksum_type) = sums_shown(&d, input.checksum_mode.as_ref(), input.range.is_none());
        let length = got.range.end - got.range.start;
        let range = input.range.map(|_| format!("bytes {}-{}/{}", got.range.start, got.range.end - 1, got.meta.size));
        Ok(GetObjectOutput {
            accept_ranges: Some("bytes".to_owned()),
            content_length: i64::try_from(length).ok(),
            content_range: range,
            e_tag: Some(e_tag(&got.meta)),
            last_modified: Some(modified(&got.meta)),
            metadata: d.metadata(),
            cache_control: d.cache_control,
            content_disposition: d.content_disposition,
            content_encoding: d.content_encoding,
            content_language: d.content_language,
            content_type: d.content_type,
            checksum_crc32: sums.checksum_crc32,
            checksum_crc32c: sums.checksum_crc32c,
            checksum_crc64nvme: sums.checksum_crc64nvme,
            checksum_sha1: sums.checksum_sha1,
            checksum_sha256: sums.checksum_sha256,
            checksum_type,
            body: Some(outgoing(got.into_stream(), length)),
            ..Default::default()
        })
    }

    pub(super) async fn head(&self, input: HeadObjectInput) -> S3Result<HeadObjectOutput> {
        only_version(input.version_id.as_deref())?;
        let path = existing_path(&input.bucket, &input.key)?;
        let got = self.open(&input.bucket, &path, None, true).await?;
        let conditions = ReadConditions {
            if_match: input.if_match,
            if_none_match: input.if_none_match,
            if_modified_since: input.if_modified_since,
            if_unmodified_since: input.if_unmodified_since,
        };
        conditions.check(&got.meta)?;
        let d = Described::from_attributes(&got.attributes);
        let (sums, checksum_type) = sums_shown(&d, input.checksum_mode.as_ref(), input.range.is_none());
        let part = input.range.map(|r| r.check(got.meta.size)).transpose()?;
        let length = part.as_ref().map_or(got.meta.size, |r| r.end - r.start);
        Ok(HeadObjectOutput {
            accept_ranges: Some("bytes".to_owned()),
            content_length: i64::try_from(length).ok(),
            content_range: part.map(|r| format!("bytes {}-{}/{}", r.start, r.end.saturating_sub(1), got.meta.size)),
            e_tag: Some(e_tag(&got.meta)),
            last_modified: Some(modified(&got.meta)),
            metadata: d.metadata(),
            cache_control: d.cache_control,
            content_disposition: d.content_disposition,
            content_encoding: d.content_encoding,
            content_language: d.content_language,
            content_type: d.content_type,
            checksum_crc32: sums.checksum_crc32,
            checksum_crc32c: sums.checksum_crc32c,
            checksum_crc64nvme: sums.checksum_crc64nvme,
            checksum_sha1: sums.checksum_sha1,
            checksum_sha256: sums.checksum_sha256,
            checksum_type,
            storage_class: Some(StorageClass::from_static(StorageClass::STANDARD)),
            ..Default::default()
        })
    }

    pub(super) async fn put(&self, mut req: S3Request<PutObjectInput>) -> S3Result<PutObjectOutput> {
        let checks = Checks::of(&req.headers, req.trailing_headers.take())?;
        let input = &mut req.input;
        refuse_unsupported!(input);
        if input.write_offset_bytes.is_some() {
            return Err(not_supported("writing at an offset"));
        }
        let path = object_path(&input.bucket, &input.key)?;
        let upload = Upload {
            condition: WriteCondition::of(input.if_match.take(), input.if_none_match.take())?,
            length: check_length(input.content_length)?,
            described: described!(input),
            body: incoming(input.body.take()),
            checks,
        };
        self.require_bucket(&input.bucket).await?;
        let stored = self.store(&path, upload).await?;
        Ok(PutObjectOutput {
            e_tag: Some(stored.e_tag),
            checksum_crc32: stored.sums.checksum_crc32,
            checksum_crc32c: stored.sums.checksum_crc32c,
            checksum_crc64nvme: stored.sums.checksum_crc64nvme,
            checksum_sha1: stored.sums.checksum_sha1,
            checksum_sha256: stored.sums.checksum_sha256,
            ..Default::default()
        })
    }

    pub(super) async fn copy(&self, mut req: S3Request<CopyObjectInput>) -> S3Result<CopyObjectOutput> {
        let (bucket, key) = copy_source(&req, &req.input.copy_source)?;
        let (bucket, from) = (bucket.to_owned(), existing_path(bucket, key)?);
        let input = &mut req.input;
        refuse_unsupported!(input);
        let to = object_path(&input.bucket, &input.key)?;
        let replace = input.metadata_directive.as_ref().is_some_and(|d| d.as_str() == MetadataDirective::REPLACE);
        if from == to && !replace {
            return Err(s3_error!(InvalidRequest, "an object is copied onto itself only to replace its metadata"));
        }
        self.require_bucket(&input.bucket).await?;
        let conditions = ReadConditions {
            if_match: input.copy_source_if_match.take(),
            if_none_match: input.copy_source_if_none_match.take(),
            if_modified_since: input.copy_source_if_modified_since.take(),
            if_unmodified_since: input.copy_source_if_unmodified_since.take(),
        };
        if replace || conditions.any() {
            let got = self.open(&bucket, &from, None, false).await?;
            conditions.check_source(&got.meta)?;
            let mut described = if replace { described!(input) } else { Described::from_attributes(&got.attributes) };
            if replace {
                described.checksums = Described::from_attributes(&got.attributes).checksums;
            }
            let length = Some(got.meta.size);
            let upload =
                Upload { body: reading(got.into_stream()), length, checks: Checks::none(), described, condition: WriteCondition::Any };
            self.store(&to, upload).await?;
        } else if let Err(e) = self.objects.copy(&from, &to).await {
            return Err(self.missing_what(&bucket, store_error(e)).await);
        }
        let meta = self.objects.head(&to).await.map_err(store_error)?;
        let result = CopyObjectResult { e_tag: Some(e_tag(&meta)), last_modified: Some(modified(&meta)), ..Default::default() };
        Ok(CopyObjectOutput { copy_object_result: Some(result), ..Default::default() })
    }

    pub(super) async fn delete(&self, input: &DeleteObjectInput) -> S3Result<()> {
        only_version(input.version_id.as_deref())?;
        if input.if_match.is_some() || input.if_match_size.is_some() || input.if_match_last_modified_time.is_some() {
            return Err(not_supported("a conditional delete"));
        }
        self.require_bucket(&input.bucket).await?;
        self.delete_key(&input.bucket, &input.key).await
    }

    /// Deleting what is not there, or cannot be there, is no error.
    async fn delete_key(&self, bucket: &str, key: &str) -> S3Result<()> {
        let Ok(path) = existing_path(bucket, key) else { return Ok(()) };
        match self.objects.delete(&path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(e) => Err(store_error(e)),
        }
    }

    pub(super) async fn delete_many(&self, req: &S3Request<DeleteObjectsInput>) -> S3Result<DeleteObjectsOutput> {
        let (who, input) = (identity(req)?, &req.input);
        if input.delete.objects.len() > MAX_DELETES {
            return Err(s3_error!(MalformedXML, "one request deletes at most 1000 objects"));
        }
        self.require_bucket(&input.bucket).await?;
        let (mut deleted, mut errors) = (Vec::new(), Vec::new());
        for object in &input.delete.objects {
            match self.delete_one(who, &input.bucket, object).await {
                Ok(()) => deleted.push(DeletedObject { key: Some(object.key.clone()), ..Default::default() }),
                Err(e) => errors.push(DeleteError {
                    code: Some(e.code().as_str().to_owned()),
                    key: Some(object.key.clone()),
                    message: e.message().map(str::to_owned),
                    version_id: object.version_id.clone(),
                }),
            }
        }
        let quiet = input.delete.quiet == Some(true);
        Ok(DeleteObjectsOutput { deleted: (!quiet).then_some(deleted), errors: Some(errors), ..Default::default() })
    }

    async fn delete_one(&self, who: &Identity, bucket: &str, object: &s3s::dto::ObjectIdentifier) -> S3Result<()> {
        decide(who, Action::Delete, &format!("{bucket}/{}", object.key))?;
        only_version(object.version_id.as_deref())?;
        if object.e_tag.is_some() || object.size.is_some() || object.last_modified_time.is_some() {
            return Err(not_supported("a conditional delete"));
        }
        self.delete_key(bucket, &object.key).await
    }
}
