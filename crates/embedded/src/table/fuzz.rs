//! What `tests/fuzz` reaches of this block: records as they may lie in a store that something else has written to.

use tidemill_base::{Result, Timestamp};
use tidemill_blocks::table::{FeedEntry, Key};

use super::records::{self, Stored, TableRecord};

/// Reads a stored item and writes it anew.
pub fn item(stored: &[u8]) -> Result<Vec<u8>> {
    let item = Stored::parse(stored.into())?;
    Ok(records::item(item.version, item.expires_at, &item.value).to_vec())
}

/// Reads a stored change and writes it anew, with when it took effect.
pub fn change(stored: &[u8]) -> Result<(FeedEntry, Vec<u8>)> {
    let at = records::time_of(stored)?;
    let entry = records::parse_change(7, stored.into())?;
    let anew = records::change(at, &entry.key, entry.value.as_deref()).to_vec();
    Ok((entry, anew))
}

/// Reads an expiry's key and writes it anew.
pub fn expiry(key: &[u8]) -> Result<(Timestamp, Vec<u8>)> {
    let (at, item_key) = records::parse_expiry(key.into())?;
    Ok((at, records::expiry_key(at, &item_key).to_vec()))
}

/// An item's key, and the sort key read out of it.
pub fn item_key(table: u32, key: &Key) -> Result<(Vec<u8>, Vec<u8>)> {
    let stored = records::item_key(table, key);
    let sort = records::sort_of(stored.clone(), &key.partition)?.to_vec();
    Ok((stored.to_vec(), sort))
}

/// Reads a table's record and writes it anew.
pub fn record(stored: &[u8]) -> Option<Vec<u8>> {
    let record: TableRecord = postcard::from_bytes(stored).ok()?;
    postcard::to_stdvec(&record).ok()
}
