//! What `tests/fuzz` reaches of this block: records as they may lie in a store that something else has written to.

use object_store::path::Path;
use object_store::{Attributes, ObjectMeta};
use tidemill_base::Result;

use super::record::{Blob, Record, UploadRecord, decode, encode};

/// Reads an object's record: what it says of the object, and the record written anew.
pub fn object(stored: &[u8]) -> Result<(ObjectMeta, Attributes, Vec<u8>)> {
    let record: Record = decode(stored, || "an object".to_owned())?;
    Ok((record.meta(Path::from("b/k")), record.attributes.to_attributes(), encode(&record)?.to_vec()))
}

/// Reads an upload's record and writes it anew.
pub fn upload(stored: &[u8]) -> Result<Vec<u8>> {
    decode::<UploadRecord>(stored, || "an upload".to_owned()).and_then(|record| Ok(encode(&record)?.to_vec()))
}

/// Reads a part's record and writes it anew.
pub fn part(stored: &[u8]) -> Result<Vec<u8>> {
    decode::<Blob>(stored, || "a part".to_owned()).and_then(|record| Ok(encode(&record)?.to_vec()))
}
