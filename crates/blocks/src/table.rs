//! Items by partition and sort key, with conditional writes.
//!
//! The shape is DynamoDB's, reduced to what every engine does the same way: an item is opaque bytes with a version that grows at
//! every write, conditions are on presence or version, and a transaction of up to [`MAX_TRANSACTION`] writes happens whole or not
//! at all. Promises: a write that was answered survives a crash; reads of an item after its write see it; writes to one partition
//! appear in the change feed in the order in which they took effect. Expired items are never returned, though they may linger in
//! storage.

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tidemill_base::{Result, Timestamp};

/// The largest value, in bytes. DynamoDB's item limit is 400 KB with the key.
pub const MAX_VALUE_BYTES: usize = 390 * 1024;
/// The longest partition or sort key, in bytes.
pub const MAX_KEY_BYTES: usize = 1024;
/// The most writes in one transaction (DynamoDB's limit).
pub const MAX_TRANSACTION: usize = 100;

/// Where an item is. Sort keys are ordered as bytes; see [`sort_u64`] for numbers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key {
    /// Items of one partition are ordered among each other.
    pub partition: String,
    /// May be empty.
    pub sort: Bytes,
}

impl Key {
    /// The key of `sort` in `partition`.
    pub fn new(partition: impl Into<String>, sort: impl Into<Bytes>) -> Self {
        Self { partition: partition.into(), sort: sort.into() }
    }
}

/// A number as a sort key that orders as numbers do.
pub fn sort_u64(n: u64) -> Bytes {
    Bytes::copy_from_slice(&n.to_be_bytes())
}

/// The inverse of [`sort_u64`]; `None` if it is not eight bytes.
pub fn unsort_u64(sort: &[u8]) -> Option<u64> {
    sort.try_into().ok().map(u64::from_be_bytes)
}

/// A stored item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// Where it is.
    pub key: Key,
    /// What it is.
    pub value: Bytes,
    /// Greater at every write of this key; never reused while the item exists. The first is at least 1.
    pub version: u64,
    /// After this it is not returned any more.
    pub expires_at: Option<Timestamp>,
}

/// What must hold for a write to take effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Condition {
    /// Nothing.
    Any,
    /// There is no (unexpired) item.
    Absent,
    /// There is one.
    Present,
    /// There is one of just this version.
    Version(u64),
}

impl Condition {
    /// Whether it holds for an item of version `current` (`None`: absent or expired).
    pub fn holds(self, current: Option<u64>) -> bool {
        match self {
            Self::Any => true,
            Self::Absent => current.is_none(),
            Self::Present => current.is_some(),
            Self::Version(v) => current == Some(v),
        }
    }
}

/// What a write does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// Stores this value.
    Put {
        /// At most [`MAX_VALUE_BYTES`].
        value: Bytes,
        /// When it expires.
        expires_at: Option<Timestamp>,
    },
    /// Removes the item; removing what is not there is no error.
    Delete,
    /// Changes nothing; only the condition counts.
    Check,
}

/// One conditional write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Write {
    /// Where.
    pub key: Key,
    /// If.
    pub condition: Condition,
    /// What.
    pub change: Change,
}

impl Write {
    /// Stores `value` if `condition` holds.
    pub fn put(key: Key, value: impl Into<Bytes>, condition: Condition) -> Self {
        Self { key, condition, change: Change::Put { value: value.into(), expires_at: None } }
    }

    /// Removes the item if `condition` holds.
    pub const fn delete(key: Key, condition: Condition) -> Self {
        Self { key, condition, change: Change::Delete }
    }

    /// Makes a transaction fail unless `condition` holds.
    pub const fn check(key: Key, condition: Condition) -> Self {
        Self { key, condition, change: Change::Check }
    }

    /// Lets what is stored expire.
    #[must_use]
    pub fn expiring(mut self, at: Timestamp) -> Self {
        if let Change::Put { expires_at, .. } = &mut self.change {
            *expires_at = Some(at);
        }
        self
    }
}

/// A range read within one partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// Which partition.
    pub partition: String,
    /// Sort keys from here, inclusive.
    pub from: Bytes,
    /// Sort keys up to here, exclusive; `None`: to the end.
    pub until: Option<Bytes>,
    /// At most this many items, at least 1; a driver may return fewer and still have more.
    pub limit: usize,
    /// Descending instead of ascending.
    pub reverse: bool,
}

impl Range {
    /// The whole partition, a page of `limit` at a time.
    pub fn all(partition: impl Into<String>, limit: usize) -> Self {
        Self { partition: partition.into(), from: Bytes::new(), until: None, limit, reverse: false }
    }

    /// From `from` on.
    #[must_use]
    pub fn from(mut self, from: impl Into<Bytes>) -> Self {
        self.from = from.into();
        self
    }

    /// Before `until`.
    #[must_use]
    pub fn until(mut self, until: impl Into<Bytes>) -> Self {
        self.until = Some(until.into());
        self
    }
}

/// A page of a range read.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Page {
    /// In order of the sort key, or against it.
    pub items: Vec<Item>,
    /// The range that reads what follows; `None` when that was all.
    pub next: Option<Range>,
}

/// A place in a table's change feed. Opaque; `Cursor::default()` is the oldest change kept.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Cursor(pub String);

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedEntry {
    /// Which item.
    pub key: Key,
    /// Its value after the change; `None` when removed.
    pub value: Option<Bytes>,
    /// Its version after the change.
    pub version: u64,
}

/// Some changes, in commit order within each partition.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FeedPage {
    /// The changes.
    pub entries: Vec<FeedEntry>,
    /// Where to go on.
    pub next: Cursor,
}

/// The table block. A table's name is 1 to 80 characters of `a-z 0-9 - _ .` and it is made by `ensure`. A condition that does not
/// hold answers `Conflict`; a limit overstepped answers `Invalid`; `Unavailable` may mean that the write took effect.
#[async_trait]
pub trait Table: Send + Sync + std::fmt::Debug {
    /// Makes the table if it is not there.
    async fn ensure(&self, table: &str) -> Result<()>;

    /// The item, unless absent or expired. Reads see all writes that were answered before.
    async fn get(&self, table: &str, key: &Key) -> Result<Option<Item>>;

    /// Many items at once, in the order asked.
    async fn get_many(&self, table: &str, keys: &[Key]) -> Result<Vec<Option<Item>>>;

    /// Up to [`MAX_TRANSACTION`] writes to distinct keys, all or none. Returns the new version of each (0 for deletes and checks),
    /// in order. `Conflict` when any condition does not hold; then nothing has changed.
    async fn transact(&self, table: &str, writes: Vec<Write>) -> Result<Vec<u64>>;

    /// Any number of unconditional writes, in no order, not as one transaction. On error some may have happened; all of them may
    /// be sent again.
    async fn write_many(&self, table: &str, writes: Vec<Write>) -> Result<()>;

    /// A page of a partition's items.
    async fn range(&self, table: &str, range: Range) -> Result<Page>;

    /// The place after the newest change, to follow from now on.
    async fn feed_end(&self, table: &str) -> Result<Cursor>;

    /// Up to `max` changes after `after`, waiting up to `wait` (20 s at most) for the first. Changes are kept for a day at least.
    async fn feed(&self, table: &str, after: &Cursor, max: usize, wait: Duration) -> Result<FeedPage>;
}

/// Checks a table's name; see [`Table`].
pub fn check_name(name: &str) -> Result<()> {
    let fits = (1..=80).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b));
    if fits {
        Ok(())
    } else {
        Err(tidemill_base::Error::invalid(format!("table name `{name}` must be 1 to 80 characters of a-z 0-9 - _ .")))
    }
}

/// Checks that no key is written twice in one transaction; see [`Table::transact`].
pub fn check_distinct(writes: &[Write]) -> Result<()> {
    let mut seen = std::collections::BTreeSet::new();
    match writes.iter().find(|w| !seen.insert(&w.key)) {
        Some(w) => Err(tidemill_base::Error::invalid(format!(
            "two writes of one transaction go to the same key in partition `{}`; make them one",
            w.key.partition
        ))),
        None => Ok(()),
    }
}

/// Checks that every write is one that `write_many` takes: an unconditional put or delete; see [`Table::write_many`].
pub fn check_unconditional(writes: &[Write]) -> Result<()> {
    match writes.iter().find(|w| w.condition != Condition::Any || w.change == Change::Check) {
        Some(w) => Err(tidemill_base::Error::invalid(format!(
            "a write to partition `{}` is conditional; send it as a transaction",
            w.key.partition
        ))),
        None => Ok(()),
    }
}

/// Checks a transaction against the limits; see [`Table`].
pub fn check_writes(writes: &[Write], max: usize) -> Result<()> {
    use tidemill_base::Error;
    if writes.len() > max {
        return Err(Error::invalid(format!("{} writes in one call; send at most {max}", writes.len())));
    }
    for w in writes {
        check_key(&w.key)?;
        if let Change::Put { value, .. } = &w.change
            && value.len() > MAX_VALUE_BYTES
        {
            return Err(Error::invalid(format!(
                "value of {} bytes under `{}` is over the limit of {MAX_VALUE_BYTES}; store it as an object",
                value.len(),
                w.key.partition
            )));
        }
    }
    Ok(())
}

/// Checks a key's shape; see [`Table`].
pub fn check_key(key: &Key) -> Result<()> {
    if key.partition.is_empty() || key.partition.len() > MAX_KEY_BYTES || key.sort.len() > MAX_KEY_BYTES {
        return Err(tidemill_base::Error::invalid(format!(
            "key of {} and {} bytes; a partition has 1 to {MAX_KEY_BYTES} bytes, a sort key at most as many",
            key.partition.len(),
            key.sort.len()
        )));
    }
    Ok(())
}

/// Reads a whole range, page after page. For ranges known to be small.
pub async fn read_all(table: &dyn Table, name: &str, range: Range) -> Result<Vec<Item>> {
    let (mut out, mut next) = (Vec::new(), Some(range));
    while let Some(r) = next {
        let page = table.range(name, r).await?;
        out.extend(page.items);
        next = page.next;
    }
    Ok(out)
}
