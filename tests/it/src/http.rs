//! HTTP as any program would speak it.

use std::time::Duration;

use reqwest::{Certificate, Client, Method};
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};

/// A connection that was idle for longer may have been closed by the server, which nobody sees here between two calls.
const IDLE: Duration = Duration::from_secs(5);

/// A caller with a token.
#[derive(Debug)]
pub struct Http {
    runtime: Runtime,
    client: Client,
    base: String,
    token: Option<String>,
    headers: Vec<(String, String)>,
}

/// An answer, read to its end.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Header names and values.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub bytes: Vec<u8>,
}

impl Http {
    /// Calls `base`; trusts `ca` (PEM) beside nothing else when it is given.
    pub fn new(base: &str, token: Option<&str>, ca: Option<&[u8]>) -> Self {
        let mut builder = Client::builder().timeout(Duration::from_secs(300)).pool_idle_timeout(IDLE).no_proxy();
        if let Some(pem) = ca {
            builder = builder.add_root_certificate(Certificate::from_pem(pem).expect("the certificate is PEM"));
        }
        let client = builder.build().expect("a client can be made");
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime can be made");
        Self { runtime, client, base: base.to_owned(), token: token.map(str::to_owned), headers: Vec::new() }
    }

    /// Sends this header along.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sends a request. The error is the transport's.
    pub fn send(&self, method: &str, path: &str, kind: &str, body: Vec<u8>) -> Result<Answer, String> {
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        let mut request = self.client.request(method, format!("{}{path}", self.base)).header("content-type", kind).body(body);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        self.runtime.block_on(async {
            let answer = request.send().await.map_err(|e| format!("{e:?}"))?;
            let status = answer.status().as_u16();
            let text = |v: &reqwest::header::HeaderValue| String::from_utf8_lossy(v.as_bytes()).into_owned();
            let headers = answer.headers().iter().map(|(k, v)| (k.to_string(), text(v))).collect();
            let bytes = answer.bytes().await.map_err(|e| format!("{e:?}"))?.to_vec();
            Ok(Answer { status, headers, bytes })
        })
    }

    /// Reads a path.
    #[track_caller]
    pub fn get(&self, path: &str) -> Answer {
        self.send("GET", path, "text/plain", Vec::new()).unwrap_or_else(|e| panic!("GET {path}: {e}"))
    }

    /// Sends JSON.
    #[track_caller]
    pub fn post(&self, path: &str, body: &Value) -> Answer {
        let sent = self.send("POST", path, "application/json", body.to_string().into_bytes());
        sent.unwrap_or_else(|e| panic!("POST {path}: {e}"))
    }

    /// Stores bytes.
    #[track_caller]
    pub fn put(&self, path: &str, body: impl Into<Vec<u8>>) -> Answer {
        let sent = self.send("PUT", path, "application/octet-stream", body.into());
        sent.unwrap_or_else(|e| panic!("PUT {path}: {e}"))
    }
}

impl Answer {
    /// Panics unless the status is this one.
    #[track_caller]
    pub fn is(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text());
        self
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_else(|e| panic!("no JSON ({e}): {}", self.text()))
    }

    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(k, _)| k.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }
}
