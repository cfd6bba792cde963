//! How objects lie in the store.
//!
//! - `objects`: path -> [`Record`]. The index never holds contents, so listing it reads little.
//! - `small-blobs`: blob -> contents, for what fits in [`INLINE_BYTES`]. Larger blobs are files.
//! - `uploads`: upload -> [`UploadRecord`]; upload and part -> [`Blob`].

use chrono::{DateTime, Utc};
use fjall::Slice;
use md5::{Digest, Md5};
use object_store::path::Path;
use object_store::{Attribute, AttributeValue, Attributes, ObjectMeta};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tidemill_base::{Error, Result, Timestamp};

/// Objects up to this size are kept in the store itself: no file, no directory entry, one group commit.
pub(super) const INLINE_BYTES: usize = 16 << 10;

/// Contents that belong to just one object or to one part of an upload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Blob {
    pub(super) id: u64,
    pub(super) len: u64,
    pub(super) md5: [u8; 16],
    /// In `small-blobs` and not in a file.
    pub(super) inline: bool,
}

impl Blob {
    pub(super) fn small_key(&self) -> Slice {
        self.id.to_be_bytes().into()
    }
}

/// An object as the index knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) size: u64,
    /// MD5 of the contents; for a multipart upload that of its parts' MD5s.
    pub(super) md5: [u8; 16],
    /// How many parts a multipart upload had; zero for a single put.
    pub(super) parts: u32,
    /// Microseconds since the epoch.
    pub(super) modified: i64,
    pub(super) attributes: StoredAttributes,
    pub(super) blobs: Vec<Blob>,
}

impl Record {
    /// An object put whole.
    pub(super) fn single(blob: Blob, modified: Timestamp, attributes: StoredAttributes) -> Self {
        Self { size: blob.len, md5: blob.md5, parts: 0, modified: modified.micros(), attributes, blobs: vec![blob] }
    }

    /// An object put together from parts.
    pub(super) fn multipart(blobs: Vec<Blob>, modified: Timestamp, attributes: StoredAttributes) -> Self {
        let mut digest = Md5::new();
        for blob in &blobs {
            digest.update(blob.md5);
        }
        Self {
            size: blobs.iter().map(|b| b.len).sum(),
            md5: digest.finalize().into(),
            parts: u32::try_from(blobs.len()).unwrap_or(u32::MAX),
            modified: modified.micros(),
            attributes,
            blobs,
        }
    }

    /// The entity tag as S3 forms it, without quotes.
    pub(super) fn e_tag(&self) -> String {
        let md5 = hex::encode(self.md5);
        if self.parts == 0 { md5 } else { format!("{md5}-{}", self.parts) }
    }

    pub(super) fn meta(&self, location: Path) -> ObjectMeta {
        ObjectMeta { location, last_modified: time(self.modified), size: self.size, e_tag: Some(self.e_tag()), version: None }
    }
}

fn time(micros: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(micros).unwrap_or_default()
}

/// A multipart upload under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct UploadRecord {
    pub(super) path: String,
    pub(super) attributes: StoredAttributes,
    /// Microseconds since the epoch.
    pub(super) started: i64,
}

pub(super) fn upload_key(upload: u64) -> Slice {
    upload.to_be_bytes().into()
}

pub(super) fn part_key(upload: u64, part: u32) -> Slice {
    [&upload.to_be_bytes()[..], &part.to_be_bytes()].concat().into()
}

pub(super) fn encode(record: &impl Serialize) -> Result<Slice> {
    postcard::to_allocvec(record).map(Into::into).map_err(|e| Error::internal("encode an object's record").with_source(e))
}

pub(super) fn decode<T: DeserializeOwned>(stored: &[u8], what: impl FnOnce() -> String) -> Result<T> {
    postcard::from_bytes(stored).map_err(|e| Error::corrupt(format!("the record of {} cannot be read", what())).with_source(e))
}

/// Attributes in a form that serialises: kind, name of the metadata, value.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredAttributes(Vec<(u8, String, String)>);

const PLAIN_ATTRIBUTES: [Attribute; 6] = [
    Attribute::ContentDisposition,
    Attribute::ContentEncoding,
    Attribute::ContentLanguage,
    Attribute::ContentType,
    Attribute::CacheControl,
    Attribute::StorageClass,
];
const METADATA: u8 = 255;

impl StoredAttributes {
    /// `None` when there is one that this version does not know how to keep.
    pub(super) fn new(attributes: &Attributes) -> Option<Self> {
        let mut out = Vec::with_capacity(attributes.len());
        for (attribute, value) in attributes {
            let (kind, name) = match attribute {
                Attribute::Metadata(name) => (METADATA, name.to_string()),
                plain => (u8::try_from(PLAIN_ATTRIBUTES.iter().position(|a| a == plain)?).ok()?, String::new()),
            };
            out.push((kind, name, value.to_string()));
        }
        out.sort_unstable();
        Some(Self(out))
    }

    pub(super) fn to_attributes(&self) -> Attributes {
        let restore = |(kind, name, value): &(u8, String, String)| {
            let attribute = match *kind {
                METADATA => Attribute::Metadata(name.clone().into()),
                kind => PLAIN_ATTRIBUTES.get(usize::from(kind))?.clone(),
            };
            Some((attribute, AttributeValue::from(value.clone())))
        };
        self.0.iter().filter_map(restore).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_and_attributes_read_back_as_written() {
        let mut attributes = Attributes::new();
        for (n, attribute) in PLAIN_ATTRIBUTES.into_iter().chain([Attribute::Metadata("k".into())]).enumerate() {
            attributes.insert(attribute, format!("v{n}").into());
        }
        let stored = StoredAttributes::new(&attributes).unwrap();
        assert_eq!(stored.to_attributes(), attributes);
        let blob = Blob { id: 1, len: 3, md5: Md5::digest("abc").into(), inline: false };
        let record = Record::single(blob.clone(), Timestamp(5), stored);
        let read: Record = decode(&encode(&record).unwrap(), || "x".to_owned()).unwrap();
        assert_eq!(read, record);
        assert_eq!(record.e_tag(), "900150983cd24fb0d6963f7d28e17f72");
        let two = Record::multipart(vec![blob.clone(), blob], Timestamp(5), StoredAttributes::default());
        assert!(two.e_tag().ends_with("-2") && two.size == 6);
    }
}
