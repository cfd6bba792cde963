//! Where an object may be cut: plain code over bytes as they come.

use memchr::{memchr, memchr_iter, memchr2_iter};

/// Finds part ends in a CSV object. It has to see every byte from the beginning, since a newline is a boundary only outside quotes
/// (RFC 4180), and whether one is inside is known only by counting quotes from the start.
#[derive(Debug)]
pub(super) struct CsvScanner {
    target: u64,
    wants_header: bool,
    header: Option<u64>,
    offset: u64,
    part_start: u64,
    quoted_since: Option<u64>,
    /// Whether the part that is open holds anything but line endings.
    content: bool,
    ends: Vec<u64>,
}

/// Where an object is cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cuts {
    /// Bytes of the header.
    pub(super) header: u64,
    /// Where parts end, ascending; the last is the object's end. Empty when there is no record.
    pub(super) ends: Vec<u64>,
}

impl CsvScanner {
    pub(super) const fn new(target: u64, header: bool) -> Self {
        Self { target, wants_header: header, header: None, offset: 0, part_start: 0, quoted_since: None, content: false, ends: Vec::new() }
    }

    /// Takes the next bytes.
    pub(super) fn feed(&mut self, chunk: &[u8]) {
        let mut seen = 0;
        for at in memchr2_iter(b'"', b'\n', chunk) {
            self.content |= has_content(&chunk[seen..=at]);
            seen = at + 1;
            let place = self.offset + at as u64;
            if chunk[at] == b'"' {
                self.quoted_since = if self.quoted_since.is_some() { None } else { Some(place) };
            } else if self.quoted_since.is_none() {
                self.boundary(place + 1);
            }
        }
        self.content |= has_content(&chunk[seen..]);
        self.offset += chunk.len() as u64;
    }

    fn boundary(&mut self, end: u64) {
        if !self.content {
            return;
        }
        if self.wants_header && self.header.is_none() {
            self.header = Some(end);
            (self.part_start, self.content) = (end, false);
        } else if end - self.part_start >= self.target {
            self.ends.push(end);
            (self.part_start, self.content) = (end, false);
        }
    }

    /// After the last byte: the cuts, or the offset of the quote that was never closed.
    pub(super) fn finish(mut self) -> Result<Cuts, u64> {
        if let Some(at) = self.quoted_since {
            return Err(at);
        }
        let header = if self.wants_header { self.header.unwrap_or(self.offset) } else { 0 };
        let body_open = !self.wants_header || self.header.is_some();
        if self.content && body_open {
            self.ends.push(self.offset);
        } else if let Some(last) = self.ends.last_mut() {
            // Empty lines at the end belong to the part before them.
            *last = self.offset;
        }
        Ok(Cuts { header, ends: self.ends })
    }
}

fn has_content(bytes: &[u8]) -> bool {
    bytes.iter().any(|b| *b != b'\n' && *b != b'\r')
}

/// Where the first line ends within these bytes.
pub(super) fn line_end(bytes: &[u8]) -> Option<u64> {
    memchr(b'\n', bytes).map(|at| at as u64 + 1)
}

/// The header of a text object within its first bytes: everything up to the end of the first line that is not empty.
pub(super) fn header_end(bytes: &[u8]) -> Option<u64> {
    let mut start = 0;
    for at in memchr_iter(b'\n', bytes) {
        if has_content(&bytes[start..at]) {
            return Some(at as u64 + 1);
        }
        start = at + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cuts(text: &str, target: u64, header: bool) -> Result<Cuts, u64> {
        let mut scanner = CsvScanner::new(target, header);
        scanner.feed(text.as_bytes());
        let whole = scanner.finish();
        for at in 0..=text.len() {
            let mut halves = CsvScanner::new(target, header);
            halves.feed(&text.as_bytes()[..at]);
            halves.feed(&text.as_bytes()[at..]);
            assert_eq!(halves.finish(), whole, "{text:?} split at {at}");
        }
        whole
    }

    #[test]
    fn cuts_after_newlines_outside_quotes() {
        for (text, target, header, want_header, ends) in [
            ("a\nb\nc\n", 1, false, 0, &[2, 4, 6][..]),
            ("a\nb\nc", 3, false, 0, &[4, 5]),
            ("\"a\nb\"\nc\n", 1, false, 0, &[6, 8]),
            ("\"a\"\"\n\"\"b\"\nc\n", 1, false, 0, &[10, 12]),
            ("h\r\na\r\nb\r\n", 1, true, 3, &[6, 9]),
            ("\"h\nh\"\na\n", 1, true, 6, &[8]),
            ("\n\nh\n\n\na\n\n", 1, true, 4, &[9]),
            ("h\n", 1, true, 2, &[]),
            ("h", 1, true, 1, &[]),
            ("h\n\n\r\n", 1, true, 2, &[]),
            ("\n\n", 1, false, 0, &[]),
            ("", 1, false, 0, &[]),
            ("a\nb\n", 100, false, 0, &[4]),
        ] {
            assert_eq!(cuts(text, target, header), Ok(Cuts { header: want_header, ends: ends.to_vec() }), "{text:?} by {target}");
        }
        assert_eq!(cuts("a,\"b\nc\n", 1, false), Err(2));
    }

    #[test]
    fn the_header_is_the_first_line_that_is_not_empty() {
        assert_eq!((header_end(b"h\nx"), header_end(b"\r\n\nh\nx"), header_end(b"h"), line_end(b"ab")), (Some(2), Some(5), None, None));
    }
}
