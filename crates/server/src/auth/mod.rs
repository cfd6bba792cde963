//! Who is calling: users, roles, tokens, sessions of the console.
//!
//! A user has a role. A token belongs to a user, has a role that the user's includes, scopes, and an end; its secret is shown once and
//! only its hash is kept. A session of the console is a short token of its own, in a cookie that scripts cannot read. Everything is in
//! the ledger, so every manager on it knows the same tokens; each remembers what it found for [`CACHE_TTL`], which is how long a
//! token revoked on another manager may still pass.

mod admin;
mod layer;
mod roles;
mod routes;
mod session;
mod store;
mod token;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidemill_base::{Env, Error, Result, Timestamp};
use tidemill_blocks::ledger::Ledger;

pub use admin::ADMIN_TOKEN_FILE;
pub(crate) use admin::write_private;
pub use layer::{authenticate, guard, guard_scope, signed_in};
pub use roles::{EVERYTHING, Role, check_scope, covers};
pub use routes::routes;
pub(crate) use routes::{ChangeUser, CreatedToken, NewToken, NewUser};
pub(crate) use session::SignIn;
pub use session::{SESSION_COOKIE, same_origin};
pub use store::{MIGRATIONS, Token, User};
pub use token::Secret;

use self::store::Stored;

/// The scope of users, tokens of others, and the audit log.
pub const SCOPE: &str = "auth";
/// How long what the ledger said of a token is believed.
pub const CACHE_TTL: Duration = Duration::from_secs(5);
/// Tokens remembered at once.
const MAX_CACHED: usize = 10_000;

/// Whoever makes a request. Handlers take it as an argument; requests without one are answered 401 before they get there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Principal {
    /// The user's name.
    pub user: String,
    /// What the token may do.
    pub role: Role,
    /// Where it may do so.
    pub scopes: Vec<String>,
    /// Which of the user's tokens it is.
    pub token_id: String,
}

impl Principal {
    /// `Denied` unless the role includes `role`.
    pub fn require(&self, role: Role) -> Result<()> {
        if self.role.includes(role) {
            return Ok(());
        }
        Err(Error::denied(format!("this needs the role {role} and the token of `{}` has the role {}", self.user, self.role)))
    }

    /// `Denied` unless a scope of the token covers `scope`.
    pub fn require_scope(&self, scope: &str) -> Result<()> {
        if covers(&self.scopes, scope) {
            return Ok(());
        }
        Err(Error::denied(format!("this needs the scope `{scope}` and the token of `{}` has {}", self.user, self.scopes.join(", "))))
    }

    /// `Denied` unless it is about the caller's own or the caller is an operator.
    pub fn require_owner(&self, owner: &str) -> Result<()> {
        if self.user == owner { self.require(Role::User) } else { self.require(Role::Operator) }
    }
}

/// Users and tokens. Clones share one cache.
#[derive(Debug, Clone)]
pub struct Auth {
    pub(crate) ledger: Arc<dyn Ledger>,
    pub(crate) env: Env,
    cache: Arc<Mutex<BTreeMap<String, Cached>>>,
}

#[derive(Debug, Clone)]
struct Cached {
    stored: Stored,
    at: Timestamp,
}

impl Auth {
    /// Over `ledger`, which must have [`MIGRATIONS`] applied; [`Auth::migrate`] does so.
    pub fn new(ledger: Arc<dyn Ledger>, env: Env) -> Self {
        Self { ledger, env, cache: Arc::default() }
    }

    /// Applies the migrations of users, tokens and the audit log.
    pub async fn migrate(&self) -> Result<()> {
        self.ledger.migrate(MIGRATIONS).await?;
        self.ledger.migrate(crate::audit::MIGRATIONS).await
    }

    /// Who holds the token with this text. `Denied`, always with the same words, when it is malformed, unknown, wrong, expired or revoked,
    /// so that a guess learns nothing.
    pub async fn authenticate(&self, text: &str) -> Result<Principal> {
        let refused = || Error::denied("the token is not valid, has expired or was revoked");
        let (id, secret) = token::parse(text).ok_or_else(refused)?;
        let stored = self.stored(id).await?.ok_or_else(refused)?;
        let now = self.env.now();
        let holds = stored.hash.matches(secret) && stored.ends_at().is_none_or(|end| now < end) && stored.user_role.may_hold(stored.role);
        if !holds {
            return Err(refused());
        }
        Ok(Principal { user: stored.user, role: stored.role, scopes: stored.scopes, token_id: id.to_owned() })
    }

    /// What the ledger says of a token, or said a moment ago. Unknown ids are not remembered: anybody can make them up.
    async fn stored(&self, id: &str) -> Result<Option<Stored>> {
        let now = self.env.now();
        if let Some(cached) = self.lock().get(id)
            && now.since(cached.at) < CACHE_TTL
        {
            return Ok(Some(cached.stored.clone()));
        }
        let found = store::find(self.ledger.as_ref(), id).await?;
        let mut cache = self.lock();
        match &found {
            Some(stored) => {
                if cache.len() >= MAX_CACHED {
                    cache.retain(|_, c| now.since(c.at) < CACHE_TTL);
                }
                cache.insert(id.to_owned(), Cached { stored: stored.clone(), at: now });
            }
            None => {
                cache.remove(id);
            }
        }
        Ok(found)
    }

    fn forget(&self, drop_it: impl Fn(&str, &Stored) -> bool) {
        self.lock().retain(|id, c| !drop_it(id, &c.stored));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Cached>> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
