//! Headers that are kept with an object, to and from the store's attributes.

use object_store::{Attribute, Attributes};
use s3s::S3Result;
use s3s::dto::{Checksum, Metadata};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use super::errors::not_supported;

/// Begins the names under which we keep what the store has no attribute for. Not shown as the user's metadata.
const OWN: &str = "tidemill-";
/// What an object has when its writer said nothing, as on AWS.
const DEFAULT_CONTENT_TYPE: &str = "binary/octet-stream";

/// What a writer says about an object.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Described {
    pub(super) content_type: Option<String>,
    pub(super) content_encoding: Option<String>,
    pub(super) content_disposition: Option<String>,
    pub(super) content_language: Option<String>,
    pub(super) cache_control: Option<String>,
    pub(super) metadata: BTreeMap<String, String>,
    /// Base 64 by algorithm (`crc32`, ...), over the whole object.
    pub(super) checksums: BTreeMap<String, String>,
}

/// The five headers and the metadata of an input that describes an object.
macro_rules! described {
    ($input:expr) => {
        $crate::s3::attributes::Described::new(
            [
                $input.content_type.take(),
                $input.content_encoding.take(),
                $input.content_disposition.take(),
                $input.content_language.take(),
                $input.cache_control.take(),
            ],
            $input.metadata.take(),
        )
    };
}

/// Refuses what an input asks for beyond what is kept here, so that nobody believes it to be in force.
macro_rules! refuse_unsupported {
    ($input:expr) => {{
        let asked = [
            ($input.tagging.as_deref().is_some_and(|t| !t.is_empty()), "tagging"),
            ($input.sse_customer_algorithm.is_some() || $input.ssekms_key_id.is_some(), "encryption with keys of the client's"),
            ($input.server_side_encryption.is_some(), "a choice of encryption at rest"),
            ($input.object_lock_mode.is_some() || $input.object_lock_legal_hold_status.is_some(), "object lock"),
            ($input.website_redirect_location.is_some(), "a website redirect"),
            ($input.expires.is_some(), "the header Expires"),
            (
                $input.grant_read.is_some()
                    || $input.grant_full_control.is_some()
                    || $input.grant_read_acp.is_some()
                    || $input.grant_write_acp.is_some(),
                "granting access by header",
            ),
        ];
        $crate::s3::attributes::refuse(&asked)?;
        $crate::s3::attributes::check_acl($input.acl.as_ref().map(|a| a.as_str()))?;
    }};
}
pub(super) use {described, refuse_unsupported};

/// Refuses the first thing that was asked for.
pub(super) fn refuse(asked: &[(bool, &str)]) -> S3Result<()> {
    asked.iter().find(|(is, _)| *is).map_or(Ok(()), |(_, what)| Err(not_supported(what)))
}

/// Only the owner's own list is kept, which some clients send with every write.
pub(super) fn check_acl(acl: Option<&str>) -> S3Result<()> {
    match acl {
        None | Some("private" | "bucket-owner-full-control") => Ok(()),
        Some(_) => Err(not_supported("an access list other than `private`")),
    }
}

impl Described {
    pub(super) fn new(headers: [Option<String>; 5], metadata: Option<Metadata>) -> Self {
        let [content_type, content_encoding, content_disposition, content_language, cache_control] = headers;
        Self {
            content_type,
            content_encoding: content_encoding.and_then(|e| without_framing(&e)),
            content_disposition,
            content_language,
            cache_control,
            metadata: metadata.unwrap_or_default().into_iter().filter(|(name, _)| !name.starts_with(OWN)).collect(),
            checksums: BTreeMap::new(),
        }
    }

    pub(super) fn to_attributes(&self) -> Attributes {
        let headers = [
            (Attribute::ContentType, &self.content_type),
            (Attribute::ContentEncoding, &self.content_encoding),
            (Attribute::ContentDisposition, &self.content_disposition),
            (Attribute::ContentLanguage, &self.content_language),
            (Attribute::CacheControl, &self.cache_control),
        ];
        let mut out = Attributes::new();
        for (attribute, value) in headers {
            if let Some(value) = value {
                out.insert(attribute, value.clone().into());
            }
        }
        for (name, value) in &self.metadata {
            out.insert(Attribute::Metadata(name.clone().into()), value.clone().into());
        }
        for (algorithm, value) in &self.checksums {
            out.insert(Attribute::Metadata(format!("{OWN}{algorithm}").into()), value.clone().into());
        }
        out
    }

    pub(super) fn from_attributes(attributes: &Attributes) -> Self {
        let mut out = Self::default();
        for (attribute, value) in attributes {
            let value = value.to_string();
            match attribute {
                Attribute::ContentType => out.content_type = Some(value),
                Attribute::ContentEncoding => out.content_encoding = Some(value),
                Attribute::ContentDisposition => out.content_disposition = Some(value),
                Attribute::ContentLanguage => out.content_language = Some(value),
                Attribute::CacheControl => out.cache_control = Some(value),
                Attribute::Metadata(name) => match name.strip_prefix(OWN) {
                    Some(algorithm) => drop(out.checksums.insert(algorithm.to_owned(), value)),
                    None => drop(out.metadata.insert(name.to_string(), value)),
                },
                _ => {}
            }
        }
        out.content_type.get_or_insert_with(|| DEFAULT_CONTENT_TYPE.to_owned());
        out
    }

    pub(super) fn metadata(&self) -> Option<Metadata> {
        (!self.metadata.is_empty()).then(|| self.metadata.clone().into_iter().collect())
    }

    /// Keeps the checksums that were verified.
    pub(super) fn keep(&mut self, sums: &Checksum) {
        let all = [
            ("crc32", &sums.checksum_crc32),
            ("crc32c", &sums.checksum_crc32c),
            ("crc64nvme", &sums.checksum_crc64nvme),
            ("sha1", &sums.checksum_sha1),
            ("sha256", &sums.checksum_sha256),
        ];
        for (algorithm, value) in all {
            if let Some(value) = value {
                self.checksums.insert(algorithm.to_owned(), value.clone());
            }
        }
    }

    pub(super) fn checksum(&self, algorithm: &str) -> Option<String> {
        self.checksums.get(algorithm).cloned()
    }
}

/// `aws-chunked` says how the body travelled, not what the object is.
fn without_framing(encoding: &str) -> Option<String> {
    let kept: Vec<_> = encoding.split(',').map(str::trim).filter(|e| !e.is_empty() && !e.eq_ignore_ascii_case("aws-chunked")).collect();
    (!kept.is_empty()).then(|| kept.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_writer_says_comes_back_and_our_own_names_do_not_mix_in() {
        let metadata = [("owner".to_owned(), "ada".to_owned()), ("tidemill-crc32".to_owned(), "forged".to_owned())];
        let mut described =
            Described::new([Some("text/csv".into()), Some("aws-chunked, gzip".into()), None, None, None], Some(metadata.into()));
        described.keep(&Checksum { checksum_crc32: Some("AAAAAA==".into()), ..Checksum::default() });
        let back = Described::from_attributes(&described.to_attributes());
        assert_eq!(back, described);
        assert_eq!(back.content_encoding.as_deref(), Some("gzip"));
        assert_eq!(back.metadata.keys().collect::<Vec<_>>(), ["owner"]);
        assert_eq!(back.checksum("crc32").as_deref(), Some("AAAAAA=="));
    }

    #[test]
    fn only_the_private_access_list_is_taken() {
        assert!(check_acl(None).is_ok() && check_acl(Some("private")).is_ok());
        assert!(check_acl(Some("public-read")).is_err());
    }
}
