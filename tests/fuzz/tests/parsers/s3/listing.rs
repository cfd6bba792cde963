//! Names and pages of listings.

use std::collections::BTreeSet;

use tidemill_fuzz::{Settings, fuzz, shape};
use tidemill_server::s3::fuzz as s3;

use crate::text;

#[test]
fn s3_names() {
    let tokens = &["%2F", "%", "//", "../", "/", "%00", "+", "\u{7f}", "system"];
    fuzz("s3_names", Settings { runs: 40_000, tokens, ..Settings::default() }, |input| {
        let key = text(input);
        assert_eq!(s3::url_decode(&s3::url_encode(&key)).as_deref(), Some(&*key));
        let path = s3::object_path("photos", &key);
        if let Some(path) = &path {
            assert_eq!(*path, format!("photos/{key}"), "the path is another key's");
            assert!(path.split('/').all(|segment| !["", ".", ".."].contains(&segment)));
        }
        assert_eq!(s3::object_path("system", &key), None);
        let decoded = s3::url_decode(&key);
        if let Some(decoded) = &decoded {
            assert_eq!(s3::url_decode(&s3::url_encode(decoded)).as_ref(), Some(decoded));
        }
        shape(format_args!("{} {}", path.is_some(), decoded.is_some()))
    });
}

/// Lines: prefix, delimiter, size of pages; then the keys.
#[test]
fn s3_listing() {
    let tokens = &["/", "\n", "a/", "b", "//", "\u{10ffff}"];
    let settings = Settings { runs: 15_000, max_len: 600, tokens, ..Settings::default() };
    fuzz("s3_listing", settings, |input| {
        let text = text(input);
        let mut lines = text.split('\n');
        let mut next = || lines.next().unwrap_or_default();
        let (prefix, delimiter, max) = (next(), Some(next()).filter(|d| !d.is_empty()), next().parse().unwrap_or(1).clamp(1, 7));
        let keys: Vec<String> = lines.map(str::to_owned).collect::<BTreeSet<_>>().into_iter().collect();
        // Every key, or the group it falls into, once and in order.
        let mut expected: Vec<&str> = Vec::new();
        for key in keys.iter().filter(|key| key.starts_with(prefix)) {
            let rest = &key[prefix.len()..];
            let group = delimiter.and_then(|d| rest.find(d).map(|at| &key[..prefix.len() + at + d.len()]));
            let entry = group.unwrap_or(key);
            if expected.last() != Some(&entry) {
                expected.push(entry);
            }
        }
        let (mut seen, mut token) = (Vec::new(), None);
        for page in 0.. {
            assert!(page <= keys.len(), "the listing does not end");
            let (names, next) = s3::page(&keys, prefix, delimiter, token.as_deref(), max).unwrap();
            assert!(names.len() <= max);
            seen.extend(names);
            token = next;
            if token.is_none() {
                break;
            }
        }
        assert_eq!(seen, expected);
        // A token that somebody made up is refused, or begins a page like any other.
        let _ = s3::page(&keys, prefix, delimiter, Some(prefix), max);
        shape(format_args!("{} {}", delimiter.is_some(), "i".repeat(expected.len().min(4))))
    });
}
