//! From buckets and keys to object paths and back, byte for byte.

use object_store::path::Path;
use s3s::{S3Error, S3ErrorCode, S3Result, s3_error};

/// Where the system keeps its own objects. Not a bucket.
pub(super) const SYSTEM: &str = "system";

/// The path of an object that is to be written. Keys that a path cannot hold exactly are refused by name and reason.
pub(super) fn object_path(bucket: &str, key: &str) -> S3Result<Path> {
    not_system(bucket)?;
    let full = format!("{bucket}/{key}");
    match Path::parse(&full) {
        Ok(path) if path.as_ref() == full => Ok(path),
        _ => Err(S3Error::with_message(
            S3ErrorCode::InvalidArgument,
            format!("the key `{}` cannot be stored: {}", key.escape_debug(), reason(key)),
        )),
    }
}

/// The path of an object that is to be read or removed. A key that cannot be stored is simply not there.
pub(super) fn existing_path(bucket: &str, key: &str) -> S3Result<Path> {
    object_path(bucket, key).map_err(|e| {
        if *e.code() == S3ErrorCode::InvalidArgument {
            S3Error::with_message(S3ErrorCode::NoSuchKey, e.message().unwrap_or_default().to_owned())
        } else {
            e
        }
    })
}

fn reason(key: &str) -> &'static str {
    if key.ends_with('/') {
        "it ends with `/`; folders need no object of their own"
    } else if key.split('/').any(str::is_empty) {
        "it has an empty segment (`//`, or `/` at the start)"
    } else if key.split('/').any(|s| s == "." || s == "..") {
        "it has a segment `.` or `..`"
    } else {
        "it has a control character"
    }
}

/// Refuses the bucket that is none.
pub(super) fn not_system(bucket: &str) -> S3Result<()> {
    if bucket == SYSTEM { Err(s3_error!(NoSuchBucket)) } else { Ok(()) }
}

/// Percent-encodes a key for a listing with `encoding-type=url`.
pub(super) fn url_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for b in text.bytes() {
        if b.is_ascii_alphanumeric() || b"-_.~/".contains(&b) {
            out.push(char::from(b));
        } else {
            out.push('%');
            out.push_str(&hex::encode_upper([b]));
        }
    }
    out
}

/// Undoes percent-encoding in a value of a query; `None` when it is malformed.
pub(super) fn url_decode(text: &str) -> Option<String> {
    let (mut out, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let Some((&b, tail)) = rest.split_first() {
        if b == b'%' {
            let (digits, tail) = tail.split_at_checked(2)?;
            out.extend(hex::decode(digits).ok()?);
            rest = tail;
        } else {
            out.push(b);
            rest = tail;
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_keys_keep_their_bytes_and_impossible_ones_say_why() {
        for key in ["a b", "ü/日本語", "100%", "%2F", "a+b", "~{}^\\#?*", "...", ".hidden", "a=b&c"] {
            assert_eq!(object_path("photos", key).unwrap().as_ref(), format!("photos/{key}"));
        }
        for (key, why) in [("a//b", "empty"), ("/a", "empty"), ("a/", "ends with"), ("a/../b", "`..`"), (".", "`.`"), ("a\nb", "control")] {
            let e = object_path("photos", key).unwrap_err();
            assert_eq!(*e.code(), S3ErrorCode::InvalidArgument);
            assert!(e.message().unwrap().contains(why), "{key:?}: {e:?}");
            assert_eq!(*existing_path("photos", key).unwrap_err().code(), S3ErrorCode::NoSuchKey);
        }
        assert_eq!(*object_path("system", "grants.key").unwrap_err().code(), S3ErrorCode::NoSuchBucket);
    }

    #[test]
    fn url_encoding_is_undone_exactly() {
        let text = "a b/ü%2F+~\u{1}";
        assert_eq!(url_encode(text), "a%20b/%C3%BC%252F%2B~%01");
        assert_eq!(url_decode(&url_encode(text)).as_deref(), Some(text));
        assert_eq!(url_decode("%4"), None);
        assert_eq!(url_decode("%zz"), None);
    }
}
