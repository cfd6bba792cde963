//! What follows from the master key.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tidemill_base::Env;

const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
/// As AWS marks temporary access keys.
const PREFIX: &str = "ASIA";
/// Random characters (5 bits each), then characters that tell our own access keys from foreign ones.
const RANDOM_CHARS: usize = 12;
const TAG_CHARS: usize = 4;

/// One key a purpose, so that what is made for one is worth nothing for another.
pub(super) struct Keys {
    tag: [u8; 32],
    secret: [u8; 32],
    token: [u8; 32],
    version: [u8; 4],
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("version", &hex::encode(self.version)).finish_non_exhaustive()
    }
}

impl Keys {
    pub(super) fn derive(master: &[u8; 32]) -> Self {
        let version = blake3::derive_key("tidemill grants v1: key version", master);
        Self {
            tag: blake3::derive_key("tidemill grants v1: access key tag", master),
            secret: blake3::derive_key("tidemill grants v1: secret key", master),
            token: blake3::derive_key("tidemill grants v1: session token", master),
            version: [version[0], version[1], version[2], version[3]],
        }
    }

    /// Tells one master key from another, without giving anything of it away.
    pub(super) const fn version(&self) -> [u8; 4] {
        self.version
    }

    /// Twenty characters in AWS's shape.
    pub(super) fn new_access_key(&self, env: &Env) -> String {
        let random = base32(&env.secret(RANDOM_CHARS).0);
        let tag = self.tag_of(&random);
        format!("{PREFIX}{random}{tag}")
    }

    /// Whether the access key has our tag. A foreign one passes once in a million times, and then has no valid token.
    pub(super) fn made_here(&self, access_key: &str) -> bool {
        let Some(body) = access_key.strip_prefix(PREFIX) else { return false };
        body.len() == RANDOM_CHARS + TAG_CHARS
            && body.bytes().all(|b| ALPHABET.contains(&b))
            && self.tag_of(&body[..RANDOM_CHARS]) == body[RANDOM_CHARS..]
    }

    fn tag_of(&self, random: &str) -> String {
        base32(&blake3::keyed_hash(&self.tag, random.as_bytes()).as_bytes()[..TAG_CHARS])
    }

    /// Forty characters in AWS's shape, 240 bits.
    pub(super) fn secret_of(&self, access_key: &str) -> String {
        STANDARD.encode(&blake3::keyed_hash(&self.secret, access_key.as_bytes()).as_bytes()[..30])
    }

    /// The hash over a token's claims. Comparing two of them takes the same time wherever they differ.
    pub(super) fn mac(&self, claims: &[u8]) -> blake3::Hash {
        blake3::keyed_hash(&self.token, claims)
    }
}

/// One character for the low five bits of each byte.
fn base32(bytes: &[u8]) -> String {
    bytes.iter().map(|b| char::from(ALPHABET[usize::from(b & 31)])).collect()
}
