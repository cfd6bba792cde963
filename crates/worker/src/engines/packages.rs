//! Packages on this worker: downloaded once, checked, shared read-only by all engines.
//!
//! A package lies in `packages/DIGEST/`: its files below `files`, its manifest in `package.json`, and what Python has unpacked from its
//! wheels below `python-...`. It is made in a folder of another name and renamed when every file has the SHA-256 that the manifest says, so
//! that a worker that dies in between leaves nothing that looks whole. What an earlier run of the worker has left is read and compared
//! once before it is used: a file that was damaged meanwhile is fetched again with its package.

mod disk;
mod fetch;
mod wheels;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidemill_base::{Env, Error, ErrorKind, Result};
use tidemill_batch::model::PackagePin;
use tidemill_blocks::objects::Objects;
use tidemill_engine::Package;
use tidemill_grid::packages::{Manifest, is_sha256};

/// See the module.
#[derive(Debug)]
pub(crate) struct PackageCache {
    root: PathBuf,
    /// Bytes that are kept for nobody in particular.
    limit: u64,
    objects: Objects,
    env: Env,
    /// By digest.
    entries: Mutex<BTreeMap<String, Entry>>,
    hits: AtomicU64,
    fetched: AtomicU64,
    fetched_bytes: AtomicU64,
}

/// A package that is there, or that somebody is fetching.
#[derive(Debug, Clone, Default)]
struct Entry {
    /// Held while it is fetched: who comes later waits, and finds it.
    held: Arc<tokio::sync::Mutex<Option<Arc<OnDisk>>>>,
    bytes: u64,
    /// When it was last asked for, microseconds since the epoch.
    used: i64,
}

/// A package in its folder. Whoever holds one keeps it there.
#[derive(Debug)]
pub(crate) struct OnDisk {
    pub(crate) manifest: Manifest,
    folder: PathBuf,
    /// One unpacks wheels, others wait for it.
    unpacking: tokio::sync::Mutex<()>,
}

impl OnDisk {
    /// Where its files are.
    pub(crate) fn files(&self) -> PathBuf {
        self.folder.join("files")
    }

    /// As engines are told of it.
    pub(crate) fn package(&self) -> Package {
        Package { name: self.manifest.name.clone(), version: self.manifest.version.clone(), path: self.files() }
    }

    /// The folder with the modules of its wheels for this Python, made when it is first asked for; `None` without wheels.
    pub(crate) async fn python_path(&self, python: &Path) -> Result<Option<PathBuf>> {
        if self.manifest.wheels().next().is_none() {
            return Ok(None);
        }
        let _alone = self.unpacking.lock().await;
        wheels::unpack(&self.folder, &self.manifest, python).await.map(Some).map_err(|e| {
            let label = format!("package {}@{}", self.manifest.name, self.manifest.version);
            e.context(label)
        })
    }
}

impl PackageCache {
    /// Packages in this folder, with what an earlier run has left there.
    pub(crate) fn open(root: PathBuf, limit: u64, objects: Objects, env: Env) -> Self {
        let mut entries = BTreeMap::new();
        for (name, folder) in disk::folders(&root) {
            match disk::read_manifest(&folder).filter(|m| is_sha256(&name) && m.digest().is_ok_and(|d| d == name)) {
                Some(manifest) => {
                    let used = disk::modified(&folder);
                    entries.insert(name, Entry { bytes: manifest.bytes(), used, ..Entry::default() });
                }
                // The worker died while it was being made, or it is no longer what it was.
                None => disk::remove(&folder),
            }
        }
        let none = AtomicU64::default;
        Self { root, limit, objects, env, entries: Mutex::new(entries), hits: none(), fetched: none(), fetched_bytes: none() }
    }

    /// How often a package was there, how often it had to be fetched, and the bytes that were.
    pub(crate) fn counts(&self) -> (u64, u64, u64) {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (read(&self.hits), read(&self.fetched), read(&self.fetched_bytes))
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The package of a pin, from the folder or from the objects. `NotFound` when it was deleted, `Corrupt` when what is stored is not what
    /// was pinned, `Exhausted` when the disk is full, `Unavailable` is worth another try.
    pub(crate) async fn get(&self, pin: &PackagePin) -> Result<Arc<OnDisk>> {
        if !is_sha256(&pin.digest) {
            return Err(Error::invalid(format!("package {}@{} is pinned without a digest; open the session again", pin.name, pin.version)));
        }
        let held = {
            let mut entries = self.entries();
            let entry = entries.entry(pin.digest.clone()).or_default();
            entry.used = self.env.now().micros();
            Arc::clone(&entry.held)
        };
        let mut held = held.lock().await;
        if let Some(there) = held.as_ref() {
            self.hits.fetch_add(1, Ordering::Relaxed);
            return Ok(Arc::clone(there));
        }
        let folder = self.root.join(&pin.digest);
        let label = || format!("package {}@{}", pin.name, pin.version);
        let manifest = match disk::check(&folder, &pin.digest).await {
            Ok(Some(manifest)) => {
                self.hits.fetch_add(1, Ordering::Relaxed);
                manifest
            }
            Ok(None) => self.fetch(pin, &folder).await.map_err(|e| e.context(label()))?,
            Err(e) if e.kind() == ErrorKind::Corrupt => {
                tracing::warn!(package = label(), why = e.chain(), "a package on disk was damaged and is fetched again");
                disk::remove(&folder);
                self.fetch(pin, &folder).await.map_err(|e| e.context(label()))?
            }
            Err(e) => return Err(e.context(label())),
        };
        let bytes = manifest.bytes();
        let there = Arc::new(OnDisk { manifest, folder, unpacking: tokio::sync::Mutex::default() });
        *held = Some(Arc::clone(&there));
        drop(held);
        if let Some(entry) = self.entries().get_mut(&pin.digest) {
            entry.bytes = bytes;
        }
        self.make_room();
        Ok(there)
    }

    async fn fetch(&self, pin: &PackagePin, folder: &Path) -> Result<Manifest> {
        let draft = self.root.join(format!("new-{}", self.env.id("p")));
        let fetched = fetch::fetch(&self.objects, pin, &draft).await;
        let placed = match fetched {
            Ok(manifest) => disk::place(&draft, folder).map(|()| manifest),
            Err(e) => Err(e),
        };
        match &placed {
            Ok(manifest) => {
                self.fetched.fetch_add(1, Ordering::Relaxed);
                self.fetched_bytes.fetch_add(manifest.bytes(), Ordering::Relaxed);
            }
            Err(_) => disk::remove(&draft),
        }
        placed
    }

    /// Removes what was not used for longest and nobody holds, until the rest is within the limit.
    fn make_room(&self) {
        let mut entries = self.entries();
        let mut total: u64 = entries.values().map(|e| e.bytes).sum();
        let mut oldest: Vec<(i64, String)> = entries.iter().map(|(digest, e)| (e.used, digest.clone())).collect();
        oldest.sort();
        for (_, digest) in oldest {
            if total <= self.limit {
                return;
            }
            let Some(entry) = entries.get(&digest) else { continue };
            // Somebody who has the lock is fetching it; somebody who has the entry is about to ask for it.
            let Ok(there) = entry.held.try_lock() else { continue };
            if Arc::strong_count(&entry.held) > 1 || there.as_ref().is_some_and(|t| Arc::strong_count(t) > 1) {
                continue;
            }
            total = total.saturating_sub(entry.bytes);
            drop(there);
            disk::remove(&self.root.join(&digest));
            entries.remove(&digest);
        }
    }
}

#[cfg(test)]
mod tests;
