//! Contents in files, `<data>/objects/ab/<blob>`.
//!
//! A file is written and synced before the index names it, and removed after the index has stopped naming it and the last reader
//! has let go. What a crash leaves between those steps is nobody's; it is found and removed when the folder is next opened.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use bytes::{Bytes, BytesMut};
use md5::{Digest, Md5};
use object_store::PutPayload;
use tidemill_base::{Env, Error, Result};

use super::record::Blob;

/// The files of one data folder.
#[derive(Debug)]
pub(super) struct Blobs {
    root: PathBuf,
    env: Env,
    state: Mutex<State>,
    janitor: Mutex<Option<Janitor>>,
}

/// The thread that removes files, so that nobody waits for it.
#[derive(Debug)]
struct Janitor {
    gone: Sender<Vec<u64>>,
    thread: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct State {
    /// Blobs being read, and how often.
    pinned: BTreeMap<u64, u32>,
    /// Pinned blobs that are to go when they are let go.
    doomed: BTreeSet<u64>,
    /// Blobs made since the opening, while files that are nobody's are still being looked for.
    young: Option<BTreeSet<u64>>,
}

/// A blob that no index entry names yet. Its file goes when this does, unless it is claimed.
#[derive(Debug)]
pub(super) struct Unclaimed {
    blobs: Arc<Blobs>,
    blob: Option<Blob>,
}

impl Unclaimed {
    /// From here on the file stays.
    pub(super) fn claim(mut self) {
        self.blob = None;
    }

    pub(super) fn blob(&self) -> Option<&Blob> {
        self.blob.as_ref()
    }
}

impl Drop for Unclaimed {
    fn drop(&mut self) {
        if let Some(blob) = self.blob.take().filter(|b| !b.inline) {
            self.blobs.discard(vec![blob.id]);
        }
    }
}

/// Keeps blobs readable for as long as it lives.
#[derive(Debug)]
pub(super) struct Pin {
    blobs: Arc<Blobs>,
    ids: Vec<u64>,
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut state = self.blobs.lock();
        let mut gone = Vec::new();
        for id in &self.ids {
            let Some(count) = state.pinned.get_mut(id) else { continue };
            *count -= 1;
            if *count == 0 {
                state.pinned.remove(id);
                if state.doomed.remove(id) {
                    gone.push(*id);
                }
            }
        }
        drop(state);
        if !gone.is_empty() {
            self.blobs.discard(gone);
        }
    }
}

impl Blobs {
    /// Over the files in `root`. `referenced` is called on a thread of its own and names the blobs that are somebody's; the files
    /// of others are removed.
    pub(super) fn open(root: &Path, env: Env, referenced: impl FnOnce() -> Result<BTreeSet<u64>> + Send + 'static) -> Result<Arc<Self>> {
        crate::store::make_folder(root)?;
        let state = Mutex::new(State { young: Some(BTreeSet::new()), ..State::default() });
        let blobs = Arc::new(Self { root: root.to_owned(), env, state, janitor: Mutex::new(None) });
        let (sender, receiver) = channel();
        let worker = Arc::downgrade(&blobs);
        let root = root.to_owned();
        let thread = std::thread::Builder::new()
            .name("blob-janitor".to_owned())
            .spawn(move || {
                if let Err(e) = sweep(&root, &worker, referenced) {
                    tracing::warn!(error = %e.chain(), "looking for abandoned objects failed");
                }
                remove_as_told(&root, &receiver);
            })
            .map_err(|e| Error::from(e).context("start the thread that removes objects"))?;
        *blobs.janitor.lock().unwrap_or_else(PoisonError::into_inner) = Some(Janitor { gone: sender, thread });
        Ok(blobs)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where a blob's file is.
    pub(super) fn path(&self, id: u64) -> PathBuf {
        blob_path(&self.root, id)
    }

    /// Looks something up and pins the blobs that it names, with no removal in between.
    pub(super) fn pinned<T>(self: &Arc<Self>, look: impl FnOnce() -> Result<T>, ids: impl FnOnce(&T) -> Vec<u64>) -> Result<(T, Pin)> {
        let mut state = self.lock();
        let found = look()?;
        let ids = ids(&found);
        for id in &ids {
            *state.pinned.entry(*id).or_default() += 1;
        }
        drop(state);
        Ok((found, Pin { blobs: self.clone(), ids }))
    }

    /// Removes the files of blobs that no index entry names any more, as soon as nobody reads them.
    pub(super) fn discard(&self, ids: Vec<u64>) {
        let mut state = self.lock();
        let (held, free): (Vec<u64>, Vec<u64>) = ids.into_iter().partition(|id| state.pinned.contains_key(id));
        state.doomed.extend(held);
        drop(state);
        if let Some(janitor) = &*self.janitor.lock().unwrap_or_else(PoisonError::into_inner) {
            // Without its thread nothing is removed now; the next opening finds the files.
            drop(janitor.gone.send(free));
        }
    }

    fn new_id(&self) -> u64 {
        let id = self.env.random_u64();
        if let Some(young) = &mut self.lock().young {
            young.insert(id);
        }
        id
    }

    /// The blob of contents that are kept in the store.
    pub(super) fn inline(self: &Arc<Self>, contents: &[u8]) -> Unclaimed {
        let md5 = Md5::digest(contents).into();
        let blob = Blob { id: self.env.random_u64(), len: contents.len() as u64, md5, inline: true };
        Unclaimed { blobs: self.clone(), blob: Some(blob) }
    }

    /// Writes `payload` to a file of its own. Blocks; it is on the disk afterwards.
    pub(super) fn write(self: &Arc<Self>, payload: &PutPayload) -> Result<Unclaimed> {
        let id = self.new_id();
        let path = self.path(id);
        let mut md5 = Md5::new();
        let written = self.make(&path, |path| {
            let mut file = File::options().write(true).create_new(true).mode(0o440).open(path)?;
            for chunk in payload {
                md5.update(chunk);
                file.write_all(chunk)?;
            }
            file.sync_all()
        });
        written.map_err(|e| {
            // A part of it may be there.
            drop(std::fs::remove_file(&path));
            Error::from(e).context(format!("write the object file {}", path.display()))
        })?;
        let blob = Blob { id, len: payload.content_length() as u64, md5: md5.finalize().into(), inline: false };
        Ok(Unclaimed { blobs: self.clone(), blob: Some(blob) })
    }

    /// Another blob with the contents of `blob`, which must be pinned. Blocks. Costs no copy where the file system knows links.
    pub(super) fn duplicate(self: &Arc<Self>, blob: &Blob) -> Result<Unclaimed> {
        let (from, id) = (self.path(blob.id), self.new_id());
        let to = self.path(id);
        let linked = self
            .make(&to, |to| std::fs::hard_link(&from, to).or_else(|_| std::fs::copy(&from, to).and_then(|_| File::open(to)?.sync_all())));
        linked.map_err(|e| Error::from(e).context(format!("copy the object file {} to {}", from.display(), to.display())))?;
        Ok(Unclaimed { blobs: self.clone(), blob: Some(Blob { id, ..blob.clone() }) })
    }

    /// Has `make` make the file, and syncs the folders that name it.
    fn make(&self, path: &Path, make: impl FnOnce(&Path) -> std::io::Result<()>) -> std::io::Result<()> {
        let Some(folder) = path.parent() else { return Ok(()) };
        if !folder.exists() {
            std::fs::create_dir_all(folder)?;
            File::open(&self.root)?.sync_all()?;
        }
        make(path)?;
        File::open(folder)?.sync_all()
    }

    /// Reads `len` bytes from `offset`. Blocks. `Corrupt` when the file is missing or too short.
    pub(super) fn read(&self, blob: &Blob, offset: u64, len: usize) -> Result<Bytes> {
        let path = self.path(blob.id);
        let read = || {
            let mut out = BytesMut::zeroed(len);
            File::open(&path)?.read_exact_at(&mut out, offset)?;
            Ok(out.freeze())
        };
        read().map_err(|e: std::io::Error| match e.kind() {
            std::io::ErrorKind::NotFound | std::io::ErrorKind::UnexpectedEof => Error::corrupt(format!(
                "the object file {} should hold {} bytes and is missing or shorter; restore it from a backup",
                path.display(),
                blob.len
            ))
            .with_source(e),
            _ => Error::from(e).context(format!("read the object file {}", path.display())),
        })
    }
}

impl Drop for Blobs {
    fn drop(&mut self) {
        let janitor = self.janitor.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Janitor { gone, thread }) = janitor {
            drop(gone);
            if thread.thread().id() != std::thread::current().id() {
                // What it has been told is done when it ends; a panic there has been reported by the panic hook.
                drop(thread.join());
            }
        }
    }
}

fn blob_path(root: &Path, id: u64) -> PathBuf {
    let name = format!("{id:016x}");
    root.join(&name[..2]).join(name)
}

fn remove_as_told(root: &Path, receiver: &Receiver<Vec<u64>>) {
    while let Ok(ids) = receiver.recv() {
        for id in ids {
            let path = blob_path(root, id);
            if let Err(e) = std::fs::remove_file(&path)
                && e.kind() != std::io::ErrorKind::NotFound
            {
                tracing::warn!(path = %path.display(), error = %e, "an object's file could not be removed");
            }
        }
    }
}

/// Removes the files that were nobody's when the folder was opened.
fn sweep(root: &Path, blobs: &std::sync::Weak<Blobs>, referenced: impl FnOnce() -> Result<BTreeSet<u64>>) -> Result<()> {
    let referenced = referenced()?;
    let mut removed = 0_u64;
    for folder in std::fs::read_dir(root)? {
        for file in std::fs::read_dir(folder?.path())? {
            let file = file?;
            let id = file.file_name().to_str().and_then(|name| u64::from_str_radix(name, 16).ok());
            // What is not named as our files are is not ours.
            let Some(id) = id.filter(|id| blob_path(root, *id) == file.path()) else { continue };
            let Some(blobs) = blobs.upgrade() else { return Ok(()) };
            let young = blobs.lock().young.as_ref().is_some_and(|young| young.contains(&id));
            if !young && !referenced.contains(&id) {
                std::fs::remove_file(file.path())?;
                removed += 1;
            }
        }
    }
    if let Some(blobs) = blobs.upgrade() {
        blobs.lock().young = None;
    }
    if removed > 0 {
        tracing::info!(removed, "removed object files that a crash had left over");
    }
    Ok(())
}
