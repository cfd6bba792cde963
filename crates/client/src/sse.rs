//! Server-sent events: lines with `data:`, ended by an empty one. As much of <https://html.spec.whatwg.org/multipage/server-sent-events.html>
//! as our server uses; other fields and comments are passed over.

use std::collections::VecDeque;

use tidemill_base::{Error, Result};

/// An event larger than this is not one of ours.
const MAX_EVENT_BYTES: usize = 16 << 20;

/// Takes bytes as they come, gives events as they are complete.
#[derive(Debug, Default)]
pub(crate) struct SseParser {
    line: Vec<u8>,
    data: Vec<u8>,
    has_data: bool,
    events: VecDeque<Vec<u8>>,
}

impl SseParser {
    /// Takes some bytes. `Invalid` when an event grows beyond all measure.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<()> {
        for piece in bytes.split_inclusive(|b| *b == b'\n') {
            self.line.extend_from_slice(piece);
            if self.line.len() + self.data.len() > MAX_EVENT_BYTES {
                return Err(Error::invalid(format!("an event is larger than {MAX_EVENT_BYTES} bytes")));
            }
            if piece.ends_with(b"\n") {
                let mut line = std::mem::take(&mut self.line);
                line.pop();
                if line.last() == Some(&b'\r') {
                    line.pop();
                }
                self.take_line(&line);
            }
        }
        Ok(())
    }

    fn take_line(&mut self, line: &[u8]) {
        if line.is_empty() {
            if std::mem::take(&mut self.has_data) {
                self.events.push_back(std::mem::take(&mut self.data));
            }
            return;
        }
        let Some(value) = line.strip_prefix(b"data:") else { return };
        if std::mem::replace(&mut self.has_data, true) {
            self.data.push(b'\n');
        }
        self.data.extend_from_slice(value.strip_prefix(b" ").unwrap_or(value));
    }

    /// The next complete event's data.
    pub(crate) fn pop(&mut self) -> Option<Vec<u8>> {
        self.events.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(chunks: &[&str]) -> Vec<String> {
        let mut parser = SseParser::default();
        chunks.iter().for_each(|c| parser.push(c.as_bytes()).unwrap());
        std::iter::from_fn(|| parser.pop()).map(|e| String::from_utf8(e).unwrap()).collect()
    }

    #[test]
    fn events_come_out_whole_however_they_are_cut() {
        let text = ": hello\n\nevent: job\ndata: {\"a\":1}\n\ndata:two\r\ndata: lines\r\n\r\nid: 7\n\ndata: cut";
        let want = vec!["{\"a\":1}".to_owned(), "two\nlines".to_owned()];
        assert_eq!(events(&[text]), want);
        for at in 1..text.len() {
            assert_eq!(events(&[&text[..at], &text[at..]]), want, "cut at {at}");
        }
    }

    #[test]
    fn an_endless_event_is_refused() {
        let mut parser = SseParser::default();
        let chunk = vec![b'x'; 1 << 20];
        assert!((0..20).any(|_| parser.push(&chunk).is_err()));
    }
}
