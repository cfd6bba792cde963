//! The table block on the local store.
//!
//! Conditions are checked on the writer thread, in the group that their writes are part of, so a transaction is all or nothing and
//! needs no lock. A version is the number of the write among all writes of the data folder. The change feed is written in the same
//! batch as the items: it costs bytes but no sync of its own.

#[cfg(feature = "fuzz")]
pub mod fuzz;
mod records;
mod state;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tidemill_base::{Env, Error, Result};
use tidemill_blocks::table::{
    Change, Cursor, FeedPage, Item, Key, MAX_TRANSACTION, Page, Range, Table, Write, check_distinct, check_key, check_name,
    check_unconditional, check_writes,
};
use tidemill_runtime::{Stopwatch, sleep};

use crate::store::{Durability, Space, Store, Sweep, View};
use records::Stored;
use state::{Tables, Tidy};

/// A page of a range or of the feed ends when it holds this many bytes.
const PAGE_BYTES: usize = 4 << 20;
/// The most writes that `write_many` puts into one group.
const WRITES_AT_ONCE: usize = 1000;
const MAX_WAIT: Duration = Duration::from_secs(20);

/// All tables of one data folder.
#[derive(Debug)]
pub struct EmbeddedTable {
    store: Arc<Store>,
    env: Env,
    tables: Arc<Tables>,
    _tidy: Arc<Tidy>,
}

impl EmbeddedTable {
    /// Reads the names of the tables of `store`.
    pub(crate) fn open(store: Arc<Store>, env: Env) -> Result<Self> {
        let tables = Arc::new(Tables::recover(&store)?);
        let tidy = Arc::new(Tidy { tables: tables.clone(), store: Arc::downgrade(&store) });
        let sweeper: Arc<dyn Sweep> = tidy.clone();
        store.add_sweeper(Arc::downgrade(&sweeper));
        Ok(Self { store, env, tables, _tidy: tidy })
    }

    fn read(&self, view: &View, table: u32, key: &Key) -> Result<Option<Item>> {
        let stored = view.get(Space::Items, &records::item_key(table, key))?.map(Stored::parse).transpose();
        let stored = stored.map_err(|e| e.context(format!("partition `{}` in {}", key.partition, self.store.path().display())))?;
        Ok(stored.filter(|s| s.is_alive(self.env.now())).map(|s| s.into_item(key.clone())))
    }

    async fn write(&self, table: &str, writes: Vec<Write>) -> Result<Vec<u64>> {
        let number = self.tables.get(table)?.table;
        let tables = self.tables.clone();
        let decide = move |group: &mut crate::store::Group<'_>| {
            let versions = state::transact(number, &writes, group)?;
            group.after(move || tables.changed.notify_waiters());
            Ok(versions)
        };
        self.store.commit(Durability::Synced, decide).await
    }

    fn changes(&self, table: u32, from: u64, max: usize) -> Result<FeedPage> {
        let view = self.store.snapshot();
        let (start, until) = (records::change_key(table, from), records::change_key(table + 1, 0));
        let (mut page, mut bytes, mut next) = (FeedPage::default(), 0, from);
        for entry in view.range(Space::Changes, &start, &until).take(max) {
            let (key, value) = entry?;
            bytes += value.len();
            let sequence = records::sequence_of(&key)?;
            page.entries.push(records::parse_change(sequence, value)?);
            next = sequence + 1;
            if bytes >= PAGE_BYTES {
                break;
            }
        }
        page.next = cursor(next);
        Ok(page)
    }
}

fn cursor(next: u64) -> Cursor {
    Cursor(next.to_string())
}

fn parse_cursor(cursor: &Cursor) -> Result<u64> {
    if cursor.0.is_empty() {
        return Ok(0);
    }
    let bad = || Error::invalid(format!("`{}` is not a place in a change feed; begin at the start or at the end", cursor.0.escape_debug()));
    cursor.0.parse().map_err(|_| bad())
}

#[async_trait]
impl Table for EmbeddedTable {
    async fn ensure(&self, table: &str) -> Result<()> {
        check_name(table)?;
        let (name, tables) = (table.to_owned(), self.tables.clone());
        self.store.commit(Durability::Synced, move |group| tables.ensure(&name, group)).await
    }

    async fn get(&self, table: &str, key: &Key) -> Result<Option<Item>> {
        check_key(key)?;
        self.read(&self.store.snapshot(), self.tables.get(table)?.table, key)
    }

    async fn get_many(&self, table: &str, keys: &[Key]) -> Result<Vec<Option<Item>>> {
        let number = self.tables.get(table)?.table;
        let view = self.store.snapshot();
        keys.iter().map(|key| check_key(key).and_then(|()| self.read(&view, number, key))).collect()
    }

    async fn transact(&self, table: &str, writes: Vec<Write>) -> Result<Vec<u64>> {
        check_writes(&writes, MAX_TRANSACTION)?;
        check_distinct(&writes)?;
        self.write(table, writes).await
    }

    async fn write_many(&self, table: &str, writes: Vec<Write>) -> Result<()> {
        check_writes(&writes, usize::MAX)?;
        check_unconditional(&writes)?;
        self.tables.get(table)?;
        let mut rest = writes.into_iter().peekable();
        while rest.peek().is_some() {
            let (mut some, mut bytes) = (Vec::new(), 0);
            while some.len() < WRITES_AT_ONCE
                && bytes < PAGE_BYTES
                && let Some(write) = rest.next()
            {
                if let Change::Put { value, .. } = &write.change {
                    bytes += value.len();
                }
                some.push(write);
            }
            self.write(table, some).await?;
        }
        Ok(())
    }

    async fn range(&self, table: &str, range: Range) -> Result<Page> {
        check_range(&range)?;
        let number = self.tables.get(table)?.table;
        let start = records::partition_key(number, &range.partition);
        let from = [&start[..], &range.from].concat();
        let until = match &range.until {
            Some(until) => [&start[..], until].concat(),
            None => after_prefix(start),
        };
        if from >= until {
            return Ok(Page::default());
        }
        let view = self.store.snapshot();
        let all = view.range(Space::Items, &from, &until);
        if range.reverse { self.page(all.rev(), range) } else { self.page(all, range) }
            .map_err(|e| e.context(format!("table `{table}` in {}", self.store.path().display())))
    }

    async fn feed_end(&self, table: &str) -> Result<Cursor> {
        self.tables.get(table)?;
        Ok(cursor(self.store.committed() + 1))
    }

    async fn feed(&self, table: &str, after: &Cursor, max: usize, wait: Duration) -> Result<FeedPage> {
        if wait > MAX_WAIT {
            return Err(Error::invalid(format!("cannot wait {wait:?} for a change; wait {MAX_WAIT:?} at most and ask again")));
        }
        let from = parse_cursor(after)?;
        let watch = Stopwatch::start();
        loop {
            // Listens before it looks, so that nothing written in between is slept through.
            let mut changed = std::pin::pin!(self.tables.changed.notified());
            changed.as_mut().enable();
            let record = self.tables.get(table)?;
            let page = self.changes(record.table, from.max(record.oldest_change), max.max(1))?;
            let left = wait.saturating_sub(watch.elapsed());
            if !page.entries.is_empty() || left.is_zero() {
                return Ok(page);
            }
            tokio::select! {
                biased;
                () = changed => {}
                () = sleep(left) => {}
            }
        }
    }
}

impl EmbeddedTable {
    /// Collects items until the page is full.
    fn page(&self, stored: impl Iterator<Item = Result<(fjall::Slice, fjall::Slice)>>, range: Range) -> Result<Page> {
        let now = self.env.now();
        let (mut items, mut bytes) = (Vec::new(), 0);
        for entry in stored {
            let (key, value) = entry?;
            let (sort, stored) = (records::sort_of(key, &range.partition)?, Stored::parse(value)?);
            if !stored.is_alive(now) {
                continue;
            }
            // One item more is known to exist, so there is a next page.
            if items.len() >= range.limit || bytes >= PAGE_BYTES {
                return Ok(Page { next: Some(next_range(range, &items)), items });
            }
            bytes += stored.value.len();
            items.push(stored.into_item(Key { partition: range.partition.clone(), sort }));
        }
        Ok(Page { items, next: None })
    }
}

/// The range after the last of `items`.
fn next_range(range: Range, items: &[Item]) -> Range {
    let last = items.last().map(|i| i.key.sort.clone()).unwrap_or_default();
    if range.reverse {
        return Range { until: Some(last), ..range };
    }
    // The key after `last` is `last` and a zero byte: nothing lies between.
    Range { from: Bytes::from([&last[..], &[0]].concat()), ..range }
}

/// The first key after all that begin with `prefix`.
fn after_prefix(mut prefix: Vec<u8>) -> Vec<u8> {
    while let Some(last) = prefix.pop() {
        if last < u8::MAX {
            prefix.push(last + 1);
            break;
        }
    }
    prefix
}

fn check_range(range: &Range) -> Result<()> {
    check_key(&Key { partition: range.partition.clone(), sort: Bytes::new() })?;
    if range.limit == 0 {
        return Err(Error::invalid("a range read with limit 0 returns nothing; ask for 1 item or more"));
    }
    Ok(())
}
