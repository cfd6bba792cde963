//! What `tests/fuzz` reaches of this crate.

use tidemill_base::{Error, Result};

use crate::wire::objects::Frame;

/// The whole frames of a listing that arrives in these pieces.
pub fn frames<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<Frame>> {
    crate::objects::frames(pieces).map_err(|e| Error::invalid("the listing cannot be read").with_source(e))
}
