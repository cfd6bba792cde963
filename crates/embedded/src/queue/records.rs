//! How queues and messages lie in the store.
//!
//! - `queues`: name -> number and settings.
//! - `messages`: queue, message number, time of arrival -> where it came from, if from another queue, then the body.
//! - `leases`: queue, message number -> nonce, end and count of deliveries; or the end of a delay.
//! - `meta`: `low` and the queue -> a message number below which there is nothing, so that opening skips the traces of old messages.

use bytes::{BufMut, Bytes, BytesMut};
use fjall::Slice;
use serde::{Deserialize, Serialize};
use tidemill_base::{Error, Result, Timestamp};
use tidemill_blocks::queue::{MessageId, QueueSettings, Receipt};

use super::index::{Parked, Ready};

/// A queue as stored under its name.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct QueueRecord {
    /// Stands for the name in keys.
    pub(super) queue: u32,
    pub(super) settings: QueueSettings,
}

pub(super) fn low_key(queue: u32) -> Slice {
    let mut key = Vec::from(*b"low");
    key.put_u32(queue);
    key.into()
}

pub(super) fn message_key(queue: u32, message: &Ready) -> Slice {
    let mut key = Vec::with_capacity(20);
    key.put_u32(queue);
    key.put_u64(message.number);
    key.put_i64(message.arrived_at.micros());
    key.into()
}

/// Number and time of arrival out of a message's key.
pub(super) fn parse_message_key(key: &[u8]) -> Result<(u64, Timestamp)> {
    let (Some(number), Some(arrived), 20) = (be64(key, 4), be64(key, 12), key.len()) else {
        return Err(Error::corrupt(format!("message key {} is not 20 bytes long", hex::encode(key))));
    };
    Ok((number, Timestamp(number_as_time(arrived))))
}

/// The start of the keys of `queue` from message `number` on, in `messages` and `leases` alike.
pub(super) fn from_number(queue: u32, number: u64) -> Slice {
    let mut key = Vec::with_capacity(12);
    key.put_u32(queue);
    key.put_u64(number);
    key.into()
}

/// What a message carries besides its body when it has come from another queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Origin {
    /// When it was first sent; its key has the time at which it arrived.
    pub(super) sent_at: Timestamp,
    /// For a dead letter, the queue it died in and after how many deliveries.
    pub(super) died: Option<(u32, u32)>,
}

const PLAIN: u8 = 0;
const MOVED: u8 = 1;
const DEAD: u8 = 2;

/// What a message of `body` is stored as.
pub(super) fn message(body: &[u8], origin: Option<Origin>) -> Slice {
    let mut out = BytesMut::with_capacity(body.len() + 17);
    match origin {
        None => out.put_u8(PLAIN),
        Some(Origin { sent_at, died }) => {
            out.put_u8(if died.is_some() { DEAD } else { MOVED });
            out.put_i64(sent_at.micros());
            if let Some((queue, receives)) = died {
                out.put_u32(queue);
                out.put_u32(receives);
            }
        }
    }
    out.put_slice(body);
    out.freeze().into()
}

/// The inverse of [`message`].
pub(super) fn parse_message(stored: Slice) -> Result<(Bytes, Option<Origin>)> {
    let stored: Bytes = stored.into();
    let word = |at: usize| stored.get(at..at + 4).and_then(|w| w.try_into().ok()).map(u32::from_be_bytes);
    let sent_at = || be64(&stored, 1).map(|bits| Timestamp(number_as_time(bits)));
    let parsed = match stored.first() {
        Some(&PLAIN) => Some((1, None)),
        Some(&MOVED) => sent_at().map(|sent_at| (9, Some(Origin { sent_at, died: None }))),
        Some(&DEAD) => match (sent_at(), word(9), word(13)) {
            (Some(sent_at), Some(queue), Some(receives)) => Some((17, Some(Origin { sent_at, died: Some((queue, receives)) }))),
            _ => None,
        },
        _ => None,
    };
    let (start, origin) = parsed.ok_or_else(|| Error::corrupt("stored message has no known form"))?;
    Ok((stored.slice(start..), origin))
}

pub(super) fn lease(parked: &Parked) -> Slice {
    let mut out = Vec::with_capacity(20);
    out.put_u64(parked.nonce);
    out.put_i64(parked.until.micros());
    out.put_u32(parked.receives);
    out.into()
}

/// A lease's message number, and the lease.
pub(super) fn parse_lease(key: &[u8], value: &[u8], arrived_at: Timestamp) -> Result<(u64, Parked)> {
    let parsed = (|| {
        let (number, nonce, until) = (be64(key, 4)?, be64(value, 0)?, be64(value, 8)?);
        let receives = u32::from_be_bytes(value.get(16..20)?.try_into().ok()?);
        Some((number, Parked { arrived_at, receives, nonce, until: Timestamp(number_as_time(until)) }))
    })();
    parsed.ok_or_else(|| Error::corrupt(format!("lease {} has {} bytes instead of 20", hex::encode(key), value.len())))
}

fn be64(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8)?.try_into().ok().map(u64::from_be_bytes)
}

const fn number_as_time(bits: u64) -> i64 {
    i64::from_be_bytes(bits.to_be_bytes())
}

pub(super) fn id(number: u64) -> MessageId {
    MessageId(format!("{number:012x}"))
}

pub(super) fn parse_id(id: &MessageId) -> Option<u64> {
    u64::from_str_radix(&id.0, 16).ok()
}

pub(super) fn receipt(number: u64, nonce: u64) -> Receipt {
    Receipt(format!("{number:012x}-{nonce:016x}"))
}

pub(super) fn parse_receipt(receipt: &Receipt) -> Option<(u64, u64)> {
    let (number, nonce) = receipt.0.split_once('-')?;
    Some((u64::from_str_radix(number, 16).ok()?, u64::from_str_radix(nonce, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_read_back_as_written() {
        let ready = Ready::fresh(7, Timestamp(-3));
        assert_eq!(parse_message_key(&message_key(2, &ready)).unwrap(), (7, Timestamp(-3)));
        for died in [None, Some((9, 4))] {
            let origin = Some(Origin { sent_at: Timestamp(-8), died });
            assert_eq!(parse_message(message(b"body", origin)).unwrap(), (Bytes::from_static(b"body"), origin));
        }
        assert_eq!(parse_message(message(b"", None)).unwrap(), (Bytes::new(), None));
        let parked = Parked { arrived_at: Timestamp(5), receives: 2, nonce: u64::MAX, until: Timestamp(88) };
        assert_eq!(parse_lease(&from_number(2, 7), &lease(&parked), Timestamp(5)).unwrap(), (7, parked));
        assert_eq!(parse_receipt(&receipt(7, 8)), Some((7, 8)));
        assert_eq!(parse_receipt(&Receipt("nonsense".into())), None);
    }

    #[test]
    fn damage_is_named() {
        assert!(parse_message_key(b"short").unwrap_err().message().contains("73686f7274"));
        assert!(parse_message(Slice::from(b"\x07x")).is_err());
        assert!(parse_lease(&from_number(1, 1), b"123", Timestamp(0)).is_err());
    }
}
