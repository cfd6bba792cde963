//! What a group of decisions has looked at and written so far.

use std::collections::HashMap;

use fjall::{OwnedWriteBatch, PersistMode, Slice};
use tidemill_base::{Error, Result, Timestamp};

use super::errors::Refusal;
use super::writer::Sequence;
use super::{Shared, Space};

/// A group takes no further decision once it holds this many bytes.
const FULL_BYTES: usize = 8 << 20;
/// Nor once it holds this many writes.
const FULL_WRITES: usize = 50_000;

type Overlay = HashMap<(Space, Slice), Option<Slice>>;

/// The group at hand, as a decision sees it.
pub(crate) struct Group<'a> {
    shared: &'a Shared,
    sequence: &'a mut Sequence,
    batch: OwnedWriteBatch,
    overlay: Overlay,
    after: Vec<Box<dyn FnOnce() + Send>>,
    bytes: usize,
    sync: bool,
    /// Why nothing can be written now.
    full: Option<Error>,
}

impl<'a> Group<'a> {
    pub(super) fn new(shared: &'a Shared, sequence: &'a mut Sequence) -> Self {
        let (batch, full) = (shared.db.batch(), shared.room.look().err());
        Self { shared, sequence, batch, overlay: Overlay::new(), after: Vec::new(), bytes: 0, sync: false, full }
    }

    /// `Exhausted` when the disk is full. Asked before anything is decided, since a decision cannot be taken back.
    pub(super) fn check_room(&self) -> Result<()> {
        self.full.as_ref().map_or(Ok(()), |full| Err(Error::new(full.kind(), full.message().to_owned())))
    }

    /// The present time.
    pub(crate) fn now(&self) -> Timestamp {
        self.shared.env.now()
    }

    /// The value under `key`, as earlier decisions of this group left it with [`Group::put_seen`] and [`Group::remove_seen`].
    pub(crate) fn get(&self, space: Space, key: &Slice) -> Result<Option<Slice>> {
        if !self.overlay.is_empty()
            && let Some(pending) = self.overlay.get(&(space, key.clone()))
        {
            return Ok(pending.clone());
        }
        self.shared.get(space, key)
    }

    /// Writes what no decision reads back before it is committed.
    pub(crate) fn put(&mut self, space: Space, key: impl Into<Slice>, value: impl Into<Slice>) {
        let (key, value) = (key.into(), value.into());
        self.bytes += key.len() + value.len();
        self.batch.insert(self.shared.spaces.of(space), key, value);
    }

    /// Removes what no decision reads back before that is committed.
    pub(crate) fn remove(&mut self, space: Space, key: impl Into<Slice>) {
        let key = key.into();
        self.bytes += key.len();
        self.batch.remove(self.shared.spaces.of(space), key);
    }

    /// Writes what later decisions of the same group see.
    pub(crate) fn put_seen(&mut self, space: Space, key: Slice, value: impl Into<Slice>) {
        let value = value.into();
        self.overlay.insert((space, key.clone()), Some(value.clone()));
        self.put(space, key, value);
    }

    /// Removes, and later decisions of the same group see it.
    pub(crate) fn remove_seen(&mut self, space: Space, key: Slice) {
        self.overlay.insert((space, key.clone()), None);
        self.remove(space, key);
    }

    /// Runs `then` when the group is committed, before anybody is answered. It does not run when the commit fails.
    pub(crate) fn after(&mut self, then: impl FnOnce() + Send + 'static) {
        self.after.push(Box::new(then));
    }

    /// A number that no other write has had or will have, greater than all before it.
    pub(crate) fn next_sequence(&mut self) -> u64 {
        let (number, reserve) = self.sequence.take();
        if let Some(bound) = reserve {
            self.put(Space::Meta, Sequence::KEY, bound.to_be_bytes());
        }
        number
    }

    pub(super) fn written(&self) -> usize {
        self.batch.len()
    }

    pub(super) fn sync(&mut self) {
        self.sync = true;
    }

    pub(super) fn is_full(&self) -> bool {
        self.bytes >= FULL_BYTES || self.batch.len() >= FULL_WRITES
    }

    pub(super) const fn shared(&self) -> &'a Shared {
        self.shared
    }

    /// Makes it so. The journal is synced before the writes can be seen, so that nobody reads what a power loss could take back.
    pub(super) fn commit(self) -> Result<(), Refusal> {
        use std::sync::atomic::Ordering::{Relaxed, Release};
        let (shared, newest) = (self.shared, self.sequence.newest());
        if !self.batch.is_empty() {
            // The journal's space is allocated beforehand, and what else is needed to find the data again `fdatasync` writes too.
            let mode = if self.sync { PersistMode::SyncData } else { PersistMode::Buffer };
            self.batch.durability(Some(mode)).commit().map_err(|e| Refusal::new(&shared.path, &e))?;
            shared.groups.fetch_add(1, Relaxed);
            shared.syncs.fetch_add(u64::from(self.sync), Relaxed);
        }
        shared.committed.store(newest, Release);
        for then in self.after {
            then();
        }
        Ok(())
    }
}
