//! Deciding on writes, and tidying up, on the writer thread.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidemill_base::{Error, Result};
use tidemill_blocks::table::{Change, Condition, Write, check_name};
use tokio::sync::Notify;

use super::records::{self, Stored, TableRecord};
use crate::store::{Group, Space, Store, Sweep};

/// How long changes are kept.
const KEEP_CHANGES: Duration = Duration::from_secs(24 * 3600);
/// The most that one sweep removes of each kind.
const SWEEP_AT_ONCE: usize = 10_000;

/// The tables of a data folder.
#[derive(Debug, Default)]
pub(super) struct Tables {
    by_name: Mutex<BTreeMap<String, TableRecord>>,
    /// Something was written to some table.
    pub(super) changed: Notify,
}

impl Tables {
    pub(super) fn recover(store: &Store) -> Result<Self> {
        let mut by_name = BTreeMap::new();
        for entry in store.snapshot().range(Space::Tables, b"", &[0xff]) {
            let (name, stored) = entry?;
            let name = String::from_utf8_lossy(&name).into_owned();
            let record = postcard::from_bytes(&stored).map_err(|e| {
                Error::corrupt(format!("the record of table `{name}` in {} cannot be read", store.path().display())).with_source(e)
            })?;
            by_name.insert(name, record);
        }
        Ok(Self { by_name: Mutex::new(by_name), changed: Notify::new() })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, TableRecord>> {
        self.by_name.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self, name: &str) -> Result<TableRecord> {
        let absent = || Error::not_found(format!("table `{name}` does not exist; make it with ensure"));
        let known = self.lock().get(name).copied();
        known.ok_or_else(|| check_name(name).err().unwrap_or_else(absent))
    }

    pub(super) fn ensure(&self, name: &str, group: &mut Group<'_>) -> Result<()> {
        let mut tables = self.lock();
        if tables.contains_key(name) {
            return Ok(());
        }
        let table = tables.values().map(|t| t.table + 1).max().unwrap_or(1);
        let record = TableRecord { table, oldest_change: 0 };
        put_record(name, &record, group)?;
        tables.insert(name.to_owned(), record);
        Ok(())
    }
}

fn put_record(name: &str, record: &TableRecord, group: &mut Group<'_>) -> Result<()> {
    let stored = postcard::to_allocvec(record).map_err(|e| Error::internal("encode a table's record").with_source(e))?;
    group.put(Space::Tables, name, stored);
    Ok(())
}

/// Checks every condition, then writes. Returns the new versions.
pub(super) fn transact(table: u32, writes: &[Write], group: &mut Group<'_>) -> Result<Vec<u64>> {
    let now = group.now();
    for write in writes {
        if write.condition == Condition::Any {
            continue;
        }
        let stored = group.get(Space::Items, &records::item_key(table, &write.key))?.map(Stored::parse).transpose()?;
        let current = stored.filter(|s| s.is_alive(now)).map(|s| s.version);
        if !write.condition.holds(current) {
            let found = current.map_or_else(|| "there is none".to_owned(), |v| format!("it has version {v}"));
            return Err(Error::conflict(format!(
                "item {} of partition `{}` should be {:?}, but {found}",
                hex::encode(&write.key.sort),
                write.key.partition,
                write.condition
            )));
        }
    }
    // Nothing may be written before all that can fail is done, reading what is to be removed included.
    let mut removes = Vec::new();
    for write in writes.iter().filter(|w| w.change == Change::Delete) {
        removes.push(group.get(Space::Items, &records::item_key(table, &write.key))?.is_some());
    }
    let mut removes = removes.into_iter();
    let mut apply = |write: &Write| match write.change {
        // What is not there need not be removed, and the feed does not tell of it.
        Change::Delete if !removes.next().unwrap_or(true) => 0,
        _ => apply(table, write, group),
    };
    Ok(writes.iter().map(&mut apply).collect())
}

fn apply(table: u32, write: &Write, group: &mut Group<'_>) -> u64 {
    let key = records::item_key(table, &write.key);
    match &write.change {
        Change::Check => 0,
        Change::Put { value, expires_at } => {
            let version = group.next_sequence();
            if let Some(at) = expires_at {
                group.put_seen(Space::Expiries, records::expiry_key(*at, &key), []);
            }
            group.put(Space::Changes, records::change_key(table, version), records::change(group.now(), &write.key, Some(value)));
            group.put_seen(Space::Items, key, records::item(version, *expires_at, value));
            version
        }
        Change::Delete => {
            let sequence = group.next_sequence();
            group.put(Space::Changes, records::change_key(table, sequence), records::change(group.now(), &write.key, None));
            group.remove_seen(Space::Items, key);
            0
        }
    }
}

/// The sweeper of all tables.
#[derive(Debug)]
pub(super) struct Tidy {
    pub(super) tables: std::sync::Arc<Tables>,
    pub(super) store: std::sync::Weak<Store>,
}

impl Sweep for Tidy {
    fn sweep(&self, group: &mut Group<'_>) -> Result<()> {
        let Some(store) = self.store.upgrade() else { return Ok(()) };
        sweep_expired(&store, group)?;
        let tables: Vec<_> = self.tables.lock().iter().map(|(name, record)| (name.clone(), *record)).collect();
        for (name, record) in tables {
            let oldest = sweep_changes(&store, record, group)?;
            if oldest > record.oldest_change {
                let record = TableRecord { oldest_change: oldest, ..record };
                put_record(&name, &record, group)?;
                self.tables.lock().insert(name, record);
            }
        }
        Ok(())
    }
}

fn sweep_expired(store: &Store, group: &mut Group<'_>) -> Result<()> {
    let now = group.now();
    let until = records::expiry_key(now, &[]);
    for key in store.snapshot().keys(Space::Expiries, b"", &until).take(SWEEP_AT_ONCE) {
        let expiry = key?;
        let (at, item) = records::parse_expiry(expiry.clone())?;
        // The item may have been written anew since, with another expiry or with none.
        let stored = group.get(Space::Items, &item)?.map(Stored::parse).transpose()?;
        if stored.is_some_and(|s| s.expires_at == Some(at)) {
            group.remove_seen(Space::Items, item);
        }
        group.remove(Space::Expiries, expiry);
    }
    Ok(())
}

/// Removes changes that are too old. Returns the oldest that may be left.
fn sweep_changes(store: &Store, record: TableRecord, group: &mut Group<'_>) -> Result<u64> {
    let limit = group.now() - KEEP_CHANGES;
    let mut oldest = record.oldest_change;
    let (from, until) = (records::change_key(record.table, oldest), records::change_key(record.table + 1, 0));
    for entry in store.snapshot().range(Space::Changes, &from, &until).take(SWEEP_AT_ONCE) {
        let (key, value) = entry?;
        if records::time_of(&value)? > limit {
            break;
        }
        oldest = records::sequence_of(&key)? + 1;
        group.remove(Space::Changes, key);
    }
    Ok(oldest)
}
