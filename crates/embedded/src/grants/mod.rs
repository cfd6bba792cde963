//! The grants block without a service: credentials that this installation makes and checks by itself.
//!
//! Nothing is stored. A credential's secret follows from the master key and the access key; its session token holds the claims
//! (whom for, which prefixes, until when) under a keyed BLAKE3 hash, so any server with the same master key can check it. Whoever
//! changes the master key takes back every credential at once.

mod claims;
mod key_file;
mod keys;

use std::time::Duration;

use async_trait::async_trait;
use tidemill_base::{Env, Error, Result};
use tidemill_blocks::grants::{Credential, Granted, Grants, MAX_TTL, Scope};

use claims::Claims;
pub use key_file::load_or_create_key;
use keys::Keys;

const MIN_TTL: Duration = Duration::from_secs(1);
const MAX_SCOPES: usize = 8;
/// A session token goes into one HTTP header; these keep it well below the 8 KiB that servers commonly take in all.
const MAX_SUBJECT_BYTES: usize = 256;
const MAX_PREFIXES_BYTES: usize = 4096;

/// Issues and checks temporary credentials under one master key.
///
/// ```no_run
/// # async fn example() -> tidemill_base::Result<()> {
/// use std::time::Duration;
/// use tidemill_base::Env;
/// use tidemill_blocks::grants::{Grants, Scope, Verbs};
/// use tidemill_embedded::grants::{EmbeddedGrants, load_or_create_key};
///
/// let env = Env::system();
/// let key = load_or_create_key("data/grants.key", &env)?;
/// let grants = EmbeddedGrants::new(key, env, Some("http://127.0.0.1:8080".into()));
/// let scope = Scope { prefix: "jobs/j1".into(), verbs: Verbs::READ };
/// let credential = grants.issue("ada", vec![scope], Duration::from_secs(900)).await?;
/// assert_eq!(grants.verify(&credential.access_key, &credential.session_token)?.subject, "ada");
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct EmbeddedGrants {
    keys: Keys,
    env: Env,
    endpoint: Option<String>,
}

impl EmbeddedGrants {
    /// Under `master_key`, which never leaves this value. `endpoint` is the URL of the S3 endpoint that takes the credentials.
    pub fn new(master_key: [u8; 32], env: Env, endpoint: Option<String>) -> Self {
        Self { keys: Keys::derive(&master_key), env, endpoint }
    }
}

#[async_trait]
impl Grants for EmbeddedGrants {
    async fn issue(&self, subject: &str, scopes: Vec<Scope>, ttl: Duration) -> Result<Credential> {
        check_subject(subject)?;
        check_scopes(&scopes)?;
        if ttl < MIN_TTL || ttl > MAX_TTL {
            return Err(Error::invalid(format!("a credential lives from 1 s to {} s, and {ttl:?} was asked for", MAX_TTL.as_secs())));
        }
        let access_key = self.keys.new_access_key(&self.env);
        let expires_at = self.env.now() + ttl;
        let claims = Claims { access_key: access_key.clone(), subject: subject.to_owned(), scopes, expires_at };
        Ok(Credential {
            secret_key: self.keys.secret_of(&access_key),
            session_token: claims.seal(&self.keys)?,
            access_key,
            expires_at,
            endpoint: self.endpoint.clone(),
            bucket: None,
        })
    }

    fn secret_of(&self, access_key: &str) -> Option<String> {
        self.keys.made_here(access_key).then(|| self.keys.secret_of(access_key))
    }

    fn verify(&self, access_key: &str, session_token: &str) -> Result<Granted> {
        let claims = Claims::open(session_token, &self.keys)?;
        if claims.access_key != access_key {
            return Err(Error::denied("the session token belongs to another access key; use the pair that was issued together"));
        }
        if self.env.now() >= claims.expires_at {
            return Err(Error::denied(format!("the credential expired at {}; ask for a new one", claims.expires_at)));
        }
        Ok(Granted { subject: claims.subject, scopes: claims.scopes, expires_at: claims.expires_at })
    }
}

fn check_subject(subject: &str) -> Result<()> {
    if subject.is_empty() || subject.len() > MAX_SUBJECT_BYTES {
        return Err(Error::invalid(format!("the subject of a credential has 1 to {MAX_SUBJECT_BYTES} bytes, not {}", subject.len())));
    }
    Ok(())
}

fn check_scopes(scopes: &[Scope]) -> Result<()> {
    if scopes.is_empty() || scopes.len() > MAX_SCOPES {
        return Err(Error::invalid(format!("a credential has 1 to {MAX_SCOPES} scopes, not {}", scopes.len())));
    }
    let total: usize = scopes.iter().map(|s| s.prefix.len()).sum();
    if total > MAX_PREFIXES_BYTES {
        return Err(Error::invalid(format!("the prefixes of a credential have {total} bytes together, more than {MAX_PREFIXES_BYTES}")));
    }
    scopes.iter().try_for_each(check_scope)
}

fn check_scope(scope: &Scope) -> Result<()> {
    let bad = |why: &str| Err(Error::invalid(format!("scope `{}`: {why}", scope.prefix)));
    let v = scope.verbs;
    if !(v.read || v.write || v.delete || v.list) {
        return bad("it allows no verb; name at least one of read, write, delete and list");
    }
    // The empty prefix reaches everything; that is for the caller to decide, and visible in the audit log.
    let path = scope.prefix.strip_suffix('/').unwrap_or(&scope.prefix);
    if !scope.prefix.is_empty() && path.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
        return bad("a prefix is segments joined by `/`, none of them empty, `.` or `..`");
    }
    if path.chars().any(char::is_control) {
        return bad("a prefix holds no control characters");
    }
    Ok(())
}
