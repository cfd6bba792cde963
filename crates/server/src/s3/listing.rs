//! Listing objects: pages filled from the store.

use futures::StreamExt as _;
use object_store::ObjectMeta;
use object_store::path::Path;
use s3s::S3Result;
use s3s::dto::{
    CommonPrefix, EncodingType, ListObjectsInput, ListObjectsOutput, ListObjectsV2Input, ListObjectsV2Output, Object, ObjectStorageClass,
    Owner,
};

use super::Endpoint;
use super::conditions::{e_tag, modified};
use super::errors::store_error;
use super::names::{object_path, url_encode};
use super::page::{Entry, Page, Position, Query, page_size};

/// The one owner of everything.
pub(super) fn owner() -> Owner {
    Owner { display_name: Some("tidemill".to_owned()), id: Some("tidemill".to_owned()) }
}

/// How names travel: plain, or percent-encoded when the client asks for it.
#[derive(Clone, Copy)]
pub(super) struct Names(bool);

impl Names {
    pub(super) fn of(encoding: Option<&EncodingType>) -> Self {
        Self(encoding.is_some_and(|e| e.as_str() == EncodingType::URL))
    }

    pub(super) fn show(self, name: &str) -> String {
        if self.0 { url_encode(name) } else { name.to_owned() }
    }
}

/// The folder that holds everything with this prefix. `None`: no key can have it.
fn folder(bucket: &str, prefix: &str) -> Option<Path> {
    match prefix.rsplit_once('/') {
        None => Some(Path::from(bucket)),
        Some((folder, _)) => object_path(bucket, folder).ok(),
    }
}

/// A path that no wanted key precedes, to begin from.
fn offset(bucket: &str, query: &Query) -> Option<Path> {
    match &query.from {
        Position::AfterKey(key) => object_path(bucket, key.trim_end_matches('/')).ok(),
        Position::AfterGroup(group) => object_path(bucket, &format!("{group}{}", char::MAX)).ok(),
        Position::Start => {
            let mut shorter = query.prefix.clone();
            shorter.pop();
            object_path(bucket, &shorter).ok()
        }
    }
}

/// Whether one look into the folder shows all entries: the delimiter is that of folders, and the page does not begin inside one.
fn by_folder(query: &Query) -> bool {
    let inside = |key: &String| key.strip_prefix(&query.prefix).is_some_and(|rest| rest.contains('/'));
    query.delimiter.as_deref() == Some("/") && !matches!(&query.from, Position::AfterKey(key) if inside(key))
}

impl Endpoint {
    async fn page(&self, bucket: &str, query: Query) -> S3Result<Page<Option<ObjectMeta>>> {
        self.require_bucket(bucket).await?;
        let Some(folder) = folder(bucket, &query.prefix) else { return Ok(Page::new(query)) };
        if by_folder(&query) {
            return self.page_of_folder(bucket, &folder, query).await;
        }
        let mut keys = match offset(bucket, &query) {
            Some(offset) => self.objects.list_with_offset(Some(&folder), &offset),
            None => self.objects.list(Some(&folder)),
        };
        let mut page = Page::new(query);
        while let Some(meta) = keys.next().await {
            let meta = meta.map_err(store_error)?;
            let Some(key) = meta.location.as_ref().get(bucket.len() + 1..).map(str::to_owned) else { continue };
            if !page.offer(&key, Some(meta)) {
                break;
            }
        }
        Ok(page)
    }

    /// Spares the walk through everything below.
    async fn page_of_folder(&self, bucket: &str, folder: &Path, query: Query) -> S3Result<Page<Option<ObjectMeta>>> {
        let listed = self.objects.list_with_delimiter(Some(folder)).await.map_err(store_error)?;
        let key = |path: &Path| path.as_ref().get(bucket.len() + 1..).map(str::to_owned);
        let groups = listed.common_prefixes.iter().filter_map(|p| Some((format!("{}/", key(p)?), None)));
        let mut all: Vec<_> = groups.collect();
        all.extend(listed.objects.into_iter().filter_map(|meta| Some((key(&meta.location)?, Some(meta)))));
        all.sort_by(|a, b| a.0.cmp(&b.0));
        let mut page = Page::new(query);
        for (key, meta) in all {
            if !page.offer(&key, meta) {
                break;
            }
        }
        Ok(page)
    }

    pub(super) async fn list_v1(&self, input: ListObjectsInput) -> S3Result<ListObjectsOutput> {
        let names = Names::of(input.encoding_type.as_ref());
        let delimiter = input.delimiter.filter(|d| !d.is_empty());
        let query = Query {
            prefix: input.prefix.clone().unwrap_or_default(),
            from: Position::from_marker(input.marker.clone(), delimiter.as_deref()),
            max: page_size(input.max_keys)?,
            delimiter: delimiter.clone(),
        };
        let max = query.max;
        let page = self.page(&input.bucket, query).await?;
        let next_marker = page.next().map(|(_, marker)| names.show(&marker));
        let (truncated, (contents, common)) = (page.truncated, shown(page, names, true));
        Ok(ListObjectsOutput {
            name: Some(input.bucket),
            prefix: Some(names.show(&input.prefix.unwrap_or_default())),
            marker: Some(names.show(&input.marker.unwrap_or_default())),
            max_keys: i32::try_from(max).ok(),
            is_truncated: Some(truncated),
            contents: Some(contents),
            common_prefixes: Some(common),
            delimiter: delimiter.map(|d| names.show(&d)),
            next_marker,
            encoding_type: input.encoding_type,
            ..Default::default()
        })
    }

    pub(super) async fn list_v2(&self, input: ListObjectsV2Input) -> S3Result<ListObjectsV2Output> {
        let names = Names::of(input.encoding_type.as_ref());
        let delimiter = input.delimiter.filter(|d| !d.is_empty());
        let from = match (&input.continuation_token, &input.start_after) {
            (Some(token), _) => Position::from_token(token)?,
            (None, Some(key)) if !key.is_empty() => Position::AfterKey(key.clone()),
            _ => Position::Start,
        };
        let query =
            Query { prefix: input.prefix.clone().unwrap_or_default(), from, max: page_size(input.max_keys)?, delimiter: delimiter.clone() };
        let max = query.max;
        let page = self.page(&input.bucket, query).await?;
        let next = page.next().map(|(token, _)| token);
        let (truncated, count) = (page.truncated, page.entries.len());
        let (contents, common) = shown(page, names, input.fetch_owner == Some(true));
        Ok(ListObjectsV2Output {
            name: Some(input.bucket),
            prefix: Some(names.show(&input.prefix.unwrap_or_default())),
            max_keys: i32::try_from(max).ok(),
            key_count: i32::try_from(count).ok(),
            continuation_token: input.continuation_token,
            is_truncated: Some(truncated),
            next_continuation_token: next,
            contents: Some(contents),
            common_prefixes: Some(common),
            delimiter: delimiter.map(|d| names.show(&d)),
            encoding_type: input.encoding_type,
            start_after: input.start_after.map(|k| names.show(&k)),
            ..Default::default()
        })
    }
}

fn shown(page: Page<Option<ObjectMeta>>, names: Names, with_owner: bool) -> (Vec<Object>, Vec<CommonPrefix>) {
    let (mut contents, mut common) = (Vec::new(), Vec::new());
    for entry in page.entries {
        match entry {
            Entry::Key(key, Some(meta)) => contents.push(Object {
                key: Some(names.show(&key)),
                e_tag: Some(e_tag(&meta)),
                last_modified: Some(modified(&meta)),
                size: i64::try_from(meta.size).ok(),
                storage_class: Some(ObjectStorageClass::from_static(ObjectStorageClass::STANDARD)),
                owner: with_owner.then(owner),
                ..Default::default()
            }),
            Entry::Group(group) => common.push(CommonPrefix { prefix: Some(names.show(&group)) }),
            // Only groups come without an object.
            Entry::Key(_, None) => {}
        }
    }
    (contents, common)
}
