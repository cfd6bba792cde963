//! The text of tokens: `tm_ID_SECRET`. The id is public and names the token in listings and logs; the secret is 32 random bytes.
//!
//! What is stored is the BLAKE3 hash of the secret. A slow password hash would buy nothing: 256 bits of randomness cannot be
//! guessed however fast the hash is, and every request pays for it. Passwords are not offered.

use std::fmt;

use subtle::ConstantTimeEq;
use tidemill_base::Env;

const PREFIX: &str = "tm";
const SECRET_BYTES: usize = 32;
/// Separates these hashes from every other use of BLAKE3.
const CONTEXT: &str = "tidemill 2026 token secret at rest";

/// The text of a token. It does not print; [`Secret::expose`] is the one way to its text.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text, to be handed to its owner and nobody else.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// What is stored of a token's secret.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hash([u8; 32]);

impl Hash {
    /// As stored; anything that is not a hash equals no token's.
    pub(super) fn from_stored(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    pub(super) fn to_vec(self) -> Vec<u8> {
        self.0.to_vec()
    }

    /// Whether it is the hash of `secret`, in a time that does not depend on how much of it is right.
    pub(super) fn matches(&self, secret: &str) -> bool {
        hash(secret).0.ct_eq(&self.0).into()
    }
}

/// A fresh token: its id, its text, and what to store.
pub(super) fn generate(env: &Env) -> (String, Secret, Hash) {
    let id = env.id("k");
    let secret = hex::encode(env.secret(SECRET_BYTES).0);
    let stored = hash(&secret);
    (id.clone(), Secret(format!("{PREFIX}_{id}_{secret}")), stored)
}

/// Id and secret of a token's text; `None` when it does not have the shape of one.
pub(super) fn parse(text: &str) -> Option<(&str, &str)> {
    let (id, secret) = text.strip_prefix(PREFIX)?.strip_prefix('_')?.split_once('_')?;
    let id_fits = (2..=40).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let secret_fits = secret.len() == 2 * SECRET_BYTES && secret.bytes().all(|b| b.is_ascii_hexdigit());
    (id_fits && secret_fits).then_some((id, secret))
}

fn hash(secret: &str) -> Hash {
    Hash(blake3::derive_key(CONTEXT, secret.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_base::Timestamp;

    #[test]
    fn a_token_is_known_by_its_secret_alone_and_does_not_print() {
        let (env, _) = Env::manual(Timestamp::from_millis(1_700_000_000_000), 3);
        let (id, text, stored) = generate(&env);
        let (parsed_id, secret) = parse(text.expose()).unwrap();
        assert_eq!(parsed_id, id);
        assert!(stored.matches(secret));
        let mut wrong = secret.to_owned();
        wrong.replace_range(63..64, if secret.ends_with('0') { "1" } else { "0" });
        assert!(!stored.matches(&wrong));
        assert!(!format!("{text:?}").contains(secret));
        assert!(!stored.to_vec().windows(8).any(|w| text.expose().as_bytes().windows(8).any(|t| t == w)));
    }

    #[test]
    fn text_of_another_shape_is_no_token() {
        for text in ["", "tm_", "tm_k1", "tm_k1_", "tm_k1_abc", "tm__00", "Bearer tm_k1_00", "tm_K1_00"] {
            assert!(parse(text).is_none(), "{text}");
        }
    }
}
