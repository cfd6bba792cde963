//! How items and changes lie in the store.
//!
//! - `tables`: name -> number, and the oldest change kept.
//! - `items`: table, length of the partition, partition, sort key -> version, expiry, value. Items of a partition lie together, in
//!   the order of their sort keys.
//! - `expiries`: when, then the item's key -> nothing.
//! - `changes`: table, sequence -> time, key, value. The sequence is also the item's version.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use fjall::Slice;
use serde::{Deserialize, Serialize};
use tidemill_base::{Error, Result, Timestamp};
use tidemill_blocks::table::{FeedEntry, Item, Key};

const NEVER: i64 = i64::MAX;

/// A table as stored under its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TableRecord {
    /// Stands for the name in keys.
    pub(super) table: u32,
    /// Changes before this are gone.
    pub(super) oldest_change: u64,
}

/// The start of the keys of a partition's items.
pub(super) fn partition_key(table: u32, partition: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(6 + partition.len() + 16);
    key.put_u32(table);
    key.put_u16(u16::try_from(partition.len()).unwrap_or(u16::MAX));
    key.put_slice(partition.as_bytes());
    key
}

pub(super) fn item_key(table: u32, key: &Key) -> Slice {
    let mut out = partition_key(table, &key.partition);
    out.put_slice(&key.sort);
    out.into()
}

/// The sort key out of an item's key.
pub(super) fn sort_of(key: Slice, partition: &str) -> Result<Bytes> {
    let key: Bytes = key.into();
    let start = 6 + partition.len();
    if key.len() < start {
        return Err(Error::corrupt(format!("item key {} is too short for its partition", hex::encode(&key))));
    }
    Ok(key.slice(start..))
}

pub(super) fn item(version: u64, expires_at: Option<Timestamp>, value: &[u8]) -> Slice {
    let mut out = BytesMut::with_capacity(16 + value.len());
    out.put_u64(version);
    out.put_i64(expires_at.map_or(NEVER, Timestamp::micros));
    out.put_slice(value);
    out.freeze().into()
}

/// What is stored of an item beside its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) version: u64,
    pub(super) expires_at: Option<Timestamp>,
    pub(super) value: Bytes,
}

impl Stored {
    pub(super) fn parse(stored: Slice) -> Result<Self> {
        let mut stored: Bytes = stored.into();
        if stored.len() < 16 {
            return Err(Error::corrupt(format!("stored item has {} bytes, fewer than its header of 16", stored.len())));
        }
        let (version, expires_at) = (stored.get_u64(), stored.get_i64());
        Ok(Self { version, expires_at: (expires_at != NEVER).then_some(Timestamp(expires_at)), value: stored })
    }

    /// Whether it still counts.
    pub(super) fn is_alive(&self, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|at| at > now)
    }

    pub(super) fn into_item(self, key: Key) -> Item {
        Item { key, value: self.value, version: self.version, expires_at: self.expires_at }
    }
}

pub(super) fn expiry_key(at: Timestamp, item_key: &[u8]) -> Slice {
    let mut out = Vec::with_capacity(8 + item_key.len());
    // With the sign turned, times before 1970 sort before those after.
    out.put_u64(at.micros().cast_unsigned() ^ (1 << 63));
    out.put_slice(item_key);
    out.into()
}

/// The time and the item's key out of an expiry's key.
pub(super) fn parse_expiry(key: Slice) -> Result<(Timestamp, Slice)> {
    let mut key: Bytes = key.into();
    if key.len() < 14 {
        return Err(Error::corrupt(format!("expiry key of {} bytes is too short", key.len())));
    }
    let at = Timestamp((key.get_u64() ^ (1 << 63)).cast_signed());
    Ok((at, key.into()))
}

pub(super) fn change_key(table: u32, sequence: u64) -> Slice {
    let mut out = Vec::with_capacity(12);
    out.put_u32(table);
    out.put_u64(sequence);
    out.into()
}

pub(super) fn sequence_of(change_key: &[u8]) -> Result<u64> {
    change_key
        .get(4..12)
        .and_then(|bits| bits.try_into().ok())
        .map(u64::from_be_bytes)
        .ok_or_else(|| Error::corrupt(format!("change key of {} bytes is too short", change_key.len())))
}

pub(super) fn change(at: Timestamp, key: &Key, value: Option<&[u8]>) -> Slice {
    let mut out = BytesMut::with_capacity(13 + key.partition.len() + key.sort.len() + value.map_or(0, <[u8]>::len));
    out.put_i64(at.micros());
    out.put_u8(u8::from(value.is_some()));
    for part in [key.partition.as_bytes(), &key.sort] {
        out.put_u16(u16::try_from(part.len()).unwrap_or(u16::MAX));
        out.put_slice(part);
    }
    out.put_slice(value.unwrap_or_default());
    out.freeze().into()
}

/// When a change took effect.
pub(super) fn time_of(stored: &[u8]) -> Result<Timestamp> {
    let bits = stored.get(..8).and_then(|bits| bits.try_into().ok());
    bits.map(|bits| Timestamp(i64::from_be_bytes(bits))).ok_or_else(|| Error::corrupt("stored change is too short"))
}

pub(super) fn parse_change(sequence: u64, stored: Slice) -> Result<FeedEntry> {
    let mut rest: Bytes = stored.into();
    let short = || Error::corrupt(format!("stored change {sequence} is too short"));
    if rest.len() < 9 {
        return Err(short());
    }
    rest.advance(8);
    let present = rest.get_u8() == 1;
    let mut part = || {
        let len = if rest.len() < 2 { return Err(short()) } else { usize::from(rest.get_u16()) };
        if rest.len() < len { Err(short()) } else { Ok(rest.split_to(len)) }
    };
    let (partition, sort) = (part()?, part()?);
    let partition = String::from_utf8(partition.into()).map_err(|e| short().with_source(e))?;
    Ok(FeedEntry { key: Key { partition, sort }, value: present.then_some(rest), version: sequence })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_read_back_as_written() {
        let key = Key::new("p", &b"s\0"[..]);
        for expires_at in [None, Some(Timestamp(-5))] {
            let stored = Stored::parse(item(7, expires_at, b"v")).unwrap();
            assert_eq!(stored, Stored { version: 7, expires_at, value: Bytes::from_static(b"v") });
        }
        for value in [None, Some(&b""[..]), Some(&b"value"[..])] {
            let entry = parse_change(3, change(Timestamp(1), &key, value)).unwrap();
            assert_eq!((entry.key, entry.value.as_deref(), entry.version), (key.clone(), value, 3));
        }
        assert_eq!(sort_of(item_key(1, &key), "p").unwrap(), key.sort);
        let (at, item) = parse_expiry(expiry_key(Timestamp(-9), &item_key(1, &key))).unwrap();
        assert_eq!((at, item), (Timestamp(-9), item_key(1, &key)));
    }

    #[test]
    fn keys_of_a_partition_lie_together_in_order() {
        let keys = [("a", "1"), ("a", "2"), ("b", ""), ("b", "\u{ff}"), ("aa", ""), ("aa", "0")];
        let encoded: Vec<_> = keys.iter().map(|(p, s)| item_key(1, &Key::new(*p, Bytes::copy_from_slice(s.as_bytes())))).collect();
        assert!(encoded.is_sorted());
        assert!(expiry_key(Timestamp(-1), b"") < expiry_key(Timestamp(0), b""));
    }

    #[test]
    fn damage_is_an_error() {
        assert!(Stored::parse(Slice::from(b"short")).is_err());
        assert!(parse_change(1, Slice::from(&[0; 10][..])).is_err());
        assert!(parse_expiry(Slice::from(b"short")).is_err());
    }
}
