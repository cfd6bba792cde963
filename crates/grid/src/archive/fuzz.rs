//! What `tests/fuzz` reaches of archives.

use bytes::Bytes;
use tidemill_base::Result;

use super::parts::{self, Cutter};
use super::{Holds, Part};
use crate::Record;

/// The records in a part that has been unpacked.
pub fn records(plain: &Bytes) -> Result<Vec<Record>> {
    parts::records(plain)
}

/// The submissions in a part that has been unpacked.
pub fn submissions(plain: &Bytes) -> Result<Vec<Bytes>> {
    parts::submissions(plain)
}

/// A part with these records, unpacked.
pub fn write(records: &[Record]) -> Result<Vec<u8>> {
    let mut cutter = Cutter::default();
    for record in records {
        cutter.record(record)?;
    }
    Ok(cutter.rest().unwrap_or_default())
}

/// Packs a part.
pub fn pack(plain: &[u8]) -> Result<Vec<u8>> {
    parts::pack(plain)
}

/// Unpacks a part of which a manifest says this.
pub fn unpack(packed: &[u8], sha256: String, unpacked: u64) -> Result<Bytes> {
    let part = Part { name: "00000-results.zst".to_owned(), holds: Holds::Results, bytes: packed.len() as u64, sha256, unpacked };
    parts::unpack(&part, packed)
}
