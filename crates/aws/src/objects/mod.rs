//! Objects on S3 and on any store that speaks its protocol, through `object_store`.
//!
//! All objects are in one bucket. The path is the key, below `key_prefix` where the settings have one. Creating an object that must
//! not be there yet is a put with `If-None-Match: *`, which S3 has had since 2024. A copy that must not replace is an upload of one
//! copied part, completed under the same condition: it holds for objects of up to 5 GiB and does not keep attributes.
//!
//! Uploads that were begun and neither completed nor aborted keep costing; a lifecycle rule of the bucket
//! (`AbortIncompleteMultipartUpload`) ends them.

mod bucket;
mod credentials;
mod http;

use std::sync::Arc;
use std::time::Duration;

use object_store::ClientOptions;
use object_store::ObjectStore;
use object_store::aws::{AmazonS3, AmazonS3Builder, S3ConditionalPut, S3CopyIfNotExists};
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::signer::Signer;
use tidemill_base::{Error, ErrorKind, Result};
use tidemill_blocks::check::Finding;
use tidemill_blocks::objects::{self, Objects};

use crate::Aws;
use credentials::Provider;
use http::Counted;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// One attempt with all its bytes: enough for a part of 64 MiB at 2 Mbit/s. A dead connection is found by it alone.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(300);
/// S3 refuses presigned URLs that live longer.
const LONGEST_PRESIGNED: Duration = Duration::from_secs(7 * 24 * 3600);

impl Aws {
    /// The objects block.
    ///
    /// # Errors
    /// `Invalid` when the settings name no bucket, or an endpoint that would be spoken to without encryption.
    pub fn objects(&self) -> Result<Objects> {
        let store = s3(self)?;
        Ok(match self.inner.settings.key_prefix.as_str() {
            "" => Arc::new(store) as Arc<dyn ObjectStore>,
            prefix => Arc::new(PrefixStore::new(store, key_prefix(prefix)?)),
        })
    }

    /// A URL with which anybody can read the object for as long as `lifetime`, 1 s to 7 days.
    ///
    /// # Errors
    /// As [`Aws::objects`]; `Invalid` for other lifetimes, and whatever hinders finding credentials.
    pub async fn presigned_get(&self, path: &Path, lifetime: Duration) -> Result<String> {
        self.presigned("GET", path, lifetime).await
    }

    /// A URL with which anybody can store the object, once or again, for as long as `lifetime`, 1 s to 7 days.
    ///
    /// # Errors
    /// As [`Aws::presigned_get`].
    pub async fn presigned_put(&self, path: &Path, lifetime: Duration) -> Result<String> {
        self.presigned("PUT", path, lifetime).await
    }

    async fn presigned(&self, method: &str, path: &Path, lifetime: Duration) -> Result<String> {
        if lifetime < Duration::from_secs(1) || lifetime > LONGEST_PRESIGNED {
            return Err(Error::invalid(format!("a presigned URL lives from 1 s to 7 days, and {lifetime:?} was asked for")));
        }
        let method = method.parse().map_err(|e| Error::internal("no such method").with_source(e))?;
        let key = self.key(path)?;
        let url = s3(self)?.signed_url(method, &key, lifetime).await.map_err(|e| objects::error("sign a URL for", path, e))?;
        Ok(url.to_string())
    }

    /// What the objects block needs of S3, tried with real requests; with `create` a missing bucket is made.
    pub async fn check_objects(&self, create: bool) -> Vec<Finding> {
        bucket::check(self, create).await
    }

    /// The key of an object in the bucket.
    pub(crate) fn key(&self, path: &Path) -> Result<Path> {
        match self.inner.settings.key_prefix.as_str() {
            "" => Ok(path.clone()),
            prefix => Ok(key_prefix(prefix)?.parts().chain(path.parts()).collect()),
        }
    }

    /// The bucket that holds all objects.
    pub(crate) fn bucket(&self) -> Result<&str> {
        match self.inner.settings.bucket.as_str() {
            "" => Err(Error::invalid("no bucket is named; set `bucket` in the settings to the S3 bucket that holds the objects")),
            bucket => Ok(bucket),
        }
    }

    /// The URL that S3's clients speak to, when it is not that of the region.
    pub(crate) fn s3_endpoint(&self) -> Option<&str> {
        self.inner.settings.endpoint.as_deref()
    }

    pub(crate) fn region(&self) -> &str {
        self.inner.config.region().map_or("us-east-1", |region| region.as_ref())
    }
}

fn key_prefix(text: &str) -> Result<Path> {
    objects::parse_path(text).map_err(|e| e.context("key_prefix"))
}

fn s3(aws: &Aws) -> Result<AmazonS3> {
    let bucket = aws.bucket()?;
    let options = client_options(aws)?;
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(bucket)
        .with_region(aws.region())
        .with_credentials(Arc::new(Provider::new(aws)?))
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_copy_if_not_exists(S3CopyIfNotExists::Multipart)
        .with_http_connector(Counted(aws.calls()))
        // Certificates are for one level below the service's name, so a bucket with a dot is named in the path.
        .with_virtual_hosted_style_request(aws.s3_endpoint().is_none() && !bucket.contains('.'))
        .with_client_options(options);
    if let Some(endpoint) = aws.s3_endpoint() {
        // The builder sets it anew in the options given before.
        builder = builder.with_endpoint(endpoint).with_allow_http(endpoint.starts_with("http://"));
    }
    builder.build().map_err(|e| Error::new(ErrorKind::Invalid, format!("S3 bucket {bucket}: {e}")).with_source(e))
}

fn client_options(aws: &Aws) -> Result<ClientOptions> {
    let plain = match aws.s3_endpoint() {
        None => false,
        Some(endpoint) => is_plain(endpoint, aws.inner.settings.allow_http)?,
    };
    Ok(ClientOptions::new().with_connect_timeout(CONNECT_TIMEOUT).with_timeout(ATTEMPT_TIMEOUT).with_allow_http(plain))
}

/// Whether the endpoint is spoken to without encryption, which is for this machine alone unless `allowed`: whoever listens in between
/// reads the objects.
fn is_plain(endpoint: &str, allowed: bool) -> Result<bool> {
    if endpoint.starts_with("https://") {
        return Ok(false);
    }
    let Some(rest) = endpoint.strip_prefix("http://") else {
        return Err(Error::invalid(format!(
            "endpoint `{}` is no URL; write it as https://HOST or http://HOST:PORT",
            endpoint.escape_debug()
        )));
    };
    let authority = rest.split('/').next().unwrap_or(rest);
    let host = match authority.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or(v6),
        None => authority.split(':').next().unwrap_or(authority),
    };
    let here = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
    if here || allowed {
        return Ok(true);
    }
    let advice = "use https://, or set allow_http if nobody else is on that network";
    Err(Error::invalid(format!("endpoint `{}` is not encrypted; {advice}", endpoint.escape_debug())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_encryption_only_this_machine_is_spoken_to() {
        for (endpoint, plain) in [
            ("https://s3.example", false),
            ("http://127.0.0.1:4566", true),
            ("http://127.9.9.9", true),
            ("http://localhost:9000/", true),
            ("http://[::1]:9000", true),
        ] {
            assert_eq!(is_plain(endpoint, false).expect(endpoint), plain, "{endpoint}");
        }
        for endpoint in ["http://store.example:9000", "http://10.0.0.1", "http://localhost.example", "http://127.0.0.1.example"] {
            let e = is_plain(endpoint, false).expect_err(endpoint);
            assert!(e.message().contains(endpoint) && e.message().contains("allow_http"), "{e}");
            assert!(is_plain(endpoint, true).expect(endpoint));
        }
        assert!(is_plain("s3.example", true).is_err() && is_plain("ftp://s3.example", true).is_err());
    }
}
