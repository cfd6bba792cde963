//! Ranges and conditions of a read, against plain readings of the same headers.

use hyper::StatusCode;
use tidemill_fuzz::{Settings, fuzz, shape};

use super::client::{Call, Mill};
use crate::text;

const OBJECT: &[u8] = b"0123456789";

fn get(mill: &Mill, headers: &[(&str, &str)]) -> Option<super::client::Answer> {
    let headers = headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    let mut call = Call { method: "GET".into(), target: "/photos/in/a.txt".into(), headers, body: Vec::new() };
    mill.sign(&mut call);
    mill.send(&call)
}

#[test]
fn s3_range() {
    let tokens = &["bytes=", "-", ",", "0-", "-0", "9", "10", "18446744073709551615", "9223372036854775807", " ", "+1"];
    let settings = Settings { runs: 3_000, max_len: 100, tokens, memory: 48 << 20, ..Settings::default() };
    let mill = Mill::new();
    fuzz("s3_range", settings, move |input| {
        let value = text(input);
        let Some(answer) = get(&mill, &[("range", value.trim())]) else { return shape("no header") };
        let asked = range_of(value.trim());
        match answer.status {
            StatusCode::OK => assert!(answer.body == OBJECT && asked.is_none(), "{value:?}: the whole object"),
            StatusCode::PARTIAL_CONTENT => {
                let (from, until) = asked.unwrap_or_else(|| panic!("{value:?} is no range"));
                assert_eq!(answer.body, OBJECT[from..until], "{value:?}");
                let said = answer.headers["content-range"].to_str().unwrap();
                assert_eq!(said, format!("bytes {from}-{}/10", until - 1));
            }
            // Numbers that do not fit 63 bits may be refused, though they could be read as the object's end.
            _ => assert!(answer.status.is_client_error() && (asked.is_none() || has_huge(&value)), "{value:?}: {}", answer.status),
        }
        shape(answer.status.as_u16() / 10 == 20)
    });
}

fn has_huge(value: &str) -> bool {
    value.split(|c: char| !c.is_ascii_digit()).any(|number| number.parse::<u64>().is_ok_and(|n| i64::try_from(n).is_err()))
}

/// The bytes that `bytes=FIRST-LAST`, `bytes=FIRST-` and `bytes=-LENGTH` ask for; `None` for none, or for what is not one of these.
fn range_of(value: &str) -> Option<(usize, usize)> {
    let (first, last) = value.strip_prefix("bytes=")?.split_once('-')?;
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| text.parse::<u64>().ok()).flatten().map(|n| usize::try_from(n).unwrap())
    };
    let size = OBJECT.len();
    match (first, last) {
        ("", length) => number(length).filter(|n| *n > 0).map(|n| (size.saturating_sub(n), size)),
        (first, "") => number(first).filter(|n| *n < size).map(|n| (n, size)),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            (first <= last && first < size).then(|| (first, size.min(last.saturating_add(1))))
        }
    }
}

/// A line a header.
#[test]
fn s3_conditions() {
    let tokens = &[
        "if-match: ",
        "if-none-match: ",
        "\"TAG\"",
        "TAG",
        "W/",
        "*",
        "if-modified-since: ",
        "if-unmodified-since: ",
        "Thu, 01 Jan 1970 00:00:00 GMT",
        "Fri, 31 Dec 2100 00:00:00 GMT",
        "\n",
    ];
    let settings = Settings { runs: 3_000, max_len: 300, tokens, memory: 48 << 20, ..Settings::default() };
    let mill = Mill::new();
    let tag = get(&mill, &[]).unwrap().headers["etag"].to_str().unwrap().trim_matches('"').to_owned();
    fuzz("s3_conditions", settings, move |input| {
        let lines = text(input).replace("TAG", &tag);
        let known = ["if-match", "if-none-match", "if-modified-since", "if-unmodified-since"];
        let headers: Vec<_> =
            lines.lines().filter_map(|l| l.split_once(':')).map(|(n, v)| (n.trim(), v.trim())).filter(|(n, _)| known.contains(n)).collect();
        // What is signed of other characters is a matter of taste among implementations.
        if headers.iter().any(|(_, v)| !v.bytes().all(|b| b == b' ' || b.is_ascii_graphic())) {
            return shape("no text");
        }
        let Some(answer) = get(&mill, &headers) else { return shape("no header") };
        let plain = |value: &str| value == "*" || value == format!("\"{tag}\"");
        let of = |name: &str| headers.iter().filter(|(n, _)| *n == name).map(|(_, v)| *v).collect::<Vec<_>>();
        match answer.status {
            StatusCode::OK => {
                assert_eq!(answer.body, OBJECT);
                assert!(of("if-none-match").first().is_none_or(|v| !plain(v)), "{headers:?}");
            }
            StatusCode::NOT_MODIFIED | StatusCode::PRECONDITION_FAILED => {
                assert!(!headers.is_empty() && !answer.body.starts_with(OBJECT), "{headers:?}");
                let only_true_match = headers.iter().all(|(n, v)| *n == "if-match" && plain(v));
                assert!(!only_true_match, "{headers:?}");
            }
            other => assert_eq!(other, StatusCode::BAD_REQUEST, "{headers:?}"),
        }
        shape(answer.status.as_u16() % 100 == 0)
    });
}
