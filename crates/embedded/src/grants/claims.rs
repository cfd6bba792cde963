//! The session token: format byte, key version, claims in postcard, keyed hash; all in base64url.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use tidemill_base::{Error, Result, Timestamp};
use tidemill_blocks::grants::Scope;

use super::keys::Keys;

const FORMAT: u8 = 1;
const HEADER: usize = 5;
const MAC: usize = 32;
/// Longer ones were not made here; they are not even decoded.
const MAX_TOKEN_CHARS: usize = 8192;

/// What a session token says.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Claims {
    pub(super) access_key: String,
    pub(super) subject: String,
    pub(super) scopes: Vec<Scope>,
    pub(super) expires_at: Timestamp,
}

impl Claims {
    pub(super) fn seal(&self, keys: &Keys) -> Result<String> {
        let mut out = vec![FORMAT];
        out.extend(keys.version());
        let mut out = postcard::to_extend(self, out).map_err(|e| Error::internal("claims do not serialise").with_source(e))?;
        out.extend(keys.mac(&out).as_bytes());
        Ok(URL_SAFE_NO_PAD.encode(out))
    }

    /// Checks the hash before anything of the claims is looked at. The errors hold nothing of the token.
    pub(super) fn open(token: &str, keys: &Keys) -> Result<Self> {
        let malformed = || Error::denied("the session token is malformed; pass it on just as it was issued");
        if token.len() > MAX_TOKEN_CHARS {
            return Err(malformed());
        }
        let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| malformed())?;
        let (signed, mac) = bytes.split_last_chunk::<MAC>().ok_or_else(malformed)?;
        if signed.len() <= HEADER || signed[0] != FORMAT {
            return Err(malformed());
        }
        if signed[1..HEADER] != keys.version() {
            return Err(Error::denied(
                "the session token was made under another key, by another server or before a change of keys; ask for a new credential",
            ));
        }
        if keys.mac(signed) != blake3::Hash::from_bytes(*mac) {
            return Err(Error::denied("the session token was changed after it was issued; ask for a new credential"));
        }
        postcard::from_bytes(&signed[HEADER..]).map_err(|_| malformed())
    }
}
