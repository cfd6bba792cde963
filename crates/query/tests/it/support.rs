//! A table of given rows and segments, and an object store that counts what is read.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt, PutMultipartOptions,
    PutOptions, PutPayload, PutResult,
};
use tidemill_base::Result;
use tidemill_query::{
    ColumnValues, Engine, EngineSettings, Limits, Scan, Scanned, SegmentRef, Source, TableData, TableSchema, Type, parquet,
};

/// A source of fixed content that remembers what was asked of it.
#[derive(Default)]
pub(crate) struct Fixed {
    pub(crate) schema: TableSchema,
    pub(crate) tables: Vec<TableData>,
    pub(crate) segments: Vec<(String, SegmentRef)>,
    pub(crate) asked: Mutex<Vec<Scan>>,
}

#[async_trait]
impl Source for Fixed {
    fn schema(&self) -> TableSchema {
        self.schema.clone()
    }

    async fn scan(&self, want: &Scan) -> Result<Scanned> {
        self.asked.lock().unwrap().push(want.clone());
        let segments = self.segments.iter().filter(|(job, _)| want.wants("job", job)).map(|(_, s)| s.clone()).collect();
        Ok(Scanned { tables: self.tables.clone(), segments, ..Scanned::default() })
    }
}

/// Counts reads of objects and the bytes that they gave.
#[derive(Debug, Default)]
pub(crate) struct Counting {
    inner: InMemory,
    pub(crate) reads: AtomicU64,
    pub(crate) bytes: AtomicU64,
}

impl Counting {
    pub(crate) fn take(&self) -> (u64, u64) {
        (self.reads.swap(0, Ordering::SeqCst), self.bytes.swap(0, Ordering::SeqCst))
    }
}

impl fmt::Display for Counting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Counting")
    }
}

#[async_trait]
impl ObjectStore for Counting {
    async fn put_opts(&self, at: &Path, payload: PutPayload, opts: PutOptions) -> object_store::Result<PutResult> {
        self.inner.put_opts(at, payload, opts).await
    }

    async fn put_multipart_opts(&self, at: &Path, opts: PutMultipartOptions) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(at, opts).await
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        let got = self.inner.get_opts(at, options).await?;
        self.reads.fetch_add(1, Ordering::SeqCst);
        self.bytes.fetch_add(got.range.end - got.range.start, Ordering::SeqCst);
        Ok(got)
    }

    async fn get_ranges(&self, at: &Path, ranges: &[Range<u64>]) -> object_store::Result<Vec<Bytes>> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        self.bytes.fetch_add(ranges.iter().map(|r| r.end - r.start).sum(), Ordering::SeqCst);
        self.inner.get_ranges(at, ranges).await
    }

    fn delete_stream(&self, at: BoxStream<'static, object_store::Result<Path>>) -> BoxStream<'static, object_store::Result<Path>> {
        self.inner.delete_stream(at)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

pub(crate) const TASKS: &[(&str, Type)] =
    &[("job", Type::Text), ("task", Type::Int), ("state", Type::Text), ("seconds", Type::Real), ("ended", Type::Time)];

/// 2026-01-01T00:00:00Z in microseconds.
pub(crate) const NEW_YEAR: i64 = 1_767_225_600_000_000;

/// Rows of `TASKS`: one job, tasks `from..to`, each a second after the other, every tenth failed, every fourth without an end.
pub(crate) fn tasks(job: &str, from: i64, to: i64) -> TableData {
    let n = usize::try_from(to - from).unwrap();
    let ended = (from..to).map(|i| (i % 4 != 3).then_some(NEW_YEAR + i * 1_000_000)).collect();
    TableData::with_rows(n)
        .column("job", ColumnValues::Dict { rows: vec![0; n], words: vec![job.to_owned()] })
        .and_then(|t| t.column("task", ColumnValues::Int((from..to).collect())))
        .and_then(|t| {
            let rows = (from..to).map(|i| u32::from(i % 10 == 0)).collect();
            t.column("state", ColumnValues::Dict { rows, words: vec!["done".to_owned(), "failed".to_owned()] })
        })
        .and_then(|t| t.column("seconds", ColumnValues::Real((from..to).map(|i| i as f64 / 4.0).collect())))
        .and_then(|t| t.column("ended", ColumnValues::TimeMicrosOpt(ended)))
        .unwrap()
}

/// Stores rows as a segment.
pub(crate) async fn segment(store: &dyn ObjectStore, path: &str, rows: &TableData) -> SegmentRef {
    let bytes = parquet::encode(rows).unwrap();
    let found = SegmentRef { path: Path::from(path), rows: parquet::row_count(&bytes).unwrap(), bytes: bytes.len() as u64 };
    store.put(&found.path, bytes.into()).await.unwrap();
    found
}

/// An engine with one table `batch.tasks` of live rows.
pub(crate) fn engine(tables: Vec<TableData>) -> Engine {
    engine_with(tables, EngineSettings::default())
}

pub(crate) fn engine_with(tables: Vec<TableData>, settings: EngineSettings) -> Engine {
    let engine = Engine::new(Arc::new(InMemory::new()), settings).unwrap();
    let schema = TableSchema::new(TASKS);
    engine.register("batch", "tasks", Arc::new(Fixed { schema, tables, ..Fixed::default() }));
    engine
}

pub(crate) async fn csv(engine: &Engine, sql: &str) -> String {
    let answer = engine.query(sql, Limits::default()).await.unwrap_or_else(|e| panic!("{sql}: {e:?}"));
    text(answer.into_csv()).await.unwrap_or_else(|e| panic!("{sql}: {e:?}"))
}

/// The first row of an answer with one column.
pub(crate) async fn one(engine: &Engine, sql: &str) -> String {
    csv(engine, sql).await.lines().nth(1).unwrap_or_default().to_owned()
}

pub(crate) async fn text(stream: impl futures::Stream<Item = Result<Bytes>>) -> Result<String> {
    let mut stream = std::pin::pin!(stream);
    let mut out = Vec::new();
    while let Some(part) = stream.next().await {
        out.extend_from_slice(&part?);
    }
    Ok(String::from_utf8(out).unwrap())
}

/// The error of a statement, wherever it comes.
pub(crate) async fn error(engine: &Engine, sql: &str) -> tidemill_base::Error {
    match engine.query(sql, Limits::default()).await {
        Ok(answer) => answer.collect().await.expect_err(sql),
        Err(e) => e,
    }
}
