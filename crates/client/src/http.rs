//! How a request is made and its answer read.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use reqwest::{Certificate, Method, RequestBuilder, Response, StatusCode, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tidemill_api::BASE;
use tidemill_base::{Error, Result};

use crate::error::{answered, unanswered, with_hint};

/// Making a connection takes no longer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection that was idle for longer is not used again. The server closes it after its `header_timeout`, which is ten seconds unless
/// set, and a request that crosses with that is lost.
const IDLE: Duration = Duration::from_secs(5);
/// An answer that is not a stream takes no longer.
const CALL_TIMEOUT: Duration = Duration::from_secs(120);
/// Of an error's body no more is read.
const MAX_ERROR_BYTES: usize = 64 << 10;

/// A server, and the token it is asked with. Clones share one pool of connections. The token does not print.
#[derive(Clone)]
pub struct Client {
    pub(crate) http: reqwest::Client,
    url: String,
    token: String,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Client {
    /// The server at `url` (`http://host:port` or `https://host:port`). `ca` holds certificates in PEM to trust besides the public
    /// authorities: the server's own when it generated one. Nothing is sent yet. `Invalid` when `url` or `ca` cannot be read.
    pub fn new(url: &str, token: impl Into<String>, ca: Option<&[u8]>) -> Result<Self> {
        let wrong = || Error::invalid(format!("`{url}` is not a URL such as http://127.0.0.1:8080"));
        let parsed = Url::parse(url.trim()).map_err(|e| wrong().with_source(e))?;
        let host = parsed.host_str().filter(|_| matches!(parsed.scheme(), "http" | "https")).ok_or_else(wrong)?;
        let mut builder = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(IDLE)
            .user_agent(concat!("tidemill/", env!("CARGO_PKG_VERSION")));
        // A proxy set for the world outside cannot reach this machine's own loopback.
        if matches!(host, "127.0.0.1" | "localhost" | "[::1]") {
            builder = builder.no_proxy();
        }
        for certificate in ca.map_or_else(|| Ok(Vec::new()), read_ca)? {
            builder = builder.add_root_certificate(certificate);
        }
        let http = builder.build().map_err(|e| Error::internal("the HTTP client cannot be made").with_source(e))?;
        Ok(Self { http, url: url.trim().trim_end_matches('/').to_owned(), token: token.into().trim().to_owned() })
    }

    /// The server's URL, without a slash at the end.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A request to a route of this version of the interface, such as `/batch/jobs`, with its segments encoded.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{BASE}{path}", self.url));
        if self.token.is_empty() { request } else { request.bearer_auth(&self.token) }
    }

    /// Sends it; an answer that is no success becomes an error.
    pub(crate) async fn send(&self, request: RequestBuilder) -> Result<Response> {
        let response = request.send().await.map_err(|e| unanswered(&self.url, e))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = self.read_at_most(response, MAX_ERROR_BYTES).await.unwrap_or_default();
        let error = answered(status.as_u16(), &body);
        if status == StatusCode::UNAUTHORIZED && self.token.is_empty() {
            let next = "set TIDEMILL_TOKEN, or point `--data` at the server's data folder";
            return Err(with_hint(Error::denied(format!("{} asks for a token", self.url)), next));
        }
        Err(error)
    }

    async fn read_at_most(&self, mut response: Response, limit: usize) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| self.broken(e))? {
            let room = limit.saturating_sub(out.len());
            out.extend_from_slice(&chunk[..chunk.len().min(room)]);
            if out.len() >= limit {
                break;
            }
        }
        Ok(out)
    }

    /// The error of an answer that ended too early.
    pub(crate) fn broken(&self, error: reqwest::Error) -> Error {
        unanswered(&self.url, error)
    }

    /// Sends it and reads the whole answer.
    pub(crate) async fn bytes(&self, request: RequestBuilder) -> Result<Bytes> {
        let response = self.send(request.timeout(CALL_TIMEOUT)).await?;
        response.bytes().await.map_err(|e| self.broken(e))
    }

    /// Sends it and reads the answer as JSON.
    pub(crate) async fn json<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T> {
        let body = self.bytes(request).await?;
        serde_json::from_slice(&body).map_err(|e| {
            let error = Error::internal(format!("the answer of {} cannot be read", self.url));
            error.with_source(std::io::Error::other(format!("{e}; is the server of the same version as this program?")))
        })
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str, query: &[(&str, String)]) -> Result<T> {
        self.json(self.request(Method::GET, path).query(query)).await
    }

    pub(crate) async fn post<T: DeserializeOwned>(&self, path: &str, body: &(impl Serialize + Sync)) -> Result<T> {
        self.json(self.request(Method::POST, path).json(body)).await
    }

    /// A request whose answer says nothing but that it was taken.
    pub(crate) async fn tell(&self, request: RequestBuilder) -> Result<()> {
        self.bytes(request).await.map(drop)
    }
}

fn read_ca(pem: &[u8]) -> Result<Vec<Certificate>> {
    let read = Certificate::from_pem_bundle(pem).map_err(|e| Error::invalid("the CA file cannot be read as PEM").with_source(e))?;
    if read.is_empty() {
        return Err(Error::invalid("the CA file has no certificate; give the server's in PEM"));
    }
    Ok(read)
}

/// Encodes one segment of a path: everything but letters, digits and `-._~`.
pub(crate) fn segment(text: &str) -> String {
    encode(text, false)
}

/// Encodes a path and leaves its slashes.
pub(crate) fn path(text: &str) -> String {
    encode(text, true)
}

fn encode(text: &str, slashes: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') || (slashes && byte == b'/') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::hint;
    use tidemill_base::ErrorKind;

    #[test]
    fn names_survive_the_path() {
        assert_eq!(path("in/50% off?.jpg"), "in/50%25%20off%3F.jpg");
        assert_eq!(segment("a/b"), "a%2Fb");
        assert_eq!(path("caf\u{e9}"), "caf%C3%A9");
    }

    #[test]
    fn wrong_urls_are_refused_by_name() {
        for url in ["", "localhost:8080", "ftp://host", "http://"] {
            let error = Client::new(url, "", None).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{url}");
            assert!(error.message().starts_with(&format!("`{url}` is not a URL")), "{error}");
        }
        assert_eq!(Client::new("http://a:1/", "t", None).unwrap().url(), "http://a:1");
    }

    #[test]
    fn the_token_does_not_print() {
        assert!(!format!("{:?}", Client::new("http://a:1", "tm_secret", None).unwrap()).contains("secret"));
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_unavailable_with_the_next_step() {
        // Port 1 of loopback: nobody listens there.
        let client = Client::new("http://127.0.0.1:1", "t", None).unwrap();
        let error = client.overview().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.message().starts_with("cannot reach the server at http://127.0.0.1:1"), "{error}");
        assert_eq!(hint(&error), Some("start one with `tidemill serve`"));
    }
}
