//! Listing multipart uploads and their parts.

use std::collections::BTreeMap;

use futures::StreamExt as _;
use s3s::S3Result;
use s3s::dto::{
    ListMultipartUploadsInput, ListMultipartUploadsOutput, ListPartsInput, ListPartsOutput, MultipartUpload, Part, Timestamp as S3Timestamp,
};
use tidemill_base::Timestamp;

use super::Endpoint;
use super::conditions::{e_tag, modified};
use super::errors::{not_supported, store_error};
use super::listing::{Names, owner};
use super::page::page_size;
use super::uploads::{RECORD, Record, uploads_folder};

impl Endpoint {
    pub(super) async fn list_parts(&self, input: ListPartsInput) -> S3Result<ListPartsOutput> {
        let (_, folder) = self.open_upload(&input.bucket, &input.key, &input.upload_id).await?;
        let after = input.part_number_marker.unwrap_or(0);
        let max = page_size(input.max_parts)?;
        let mut rest = self.parts(&folder).await?.split_off(&after.saturating_add(1)).into_iter();
        let parts: Vec<_> = rest
            .by_ref()
            .take(max)
            .map(|(number, meta)| Part {
                part_number: Some(number),
                e_tag: Some(e_tag(&meta)),
                last_modified: Some(modified(&meta)),
                size: i64::try_from(meta.size).ok(),
                ..Default::default()
            })
            .collect();
        let truncated = max > 0 && rest.next().is_some();
        Ok(ListPartsOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(input.upload_id),
            max_parts: i32::try_from(max).ok(),
            part_number_marker: Some(after),
            next_part_number_marker: parts.last().and_then(|p| p.part_number).filter(|_| truncated),
            is_truncated: Some(truncated),
            parts: Some(parts),
            owner: Some(owner()),
            ..Default::default()
        })
    }

    /// The uploads of a bucket that are not completed, by key and then by the time they were begun.
    async fn uploads(&self, bucket: &str, prefix: &str) -> S3Result<BTreeMap<(String, String), Record>> {
        let mut out = BTreeMap::new();
        let mut all = self.objects.list(Some(&uploads_folder(bucket)));
        while let Some(meta) = all.next().await {
            let path = meta.map_err(store_error)?.location;
            if path.filename() != Some(RECORD) {
                continue;
            }
            let Some(id) = path.parts().rev().nth(1).map(|p| p.as_ref().to_owned()) else { continue };
            match self.record(bucket, &id).await {
                Ok(record) if record.completed.is_none() && record.key.starts_with(prefix) => {
                    out.insert((record.key.clone(), id), record);
                }
                Ok(_) => {}
                Err(e) if *e.code() == s3s::S3ErrorCode::NoSuchUpload => {}
                Err(e) => return Err(e),
            }
        }
        Ok(out)
    }

    pub(super) async fn list_uploads(&self, input: ListMultipartUploadsInput) -> S3Result<ListMultipartUploadsOutput> {
        self.require_bucket(&input.bucket).await?;
        if input.delimiter.as_deref().is_some_and(|d| !d.is_empty()) {
            return Err(not_supported("listing uploads with a delimiter"));
        }
        let names = Names::of(input.encoding_type.as_ref());
        let max = page_size(input.max_uploads)?;
        let after = input.key_marker.clone().filter(|k| !k.is_empty()).map(|key| (key, input.upload_id_marker.clone()));
        let passed = |(key, id): &(String, String)| match &after {
            None => false,
            Some((marker, None)) => key <= marker,
            Some((marker, Some(id_marker))) => (key, id) <= (marker, id_marker),
        };
        let all = self.uploads(&input.bucket, input.prefix.as_deref().unwrap_or_default()).await?;
        let mut rest = all.into_iter().filter(|(at, _)| !passed(at));
        let page: Vec<_> = rest.by_ref().take(max).collect();
        let truncated = max > 0 && rest.next().is_some();
        let last = page.last().map(|(at, _)| at.clone()).filter(|_| truncated);
        let uploads = page.into_iter().map(|((key, id), record)| MultipartUpload {
            key: Some(names.show(&key)),
            upload_id: Some(id),
            initiated: Some(S3Timestamp::from(std::time::UNIX_EPOCH + record.begun.since(Timestamp::ZERO))),
            owner: Some(owner()),
            ..Default::default()
        });
        Ok(ListMultipartUploadsOutput {
            uploads: Some(uploads.collect()),
            bucket: Some(input.bucket),
            prefix: input.prefix.map(|p| names.show(&p)),
            key_marker: input.key_marker.map(|k| names.show(&k)),
            upload_id_marker: input.upload_id_marker,
            next_key_marker: last.as_ref().map(|(key, _)| names.show(key)),
            next_upload_id_marker: last.map(|(_, id)| id),
            max_uploads: i32::try_from(max).ok(),
            is_truncated: Some(truncated),
            encoding_type: input.encoding_type,
            ..Default::default()
        })
    }
}
