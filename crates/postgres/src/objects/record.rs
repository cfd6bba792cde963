//! An object as it is kept.

use std::collections::BTreeMap;

use bytes::Bytes;
use chrono::DateTime;
use object_store::path::Path;
use object_store::{Attribute, Attributes, ObjectMeta};
use tidemill_base::{Error, Result};
use tokio_postgres::Row;

use super::error::unsupported;
use crate::time::Time;

/// What stands before the name of a piece of user metadata.
const METADATA: &str = "metadata:";

/// An object, found by its path.
#[derive(Debug, Clone)]
pub(super) struct Record {
    pub(super) meta: ObjectMeta,
    pub(super) attributes: String,
    /// Where the contents are, unless they are here.
    pub(super) blob: Option<i64>,
    pub(super) contents: Option<Bytes>,
}

/// Describes the object in a row whose columns from `at` on are path, size, entity tag, time.
pub(super) fn meta(row: &Row, at: usize) -> Result<ObjectMeta, tokio_postgres::Error> {
    let modified = row.try_get::<_, Time>(at + 3)?.0;
    Ok(ObjectMeta {
        // It was a path when it was stored.
        location: Path::parse(row.try_get::<_, &str>(at)?).unwrap_or_default(),
        last_modified: DateTime::from_timestamp_micros(modified.micros()).unwrap_or_default(),
        size: u64::try_from(row.try_get::<_, i64>(at + 1)?).unwrap_or_default(),
        e_tag: Some(row.try_get(at + 2)?),
        version: None,
    })
}

/// Attributes as a JSON object, which keeps every character.
pub(super) fn stored(attributes: &Attributes) -> object_store::Result<String> {
    let mut out = BTreeMap::new();
    for (attribute, value) in attributes {
        let name = match attribute {
            Attribute::ContentDisposition => "content-disposition",
            Attribute::ContentEncoding => "content-encoding",
            Attribute::ContentLanguage => "content-language",
            Attribute::ContentType => "content-type",
            Attribute::CacheControl => "cache-control",
            Attribute::StorageClass => "storage-class",
            Attribute::Metadata(name) => {
                out.insert(format!("{METADATA}{name}"), value.as_ref());
                continue;
            }
            other => return Err(unsupported(format!("attribute {other:?} cannot be kept; leave it out"))),
        };
        out.insert(name.to_owned(), value.as_ref());
    }
    serde_json::to_string(&out).map_err(|e| super::error::foreign(Error::internal("encode an object's attributes").with_source(e)))
}

/// The inverse of [`stored`].
pub(super) fn attributes(stored: &str) -> Result<Attributes> {
    let map: BTreeMap<String, String> =
        serde_json::from_str(stored).map_err(|e| Error::corrupt("an object's attributes cannot be read").with_source(e))?;
    let mut out = Attributes::new();
    for (name, value) in map {
        let attribute = match name.as_str() {
            "content-disposition" => Attribute::ContentDisposition,
            "content-encoding" => Attribute::ContentEncoding,
            "content-language" => Attribute::ContentLanguage,
            "content-type" => Attribute::ContentType,
            "cache-control" => Attribute::CacheControl,
            "storage-class" => Attribute::StorageClass,
            other => match other.strip_prefix(METADATA) {
                Some(name) => Attribute::Metadata(name.to_owned().into()),
                None => return Err(Error::corrupt(format!("an object has an attribute `{other}` that is not known"))),
            },
        };
        out.insert(attribute, value.into());
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_come_back() {
        let mut all = Attributes::new();
        for (attribute, value) in [
            (Attribute::ContentDisposition, "inline"),
            (Attribute::ContentEncoding, "gzip"),
            (Attribute::ContentLanguage, "de"),
            (Attribute::ContentType, "text/plain"),
            (Attribute::CacheControl, "no-store"),
            (Attribute::StorageClass, "COLD"),
            (Attribute::Metadata("content-type".into()), "\u{1F30A}\0\""),
        ] {
            all.insert(attribute, value.into());
        }
        assert_eq!(attributes(&stored(&all).unwrap()).unwrap(), all);
        assert!(attributes("{\"nope\":\"\"}").is_err() && attributes("[").is_err());
    }
}
