//! Requests that were changed after they were signed.

use hyper::StatusCode;
use tidemill_fuzz::{Settings, fuzz, shape};

use super::client::{Call, Mill, decode, one_space, query_pairs};

/// Changes to a text: the first byte is its kind, then a place of two bytes and a byte to put there each.
fn edited(text: &[u8], edits: &[u8]) -> Vec<u8> {
    let mut out = text.to_vec();
    for edit in edits.chunks_exact(4).take(6) {
        let at = usize::from(u16::from_be_bytes([edit[1], edit[2]])) % out.len().max(1);
        match edit[0] % 4 {
            0 => out.insert(at, edit[3]),
            1 => drop(out.remove(at)),
            2 => out[at] = edit[3],
            // A letter in the other case, or a digit's neighbour: changes that a careless comparison misses.
            _ => out[at] ^= if out[at].is_ascii_alphabetic() { 0x20 } else { 1 },
        }
        if out.is_empty() {
            break;
        }
    }
    out
}

fn examples() -> Vec<Vec<u8>> {
    (0..12_u8).map(|n| vec![n, n % 4, n / 4, n.wrapping_mul(37), b'x', 3, 0, n]).collect()
}

/// What a request asks for, all that its signature stands for.
#[derive(Debug, PartialEq, Eq)]
struct Meaning {
    method: String,
    path: Vec<u8>,
    query: Vec<(Vec<u8>, Vec<u8>)>,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Meaning {
    fn of(call: &Call, presigned: bool) -> Self {
        let (path, query) = call.target.split_once('?').unwrap_or((&call.target, ""));
        let mut headers: Vec<_> = call.headers.iter().map(|(n, v)| (n.to_ascii_lowercase(), one_space(v))).collect();
        // Of a link only the host is signed.
        headers.retain(|(name, _)| if presigned { name == "host" } else { name != "authorization" });
        headers.sort();
        Self {
            method: call.method.clone(),
            path: decode(path),
            query: query_pairs(query),
            headers,
            body: if presigned { Vec::new() } else { call.body.clone() },
        }
    }
}

#[test]
fn s3_forged() {
    let settings = Settings { runs: 3_000, max_len: 64, examples: examples(), memory: 48 << 20, ..Settings::default() };
    let mill = Mill::new();
    fuzz("s3_forged", settings, move |input| {
        let [kind, edits @ ..] = input else { return shape("short") };
        let presigned = kind % 2 == 1;
        let (method, body) = if kind % 4 < 2 { ("GET", "") } else { ("PUT", "new content") };
        let mut call = Call { method: method.into(), target: "/photos/in/a.txt".into(), headers: Vec::new(), body: body.into() };
        match presigned {
            true => mill.presign(&mut call, 600),
            false => mill.sign(&mut call),
        }
        let Some(changed) = Call::parse(&edited(&call.written(), edits)) else { return shape("no request") };
        let Some(answer) = mill.send(&changed) else { return shape("no request") };
        assert_ne!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(answer.status.is_success() || edits.len() >= 4, "what was not changed is refused: {answer:?}");
        if answer.status.is_success() {
            assert_eq!(Meaning::of(&changed, presigned), Meaning::of(&call, presigned), "a forged request was accepted");
        }
        shape(format_args!("{presigned} {method} {}", answer.status.is_success()))
    });
}

/// A body in signed chunks that was changed on its way is refused, or is still the same body.
#[test]
fn s3_forged_chunks() {
    let settings = Settings { runs: 3_000, max_len: 64, examples: examples(), memory: 48 << 20, ..Settings::default() };
    let mill = Mill::new();
    fuzz("s3_forged_chunks", settings, move |input| {
        let [_, edits @ ..] = input else { return shape("short") };
        let chunks: [&[u8]; 2] = [b"the first chunk of two, ", b"and the second"];
        let content = chunks.concat();
        let mut call = Call { method: "PUT".into(), target: "/photos/in/chunks".into(), headers: Vec::new(), body: Vec::new() };
        call.headers.push(("x-amz-content-sha256".into(), "STREAMING-AWS4-HMAC-SHA256-PAYLOAD".into()));
        call.headers.push(("x-amz-decoded-content-length".into(), content.len().to_string()));
        mill.sign(&mut call);
        call.body = edited(&mill.chunked(&call, &chunks), edits);
        mill.put("photos/in/chunks", b"before");
        let answer = mill.send(&call).unwrap();
        assert_ne!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
        let stored = mill.get("photos/in/chunks").unwrap();
        let expected = if answer.status.is_success() { content.as_slice() } else { b"before" };
        assert_eq!(stored, expected, "status {}", answer.status);
        assert!(answer.status.is_success() || !edits.is_empty());
        shape(answer.status.is_success())
    });
}
