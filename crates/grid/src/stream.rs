//! Results on their way to a client: one frame for each delivery, in the order of their numbers.
//!
//! A frame is its length (4 bytes, of what follows), its kind (1 byte) and its body; integers are little-endian.
//!
//! | kind | body |
//! | --- | --- |
//! | 1, results | number of the delivery (8), n (4), then columns: task (8 n), status (n), run time in microseconds (4 n), length (4 n); the results' bytes |
//! | 2, end | the number of the last delivery (8), and the session's state as text |
//! | 3, nothing yet | the number of the last delivery (8) |
//!
//! Status 0 is a result in the session's output format; 1 is an error as JSON: `kind`, `message`, `traceback`, and `value`, base64, the error
//! itself in the session's output format, empty if there is none. Whoever asks again for what came after a number it has seen gets the rest.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, Bytes, BytesMut};
use tidemill_base::{Error, Result};
use tidemill_batch::protocol::{TaskError, decode};
use tidemill_batch::service::Delivered;

/// The media type of such a stream.
pub const MEDIA_TYPE: &str = "application/vnd.tidemill.results";

const RESULTS: u8 = 1;
const END: u8 = 2;
const NOTHING: u8 = 3;
const HEAD: usize = 5;

/// The kind of error of a task that was cancelled.
const CANCELLED: &str = "cancelled";

/// A result or an error, by its task.
type Entry = (u64, u8, u32, Bytes);

/// The frame of a delivery.
pub fn results(delivered: &Delivered) -> Result<Bytes> {
    let entries = entries(delivered)?;
    let bytes: usize = entries.iter().map(|(.., b)| b.len()).sum();
    let length = 13 + entries.len() * 17 + bytes;
    let mut out = BytesMut::with_capacity(HEAD + length);
    out.put_u32_le(u32::try_from(length).map_err(|_| Error::internal("a delivery is longer than a frame"))?);
    out.put_u8(RESULTS);
    out.put_u64_le(delivered.n);
    out.put_u32_le(u32::try_from(entries.len()).unwrap_or(u32::MAX));
    entries.iter().for_each(|(task, ..)| out.put_u64_le(*task));
    entries.iter().for_each(|(_, status, ..)| out.put_u8(*status));
    entries.iter().for_each(|(_, _, run_us, _)| out.put_u32_le(*run_us));
    entries.iter().for_each(|(.., b)| out.put_u32_le(u32::try_from(b.len()).unwrap_or(u32::MAX)));
    entries.iter().for_each(|(.., b)| out.put_slice(b));
    Ok(out.freeze())
}

/// The last frame: the session has ended so, and nothing follows delivery `n`.
pub fn end(n: u64, state: &str) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u32_le(9 + u32::try_from(state.len()).unwrap_or(0));
    out.put_u8(END);
    out.put_u64_le(n);
    out.put_slice(state.as_bytes());
    out.freeze()
}

/// A sign of life.
pub fn nothing(n: u64) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u32_le(9);
    out.put_u8(NOTHING);
    out.put_u64_le(n);
    out.freeze()
}

/// What counts of a delivery: successes that were counted, and failures that are final.
fn entries(delivered: &Delivered) -> Result<Vec<Entry>> {
    let mut dead: BTreeMap<u64, TaskError> = BTreeMap::new();
    for d in &delivered.dead {
        let kind = d.class.map_or("dependency", |c| c.as_str()).to_owned();
        dead.insert(d.task, TaskError { kind, message: d.message.clone(), traceback: String::new(), value: Vec::new() });
    }
    let mut out = Vec::new();
    if let Some(page) = &delivered.page {
        let counted = |task: u64| delivered.succeeded.iter().any(|(start, len)| task >= *start && task - start < *len);
        out.reserve(page.len());
        for ((task, bytes), (ok, run_us)) in page.split(&delivered.body)?.into_iter().zip(page.ok.iter().zip(&page.run_us)) {
            let run_us = u32::try_from(*run_us).unwrap_or(u32::MAX);
            if *ok == 1 && counted(task) {
                out.push((task, 0, run_us, bytes));
            } else if *ok == 0 && dead.remove(&task).is_some() {
                out.push((task, 1, run_us, json(&decode("a task's error", &bytes)?)));
            }
        }
    }
    out.extend(dead.into_iter().map(|(task, error)| (task, 1, 0, json(&error))));
    if let Some(cancelled) = &delivered.cancelled {
        let message = cancelled.message.clone();
        let error = json(&TaskError { kind: CANCELLED.to_owned(), message, traceback: String::new(), value: Vec::new() });
        let tasks = cancelled.tasks.iter().flat_map(|(start, len)| *start..*start + *len);
        out.extend(tasks.map(|task| (task, 1, 0, error.clone())));
    }
    Ok(out)
}

fn json(error: &TaskError) -> Bytes {
    let text = serde_json::json!({
        "kind": error.kind, "message": error.message, "traceback": error.traceback, "value": STANDARD.encode(&error.value),
    });
    Bytes::from(text.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_batch::model::FailureClass;
    use tidemill_batch::protocol::{ResultBody, ResultPage, encode};
    use tidemill_batch::service::{Cancelled, DeadResult};

    #[test]
    fn a_frame_holds_what_counted_and_what_failed_for_good() {
        let error = TaskError { kind: "ValueError".into(), message: "bad".into(), traceback: "tb".into(), value: vec![1] };
        let packed = encode(&error).unwrap();
        let body = [b"one".as_slice(), &packed, &packed].concat();
        let page = ResultPage {
            range: 0,
            epoch: 1,
            seq: 1,
            attempt: 1,
            made_by: String::new(),
            tasks: vec![4, 5, 6],
            ok: vec![1, 0, 0],
            run_us: vec![7, 8, 9],
            lens: vec![3, packed.len() as u32, packed.len() as u32],
            body: ResultBody::Inline(body.clone()),
        };
        // Task 6 will be tried again; task 9 has no page.
        let dead = |task, class| DeadResult { task, class, message: "m".into() };
        let dead = vec![dead(5, Some(FailureClass::Error)), dead(9, None)];
        let frame =
            results(&Delivered { n: 3, page: Some(page), body: body.into(), succeeded: vec![(0, 5)], dead, cancelled: None }).unwrap();
        let word = |at: usize| u32::from_le_bytes(frame[at..at + 4].try_into().unwrap());
        assert_eq!((word(0) as usize + 4, frame[4], frame[5], word(13)), (frame.len(), RESULTS, 3, 3));
        let tasks: Vec<u8> = (0..3).map(|i| frame[17 + 8 * i]).collect();
        assert_eq!((tasks, &frame[41..44]), (vec![4, 5, 9], &[0, 1, 1][..]));
        let text = String::from_utf8_lossy(&frame);
        assert!(
            text.contains("ValueError") && text.contains("\"AQ==\"") && text.contains("\"dependency\"") && text.contains("one"),
            "{text}"
        );
    }

    #[test]
    fn each_cancelled_task_is_an_error_that_says_so() {
        let cancelled = Cancelled { tasks: vec![(3, 2), (9, 1)], message: "it was cancelled".into() };
        let nothing = Delivered { n: 4, page: None, body: Bytes::new(), succeeded: vec![], dead: vec![], cancelled: Some(cancelled) };
        let frame = results(&nothing).unwrap();
        assert_eq!(frame[13], 3);
        assert_eq!((0..3).map(|i| frame[17 + 8 * i]).collect::<Vec<_>>(), [3, 4, 9]);
        assert_eq!(&frame[41..44], [1, 1, 1]);
        assert_eq!(String::from_utf8_lossy(&frame).matches("\"kind\":\"cancelled\"").count(), 3);
    }
}
