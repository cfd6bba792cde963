//! The table's meaning, in memory.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tidemill_base::{Env, Error, Result, Timestamp};
use tidemill_runtime::{Stopwatch, sleep};
use tokio::sync::Notify;

use crate::table::{
    Change, Cursor, FeedEntry, FeedPage, Item, Key, MAX_TRANSACTION, Page, Range, Table, Write, check_distinct, check_key, check_name,
    check_unconditional, check_writes,
};

/// The longest wait for a change.
const MAX_WAIT: Duration = Duration::from_secs(20);

/// Tables in memory. Every change is kept in the feed.
#[derive(Debug)]
pub struct MemoryTable {
    env: Env,
    tables: Mutex<BTreeMap<String, State>>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    items: BTreeMap<Key, Item>,
    /// One counter for all items, so that a version is not used twice even when an item is removed and stored again.
    last_version: u64,
    feed: Vec<FeedEntry>,
}

impl State {
    fn live(&self, key: &Key, now: Timestamp) -> Option<&Item> {
        self.items.get(key).filter(|i| is_live(i, now))
    }

    /// Makes the change; returns the new version, 0 for deletes and checks.
    fn apply(&mut self, write: Write) -> u64 {
        let Write { key, change, .. } = write;
        match change {
            Change::Check => 0,
            Change::Put { value, expires_at } => {
                let version = self.next_version();
                self.feed.push(FeedEntry { key: key.clone(), value: Some(value.clone()), version });
                self.items.insert(key.clone(), Item { key, value, version, expires_at });
                version
            }
            Change::Delete => {
                if self.items.remove(&key).is_some() {
                    let version = self.next_version();
                    self.feed.push(FeedEntry { key, value: None, version });
                }
                0
            }
        }
    }

    fn next_version(&mut self) -> u64 {
        self.last_version += 1;
        self.last_version
    }

    fn page(&self, range: Range, now: Timestamp) -> Page {
        let Range { partition, from, until, limit, reverse } = range;
        if until.as_ref().is_some_and(|until| *until <= from) {
            return Page::default();
        }
        let start = Bound::Included(Key { partition: partition.clone(), sort: from.clone() });
        let end = until.clone().map_or(Bound::Unbounded, |sort| Bound::Excluded(Key { partition: partition.clone(), sort }));
        let within = self.items.range((start, end)).map(|(_, i)| i);
        let keep = |i: &&Item| i.key.partition == partition && is_live(i, now);
        let (items, more) = if reverse {
            // Without an upper bound the range runs on into later partitions.
            first(within.rev().skip_while(|i| i.key.partition != partition).filter(keep), limit)
        } else {
            first(within.take_while(|i| i.key.partition == partition).filter(keep), limit)
        };
        let next = items.last().filter(|_| more).map(|last| {
            if reverse {
                Range { partition, from, until: Some(last.key.sort.clone()), limit, reverse }
            } else {
                Range { partition, from: after(&last.key.sort), until, limit, reverse }
            }
        });
        Page { items, next }
    }
}

fn is_live(item: &Item, now: Timestamp) -> bool {
    item.expires_at.is_none_or(|at| at > now)
}

/// The first `limit` items and whether there are more.
fn first<'i>(mut items: impl Iterator<Item = &'i Item>, limit: usize) -> (Vec<Item>, bool) {
    let page = items.by_ref().take(limit).cloned().collect();
    (page, items.next().is_some())
}

/// The smallest sort key after `sort`.
fn after(sort: &[u8]) -> Bytes {
    let mut next = sort.to_vec();
    next.push(0);
    next.into()
}

impl MemoryTable {
    /// No tables yet.
    pub fn new(env: Env) -> Self {
        Self { env, tables: Mutex::default(), changed: Notify::new() }
    }

    fn with<T>(&self, table: &str, f: impl FnOnce(&mut State, Timestamp) -> Result<T>) -> Result<T> {
        check_name(table)?;
        let now = self.env.now();
        let mut tables = self.lock();
        let state =
            tables.get_mut(table).ok_or_else(|| Error::not_found(format!("table `{table}` does not exist; make it with ensure")))?;
        f(state, now)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, State>> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Table for MemoryTable {
    async fn ensure(&self, table: &str) -> Result<()> {
        check_name(table)?;
        self.lock().entry(table.to_owned()).or_default();
        Ok(())
    }

    async fn get(&self, table: &str, key: &Key) -> Result<Option<Item>> {
        check_key(key)?;
        self.with(table, |state, now| Ok(state.live(key, now).cloned()))
    }

    async fn get_many(&self, table: &str, keys: &[Key]) -> Result<Vec<Option<Item>>> {
        keys.iter().try_for_each(check_key)?;
        self.with(table, |state, now| Ok(keys.iter().map(|k| state.live(k, now).cloned()).collect()))
    }

    async fn transact(&self, table: &str, writes: Vec<Write>) -> Result<Vec<u64>> {
        check_writes(&writes, MAX_TRANSACTION)?;
        check_distinct(&writes)?;
        let versions =
            self.with(table, |state, now| match writes.iter().find(|w| !w.condition.holds(state.live(&w.key, now).map(|i| i.version))) {
                Some(w) => Err(Error::conflict(format!(
                    "{:?} does not hold for `{}` in table `{table}`; read it again",
                    w.condition, w.key.partition
                ))),
                None => Ok(writes.into_iter().map(|w| state.apply(w)).collect()),
            })?;
        self.changed.notify_waiters();
        Ok(versions)
    }

    async fn write_many(&self, table: &str, writes: Vec<Write>) -> Result<()> {
        check_writes(&writes, usize::MAX)?;
        check_unconditional(&writes)?;
        self.with(table, |state, _| {
            for w in writes {
                state.apply(w);
            }
            Ok(())
        })?;
        self.changed.notify_waiters();
        Ok(())
    }

    async fn range(&self, table: &str, range: Range) -> Result<Page> {
        if range.limit == 0 {
            return Err(Error::invalid("a page of 0 items; ask for at least 1"));
        }
        self.with(table, |state, now| Ok(state.page(range, now)))
    }

    async fn feed_end(&self, table: &str) -> Result<Cursor> {
        self.with(table, |state, _| Ok(cursor(state.feed.len())))
    }

    async fn feed(&self, table: &str, after: &Cursor, max: usize, wait: Duration) -> Result<FeedPage> {
        if wait > MAX_WAIT {
            return Err(Error::invalid(format!("cannot wait {wait:?} for a change; wait {MAX_WAIT:?} at most and ask again")));
        }
        let from = place(after)?;
        let waited = Stopwatch::start();
        loop {
            // Listens before it looks, so that nothing written in between is slept through.
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            let entries: Vec<FeedEntry> = self.with(table, |s, _| Ok(s.feed.iter().skip(from).take(max.max(1)).cloned().collect()))?;
            let left = wait.saturating_sub(waited.elapsed());
            if !entries.is_empty() || left.is_zero() {
                let next = cursor(from + entries.len());
                return Ok(FeedPage { entries, next });
            }
            tokio::select! {
                biased;
                () = changed => {}
                () = sleep(left) => {}
            }
        }
    }
}

fn cursor(place: usize) -> Cursor {
    Cursor(place.to_string())
}

fn place(cursor: &Cursor) -> Result<usize> {
    if cursor.0.is_empty() {
        return Ok(0);
    }
    cursor.0.parse().map_err(|_| Error::invalid(format!("`{}` is not a place in this feed; use one that the feed gave", cursor.0)))
}
