//! What each task of a stage gets, stored in chunks of a few thousand tasks.
//!
//! A chunk is closed when it holds [`CHUNK_ENTRIES`] tasks or [`CHUNK_BYTES`], whichever comes first. Where chunks are cut is kept in
//! [`ManifestInfo`] as runs of chunks that hold equally many, so that the way from a task to its chunk is arithmetic and a
//! manifest of ten million small tasks is described by two runs.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use futures::stream::{FuturesUnordered, StreamExt};
use serde::{Deserialize, Serialize};
use tidemill_base::{Error, ErrorKind, Result};
use tidemill_blocks::objects::{self, Objects};
use tokio::sync::OnceCell;

use crate::model::TaskInput;
use crate::protocol::keys;
use crate::unpack::unpack;

/// No chunk holds more tasks.
pub const CHUNK_ENTRIES: u64 = 4096;
/// A chunk that has grown to this many bytes before compression is closed.
pub const CHUNK_BYTES: usize = 1 << 20;
/// One task's entry may not be larger, in bytes.
pub const MAX_ENTRY_BYTES: usize = 16 << 20;

/// This many chunks are on their way to the object store at once.
const UPLOADS: usize = 8;

/// Chunks that follow each other and hold equally many tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChunkRun {
    /// The first task of the first of them.
    pub first_task: u64,
    /// The number of the first of them.
    pub first_chunk: u64,
    /// Tasks in each.
    pub entries: u64,
}

/// Where the tasks of a manifest are. Part of the stage's definition.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestInfo {
    /// Tasks in all.
    pub entries: u64,
    /// Chunks in all.
    pub chunks: u64,
    /// Bytes of all chunks as stored.
    pub bytes: u64,
    /// How the tasks are spread over the chunks, ascending.
    pub runs: Vec<ChunkRun>,
}

impl ManifestInfo {
    /// The chunk that holds `task`, and its place in there. `None` beyond the last task.
    pub fn locate(&self, task: u64) -> Option<(u64, u64)> {
        if task >= self.entries {
            return None;
        }
        let run = self.runs[..self.runs.partition_point(|r| r.first_task <= task)].last()?;
        let ahead = task - run.first_task;
        Some((run.first_chunk + ahead.checked_div(run.entries)?, ahead % run.entries))
    }

    fn add_chunk(&mut self, entries: u64, bytes: usize) {
        if self.runs.last().is_none_or(|r| r.entries != entries) {
            self.runs.push(ChunkRun { first_task: self.entries, first_chunk: self.chunks, entries });
        }
        self.entries += entries;
        self.chunks += 1;
        self.bytes += bytes as u64;
    }
}

/// Writes a manifest from its first task to its last, in bounded memory. Writing the same tasks again after a crash writes the same
/// objects.
#[derive(Debug)]
pub struct Writer<'a> {
    objects: &'a Objects,
    job: &'a str,
    stage: u32,
    open: Vec<u8>,
    open_entries: u64,
    info: ManifestInfo,
    uploads: FuturesUnordered<futures::future::BoxFuture<'a, Result<()>>>,
}

impl<'a> Writer<'a> {
    /// A manifest for stage number `stage` of the job with the id `job`.
    pub fn new(objects: &'a Objects, job: &'a str, stage: u32) -> Self {
        Self { objects, job, stage, open: Vec::new(), open_entries: 0, info: ManifestInfo::default(), uploads: FuturesUnordered::new() }
    }

    /// How many tasks have been added.
    pub const fn entries(&self) -> u64 {
        self.info.entries + self.open_entries
    }

    /// Adds the next task. `Exhausted` when it is larger than [`MAX_ENTRY_BYTES`].
    pub async fn push(&mut self, input: &TaskInput) -> Result<()> {
        let before = self.open.len();
        let open = std::mem::take(&mut self.open);
        self.open = postcard::to_extend(input, open).map_err(|e| Error::internal("encode manifest entry").with_source(e))?;
        let len = self.open.len() - before;
        if len > MAX_ENTRY_BYTES {
            let what =
                format!("the input list of task {} takes {len} bytes, the limit is {MAX_ENTRY_BYTES}; lower `per-task`", self.entries());
            return Err(Error::new(ErrorKind::Exhausted, what));
        }
        self.open_entries += 1;
        if self.open_entries >= CHUNK_ENTRIES || self.open.len() >= CHUNK_BYTES {
            self.close().await?;
        }
        Ok(())
    }

    /// Writes what is still open and waits until everything is stored.
    pub async fn finish(mut self) -> Result<ManifestInfo> {
        if self.open_entries > 0 {
            self.close().await?;
        }
        while let Some(done) = self.uploads.next().await {
            done?;
        }
        Ok(self.info)
    }

    async fn close(&mut self) -> Result<()> {
        // A chunk is the encoding of a `Vec<TaskInput>`: the count, then the entries.
        let count = postcard::to_stdvec(&self.open_entries).map_err(|e| Error::internal("encode manifest").with_source(e))?;
        let plain = [count.as_slice(), &self.open].concat();
        let packed = zstd::bulk::compress(&plain, 1).map_err(|e| Error::internal("compress manifest").with_source(e))?;
        let path = keys::manifest_chunk(self.job, self.stage, self.info.chunks);
        self.info.add_chunk(self.open_entries, packed.len());
        self.open.clear();
        self.open_entries = 0;
        while self.uploads.len() >= UPLOADS {
            self.uploads.next().await.transpose()?;
        }
        let store = self.objects;
        self.uploads.push(Box::pin(async move { objects::put(store.as_ref(), &path, packed).await }));
        Ok(())
    }
}

/// Job, stage, number.
type ChunkId = (String, u32, u64);
/// Filled by whoever needs it first, while others wait for that one read.
type Chunk = Arc<OnceCell<Vec<TaskInput>>>;

/// Reads manifests and keeps the chunks it read last. One serves a whole worker: clones share the cache.
#[derive(Debug, Clone)]
pub struct Reader {
    // The newest at the back. A handful of chunks, so a scan is cheaper than a map.
    cache: Arc<Mutex<VecDeque<(ChunkId, Chunk)>>>,
    capacity: usize,
}

impl Default for Reader {
    fn default() -> Self {
        Self::new(8)
    }
}

impl Reader {
    /// Keeps up to `chunks` chunks (at least one) in memory, a few megabytes each at most.
    pub fn new(chunks: usize) -> Self {
        Self { cache: Arc::default(), capacity: chunks.max(1) }
    }

    /// What `task` gets. `NotFound` beyond the last task or when the chunk is gone, `Corrupt` when it cannot be read.
    pub async fn get(&self, objects: &Objects, job: &str, stage: u32, info: &ManifestInfo, task: u64) -> Result<TaskInput> {
        let (chunk, at) = info
            .locate(task)
            .ok_or_else(|| Error::not_found(format!("stage {stage} of job {job} has {} tasks, there is no task {task}", info.entries)))?;
        let cell = self.cell((job.to_owned(), stage, chunk));
        let entries = cell.get_or_try_init(|| load(objects, job, stage, chunk)).await?;
        let entry = usize::try_from(at).ok().and_then(|at| entries.get(at)).cloned();
        entry.ok_or_else(|| {
            Error::corrupt(format!("chunk {chunk} of the manifest of stage {stage} of job {job} is too short for task {task}"))
        })
    }

    fn cell(&self, key: ChunkId) -> Chunk {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let found = cache.iter().position(|(k, _)| *k == key).and_then(|at| cache.remove(at));
        let entry = found.unwrap_or_else(|| (key, Chunk::default()));
        let cell = entry.1.clone();
        cache.push_back(entry);
        while cache.len() > self.capacity {
            cache.pop_front();
        }
        cell
    }
}

async fn load(objects: &Objects, job: &str, stage: u32, chunk: u64) -> Result<Vec<TaskInput>> {
    let path = keys::manifest_chunk(job, stage, chunk);
    let packed = objects::get(objects.as_ref(), &path).await?;
    let corrupt = || Error::corrupt(format!("manifest chunk `{path}` cannot be read"));
    let plain = unpack(&packed, CHUNK_BYTES + MAX_ENTRY_BYTES + 16).map_err(|e| corrupt().with_source(e))?;
    postcard::from_bytes(&plain).map_err(|e| corrupt().with_source(e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::memory::InMemory;

    fn store() -> Objects {
        Arc::new(InMemory::new())
    }

    async fn write(objects: &Objects, inputs: impl Iterator<Item = TaskInput>) -> ManifestInfo {
        let mut writer = Writer::new(objects, "j1", 0);
        for input in inputs {
            writer.push(&input).await.unwrap();
        }
        writer.finish().await.unwrap()
    }

    #[tokio::test]
    async fn every_task_is_found_again_across_chunks() {
        let objects = store();
        let info = write(&objects, (0..10_000).map(TaskInput::Index)).await;
        assert_eq!((info.entries, info.chunks, info.runs.len()), (10_000, 3, 2));
        let reader = Reader::new(2);
        for task in [0, 1, 4095, 4096, 8191, 8192, 9999, 17] {
            assert_eq!(reader.get(&objects, "j1", 0, &info, task).await.unwrap(), TaskInput::Index(task.cast_signed()));
        }
        let beyond = reader.get(&objects, "j1", 0, &info, 10_000).await.unwrap_err();
        assert_eq!(beyond.to_string(), "stage 0 of job j1 has 10000 tasks, there is no task 10000");
        assert_eq!(reader.cache.lock().unwrap().len(), 2);
    }

    #[tokio::test]
    async fn large_entries_make_smaller_chunks_that_are_found_just_as_well() {
        let objects = store();
        let line = |i: usize| TaskInput::Lines(format!("{i} {}", "x".repeat((i * 7919) % 40_000)));
        let info = write(&objects, (0..500).map(line)).await;
        assert!(info.chunks > 5 && info.runs.len() > 2, "{info:?}");
        let reader = Reader::default();
        for i in 0..500 {
            assert_eq!(reader.get(&objects, "j1", 0, &info, i as u64).await.unwrap(), line(i), "{i}");
        }
    }

    #[tokio::test]
    async fn an_entry_over_the_limit_is_refused_and_one_under_it_is_read_back() {
        let objects = store();
        let big = TaskInput::Lines("x".repeat(MAX_ENTRY_BYTES - 10));
        let info = write(&objects, [big.clone(), big.clone()].into_iter()).await;
        assert_eq!(info.chunks, 2);
        assert!(Reader::default().get(&objects, "j1", 0, &info, 1).await.unwrap() == big);
        let mut writer = Writer::new(&objects, "j1", 0);
        let e = writer.push(&TaskInput::Lines("x".repeat(MAX_ENTRY_BYTES))).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Exhausted);
        assert!(e.to_string().ends_with("lower `per-task`"), "{e}");
    }

    #[tokio::test]
    async fn a_missing_chunk_is_named_and_a_damaged_one_is_corrupt_and_neither_is_remembered() {
        let objects = store();
        let info = write(&objects, (0..3).map(TaskInput::Index)).await;
        let path = keys::manifest_chunk("j1", 0, 0);
        let good = objects::get(objects.as_ref(), &path).await.unwrap();
        let reader = Reader::default();
        objects::delete(objects.as_ref(), &path).await.unwrap();
        let missing = reader.get(&objects, "j1", 0, &info, 0).await.unwrap_err();
        assert_eq!((missing.kind(), missing.to_string()), (ErrorKind::NotFound, format!("read object `{path}`")));
        objects::put(objects.as_ref(), &path, good.slice(..good.len() - 1)).await.unwrap();
        assert_eq!(reader.get(&objects, "j1", 0, &info, 0).await.unwrap_err().kind(), ErrorKind::Corrupt);
        objects::put(objects.as_ref(), &path, good).await.unwrap();
        assert_eq!(reader.get(&objects, "j1", 0, &info, 2).await.unwrap(), TaskInput::Index(2));
    }
}
