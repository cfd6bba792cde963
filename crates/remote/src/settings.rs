//! Where the manager is and how to speak to it.

use std::fmt;
use std::time::Duration;

/// How to reach a manager. The token does not print.
#[derive(Clone)]
pub struct RemoteSettings {
    /// The manager's root, `http://` or `https://`, host and port.
    pub url: String,
    /// A token of the role `worker`.
    pub token: String,
    /// Certificates in PEM to trust instead of the public authorities: the manager's own when it generated one.
    pub ca: Option<Vec<u8>>,
    /// How long making a connection may take.
    pub connect_timeout: Duration,
    /// How long an answer may take beyond what the call itself asks to wait.
    pub margin: Duration,
    /// How long a streamed body may stand still.
    pub stall_timeout: Duration,
    /// Contents larger than this go up in parts of this size, in bytes.
    pub part_size: usize,
}

impl RemoteSettings {
    /// The manager at `url`, with the ordinary timeouts.
    pub fn new(url: impl Into<String>, token: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            token: token.into(),
            ca: None,
            connect_timeout: Duration::from_secs(10),
            margin: Duration::from_secs(30),
            stall_timeout: Duration::from_secs(120),
            part_size: 8 << 20,
        }
    }

    /// Trusts just the certificates in `pem`.
    #[must_use]
    pub fn with_ca(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.ca = Some(pem.into());
        self
    }
}

impl fmt::Debug for RemoteSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteSettings").field("url", &self.url).field("own_ca", &self.ca.is_some()).finish_non_exhaustive()
    }
}
