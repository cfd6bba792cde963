//! What an SQS message's body holds: one line that the driver needs, then what was sent.
//!
//! ```text
//! tidemill1 06g2x3m9k1v0f8t 1763741234567 0 batch.done t
//! {"job":"j06g2x..."}
//! ```
//!
//! The words are the format, the message's id, when it was first sent and when it is due (milliseconds since 1970; 0: at once), the
//! queue that it was sent to, and `t` for text or `b` for base64. The id is ours and not SQS's because a message gets a new one of
//! SQS whenever the driver sends it anew: after a long delay, and on its way out of a dead-letter queue. The queue tells where a
//! dead letter died, on any engine. Text goes as it is, since it then reads well in the console and is a third smaller than base64;
//! SQS takes Unicode without most control characters. All in all 350,000 bytes at most, a third of the MiB that SQS takes.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bytes::Bytes;
use tidemill_base::Timestamp;

const FORMAT: &str = "tidemill1";

/// A message as it travels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Envelope {
    pub(super) id: String,
    pub(super) sent_at: Timestamp,
    /// Not to be delivered before.
    pub(super) due: Option<Timestamp>,
    /// The queue that it was sent to.
    pub(super) queue: String,
    pub(super) body: Bytes,
}

impl Envelope {
    /// As SQS's body.
    pub(super) fn seal(&self) -> String {
        let due = self.due.map_or(0, Timestamp::millis);
        let head = format!("{FORMAT} {} {} {due} {}", self.id, self.sent_at.millis(), self.queue);
        match std::str::from_utf8(&self.body) {
            Ok(text) if text.chars().all(is_allowed) => format!("{head} t\n{text}"),
            _ => format!("{head} b\n{}", STANDARD_NO_PAD.encode(&self.body)),
        }
    }

    /// From SQS's body; `None` when it was not sent by this driver.
    pub(super) fn open(sealed: &str) -> Option<Self> {
        let (head, rest) = sealed.split_once('\n')?;
        let mut words = head.split(' ');
        if words.next()? != FORMAT {
            return None;
        }
        let id = words.next()?.to_owned();
        let mut time = || words.next()?.parse().ok().map(Timestamp::from_millis);
        let (sent_at, due) = (time()?, time()?);
        let queue = words.next()?.to_owned();
        let body = match words.next()? {
            "t" => Bytes::copy_from_slice(rest.as_bytes()),
            "b" => STANDARD_NO_PAD.decode(rest).ok()?.into(),
            _ => return None,
        };
        Some(Self { id, sent_at, due: Some(due).filter(|d| *d > Timestamp::ZERO), queue, body })
    }
}

/// Whether SQS takes the character in a body. A carriage return is among them, but XML may turn it into a line feed.
fn is_allowed(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\u{20}'..='\u{D7FF}' | '\u{E000}'..='\u{FFFD}' | '\u{10000}'..='\u{10FFFF}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_blocks::queue::MAX_BODY_BYTES;

    fn envelope(body: &[u8]) -> Envelope {
        Envelope {
            id: "m1".to_owned(),
            sent_at: Timestamp::from_millis(1_763_741_234_567),
            due: None,
            queue: "batch.done".to_owned(),
            body: Bytes::copy_from_slice(body),
        }
    }

    #[test]
    fn bodies_of_all_kinds_come_back() {
        let all: Vec<u8> = (0..=255).collect();
        for body in [&b""[..], b"{\"a\": 1}\n\tb", b"\0\xff", b"a\rb", "\u{FFFE}".as_bytes(), "\u{1F30A}".as_bytes(), &all] {
            let sealed = envelope(body).seal();
            assert!(!sealed.is_empty() && sealed.chars().all(is_allowed), "{sealed:?}");
            assert_eq!(Envelope::open(&sealed), Some(envelope(body)));
        }
        let later = Envelope { due: Some(Timestamp::from_millis(5)), ..envelope(b"x") };
        assert_eq!(Envelope::open(&later.seal()), Some(later));
    }

    #[test]
    fn text_goes_as_it_is() {
        assert!(envelope(b"{\"job\":1}").seal().ends_with(" batch.done t\n{\"job\":1}"));
    }

    #[test]
    fn the_largest_body_fits() {
        assert!(envelope(&vec![0; MAX_BODY_BYTES]).seal().len() <= 350_000);
    }

    #[test]
    fn what_others_sent_is_not_an_envelope() {
        for foreign in
            ["", "hello", "{\"Records\":[]}", "tidemill1 a", "tidemill1 a b c d t\nx", "tidemill1 a 1 0 q z\nx", "tidemill1 a 1 0 q b\n!!"]
        {
            assert_eq!(Envelope::open(foreign), None, "{foreign}");
        }
    }
}
