//! What an engine writes to its standard error: the end of it for errors, and what is new for the log of tasks.

use std::collections::VecDeque;

/// So much of the end is kept for errors, bytes.
const TAIL: usize = 8 << 10;
/// So much is kept until it is taken; what comes after is dropped and counted, bytes.
const NEW: usize = 64 << 10;

#[derive(Debug, Default)]
pub(crate) struct Log {
    tail: VecDeque<u8>,
    new: Vec<u8>,
    dropped: u64,
}

impl Log {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        let end = &bytes[bytes.len().saturating_sub(TAIL)..];
        let over = (self.tail.len() + end.len()).saturating_sub(TAIL);
        self.tail.drain(..over);
        self.tail.extend(end);
        let room = (NEW - self.new.len()).min(bytes.len());
        self.new.extend_from_slice(&bytes[..room]);
        self.dropped += (bytes.len() - room) as u64;
    }

    /// What was written since this was last asked.
    pub(crate) fn take(&mut self) -> String {
        let mut text = String::from_utf8_lossy(&std::mem::take(&mut self.new)).into_owned();
        let dropped = std::mem::take(&mut self.dropped);
        if dropped > 0 {
            text.push_str(&format!("\n[{dropped} bytes left out]\n"));
        }
        text
    }

    /// The end of all that was written.
    pub(crate) fn tail(&mut self) -> String {
        String::from_utf8_lossy(self.tail.make_contiguous()).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_end_and_counts_what_it_drops() {
        let mut log = Log::default();
        log.push(b"first\n");
        assert_eq!(log.take(), "first\n");
        log.push(&vec![b'x'; NEW]);
        log.push(b"last");
        assert!(log.take().ends_with("x\n[4 bytes left out]\n"));
        assert!(log.take().is_empty());
        let tail = log.tail();
        assert!(tail.len() == TAIL && tail.ends_with("xlast"));
    }
}
