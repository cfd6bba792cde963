//! The one HTTP client behind all three blocks.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Certificate, Client, RequestBuilder, Response, Url};
use tidemill_base::{Error, Result};

use crate::RemoteSettings;
use crate::wire::{self, Call, POSTCARD, PROTOCOL, PROTOCOL_HEADER};

/// A connection that was idle for longer is not used again. The manager closes it after its `header_timeout`, which is ten seconds unless
/// set, and a call that crosses with that is lost.
const IDLE: Duration = Duration::from_secs(5);

/// Connections to one manager. Clones share them.
#[derive(Clone)]
pub(crate) struct Http(Arc<Inner>);

struct Inner {
    client: Client,
    base: String,
    margin: Duration,
    part_size: usize,
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Http({})", self.0.base)
    }
}

impl Http {
    pub(crate) fn new(settings: RemoteSettings) -> Result<Self> {
        let base = check_url(&settings.url)?;
        let mut headers = HeaderMap::new();
        let mut token = HeaderValue::from_str(&format!("Bearer {}", settings.token))
            .map_err(|_| Error::invalid("the token holds characters that no token has; copy it again"))?;
        token.set_sensitive(true);
        headers.insert(AUTHORIZATION, token);
        headers.insert(PROTOCOL_HEADER, HeaderValue::from(PROTOCOL));
        // HTTP/1.1: several plain connections carry calls like ours at twice the rate of one multiplexed connection.
        let mut builder = Client::builder()
            .default_headers(headers)
            .connect_timeout(settings.connect_timeout)
            .read_timeout(settings.stall_timeout)
            .tcp_nodelay(true)
            .pool_idle_timeout(IDLE)
            .http1_only()
            .redirect(reqwest::redirect::Policy::none());
        if let Some(pem) = &settings.ca {
            let wrong = |e| Error::invalid("the certificate to trust is not PEM; give the manager's `cert.pem`").with_source(e);
            let certificates = Certificate::from_pem_bundle(pem).map_err(wrong)?;
            if certificates.is_empty() {
                return Err(Error::invalid("the file of certificates to trust holds none; give the manager's `cert.pem`"));
            }
            builder = builder.tls_built_in_root_certs(false);
            for certificate in certificates {
                builder = builder.add_root_certificate(certificate);
            }
        }
        let client = builder.build().map_err(|e| Error::invalid("the HTTP client does not take these settings").with_source(e))?;
        let part_size = settings.part_size.max(64 << 10);
        Ok(Self(Arc::new(Inner { client, base, margin: settings.margin, part_size })))
    }

    /// Contents larger than this go up in parts of this size.
    pub(crate) fn part_size(&self) -> usize {
        self.0.part_size
    }

    /// Where the manager is.
    pub(crate) fn base(&self) -> &str {
        &self.0.base
    }

    /// One call, with its whole answer.
    pub(crate) async fn call<C: Call>(&self, call: &C) -> Result<C::Answer> {
        let request = self.post(C::PATH).timeout(call.wait() + self.0.margin).body(wire::encode(call)?);
        let response = self.send(request.header(CONTENT_TYPE, POSTCARD)).await?;
        let body = self.checked(response).await?;
        wire::decode(&body).map_err(|e| Error::internal(format!("the manager's answer to {} is not one", C::PATH)).with_source(e))
    }

    /// A request to a path below the manager's root, without a limit on its whole time.
    pub(crate) fn post(&self, path: &str) -> RequestBuilder {
        self.0.client.post(format!("{}{path}", self.0.base))
    }

    /// Sends it and waits for the head of the answer, whatever its status.
    pub(crate) async fn send(&self, request: RequestBuilder) -> Result<Response> {
        request.send().await.map_err(|e| self.failed(e))
    }

    /// The whole body of a success; the error that any other answer stands for.
    pub(crate) async fn checked(&self, response: Response) -> Result<Bytes> {
        let status = response.status();
        let body = response.bytes().await.map_err(|e| self.failed(e))?;
        if status.is_success() { Ok(body) } else { Err(wire::error_of(status.as_u16(), &body)) }
    }

    /// What a failure of the transport means: not now. Which call it was is in the caller's context.
    pub(crate) fn failed(&self, e: reqwest::Error) -> Error {
        let what = if e.is_connect() { "cannot reach" } else { "lost" };
        Error::unavailable(format!("{what} the manager at {}", self.0.base)).with_source(e.without_url())
    }
}

fn check_url(text: &str) -> Result<String> {
    let wrong = |why: &str| Error::invalid(format!("manager URL `{text}` {why}; write it like https://host:8080"));
    let url = Url::parse(text).map_err(|e| wrong("is not a URL").with_source(e))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(wrong("is not an HTTP address"));
    }
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
        return Err(Error::invalid("the manager URL holds a user, a password or a query; give the token apart from it"));
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_base::ErrorKind;

    #[test]
    fn wrong_settings_are_named_and_secrets_stay_out() {
        for (url, word) in [("mill:8080", "HTTP"), ("ftp://mill", "HTTP"), ("nonsense", "URL")] {
            let e = Http::new(RemoteSettings::new(url, "t")).unwrap_err();
            assert!(e.message().contains(word) && e.message().contains(url), "{e}");
        }
        let e = Http::new(RemoteSettings::new("http://me:hunter2@mill", "t")).unwrap_err();
        assert!(!e.chain().contains("hunter2"), "{e}");
        let e = Http::new(RemoteSettings::new("http://mill", "tm_secret\n")).unwrap_err();
        assert!(!e.chain().contains("secret"), "{e}");
        let e = Http::new(RemoteSettings::new("http://mill", "t").with_ca("no pem")).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Invalid);
        assert!(!format!("{:?}", RemoteSettings::new("http://mill", "tm_secret")).contains("tm_secret"));
    }
}
