//! The parts of an archive: how records and submissions become bytes.

use std::sync::Arc;

use bytes::{Buf as _, BufMut as _, Bytes};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tidemill_base::{Error, Result};

use super::Part;
use crate::{Outcome, Record};

/// A part is closed when it has so many bytes; one that holds a single large item may have more.
const PART_BYTES: usize = 16 << 20;
/// Archives are written once and read seldom.
const LEVEL: i32 = 6;

/// In the place of a class: the task was cancelled.
const CANCELLED: &str = "cancelled";

/// A record as it is kept. A change of it is a new version of the manifest.
#[derive(Serialize, Deserialize)]
struct Kept<'a> {
    task: u64,
    attempt: u32,
    run_us: u64,
    made_by: &'a str,
    /// The result, or why there is none: class (empty: not run) and message.
    #[serde(borrow)]
    outcome: std::result::Result<&'a [u8], (&'a str, &'a str)>,
}

/// Gathers items until they are a part. Each item is its length (4 bytes, little-endian) and its bytes.
#[derive(Debug, Default)]
pub(super) struct Cutter {
    bytes: Vec<u8>,
}

impl Cutter {
    pub(super) fn record(&mut self, record: &Record) -> Result<Option<Vec<u8>>> {
        let outcome = match &record.outcome {
            Outcome::Value(_, bytes) => Ok(bytes.as_ref()),
            Outcome::Failed { class, message } => Err((class.as_deref().unwrap_or_default(), message.as_str())),
            Outcome::Cancelled { message } => Err((CANCELLED, message.as_str())),
        };
        let kept = Kept { task: record.task, attempt: record.attempt, run_us: record.run_us, made_by: &record.made_by, outcome };
        self.item(&postcard::to_stdvec(&kept).map_err(|e| Error::internal("encode a record").with_source(e))?)
    }

    pub(super) fn submission(&mut self, bytes: &Bytes) -> Result<Option<Vec<u8>>> {
        self.item(bytes)
    }

    fn item(&mut self, bytes: &[u8]) -> Result<Option<Vec<u8>>> {
        let full = if !self.bytes.is_empty() && self.bytes.len() + bytes.len() > PART_BYTES { self.rest() } else { None };
        let len = u32::try_from(bytes.len()).map_err(|e| Error::exhausted("an item of an archive passes 4 GiB").with_source(e))?;
        self.bytes.put_u32_le(len);
        self.bytes.put_slice(bytes);
        Ok(full)
    }

    /// What has been gathered.
    pub(super) fn rest(&mut self) -> Option<Vec<u8>> {
        (!self.bytes.is_empty()).then(|| std::mem::take(&mut self.bytes))
    }
}

pub(super) fn pack(plain: &[u8]) -> Result<Vec<u8>> {
    zstd::bulk::compress(plain, LEVEL).map_err(|e| Error::internal("pack a part of an archive").with_source(e))
}

/// A part's contents. `Corrupt` when it is not what was archived.
pub(super) fn unpack(part: &Part, packed: &[u8]) -> Result<Bytes> {
    let damaged = || Error::corrupt(format!("part `{}` of the archive is not what was archived; its copy elsewhere is needed", part.name));
    if packed.len() as u64 != part.bytes || format!("{:x}", Sha256::digest(packed)) != part.sha256 {
        return Err(damaged());
    }
    let room = usize::try_from(part.unpacked).map_err(|e| damaged().with_source(e))?;
    // Memory is taken for what the packed bytes themselves say that they unfold to, and not for what a manifest claims.
    let claimed = zstd::zstd_safe::get_frame_content_size(packed).ok().flatten();
    if claimed != Some(part.unpacked) {
        return Err(damaged());
    }
    let plain = zstd::bulk::decompress(packed, room).map_err(|e| damaged().with_source(e))?;
    if plain.len() == room { Ok(plain.into()) } else { Err(damaged()) }
}

fn items(part: &Bytes) -> Result<Vec<Bytes>> {
    let short = || Error::corrupt("a part of an archive ends within an item");
    let (mut rest, mut out) = (part.clone(), Vec::new());
    while !rest.is_empty() {
        if rest.len() < 4 {
            return Err(short());
        }
        let len = rest.get_u32_le() as usize;
        if rest.len() < len {
            return Err(short());
        }
        out.push(rest.split_to(len));
    }
    Ok(out)
}

pub(super) fn submissions(part: &Bytes) -> Result<Vec<Bytes>> {
    items(part)
}

pub(super) fn records(part: &Bytes) -> Result<Vec<Record>> {
    let mut made_by: Arc<str> = "".into();
    let mut out = Vec::new();
    for item in items(part)? {
        let kept: Kept<'_> =
            postcard::from_bytes(&item).map_err(|e| Error::corrupt("an archived result does not decode").with_source(e))?;
        if *made_by != *kept.made_by {
            made_by = kept.made_by.into();
        }
        let outcome = match kept.outcome {
            Ok(bytes) => Outcome::Value(u32::try_from(bytes.len()).unwrap_or(u32::MAX), item.slice_ref(bytes)),
            Err((CANCELLED, message)) => Outcome::Cancelled { message: message.to_owned() },
            Err((class, message)) => Outcome::Failed { class: (!class.is_empty()).then(|| class.to_owned()), message: message.to_owned() },
        };
        out.push(Record { task: kept.task, attempt: kept.attempt, run_us: kept.run_us, made_by: Arc::clone(&made_by), outcome });
    }
    Ok(out)
}
