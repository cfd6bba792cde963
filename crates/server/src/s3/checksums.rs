//! Checksums that a client sends along with a body, in headers or after it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::HeaderMap;
use s3s::checksum::ChecksumHasher;
use s3s::crypto::{Checksum as _, Md5};
use s3s::dto::Checksum;
use s3s::{S3Error, S3ErrorCode, S3Result, TrailingHeaders, s3_error};

const ALGORITHMS: [&str; 5] = ["crc32", "crc32c", "crc64nvme", "sha1", "sha256"];

/// What the body must come out as. It is fed while the body passes.
pub(super) struct Checks {
    hasher: ChecksumHasher,
    expected: Checksum,
    md5: Option<(Md5, String)>,
    trailers: Option<TrailingHeaders>,
    in_trailer: Vec<&'static str>,
}

impl Checks {
    /// Nothing to check.
    pub(super) fn none() -> Self {
        Self { hasher: ChecksumHasher::default(), expected: Checksum::default(), md5: None, trailers: None, in_trailer: Vec::new() }
    }

    /// What the headers of a request name. `InvalidDigest`: a Content-MD5 that is none.
    pub(super) fn of(headers: &HeaderMap, trailers: Option<TrailingHeaders>) -> S3Result<Self> {
        let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
        let mut out = Self { trailers, ..Self::none() };
        for algorithm in ALGORITHMS {
            let name = format!("x-amz-checksum-{algorithm}");
            if let Some(value) = text(&name) {
                *slot(&mut out.expected, algorithm) = Some(value);
                out.start(algorithm);
            }
            if headers.get_all("x-amz-trailer").iter().any(|v| v.as_bytes().eq_ignore_ascii_case(name.as_bytes())) {
                out.start(algorithm);
                out.in_trailer.push(algorithm);
            }
            if text("x-amz-sdk-checksum-algorithm").is_some_and(|a| a.eq_ignore_ascii_case(algorithm)) {
                out.start(algorithm);
            }
        }
        if let Some(value) = text("content-md5") {
            if STANDARD.decode(&value).map_or(0, |d| d.len()) != 16 {
                return Err(s3_error!(InvalidDigest, "Content-MD5 is not 16 bytes in base 64"));
            }
            out.md5 = Some((Md5::new(), value));
        }
        Ok(out)
    }

    /// What a completed upload must come out as; sums over sums of parts (`...-3`) are not among these.
    pub(super) fn over_object(expected: Checksum) -> Self {
        let mut out = Self { expected, ..Self::none() };
        for algorithm in ALGORITHMS {
            let value = slot(&mut out.expected, algorithm);
            if value.as_ref().is_some_and(|v| v.contains('-')) {
                *value = None;
            }
            if value.is_some() {
                out.start(algorithm);
            }
        }
        out
    }

    fn start(&mut self, algorithm: &str) {
        match algorithm {
            "crc32" => self.hasher.crc32 = Some(s3s::crypto::Checksum::new()),
            "crc32c" => self.hasher.crc32c = Some(s3s::crypto::Checksum::new()),
            "crc64nvme" => self.hasher.crc64nvme = Some(s3s::crypto::Checksum::new()),
            "sha1" => self.hasher.sha1 = Some(s3s::crypto::Checksum::new()),
            _ => self.hasher.sha256 = Some(s3s::crypto::Checksum::new()),
        }
    }

    pub(super) fn update(&mut self, data: &[u8]) {
        self.hasher.update(data);
        if let Some((md5, _)) = &mut self.md5 {
            md5.update(data);
        }
    }

    /// Checks the sums after the last byte; returns those that were asked for. `BadDigest` names the one that differs.
    pub(super) fn verify(mut self) -> S3Result<Checksum> {
        for algorithm in std::mem::take(&mut self.in_trailer) {
            let sent = self.trailers.as_ref().and_then(|t| {
                t.read(|h| h.get(format!("x-amz-checksum-{algorithm}")).and_then(|v| v.to_str().ok()).map(str::to_owned)).flatten()
            });
            let Some(sent) = sent else {
                return Err(s3_error!(InvalidRequest, "the trailer x-amz-checksum-{} was announced and did not come", algorithm));
            };
            *slot(&mut self.expected, algorithm) = Some(sent);
        }
        let mut sums = self.hasher.finalize();
        for algorithm in ALGORITHMS {
            let expected = slot(&mut self.expected, algorithm).take();
            if expected.is_some() && expected != *slot(&mut sums, algorithm) {
                return Err(bad_digest(&format!("the {algorithm} of what arrived differs from the one that was sent")));
            }
        }
        if let Some((md5, expected)) = self.md5
            && STANDARD.encode(md5.finalize()) != expected
        {
            return Err(bad_digest("the MD5 of what arrived differs from Content-MD5"));
        }
        Ok(sums)
    }
}

impl std::fmt::Debug for Checks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checks").field("expected", &self.expected).finish_non_exhaustive()
    }
}

fn bad_digest(message: &str) -> S3Error {
    S3Error::with_message(S3ErrorCode::BadDigest, message.to_owned())
}

fn slot<'a>(sums: &'a mut Checksum, algorithm: &str) -> &'a mut Option<String> {
    match algorithm {
        "crc32" => &mut sums.checksum_crc32,
        "crc32c" => &mut sums.checksum_crc32c,
        "crc64nvme" => &mut sums.checksum_crc64nvme,
        "sha1" => &mut sums.checksum_sha1,
        _ => &mut sums.checksum_sha256,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checks(pairs: &[(&'static str, &'static str)]) -> S3Result<Checks> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.insert(*name, value.parse().unwrap());
        }
        Checks::of(&headers, None)
    }

    #[test]
    fn the_sums_of_the_word_hello_are_known() {
        let all = [
            ("x-amz-checksum-crc32", "NhCmhg=="),
            ("x-amz-checksum-crc32c", "mnG7TA=="),
            ("x-amz-checksum-sha1", "qvTGHdzF6KLavt4PO0gs2a6pQ00="),
            ("x-amz-checksum-sha256", "LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ="),
            ("content-md5", "XUFAKrxLKna5cZ2REBfFkg=="),
        ];
        for (name, value) in all {
            for (data, right) in [(&b"hello"[..], true), (b"hellO", false)] {
                let mut checks = checks(&[(name, value)]).unwrap();
                checks.update(data);
                assert_eq!(checks.verify().is_ok(), right, "{name} {data:?}");
            }
        }
    }

    #[test]
    fn a_missing_trailer_and_a_malformed_digest_are_refused() {
        assert!(checks(&[("x-amz-trailer", "x-amz-checksum-crc32")]).unwrap().verify().is_err());
        assert_eq!(*checks(&[("content-md5", "short")]).unwrap_err().code(), S3ErrorCode::InvalidDigest);
    }
}
