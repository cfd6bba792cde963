//! Items as DynamoDB stores them.
//!
//! | attribute | type | what |
//! |---|---|---|
//! | `p` | S | partition key |
//! | `s` | B | sort key; see [`sort_out`] |
//! | `d` | B | the value |
//! | `v` | N | the version |
//! | `x` | N | when it expires, in seconds since 1970, rounded up; DynamoDB's own deletion goes by it, within days |

use std::collections::HashMap;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use bytes::Bytes;
use tidemill_base::{Error, Result, Timestamp};
use tidemill_blocks::table::{Item, Key, MAX_KEY_BYTES};

pub(super) const PARTITION: &str = "p";
pub(super) const SORT: &str = "s";
pub(super) const VALUE: &str = "d";
pub(super) const VERSION: &str = "v";
pub(super) const EXPIRY: &str = "x";

/// An item or a key, as the SDK has it.
pub(super) type Attributes = HashMap<String, AttributeValue>;

/// A sort key as DynamoDB takes it. It takes no empty one, and none over 1,024 bytes, so there is no room for a mark in front:
/// instead a key of nothing but zeros gets one zero more, the empty key being the shortest of these. The order stays.
pub(super) fn sort_out(sort: &[u8]) -> Vec<u8> {
    let mut out = sort.to_vec();
    if sort.iter().all(|b| *b == 0) {
        out.push(0);
    }
    out
}

/// The inverse of [`sort_out`].
pub(super) fn sort_in(stored: &[u8]) -> Bytes {
    let len = if stored.iter().all(|b| *b == 0) { stored.len().saturating_sub(1) } else { stored.len() };
    Bytes::copy_from_slice(&stored[..len])
}

/// A stored key; `Invalid` for the one key that [`sort_out`] has no room for.
pub(super) fn key_out(key: &Key) -> Result<Attributes> {
    let sort = sort_out(&key.sort);
    if sort.len() > MAX_KEY_BYTES {
        return Err(Error::invalid(format!("a sort key of {MAX_KEY_BYTES} zero bytes cannot be stored in DynamoDB; take another")));
    }
    Ok(HashMap::from([
        (PARTITION.to_owned(), AttributeValue::S(key.partition.clone())),
        (SORT.to_owned(), AttributeValue::B(Blob::new(sort))),
    ]))
}

/// A whole item to store.
pub(super) fn item_out(key: &Key, value: &Bytes, version: u64, expires_at: Option<Timestamp>) -> Result<Attributes> {
    let mut item = key_out(key)?;
    item.insert(VALUE.to_owned(), AttributeValue::B(Blob::new(value.to_vec())));
    item.insert(VERSION.to_owned(), number(version));
    if let Some(at) = expires_at {
        item.insert(EXPIRY.to_owned(), number(expiry_seconds(at)));
    }
    Ok(item)
}

/// A stored item. `Corrupt` when somebody else has written it.
pub(super) fn item_in(table: &str, mut stored: Attributes) -> Result<Item> {
    let (Some(key), Some(version)) = (key_in(&stored), read_number(&stored, VERSION)) else {
        return Err(foreign(table));
    };
    let Some(AttributeValue::B(value)) = stored.remove(VALUE) else { return Err(foreign(table)) };
    let expires_at = read_number(&stored, EXPIRY).map(|s| Timestamp(i64::try_from(s).unwrap_or(i64::MAX).saturating_mul(1_000_000)));
    Ok(Item { key, value: value.into_inner().into(), version, expires_at })
}

fn foreign(table: &str) -> Error {
    Error::corrupt(format!("DynamoDB table `{table}` holds an item that Tidemill did not write; move it to a table of its own"))
}

/// The key among stored attributes.
pub(super) fn key_in(stored: &Attributes) -> Option<Key> {
    match (stored.get(PARTITION), stored.get(SORT)) {
        (Some(AttributeValue::S(p)), Some(AttributeValue::B(s))) => Some(Key { partition: p.clone(), sort: sort_in(s.as_ref()) }),
        _ => None,
    }
}

pub(super) fn read_number(stored: &Attributes, name: &str) -> Option<u64> {
    match stored.get(name) {
        Some(AttributeValue::N(n)) => n.parse().ok(),
        _ => None,
    }
}

pub(super) fn number(n: u64) -> AttributeValue {
    AttributeValue::N(n.to_string())
}

/// The second at whose beginning an item has expired.
fn expiry_seconds(at: Timestamp) -> u64 {
    u64::try_from(at.micros()).unwrap_or(0).div_ceil(1_000_000)
}

/// The present second, to hold expiries against.
pub(super) fn second(now: Timestamp) -> u64 {
    u64::try_from(now.micros()).unwrap_or(0) / 1_000_000
}

/// Whether the item may still be returned.
pub(super) fn is_live(item: &Item, now: Timestamp) -> bool {
    item.expires_at.is_none_or(|at| at > now)
}

/// What DynamoDB counts an item as, in bytes: names and values, numbers at their longest.
pub(super) fn size(key: &Key, value_len: usize) -> u64 {
    const NAMES_AND_NUMBERS: usize = 5 + 2 * 12;
    (key.partition.len() + key.sort.len() + value_len + NAMES_AND_NUMBERS) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sort_keys_keep_their_order_and_come_back() {
        let mut keys: Vec<Vec<u8>> = vec![vec![], vec![0], vec![0, 0], vec![0, 0, 1], vec![0, 1], vec![0, 1, 0], vec![1], vec![255]];
        keys.push([vec![0; 1023], vec![1]].concat());
        keys.sort();
        let stored: Vec<Vec<u8>> = keys.iter().map(|k| sort_out(k)).collect();
        assert!(stored.is_sorted_by(|a, b| a < b), "{stored:?}");
        assert!(stored.iter().all(|s| (1..=MAX_KEY_BYTES).contains(&s.len())));
        assert!(keys.iter().zip(&stored).all(|(k, s)| sort_in(s) == k));
    }

    #[test]
    fn the_one_key_without_room_is_refused() {
        assert!(key_out(&Key::new("p", vec![0; 1023])).is_ok());
        assert!(key_out(&Key::new("p", vec![0; 1024])).is_err());
    }

    #[test]
    fn items_come_back() {
        let key = Key::new("p", "s");
        let at = Timestamp(1_700_000_000_000_001);
        let stored = item_out(&key, &Bytes::from_static(b"\0v"), 7, Some(at)).unwrap();
        let item = item_in("t", stored).unwrap();
        assert_eq!((item.key, item.value.as_ref(), item.version), (key, &b"\0v"[..], 7));
        assert_eq!(item.expires_at, Some(Timestamp(1_700_000_001_000_000)), "rounded up to the second");
        assert!(item_in("t", Attributes::new()).is_err());
    }
}
