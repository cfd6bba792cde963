//! Requests of every kind, rightly signed by somebody who reaches one prefix.

use hyper::StatusCode;
use tidemill_fuzz::{Settings, fuzz, shape};

use super::client::{CANARY, Call, Mill, NOBODYS};

const TOKENS: &[&str] = &[
    "GET ",
    "PUT ",
    "POST ",
    "DELETE ",
    "HEAD ",
    "/photos/in/",
    "/photos/in",
    "/photos/",
    "/secret/c.txt",
    "/system/grants.key",
    "%2e%2e/",
    "../",
    "%2F",
    "%00",
    "%",
    "?list-type=2",
    "?delete",
    "?uploads",
    "?uploadId=UPLOAD",
    "&partNumber=1",
    "&prefix=in/",
    "&delimiter=/",
    "&max-keys=0",
    "&continuation-token=",
    "&versionId=null",
    "\nrange: bytes=0-4",
    "\nx-amz-copy-source: /photos/other/b.txt",
    "\nx-amz-copy-source: /photos/in/a.txt",
    "\nx-amz-copy-source-range: bytes=0-3",
    "\nif-match: ",
    "\nif-none-match: *",
    "\ncontent-md5: ",
    "\nx-amz-checksum-crc32: ",
    "\nx-amz-meta-a: ",
    "\nx-amz-metadata-directive: REPLACE",
    "\nx-amz-content-sha256: UNSIGNED-PAYLOAD",
    "\nx-amz-content-sha256: STREAMING-UNSIGNED-PAYLOAD-TRAILER",
    "\nx-amz-decoded-content-length: 5",
    "\nx-amz-trailer: x-amz-checksum-crc32",
    "<Delete><Object><Key>in/a.txt</Key></Object></Delete>",
    "<Key>../c.txt</Key>",
    "<Part><PartNumber>1</PartNumber><ETag>TAG</ETag></Part>",
    "<!DOCTYPE x [<!ENTITY e \"x\">]>",
    "&e;",
];

/// `UPLOAD` and `TAG` in the input stand for an upload that is there and for its first part.
#[test]
fn s3_request() {
    let settings = Settings { runs: 1_200, tokens: TOKENS, memory: 48 << 20, memory_per_byte: 4096, ..Settings::default() };
    fuzz("s3_request", settings, |input| {
        let mill = Mill::new();
        let before = mill.beyond_reach();
        let names = |needle: &str| input.windows(needle.len()).any(|w| w == needle.as_bytes());
        let mut text = input.to_vec();
        if names("UPLOAD") {
            let (id, tag) = upload(&mill);
            text = replaced(&replaced(&text, b"UPLOAD", id.as_bytes()), b"TAG", tag.as_bytes());
        }
        let Some(mut call) = Call::parse(&text) else { return shape("no request") };
        mill.sign(&mut call);
        let Some(answer) = mill.send(&call) else { return shape("no request") };
        let body = String::from_utf8_lossy(&answer.body);
        assert_ne!(answer.status, StatusCode::INTERNAL_SERVER_ERROR, "{body}");
        assert_ne!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{body}");
        assert!(!body.contains(CANARY), "what the credential does not reach is in the answer: {body}");
        assert!(!body.contains(NOBODYS) || names(NOBODYS), "a name that the credential does not reach is in the answer: {body}");
        assert_eq!(mill.beyond_reach(), before, "what the credential does not reach was changed");
        stored_as_sent(&mill, &call, answer.status);
        let code = body.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>")).map_or("", |(code, _)| code);
        shape(format_args!("{} {} {code}", call.method, status_word(answer.status)))
    });
}

fn status_word(status: StatusCode) -> String {
    status.as_str().chars().map(|c| char::from(c as u8 - b'0' + b'a')).collect()
}

/// A plain put that was answered with success has stored just the body.
fn stored_as_sent(mill: &Mill, call: &Call, status: StatusCode) {
    let chunked = call.headers.iter().any(|(n, v)| n.eq_ignore_ascii_case("x-amz-content-sha256") && v.starts_with("STREAMING"));
    let copied = call.headers.iter().any(|(n, _)| n.to_ascii_lowercase().starts_with("x-amz-copy-source"));
    if call.method != "PUT" || !status.is_success() || call.target.contains('?') || chunked || copied {
        return;
    }
    let path = String::from_utf8(super::client::decode(&call.target)).unwrap();
    assert_eq!(mill.get(path.trim_start_matches('/')).as_deref(), Some(call.body.as_slice()), "{path}");
}

/// An upload of `photos/in/u` with one part: its id, and the part's tag.
fn upload(mill: &Mill) -> (String, String) {
    let send = |text: &str| {
        let mut call = Call::parse(text.as_bytes()).unwrap();
        mill.sign(&mut call);
        mill.send(&call).unwrap()
    };
    let begun = send("POST /photos/in/u?uploads\n\n");
    let body = String::from_utf8_lossy(&begun.body).into_owned();
    let id = body.split_once("<UploadId>").unwrap().1.split_once("</UploadId>").unwrap().0.to_owned();
    let part = send(&format!("PUT /photos/in/u?partNumber=1&uploadId={id}\n\nthe only part"));
    (id, part.headers["etag"].to_str().unwrap().to_owned())
}

fn replaced(text: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let (mut out, mut rest) = (Vec::with_capacity(text.len()), text);
    while let Some(at) = rest.windows(from.len()).position(|w| w == from) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(to);
        rest = &rest[at + from.len()..];
    }
    out.extend_from_slice(rest);
    out
}

/// Bodies in chunks without signatures. The first byte says which length is announced: the right one, or one that is a little off.
#[test]
fn s3_chunks() {
    let tokens = &[
        "\r\n",
        "0\r\n",
        "5\r\nhello\r\n",
        "x-amz-checksum-crc32:",
        "x-amz-checksum-crc32:AAAAAA==",
        "x-amz-checksum-crc32:NhCmhg==",
        ";chunk-signature=",
        "ffffffffffffffff",
        "-1",
        "+5",
        "00005",
    ];
    let settings = Settings { runs: 3_000, tokens, memory: 48 << 20, memory_per_byte: 4096, ..Settings::default() };
    let mill = Mill::new();
    fuzz("s3_chunks", settings, move |input| {
        let [off, body @ ..] = input else { return shape("short") };
        let plain = unchunked(body);
        let len = plain.as_ref().map_or(5, Vec::len);
        let announced = if *off < 200 { len } else { len + usize::from(off % 3) };
        let mut call = Call { method: "PUT".into(), target: "/photos/in/chunks".into(), headers: Vec::new(), body: body.to_vec() };
        for (name, value) in [
            ("x-amz-content-sha256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER"),
            ("content-encoding", "aws-chunked"),
            ("x-amz-trailer", "x-amz-checksum-crc32"),
            ("x-amz-decoded-content-length", &announced.to_string()),
            ("content-length", &body.len().to_string()),
        ] {
            call.headers.push((name.to_owned(), value.to_owned()));
        }
        mill.put("photos/in/chunks", b"before");
        mill.sign(&mut call);
        let answer = mill.send(&call).unwrap();
        assert!(answer.status.is_success() || body != GOOD_CHUNKS || announced != len, "what is right is refused: {answer:?}");
        assert_ne!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
        let stored = mill.get("photos/in/chunks").unwrap();
        if answer.status.is_success() {
            assert_eq!(Some(stored.as_ref()), plain.as_deref(), "what is stored is not what the chunks hold");
            assert_eq!(announced, len);
        } else {
            assert_eq!(stored, "before", "a refused put has changed the object");
        }
        shape(format_args!("{} {}", status_word(answer.status), plain.is_some()))
    });
}

/// Two chunks, the empty one at the end, and the sum over both.
const GOOD_CHUNKS: &[u8] = b"3\r\nhel\r\n2\r\nlo\r\n0\r\nx-amz-checksum-crc32:NhCmhg==\r\n\r\n";

/// The contents of chunks, read as AWS describes them: length in hexadecimal, an extension that may be there, the bytes, a line's end.
fn unchunked(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    loop {
        let at = rest.windows(2).position(|w| w == b"\r\n")?;
        // What stands between the digits and the line's end is passed over by the endpoint, as an extension would be.
        let digits = rest[..at].iter().take(8).take_while(|b| b.is_ascii_hexdigit()).count();
        let len = usize::from_str_radix(std::str::from_utf8(&rest[..digits]).ok()?, 16).ok()?;
        rest = &rest[at + 2..];
        if len == 0 {
            return Some(out);
        }
        out.extend_from_slice(rest.get(..len)?);
        rest = rest[len..].strip_prefix(b"\r\n")?;
    }
}
