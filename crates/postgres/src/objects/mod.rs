//! The objects block: a row for each object, and its contents in pieces.
//!
//! For whoever has a database and nothing else; a store that is made for objects is faster and cheaper where there is one. Small
//! contents are in the object's own row. Larger ones are written first, in pieces of a MiB under a number that no object has, and one
//! statement then makes the object name them; so an object is replaced whole or not at all, and no transaction is long. Contents that
//! no object names are on a list from the beginning, with a time after which they go: uploads that nobody completes after a day, what
//! was overwritten or deleted after a quarter of an hour, within which its readers can finish.

mod error;
mod list;
mod multipart;
mod put;
mod read;
mod record;
mod statements;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use object_store::path::Path;
use object_store::{
    CopyMode, CopyOptions, GetOptions, GetRange, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, RenameTargetMode,
};
use tidemill_base::Error;

use crate::Shared;
use error::{STORE, foreign, unsupported};
use put::Condition;

/// Deletes that one statement does.
const DELETES: usize = 500;
/// The longest path, in bytes; S3's limit, and less than what fits into the server's index.
const MAX_PATH: usize = 1024;

/// All objects of one schema.
#[derive(Debug, Clone)]
pub(crate) struct PostgresObjects {
    shared: Arc<Shared>,
}

impl PostgresObjects {
    pub(crate) const fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

impl fmt::Display for PostgresObjects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let target = &self.shared.link.target;
        write!(f, "PostgresObjects({} {})", target.place, target.schema)
    }
}

/// Refuses a path that cannot be kept.
fn check_path(path: &Path) -> object_store::Result<&str> {
    let text = path.as_ref();
    if text.len() > MAX_PATH || text.contains('\0') {
        let why = format!("the object name of {} bytes cannot be kept; take at most {MAX_PATH} bytes and no zero byte", text.len());
        return Err(foreign(Error::invalid(why)));
    }
    Ok(text)
}

fn as_range(range: &GetRange, size: u64) -> object_store::Result<Range<u64>> {
    range.as_range(size).map_err(|e| object_store::Error::Generic {
        store: STORE,
        source: Box::new(Error::invalid("range outside the object").with_source(e)),
    })
}

#[async_trait]
impl ObjectStore for PostgresObjects {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> object_store::Result<PutResult> {
        let attributes = record::stored(&opts.attributes)?;
        self.put(location, payload, attributes, Condition::from(opts.mode)).await
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> object_store::Result<Box<dyn MultipartUpload>> {
        check_path(location)?;
        let attributes = record::stored(&opts.attributes)?;
        Ok(Box::new(multipart::Upload::new(self.clone(), location.clone(), attributes)))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        if let Some(version) = &options.version {
            return Err(unsupported(format!("object `{location}` has no version {version}: only the newest is kept")));
        }
        let record = self.find(location, !options.head).await?;
        options.check_preconditions(&record.meta)?;
        let range = match &options.range {
            Some(range) => as_range(range, record.meta.size)?,
            None => 0..record.meta.size,
        };
        let (meta, attributes) = (record.meta.clone(), record::attributes(&record.attributes).map_err(foreign)?);
        let stream = if options.head { stream::empty().boxed() } else { self.stream(record, range.clone()) };
        Ok(GetResult { payload: GetResultPayload::Stream(stream), meta, range, attributes })
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> object_store::Result<Vec<Bytes>> {
        let record = self.find(location, true).await?;
        let mut out = Vec::with_capacity(ranges.len());
        for range in ranges {
            let range = as_range(&GetRange::Bounded(range.clone()), record.meta.size)?;
            out.push(self.bytes(&record, range).await?);
        }
        Ok(out)
    }

    fn delete_stream(&self, locations: BoxStream<'static, object_store::Result<Path>>) -> BoxStream<'static, object_store::Result<Path>> {
        let this = self.clone();
        locations
            .ready_chunks(DELETES)
            .then(move |some| {
                let this = this.clone();
                async move { stream::iter(this.delete_some(some).await) }
            })
            .flatten()
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.list_after(prefix, None)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.list_after(prefix, Some(offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.list_folder(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        let condition = match options.mode {
            CopyMode::Overwrite => Condition::Any,
            CopyMode::Create => Condition::Absent,
        };
        self.copy_object(from, to, condition).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> object_store::Result<()> {
        self.rename_object(from, to, options.target_mode == RenameTargetMode::Create).await
    }
}
