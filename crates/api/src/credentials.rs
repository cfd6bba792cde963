//! Temporary credentials for S3 clients.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `POST /credentials`: what to ask for.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CredentialRequest {
    /// A bucket, or a prefix in one.
    pub prefix: String,
    /// Only reads and lists; left out: everything.
    #[serde(default)]
    pub read_only: bool,
    /// An hour at most, such as `15m`; left out: an hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<String>,
}

/// The answer: a credential as every S3 client takes it.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct CredentialResponse {
    /// Public name of the credential.
    pub access_key: String,
    /// What requests are signed with.
    pub secret_key: String,
    /// Goes along with every request.
    pub session_token: String,
    /// It is refused from here on, RFC 3339.
    pub expires_at: String,
    /// Where to speak to.
    pub endpoint: Option<String>,
    /// The bucket that objects are in on the engine; absent: the first segment of the path.
    pub bucket: Option<String>,
}

impl fmt::Debug for CredentialResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CredentialResponse")
            .field("access_key", &self.access_key)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}
