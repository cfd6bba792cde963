//! Temporary credentials for one prefix of objects.
//!
//! The credential is an access key, a secret and a session token in the shape that every S3 client takes. It reaches one
//! prefix, with one set of verbs, for one hour at most; afterwards, elsewhere, or with another's token it is refused.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tidemill_base::{Result, Timestamp};

/// The longest life of a credential.
pub const MAX_TTL: Duration = Duration::from_secs(3600);

/// What the holder may do with objects under the prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verbs {
    /// Get and head.
    pub read: bool,
    /// Put, multipart and copy into.
    pub write: bool,
    /// Delete.
    pub delete: bool,
    /// List names under the prefix.
    pub list: bool,
}

impl Verbs {
    /// Read and list.
    pub const READ: Self = Self { read: true, write: false, delete: false, list: true };
    /// Write only.
    pub const WRITE: Self = Self { read: false, write: true, delete: false, list: false };
    /// Read, write, list and delete.
    pub const ALL: Self = Self { read: true, write: true, delete: true, list: true };
}

/// A prefix and what may be done under it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    /// Objects whose path is this or lies under it by whole segments: `a/b` holds `a/b/c` and not `a/bc`.
    pub prefix: String,
    /// What may be done.
    pub verbs: Verbs,
}

impl Scope {
    /// Whether `path` lies within the prefix.
    pub fn covers(&self, path: &str) -> bool {
        let prefix = self.prefix.trim_end_matches('/');
        prefix.is_empty() || path == prefix || path.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/'))
    }
}

/// A credential as handed out. The secrets do not print.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credential {
    /// Public name of the credential.
    pub access_key: String,
    /// What requests are signed with.
    pub secret_key: String,
    /// Goes along with every request.
    pub session_token: String,
    /// It is refused from here on.
    pub expires_at: Timestamp,
    /// Where to speak to, for S3 clients: the endpoint's URL; `None`: the SDK's own.
    pub endpoint: Option<String>,
    /// The bucket that objects are in on the engine; `None`: the first segment of the path.
    pub bucket: Option<String>,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").field("access_key", &self.access_key).field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

/// What stands behind a presented credential.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Granted {
    /// Whom it was given to, for the audit log.
    pub subject: String,
    /// What it reaches.
    pub scopes: Vec<Scope>,
    /// Until when.
    pub expires_at: Timestamp,
}

/// The grants block.
#[async_trait]
pub trait Grants: Send + Sync + fmt::Debug {
    /// A credential for `subject` that reaches `scopes` (1 to 8 of them) for `ttl` (1 s to [`MAX_TTL`], otherwise `Invalid`).
    async fn issue(&self, subject: &str, scopes: Vec<Scope>, ttl: Duration) -> Result<Credential>;

    /// The secret that belongs to an access key made here, to check a signature with; `None` for a foreign key. Drivers whose
    /// engine checks signatures itself answer `None`.
    fn secret_of(&self, access_key: &str) -> Option<String>;

    /// What a session token grants. `Denied` when it is forged, expired, or belongs to another access key.
    fn verify(&self, access_key: &str, session_token: &str) -> Result<Granted>;
}
