//! One fjall database and the one thread that writes to it.
//!
//! Callers hand the writer *decisions*: closures that look at what is stored and add their writes to the group at hand. The writer
//! takes every decision that is waiting, commits what they wrote as one batch with one `fdatasync`, and then answers all of them.
//! So a condition and the write it guards are one step without locks, and callers that come at the same time share the cost of
//! being durable; a lone caller waits for just its own sync, since the writer never waits for company.

mod compactor;
mod errors;
mod group;
mod room;
mod spaces;
mod writer;

use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::thread::JoinHandle;

use fjall::{Database, Slice, Snapshot};
use tidemill_base::{Env, Error, Result};
use tokio::sync::oneshot;

use compactor::Compactor;
use errors::Refusal;
pub(crate) use group::Group;
use room::Room;
pub(crate) use spaces::Space;
use spaces::Spaces;
use writer::Operation;

/// Bytes of recently read blocks kept in memory.
const CACHE_BYTES: u64 = 64 << 20;
/// Bytes of journal that a reopening may have to read again; the engine's least.
const JOURNAL_BYTES: u64 = 64 << 20;
/// Files that the engine keeps open.
const OPEN_FILES: usize = 256;

/// How far a write must be when its caller is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// On the disk: survives power loss.
    Synced,
    /// With the operating system: survives the end of this process, not that of the machine.
    Buffered,
}

/// What the writer has done since the store was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Decisions taken.
    pub operations: u64,
    /// Groups that wrote something.
    pub groups: u64,
    /// Groups that were synced to the disk.
    pub syncs: u64,
}

/// What now and then tidies up, on the writer thread.
pub(crate) trait Sweep: Send + Sync + std::fmt::Debug {
    /// Adds a bounded amount of tidying to the group.
    fn sweep(&self, group: &mut Group<'_>) -> Result<()>;
}

/// What handles and the writer share.
pub(crate) struct Shared {
    db: Database,
    spaces: Spaces,
    path: PathBuf,
    room: Room,
    env: Env,
    refusal: OnceLock<Refusal>,
    sweepers: Mutex<Vec<Weak<dyn Sweep>>>,
    operations: AtomicU64,
    groups: AtomicU64,
    syncs: AtomicU64,
    committed: AtomicU64,
}

/// The store. The database closes, and its folder is free for another process, when this and every snapshot are gone.
pub(crate) struct Store {
    shared: Arc<Shared>,
    sender: Mutex<Option<Sender<Operation>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    compactor: Mutex<Option<Compactor>>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("path", &self.shared.path).field("counters", &self.counters()).finish_non_exhaustive()
    }
}

/// Opens the engine's database, which reads its journal again.
fn read_back(path: &Path) -> Result<(Database, Spaces)> {
    let db = Database::builder(path)
        .cache_size(CACHE_BYTES)
        .max_journaling_size(JOURNAL_BYTES)
        .max_cached_files(Some(OPEN_FILES))
        .worker_threads(2)
        .open()
        .map_err(|e| errors::opening(path, e))?;
    let spaces = Spaces::open(&db).map_err(|e| errors::opening(path, e))?;
    Ok((db, spaces))
}

impl Store {
    /// Opens or makes the store in `path`. `Unavailable` when another process has it; `Corrupt` when it cannot be read back.
    pub(crate) fn open(path: &Path, env: Env) -> Result<Self> {
        make_folder(path)?;
        // The engine asserts some of what it reads back, and damage is for its caller to hear of.
        let (db, spaces) = catch_unwind(|| read_back(path)).unwrap_or_else(|panic| Err(errors::broken_off(path, panic.as_ref())))?;
        let shared = Arc::new(Shared {
            db,
            spaces,
            path: path.to_owned(),
            room: Room::new(path),
            env,
            refusal: OnceLock::new(),
            sweepers: Mutex::default(),
            operations: AtomicU64::new(0),
            groups: AtomicU64::new(0),
            syncs: AtomicU64::new(0),
            committed: AtomicU64::new(0),
        });
        let (sender, thread) = writer::start(shared.clone())?;
        let compactor = Mutex::new(Some(Compactor::start(shared.clone())?));
        Ok(Self { shared, sender: Mutex::new(Some(sender)), thread: Mutex::new(Some(thread)), compactor })
    }

    /// Lets `decide` look and write on the writer thread. Its value is returned once what it wrote is as durable as asked; when it
    /// fails it must not have written anything.
    pub(crate) async fn commit<T: Send + 'static>(
        &self,
        durability: Durability,
        decide: impl FnOnce(&mut Group<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (answer, answered) = oneshot::channel();
        let operation: Operation = Box::new(move |group| {
            let before = group.written();
            let decided = group.check_room().and_then(|()| decide(group));
            if durability == Durability::Synced && group.written() > before {
                group.sync();
            }
            Box::new(move |refusal| {
                // A caller that has gone away does not need its answer.
                drop(answer.send(refusal.map_or(decided, |r| Err(r.error()))));
            })
        });
        self.send(operation)?;
        answered.await.unwrap_or_else(|_| Err(self.stopped()))
    }

    /// `Exhausted` when there is no room for so many bytes of contents beside the store.
    pub(crate) fn check_room_for(&self, bytes: u64) -> Result<()> {
        self.shared.room.look_for(bytes)
    }

    fn send(&self, operation: Operation) -> Result<()> {
        let sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner);
        match sender.as_ref().map(|s| s.send(operation)) {
            Some(Ok(())) => Ok(()),
            Some(Err(_)) => Err(self.stopped()),
            None => Err(Error::unavailable(format!("the store in {} is closed", self.shared.path.display()))),
        }
    }

    fn stopped(&self) -> Error {
        self.shared.refusal.get().map_or_else(
            || Error::unavailable(format!("the store in {} was closed before it answered", self.shared.path.display())),
            Refusal::error,
        )
    }

    /// Has `sweeper` called every half minute or so for as long as it exists.
    pub(crate) fn add_sweeper(&self, sweeper: Weak<dyn Sweep>) {
        self.shared.sweepers.lock().unwrap_or_else(PoisonError::into_inner).push(sweeper);
    }

    /// Runs every sweeper now.
    pub(crate) async fn sweep(&self) -> Result<()> {
        self.commit(Durability::Buffered, writer::sweep_all).await
    }

    /// The committed value under `key`.
    pub(crate) fn get(&self, space: Space, key: &[u8]) -> Result<Option<Slice>> {
        self.shared.get(space, key)
    }

    /// A view of what is committed now, the same across all spaces.
    pub(crate) fn snapshot(&self) -> View {
        View { snapshot: self.shared.db.snapshot(), shared: self.shared.clone() }
    }

    /// The newest sequence number whose writes can be seen.
    pub(crate) fn committed(&self) -> u64 {
        self.shared.committed.load(Ordering::Acquire)
    }

    /// What the writer has done so far.
    pub(crate) fn counters(&self) -> Counters {
        let read = |n: &AtomicU64| n.load(Ordering::Relaxed);
        let shared = &self.shared;
        Counters { operations: read(&shared.operations), groups: read(&shared.groups), syncs: read(&shared.syncs) }
    }

    /// The folder.
    pub(crate) fn path(&self) -> &Path {
        &self.shared.path
    }

    /// Answers what is waiting, then stops the writer. Later commits answer `Unavailable`. Safe to call twice.
    pub(crate) fn close(&self) {
        drop(self.sender.lock().unwrap_or_else(PoisonError::into_inner).take());
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.thread().id() != std::thread::current().id()
        {
            // A panic in the writer has been reported by the panic hook, and its callers have got their errors.
            drop(thread.join());
        }
        drop(self.compactor.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.close();
    }
}

/// Makes the folder if it is not there, and syncs the one that names it: what is synced inside must be found after a power loss.
pub(crate) fn make_folder(path: &Path) -> Result<()> {
    let make = || {
        std::fs::create_dir_all(path)?;
        path.parent().map_or(Ok(()), |parent| {
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            std::fs::File::open(parent)?.sync_all()
        })
    };
    make().map_err(|e: std::io::Error| Error::from(e).context(format!("make the folder {}", path.display())))
}

impl Shared {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Slice>> {
        self.spaces.of(space).get(key).map_err(|e| errors::reading(&self.path, space, e))
    }
}

/// A frozen view of the store, for reads that must agree with each other.
pub(crate) struct View {
    snapshot: Snapshot,
    shared: Arc<Shared>,
}

impl View {
    /// The value under `key`.
    pub(crate) fn get(&self, space: Space, key: &[u8]) -> Result<Option<Slice>> {
        use fjall::Readable;
        self.snapshot.get(self.shared.spaces.of(space), key).map_err(|e| errors::reading(&self.shared.path, space, e))
    }

    /// Keys and values from `from` (inclusive) to `until` (exclusive), ascending; reverse it for the other way.
    pub(crate) fn range(&self, space: Space, from: &[u8], until: &[u8]) -> impl DoubleEndedIterator<Item = Result<(Slice, Slice)>> + use<> {
        use fjall::Readable;
        let path = self.shared.path.clone();
        let range = (std::ops::Bound::Included(from), std::ops::Bound::Excluded(until));
        self.snapshot
            .range::<&[u8], _>(self.shared.spaces.of(space), range)
            .map(move |guard| guard.into_inner().map_err(|e| errors::reading(&path, space, e)))
    }

    /// Keys alone, which spares reading large values.
    pub(crate) fn keys(&self, space: Space, from: &[u8], until: &[u8]) -> impl DoubleEndedIterator<Item = Result<Slice>> + use<> {
        use fjall::Readable;
        let path = self.shared.path.clone();
        let range = (std::ops::Bound::Included(from), std::ops::Bound::Excluded(until));
        self.snapshot
            .range::<&[u8], _>(self.shared.spaces.of(space), range)
            .map(move |guard| guard.key().map_err(|e| errors::reading(&path, space, e)))
    }
}
