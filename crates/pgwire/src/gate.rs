//! Who may come in; the server that has users and tokens says so.

use std::fmt;
use std::net::IpAddr;

use async_trait::async_trait;
use tidemill_base::Result;

/// Lets clients in.
#[async_trait]
pub trait Gate: Send + Sync {
    /// A pass for whoever brings this password, which is a token; the user's name says nothing.
    ///
    /// # Errors
    /// `Denied` for a wrong token or one without the right to read, `Exhausted` for an address that tries too often, `Unavailable` when it
    /// cannot be found out.
    async fn admit(&self, user: &str, password: &str, from: IpAddr) -> Result<Box<dyn Pass>>;
}

/// The right of a session to ask.
#[async_trait]
pub trait Pass: fmt::Debug + Send + Sync {
    /// Whose session it is.
    fn user(&self) -> &str;

    /// Asked before each statement.
    ///
    /// # Errors
    /// `Denied` when the token was revoked or has ended meanwhile, which ends the session; anything else refuses the statement alone.
    async fn check(&self) -> Result<()>;
}
