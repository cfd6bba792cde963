//! The folder and log files of a slot, used again as long as tasks leave them empty.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::sys;

/// What of a log fits on a full disk, bytes.
const LAST_WORDS: u64 = 16 << 10;

/// See the module.
#[derive(Debug)]
pub(super) struct SlotFolder {
    base: PathBuf,
    generation: u64,
    task: PathBuf,
    pub(super) stdout: LogFile,
    pub(super) stderr: LogFile,
}

impl SlotFolder {
    /// Makes `base`, and in it an empty task folder and log files.
    pub(super) fn new(base: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&base)?;
        let task = base.join("0");
        fs::create_dir_all(&task)?;
        let (stdout, stderr) = (LogFile::create(base.join("stdout"))?, LogFile::create(base.join("stderr"))?);
        Ok(Self { base, generation: 0, task, stdout, stderr })
    }

    /// The empty folder for the next task.
    pub(super) fn task(&self) -> &Path {
        &self.task
    }

    /// The task has ended. If it left something in the folder, that goes and the next task gets a fresh one.
    pub(super) fn clean(&mut self) -> io::Result<()> {
        let empty = fs::read_dir(&self.task).is_ok_and(|mut entries| entries.next().is_none());
        if empty {
            return Ok(());
        }
        let old = self.abandon()?;
        remove_all(&old);
        Ok(())
    }

    /// Goes on with a fresh folder and leaves the present one, whose path it returns, to the caller.
    pub(super) fn abandon(&mut self) -> io::Result<PathBuf> {
        self.generation += 1;
        let fresh = self.base.join(self.generation.to_string());
        fs::create_dir_all(&fresh)?;
        Ok(std::mem::replace(&mut self.task, fresh))
    }
}

/// Removes a folder and all in it, as far as that is possible. A task may have taken rights away from its own folders.
pub(crate) fn remove_all(path: &Path) {
    if fs::remove_dir_all(path).is_ok() || !path.exists() {
        return;
    }
    open_up(path);
    if let Err(e) = fs::remove_dir_all(path)
        && path.exists()
    {
        tracing::warn!(folder = %path.display(), error = %e, "could not remove a task's folder");
    }
}

fn open_up(folder: &Path) {
    use std::os::unix::fs::PermissionsExt;
    if fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).is_err() {
        return;
    }
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            open_up(&entry.path());
        }
    }
}

/// A file that a task's output goes to.
#[derive(Debug, Clone)]
pub(super) struct LogFile {
    path: PathBuf,
    pub(super) file: Arc<File>,
}

impl LogFile {
    fn create(path: PathBuf) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).append(true).create(true).open(&path)?;
        let log = Self { path, file: Arc::new(file) };
        log.clear()?;
        Ok(log)
    }

    pub(super) fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// At most the last `max` bytes, and where they begin.
    pub(super) fn tail(&self, max: u64) -> io::Result<(Bytes, u64)> {
        let len = self.len()?;
        let from = len.saturating_sub(max);
        let mut bytes = vec![0; usize::try_from(len - from).unwrap_or(0)];
        self.file.read_exact_at(&mut bytes, from)?;
        Ok((bytes.into(), from))
    }

    /// Empties it for the next task, and sets space aside so that a task that fills the disk can still say so.
    pub(super) fn clear(&self) -> io::Result<()> {
        self.file.set_len(0)?;
        sys::set_aside(&self.file, LAST_WORDS);
        Ok(())
    }

    /// Goes on with a fresh file; the present one is moved to `to`, or removed.
    pub(super) fn replace(&mut self, to: Option<&Path>) -> io::Result<()> {
        match to {
            Some(to) => fs::rename(&self.path, to)?,
            None => fs::remove_file(&self.path)?,
        }
        *self = Self::create(std::mem::take(&mut self.path))?;
        Ok(())
    }
}
