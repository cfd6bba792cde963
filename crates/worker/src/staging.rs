//! Fetching inputs into a task's folder and storing its large files.

use std::collections::BTreeSet;
use std::path::{Path as FsPath, PathBuf};

use futures::future::{BoxFuture, FutureExt};
use futures::stream::{self, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt, WriteMultipart};
use tidemill_base::{Error, ErrorKind, Result};
use tidemill_batch::model::{FailureClass, InputRef};
use tidemill_blocks::objects::{self, Objects};
use tidemill_runtime::Stopwatch;
use tokio::fs::{self, File};
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};

use crate::range::{Staged, failure};
use crate::work::Failure;

/// Objects of one task that are fetched at once.
const PARALLEL: usize = 4;
/// Files over this many bytes are stored in parts.
const PART_BYTES: usize = 8 << 20;
/// The longest file name, in bytes, that every file system takes; some room is left for a number.
const MAX_NAME: usize = 240;

/// Fetches what a task gets into `folder/in`, which is made.
pub(crate) async fn fetch(store: &Objects, task: u64, folder: PathBuf, files: &[InputRef]) -> Result<Staged, Failure> {
    let watch = Stopwatch::start();
    let inside = folder.join("in");
    fs::create_dir_all(&inside).await.map_err(|e| full(&folder, e))?;
    let names = unique_names(files.iter().map(|f| f.name.as_str()));
    let targets: Vec<_> = names.iter().map(|n| inside.join(n)).collect();
    // Boxed, since the compiler cannot see that these are `Send` for every lifetime.
    let fetches: Vec<BoxFuture<'_, _>> =
        files.iter().zip(&targets).map(|(file, target)| fetch_one(store, file, target, &folder).boxed()).collect();
    let bytes: Vec<u64> = stream::iter(fetches).buffered(PARALLEL).try_collect().await?;
    let took_us = u64::try_from(watch.elapsed().as_micros()).unwrap_or(u64::MAX);
    Ok(Staged { task, folder, inputs: targets, bytes: bytes.iter().sum(), took_us, credential: None })
}

fn full(folder: &FsPath, e: std::io::Error) -> Failure {
    failure(FailureClass::Storage, &Error::from(e).context(format!("write in the task's folder `{}`", folder.display())))
}

async fn fetch_one(store: &Objects, file: &InputRef, target: &FsPath, folder: &FsPath) -> Result<u64, Failure> {
    let path = objects::parse_path(&file.path).map_err(|e| failure(FailureClass::Input, &e))?;
    let mut out = File::create(target).await.map_err(|e| full(folder, e))?;
    let mut bytes = 0;
    if file.header > 0 {
        bytes += copy(store, &path, Some(0..file.header), &mut out, folder).await?;
    }
    if file.whole {
        bytes += copy(store, &path, None, &mut out, folder).await?;
    } else if file.len > 0 {
        bytes += copy(store, &path, Some(file.offset..file.offset + file.len), &mut out, folder).await?;
    }
    out.flush().await.map_err(|e| full(folder, e))?;
    Ok(bytes)
}

async fn copy(store: &Objects, path: &Path, range: Option<std::ops::Range<u64>>, out: &mut File, folder: &FsPath) -> Result<u64, Failure> {
    let unreadable = |e| {
        let e = objects::error("read input", path, e);
        let class = if e.kind() == ErrorKind::Unavailable { FailureClass::Storage } else { FailureClass::Input };
        failure(class, &e)
    };
    let options = GetOptions { range: range.map(GetRange::Bounded), ..GetOptions::default() };
    let mut chunks = store.get_opts(path, options).await.map_err(unreadable)?.into_stream();
    let mut bytes = 0;
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(unreadable)?;
        bytes += chunk.len() as u64;
        out.write_all(&chunk).await.map_err(|e| full(folder, e))?;
    }
    Ok(bytes)
}

/// Names that are safe in one folder and differ from each other, as close to the given ones as can be.
pub(crate) fn unique_names<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut taken = BTreeSet::new();
    let mut out = Vec::new();
    for name in names {
        let safe = safe_name(name);
        let (stem, end) =
            safe.rsplit_once('.').filter(|(s, _)| !s.is_empty()).map_or((safe.as_str(), String::new()), |(s, e)| (s, format!(".{e}")));
        let mut candidate = safe.clone();
        let mut n = 2;
        while !taken.insert(candidate.clone()) {
            candidate = format!("{stem}-{n}{end}");
            n += 1;
        }
        out.push(candidate);
    }
    out
}

fn safe_name(name: &str) -> String {
    let mut safe: String = name.chars().map(|c| if c == '/' || c == '\0' { '_' } else { c }).collect();
    if safe.len() > MAX_NAME {
        // The end is what programs tell types by.
        let mut cut = safe.len() - MAX_NAME;
        while !safe.is_char_boundary(cut) {
            cut += 1;
        }
        safe.drain(..cut);
    }
    if matches!(safe.as_str(), "" | "." | "..") { format!("_{safe}") } else { safe }
}

/// Stores a part of a file as an object, in parts when it is large.
pub(crate) async fn store(store: &dyn ObjectStore, source: &FsPath, offset: u64, len: u64, target: &Path) -> Result<()> {
    let unreadable = |e: std::io::Error| Error::from(e).context(format!("read `{}` to store it", source.display()));
    let mut file = File::open(source).await.map_err(unreadable)?;
    file.seek(std::io::SeekFrom::Start(offset)).await.map_err(unreadable)?;
    let mut file = file.take(len);
    let mut buffer = Vec::new();
    if len <= PART_BYTES as u64 {
        file.read_to_end(&mut buffer).await.map_err(unreadable)?;
        return objects::put(store, target, buffer).await;
    }
    let failed = |e| objects::error("write", target, e);
    let mut upload = WriteMultipart::new_with_chunk_size(store.put_multipart(target).await.map_err(failed)?, PART_BYTES);
    loop {
        buffer.clear();
        let mut next = (&mut file).take(PART_BYTES as u64);
        if next.read_to_end(&mut buffer).await.map_err(unreadable)? == 0 {
            break;
        }
        upload.wait_for_capacity(PARALLEL).await.map_err(failed)?;
        upload.write(&buffer);
    }
    upload.finish().await.map(drop).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn names_never_leave_the_folder_and_never_meet() {
        let given = ["a.csv", "a.csv", "../a", "..", ".", "", "a\nb", "ü x", "x/../y", ".profile", ".profile", "a-2.csv", "a.csv"];
        let names = unique_names(given.into_iter());
        assert_eq!(&names[..3], ["a.csv", "a-2.csv", ".._a"]);
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), given.len(), "{names:?}");
        assert!(names.iter().all(|n| !n.contains('/') && n != ".." && n != "." && !n.is_empty()), "{names:?}");
        assert!(names.contains(&"a\nb".to_owned()));
        let long = unique_names(std::iter::once(format!("{}.jpg", "ä".repeat(300)).as_str()));
        assert!(long[0].len() <= MAX_NAME && long[0].ends_with(".jpg"));
    }

    fn part(path: &str, offset: u64, len: u64, header: u64, whole: bool) -> InputRef {
        InputRef { path: path.into(), name: "p.csv".into(), offset, len, header, whole }
    }

    #[tokio::test]
    async fn parts_get_their_header_and_large_files_come_back_whole() {
        let objects: Objects = Arc::new(object_store::memory::InMemory::new());
        objects::put(objects.as_ref(), &Path::from("b/in"), "head\none\ntwo\n").await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let files = [part("b/in", 9, 4, 5, false), part("b/in", 0, 0, 0, true)];
        let staged = fetch(&objects, 3, dir.path().join("t"), &files).await.unwrap();
        assert_eq!(std::fs::read_to_string(&staged.inputs[0]).unwrap(), "head\ntwo\n");
        assert_eq!(std::fs::read_to_string(&staged.inputs[1]).unwrap(), "head\none\ntwo\n");
        assert_eq!((staged.bytes, staged.task), (22, 3));

        let big = dir.path().join("big");
        let bytes: Vec<u8> = (0..20 << 20).map(|i: u32| (i % 251) as u8).collect();
        std::fs::write(&big, &bytes).unwrap();
        store(objects.as_ref(), &big, 5, bytes.len() as u64 - 5, &Path::from("b/out")).await.unwrap();
        assert!(objects::get(objects.as_ref(), &Path::from("b/out")).await.unwrap() == bytes[5..]);
    }

    #[tokio::test]
    async fn a_missing_input_is_named() {
        let objects: Objects = Arc::new(object_store::memory::InMemory::new());
        let dir = tempfile::tempdir().unwrap();
        let e = fetch(&objects, 0, dir.path().join("t"), &[part("b/none", 0, 0, 0, true)]).await.unwrap_err();
        assert!(e.class == FailureClass::Input && e.message.contains("`b/none`"), "{e:?}");
    }

    #[tokio::test]
    async fn a_full_disk_is_a_storage_failure_that_names_the_folder() {
        let objects: Objects = Arc::new(object_store::memory::InMemory::new());
        objects::put(objects.as_ref(), &Path::from("b/in"), vec![0; 100_000]).await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("t");
        std::fs::create_dir_all(folder.join("in")).unwrap();
        // A device that is always full stands in for a disk that is.
        std::os::unix::fs::symlink("/dev/full", folder.join("in/p.csv")).unwrap();
        let e = fetch(&objects, 0, folder.clone(), &[part("b/in", 0, 0, 0, true)]).await.unwrap_err();
        assert_eq!(e.class, FailureClass::Storage);
        assert!(e.message.contains(&folder.display().to_string()) && e.message.contains("No space left"), "{}", e.message);
    }
}
