//! What `tests/fuzz` reaches of this block: records as they may lie in a store that something else has written to.

use tidemill_base::{Result, Timestamp};
use tidemill_blocks::queue::{MessageId, Receipt};

use super::index::Ready;
use super::records::{self, QueueRecord};

/// Reads a message's key and writes it anew.
pub fn message_key(queue: u32, key: &[u8]) -> Result<Vec<u8>> {
    let (number, arrived_at) = records::parse_message_key(key)?;
    Ok(records::message_key(queue, &Ready::fresh(number, arrived_at)).to_vec())
}

/// Reads a stored message and writes it anew: the body, and the whole.
pub fn message(stored: &[u8]) -> Result<(Vec<u8>, Vec<u8>)> {
    let (body, origin) = records::parse_message(stored.into())?;
    Ok((body.to_vec(), records::message(&body, origin).to_vec()))
}

/// Reads a lease and writes it anew: the message's number, and the lease.
pub fn lease(key: &[u8], stored: &[u8]) -> Result<(u64, Vec<u8>)> {
    let (number, parked) = records::parse_lease(key, stored, Timestamp::ZERO)?;
    Ok((number, records::lease(&parked).to_vec()))
}

/// Reads a queue's settings and writes them anew.
pub fn settings(stored: &[u8]) -> Option<Vec<u8>> {
    let record: QueueRecord = postcard::from_bytes(stored).ok()?;
    postcard::to_stdvec(&record).ok()
}

/// What a message's id and a receipt stand for, written anew.
pub fn names(text: &str) -> (Option<String>, Option<String>) {
    let id = records::parse_id(&MessageId(text.to_owned())).map(|number| records::id(number).0);
    let receipt = records::parse_receipt(&Receipt(text.to_owned())).map(|(number, nonce)| records::receipt(number, nonce).0);
    (id, receipt)
}
