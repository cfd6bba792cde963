//! What `tests/fuzz` reaches of this crate.

use tidemill_base::Result;

use crate::sse::SseParser;

/// The data of the events in a stream that arrives in these pieces.
pub fn server_sent_events<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<Vec<u8>>> {
    let mut parser = SseParser::default();
    pieces.into_iter().try_for_each(|piece| parser.push(piece))?;
    Ok(std::iter::from_fn(|| parser.pop()).collect())
}
