//! The grants' meaning, in memory.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tidemill_base::{Env, Error, Result, SecretBytes};

use crate::grants::{Credential, Granted, Grants, MAX_TTL, Scope};

/// The most scopes of one credential.
const MAX_SCOPES: usize = 8;

/// Credentials in memory: what was issued is remembered, and everything else is refused.
pub struct MemoryGrants {
    env: Env,
    issued: Mutex<BTreeMap<String, Issued>>,
}

struct Issued {
    secret_key: String,
    session_token: String,
    granted: Granted,
}

impl MemoryGrants {
    /// Nothing issued yet.
    pub fn new(env: Env) -> Self {
        Self { env, issued: Mutex::default() }
    }
}

impl fmt::Debug for MemoryGrants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryGrants").finish_non_exhaustive()
    }
}

fn hex(SecretBytes(bytes): &SecretBytes) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[async_trait]
impl Grants for MemoryGrants {
    async fn issue(&self, subject: &str, scopes: Vec<Scope>, ttl: Duration) -> Result<Credential> {
        if ttl < Duration::from_secs(1) || ttl > MAX_TTL {
            return Err(Error::invalid(format!("a credential cannot live for {ttl:?}; ask for 1 s to {MAX_TTL:?}")));
        }
        if scopes.is_empty() || scopes.len() > MAX_SCOPES {
            return Err(Error::invalid(format!("a credential cannot have {} scopes; ask for 1 to {MAX_SCOPES}", scopes.len())));
        }
        let expires_at = self.env.now() + ttl;
        let credential = Credential {
            access_key: self.env.id("TM"),
            secret_key: hex(&self.env.secret(32)),
            session_token: hex(&self.env.secret(32)),
            expires_at,
            endpoint: None,
            bucket: None,
        };
        let issued = Issued {
            secret_key: credential.secret_key.clone(),
            session_token: credential.session_token.clone(),
            granted: Granted { subject: subject.to_owned(), scopes, expires_at },
        };
        self.issued.lock().unwrap_or_else(PoisonError::into_inner).insert(credential.access_key.clone(), issued);
        Ok(credential)
    }

    fn secret_of(&self, access_key: &str) -> Option<String> {
        let issued = self.issued.lock().unwrap_or_else(PoisonError::into_inner);
        issued.get(access_key).map(|i| i.secret_key.clone())
    }

    fn verify(&self, access_key: &str, session_token: &str) -> Result<Granted> {
        let issued = self.issued.lock().unwrap_or_else(PoisonError::into_inner);
        match issued.get(access_key) {
            Some(i) if i.session_token != session_token => {
                Err(Error::denied(format!("the session token does not belong to access key `{access_key}`")))
            }
            Some(i) if i.granted.expires_at <= self.env.now() => {
                Err(Error::denied(format!("access key `{access_key}` expired at {}; ask for a new credential", i.granted.expires_at)))
            }
            Some(i) => Ok(i.granted.clone()),
            None => Err(Error::denied(format!("access key `{access_key}` was not issued here"))),
        }
    }
}
