//! What `tests/fuzz` reaches of this crate.

use tidemill_base::Result;

use crate::TaskOutcome;
use crate::frames::{Frame, FrameParser};
use crate::sse::SseParser;

/// The data of the events in a stream that arrives in these pieces.
pub fn server_sent_events<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<Vec<u8>>> {
    let mut parser = SseParser::default();
    pieces.into_iter().try_for_each(|piece| parser.push(piece))?;
    Ok(std::iter::from_fn(|| parser.pop()).collect())
}

/// The frames in a stream of results that arrives in these pieces: number, outcomes, and the state of one that ends it.
pub fn result_frames<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<(u64, Vec<TaskOutcome>, String)>> {
    let mut parser = FrameParser::default();
    pieces.into_iter().try_for_each(|piece| parser.push(piece))?;
    let parts = |frame| match frame {
        Frame::Results { n, outcomes } => (n, outcomes, String::new()),
        Frame::End { n, state } => (n, Vec::new(), state),
        Frame::Nothing { n } => (n, Vec::new(), String::new()),
    };
    Ok(std::iter::from_fn(|| parser.pop()).map(parts).collect())
}
