//! What clients send.

use std::collections::BTreeMap;

use bytes::{Buf, Bytes, BytesMut};

/// Protocol 3.0 in the first message; the low half is the minor version.
const MAJOR: u16 = 3;
const CANCEL: u32 = 80_877_102;
const SSL: u32 = 80_877_103;
const GSS: u32 = 80_877_104;

/// Why bytes are no message. The connection cannot go on after it, since nobody knows where the next message begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

/// The first message of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Opening {
    /// Asks for TLS.
    Ssl,
    /// Asks for encryption by GSSAPI.
    Gss,
    /// Asks that the statement of another connection be ended.
    Cancel { process: u32, secret: u32 },
    /// Begins a session.
    Start { minor: u16, parameters: BTreeMap<String, String> },
}

/// What a Describe or Close speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    Statement,
    Portal,
}

/// A Bind: a prepared statement, values, and the formats wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bind {
    pub(crate) portal: String,
    pub(crate) statement: String,
    /// Formats of the values: none (all text), one for all, or one each.
    pub(crate) formats: Vec<i16>,
    pub(crate) values: Vec<Option<Bytes>>,
    /// Formats of the answer's columns, in the same manner.
    pub(crate) results: Vec<i16>,
}

/// A message after the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Frontend {
    Query(String),
    Parse {
        name: String,
        sql: String,
        types: Vec<u32>,
    },
    Bind(Bind),
    Describe(Target, String),
    Execute {
        portal: String,
        rows: u32,
    },
    Close(Target, String),
    Flush,
    Sync,
    Terminate,
    Password(String),
    /// Data for a COPY FROM, which there is none of here.
    Copy,
    /// A call by the function's number, which drivers gave up decades ago.
    Call,
}

/// Cuts the next message of at most `max` bytes from the front of `buf`; `None` while it is not all there.
pub(crate) fn frame(buf: &mut BytesMut, max: usize) -> Result<Option<(u8, Bytes)>, Malformed> {
    let Some((&tag, rest)) = buf.split_first() else { return Ok(None) };
    let Some(length) = length(rest, max)? else { return Ok(None) };
    if rest.len() < length {
        return Ok(None);
    }
    buf.advance(1 + 4);
    Ok(Some((tag, buf.split_to(length - 4).freeze())))
}

/// Cuts the first message, which has no tag, from the front of `buf`.
pub(crate) fn opening(buf: &mut BytesMut, max: usize) -> Result<Option<Opening>, Malformed> {
    let Some(length) = length(buf, max)? else { return Ok(None) };
    if buf.len() < length {
        return Ok(None);
    }
    buf.advance(4);
    let mut body = Body(buf.split_to(length - 4).freeze());
    let code = body.u32()?;
    let found = match code {
        SSL => Opening::Ssl,
        GSS => Opening::Gss,
        CANCEL => Opening::Cancel { process: body.u32()?, secret: body.u32()? },
        version => {
            let [a, b, c, d] = version.to_be_bytes();
            if u16::from_be_bytes([a, b]) != MAJOR {
                return Err(Malformed("only version 3 of the protocol is spoken here"));
            }
            let mut parameters = BTreeMap::new();
            loop {
                let name = body.text()?;
                if name.is_empty() {
                    break;
                }
                parameters.insert(name, body.text()?);
            }
            Opening::Start { minor: u16::from_be_bytes([c, d]), parameters }
        }
    };
    body.end(found).map(Some)
}

/// The length in the first four bytes, which counts itself.
fn length(bytes: &[u8], max: usize) -> Result<Option<usize>, Malformed> {
    let Some(length) = bytes.first_chunk::<4>() else { return Ok(None) };
    match usize::try_from(u32::from_be_bytes(*length)) {
        Ok(n) if (4..=max).contains(&n) => Ok(Some(n)),
        Ok(n) if n < 4 => Err(Malformed("a message is shorter than its own length")),
        _ => Err(Malformed("a message is longer than is taken here")),
    }
}

/// What a message of this tag says.
pub(crate) fn message(tag: u8, body: Bytes) -> Result<Frontend, Malformed> {
    let mut body = Body(body);
    let found = match tag {
        b'Q' => Frontend::Query(body.text()?),
        b'P' => {
            let (name, sql) = (body.text()?, body.text()?);
            Frontend::Parse { name, sql, types: body.list(Body::u32)? }
        }
        b'B' => {
            let (portal, statement) = (body.text()?, body.text()?);
            let (formats, values, results) = (body.list(Body::i16)?, body.list(Body::value)?, body.list(Body::i16)?);
            Frontend::Bind(Bind { portal, statement, formats, values, results })
        }
        b'D' => Frontend::Describe(body.target()?, body.text()?),
        b'C' => Frontend::Close(body.target()?, body.text()?),
        b'E' => Frontend::Execute { portal: body.text()?, rows: body.u32()? },
        b'H' => Frontend::Flush,
        b'S' => Frontend::Sync,
        b'X' => Frontend::Terminate,
        b'p' => Frontend::Password(body.text()?),
        b'd' | b'c' | b'f' => return Ok(Frontend::Copy),
        b'F' => return Ok(Frontend::Call),
        _ => return Err(Malformed("a message of an unknown kind")),
    };
    body.end(found)
}

/// What is left of a message.
struct Body(Bytes);

impl Body {
    fn take(&mut self, n: usize) -> Result<Bytes, Malformed> {
        if self.0.len() < n { Err(Malformed("a message ends too early")) } else { Ok(self.0.split_to(n)) }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let bytes = self.take(N)?;
        bytes.first_chunk::<N>().copied().ok_or(Malformed("a message ends too early"))
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    fn i16(&mut self) -> Result<i16, Malformed> {
        self.array().map(i16::from_be_bytes)
    }

    /// Text up to the next zero byte.
    fn text(&mut self) -> Result<String, Malformed> {
        let end = self.0.iter().position(|b| *b == 0).ok_or(Malformed("a text without an end"))?;
        let bytes = self.take(end)?;
        self.0.advance(1);
        String::from_utf8(bytes.to_vec()).map_err(|_| Malformed("a text that is not UTF-8"))
    }

    fn target(&mut self) -> Result<Target, Malformed> {
        match self.array()? {
            [b'S'] => Ok(Target::Statement),
            [b'P'] => Ok(Target::Portal),
            _ => Err(Malformed("neither a statement nor a portal")),
        }
    }

    /// A value after its length; the length -1 is null.
    fn value(&mut self) -> Result<Option<Bytes>, Malformed> {
        match i32::from_be_bytes(self.array()?) {
            -1 => Ok(None),
            n => self.take(usize::try_from(n).map_err(|_| Malformed("a value of negative length"))?).map(Some),
        }
    }

    /// A list after its count. Every element takes bytes, so a count that lies ends where the bytes do.
    fn list<T>(&mut self, each: impl Fn(&mut Self) -> Result<T, Malformed>) -> Result<Vec<T>, Malformed> {
        let count = u16::from_be_bytes(self.array()?);
        (0..count).map(|_| each(self)).collect()
    }

    fn end<T>(self, found: T) -> Result<T, Malformed> {
        if self.0.is_empty() { Ok(found) } else { Err(Malformed("a message is longer than what it says")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes(parts: &[&[u8]]) -> Bytes {
        parts.concat().into()
    }

    #[test]
    fn messages_are_what_the_protocol_says() {
        let parse = message(b'P', bytes(&[b"s1\0SELECT $1\0", &[0, 1, 0, 0, 0, 23]]));
        assert_eq!(parse, Ok(Frontend::Parse { name: "s1".into(), sql: "SELECT $1".into(), types: vec![23] }));
        let bind = message(b'B', bytes(&[b"p\0s\0", &[0, 1, 0, 1, 0, 2, 0, 0, 0, 1, 7, 255, 255, 255, 255, 0, 0]]));
        let expected = Bind {
            portal: "p".into(),
            statement: "s".into(),
            formats: vec![1],
            values: vec![Some(Bytes::from_static(&[7])), None],
            results: vec![],
        };
        assert_eq!(bind, Ok(Frontend::Bind(expected)));
        assert_eq!(message(b'E', bytes(&[b"\0", &[0, 0, 0, 5]])), Ok(Frontend::Execute { portal: String::new(), rows: 5 }));
        assert_eq!(message(b'D', bytes(&[b"Sx\0"])), Ok(Frontend::Describe(Target::Statement, "x".into())));
    }

    #[test]
    fn a_message_waits_for_its_end_and_has_a_limit() {
        let mut buf = BytesMut::from(&b"Q\0\0\0\x0dSELECT 1"[..]);
        assert_eq!(frame(&mut buf, 100), Ok(None));
        buf.extend_from_slice(b"\0S\0\0\0\x04");
        assert_eq!(frame(&mut buf, 100), Ok(Some((b'Q', Bytes::from_static(b"SELECT 1\0")))));
        assert_eq!(frame(&mut buf, 100), Ok(Some((b'S', Bytes::new()))));
        assert_eq!(frame(&mut buf, 100), Ok(None));
        assert!(frame(&mut BytesMut::from(&b"Q\x7f\0\0\0"[..]), 100).is_err());
        assert!(frame(&mut BytesMut::from(&b"Q\0\0\0\x03"[..]), 100).is_err());
    }

    #[test]
    fn the_first_message_is_told_by_its_number() {
        let open = |body: &[u8]| {
            let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
            opening(&mut BytesMut::from(&[&length, body].concat()[..]), 10_000)
        };
        assert_eq!(open(&SSL.to_be_bytes()), Ok(Some(Opening::Ssl)));
        assert_eq!(
            open(&[&CANCEL.to_be_bytes()[..], &[0, 0, 0, 7, 0, 0, 0, 9]].concat()),
            Ok(Some(Opening::Cancel { process: 7, secret: 9 }))
        );
        let start = open(&[&[0, 3, 0, 2][..], b"user\0ada\0database\0x\0\0"].concat());
        let parameters = BTreeMap::from([("user".to_owned(), "ada".to_owned()), ("database".to_owned(), "x".to_owned())]);
        assert_eq!(start, Ok(Some(Opening::Start { minor: 2, parameters })));
        assert!(open(&[0, 2, 0, 0]).is_err(), "version 2");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(tag in any::<u8>(), body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = message(tag, body.clone().into());
            let mut buf = BytesMut::from(&body[..]);
            while let Ok(Some(_)) = frame(&mut buf, 100) {}
            let _ = opening(&mut BytesMut::from(&body[..]), 100);
        }

        #[test]
        fn a_bind_comes_back_as_it_was(values in proptest::collection::vec(proptest::option::of(proptest::collection::vec(any::<u8>(), 0..20)), 0..20)) {
            let mut body = b"\0\0\0\0".to_vec();
            body.extend(u16::try_from(values.len()).unwrap().to_be_bytes());
            for value in &values {
                match value {
                    None => body.extend((-1_i32).to_be_bytes()),
                    Some(v) => {
                        body.extend(u32::try_from(v.len()).unwrap().to_be_bytes());
                        body.extend(v);
                    }
                }
            }
            body.extend([0, 0]);
            let Ok(Frontend::Bind(bind)) = message(b'B', body.into()) else { panic!("no bind") };
            let back: Vec<Option<Vec<u8>>> = bind.values.iter().map(|v| v.as_ref().map(|b| b.to_vec())).collect();
            prop_assert_eq!(back, values);
        }
    }
}
