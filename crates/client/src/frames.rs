//! Results of a session as they come over the wire: frames of a length (4 bytes; of what follows), a kind (1 byte) and a body, integers
//! little-endian. The server's documentation has the layouts in its reference (`grid-streams.md`).

use std::collections::VecDeque;

use bytes::{Buf as _, Bytes, BytesMut};
use tidemill_base::{Error, Result};

/// A frame larger than this is not one of ours.
const MAX_FRAME_BYTES: usize = 1 << 30;
/// The length, which is that of all that follows.
const LENGTH: usize = 4;
/// The kind, with which it begins.
const KIND: usize = 1;
/// Number of the delivery and how many results it has.
const RESULTS_HEAD: usize = 12;
/// What a result has in the columns: task, status, run time, length.
const ROW: usize = 8 + 1 + 4 + 4;

/// The outcome of one task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskOutcome {
    /// The task.
    pub task: u64,
    /// Time in its function, microseconds; 0 for what did not run.
    pub run_us: u32,
    /// Whether `bytes` is its result; otherwise it is an error as JSON with `kind`, `message` and `traceback`.
    pub ok: bool,
    /// The result in the session's output format, or the error.
    pub bytes: Bytes,
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Frame {
    /// The results of one delivery.
    Results {
        /// Its number: what to go on after.
        n: u64,
        /// What it brings.
        outcomes: Vec<TaskOutcome>,
    },
    /// The session has ended, and nothing follows.
    End {
        /// The number of the last delivery.
        n: u64,
        /// The state that it ended in.
        state: String,
    },
    /// A sign of life.
    Nothing {
        /// The number of the last delivery.
        n: u64,
    },
}

/// Takes bytes as they come, gives frames as they are complete.
#[derive(Debug, Default)]
pub(crate) struct FrameParser {
    buffer: BytesMut,
    frames: VecDeque<Frame>,
}

impl FrameParser {
    /// Takes some bytes. `Invalid` says what cannot be read; nothing that comes after it can be trusted.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<()> {
        self.buffer.extend_from_slice(bytes);
        while self.buffer.len() >= LENGTH {
            let length = (&self.buffer[..LENGTH]).get_u32_le() as usize;
            if !(KIND..=MAX_FRAME_BYTES).contains(&length) {
                return Err(bad(&format!("a frame has {length} bytes; it can have {KIND} to {MAX_FRAME_BYTES}")));
            }
            if self.buffer.len() < LENGTH + length {
                break;
            }
            let mut frame = self.buffer.split_to(LENGTH + length).freeze();
            let kind = frame[LENGTH];
            frame.advance(LENGTH + KIND);
            self.frames.push_back(decode(kind, frame)?);
        }
        Ok(())
    }

    /// The next complete frame.
    pub(crate) fn pop(&mut self) -> Option<Frame> {
        self.frames.pop_front()
    }
}

fn bad(what: &str) -> Error {
    Error::internal(format!("the stream of results cannot be read: {what}"))
}

fn decode(kind: u8, mut body: Bytes) -> Result<Frame> {
    if body.len() < 8 {
        return Err(bad(&format!("a frame of kind {kind} has {} bytes", body.len())));
    }
    match kind {
        1 => results(body),
        2 => {
            let n = body.get_u64_le();
            let state = String::from_utf8(body.to_vec()).map_err(|_| bad("the state is no text"))?;
            Ok(Frame::End { n, state })
        }
        3 if body.len() == 8 => Ok(Frame::Nothing { n: body.get_u64_le() }),
        _ => Err(bad(&format!("it has a frame of kind {kind} with {} bytes; is the server newer than this program?", body.len()))),
    }
}

fn results(mut body: Bytes) -> Result<Frame> {
    if body.len() < RESULTS_HEAD {
        return Err(bad("a delivery ends within its head"));
    }
    let (n, count) = (body.get_u64_le(), body.get_u32_le() as usize);
    if body.len() / ROW < count {
        return Err(bad(&format!("delivery {n} claims {count} results and has {} bytes", body.len())));
    }
    let (mut tasks, mut statuses) = (body.split_to(8 * count), body.split_to(count));
    let (mut times, mut lengths) = (body.split_to(4 * count), body.split_to(4 * count));
    let mut outcomes = Vec::with_capacity(count);
    for _ in 0..count {
        let (task, status, run_us, length) = (tasks.get_u64_le(), statuses.get_u8(), times.get_u32_le(), lengths.get_u32_le() as usize);
        if length > body.len() || status > 1 {
            return Err(bad(&format!("task {task} of delivery {n} has status {status} and {length} of {} bytes", body.len())));
        }
        outcomes.push(TaskOutcome { task, run_us, ok: status == 0, bytes: body.split_to(length) });
    }
    if !body.is_empty() {
        return Err(bad(&format!("delivery {n} has {} bytes too many", body.len())));
    }
    Ok(Frame::Results { n, outcomes })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
        [&u32::try_from(KIND + body.len()).unwrap().to_le_bytes()[..], &[kind], body].concat()
    }

    pub(crate) fn delivery(n: u64, outcomes: &[(u64, bool, &[u8])]) -> Vec<u8> {
        let mut body = n.to_le_bytes().to_vec();
        body.extend(u32::try_from(outcomes.len()).unwrap().to_le_bytes());
        outcomes.iter().for_each(|o| body.extend(o.0.to_le_bytes()));
        outcomes.iter().for_each(|o| body.push(u8::from(!o.1)));
        outcomes.iter().for_each(|_| body.extend(7_u32.to_le_bytes()));
        outcomes.iter().for_each(|o| body.extend(u32::try_from(o.2.len()).unwrap().to_le_bytes()));
        outcomes.iter().for_each(|o| body.extend(o.2));
        frame(1, &body)
    }

    pub(crate) fn end(n: u64, state: &str) -> Vec<u8> {
        frame(2, &[&n.to_le_bytes()[..], state.as_bytes()].concat())
    }

    fn read(pieces: &[&[u8]]) -> Result<Vec<Frame>> {
        let mut parser = FrameParser::default();
        pieces.iter().try_for_each(|p| parser.push(p))?;
        Ok(std::iter::from_fn(|| parser.pop()).collect())
    }

    #[test]
    fn frames_come_out_whole_however_they_are_cut() {
        let bytes =
            [delivery(3, &[(4, true, b"one"), (9, false, b"{}"), (5, true, b"")]), frame(3, &3_u64.to_le_bytes()), end(3, "failed")]
                .concat();
        let outcome = |task, ok, bytes: &'static [u8]| TaskOutcome { task, run_us: 7, ok, bytes: Bytes::from_static(bytes) };
        let want = vec![
            Frame::Results { n: 3, outcomes: vec![outcome(4, true, b"one"), outcome(9, false, b"{}"), outcome(5, true, b"")] },
            Frame::Nothing { n: 3 },
            Frame::End { n: 3, state: "failed".into() },
        ];
        assert_eq!(read(&[&bytes]).unwrap(), want);
        for at in 1..bytes.len() {
            assert_eq!(read(&[&bytes[..at], &bytes[at..]]).unwrap(), want, "cut at {at}");
            assert!(read(&[&bytes[..at]]).unwrap().len() < 3);
        }
    }

    #[test]
    fn damage_is_named() {
        let good = delivery(3, &[(4, true, b"one")]);
        for (at, byte, want) in
            [(4, 9, "kind 9"), (13, 2, "claims 2 results"), (25, 7, "status 7"), (30, 9, "9 of 3 bytes"), (30, 1, "2 bytes too many")]
        {
            let mut bytes = good.clone();
            bytes[at] = byte;
            let error = read(&[&bytes]).unwrap_err();
            assert!(error.message().contains(want), "{error}");
        }
        for length in [0_u32, u32::MAX] {
            assert!(read(&[&length.to_le_bytes()]).unwrap_err().message().contains(&format!("a frame has {length} bytes")));
        }
        assert!(read(&[&frame(1, b"12345678")]).is_err() && read(&[&frame(2, b"")]).is_err());
    }
}
