//! Credentials that do not pass by themselves: those derived from API tokens.

use std::fmt;

use tidemill_blocks::grants::Scope;

/// What stands behind a static access key. The secret does not print.
#[derive(Clone)]
pub struct StaticKey {
    /// What requests are signed with.
    pub secret: String,
    /// Whose it is, for the audit log.
    pub subject: String,
    /// What it reaches; a scope with an empty prefix is every bucket.
    pub scopes: Vec<Scope>,
    /// Whether it may make and remove buckets within its scopes.
    pub manage_buckets: bool,
}

impl fmt::Debug for StaticKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StaticKey")
            .field("subject", &self.subject)
            .field("scopes", &self.scopes)
            .field("manage_buckets", &self.manage_buckets)
            .finish_non_exhaustive()
    }
}

/// Where static keys are looked up, at every request, so that a revoked token ends at once.
pub trait StaticKeys: Send + Sync + fmt::Debug {
    /// The key, unless it is unknown, expired or revoked.
    fn lookup(&self, access_key: &str) -> Option<StaticKey>;
}
