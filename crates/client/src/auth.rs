//! Users and tokens.

use reqwest::Method;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::json;
use tidemill_api::{CredentialRequest, CredentialResponse};
use tidemill_base::{Result, Timestamp};

use crate::Client;
use crate::batch::pairs;
use crate::http::segment;

/// A user.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct User {
    /// The name.
    pub name: String,
    /// The most that the user's tokens may do: `admin`, `operator`, `user`, `viewer` or `worker`.
    pub role: String,
    /// When the user was made.
    #[serde(deserialize_with = "moment")]
    pub created_at: String,
}

/// A token without its secret.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Token {
    /// Names it; not secret.
    pub id: String,
    /// Whose it is.
    pub user: String,
    /// What it may do.
    pub role: String,
    /// Where it may do so.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// When it was made.
    #[serde(deserialize_with = "moment")]
    pub created_at: String,
    /// When it ends by itself.
    #[serde(default, deserialize_with = "maybe_moment")]
    pub expires_at: Option<String>,
    /// When it was ended.
    #[serde(default, deserialize_with = "maybe_moment")]
    pub revoked_at: Option<String>,
    /// Whether it is a session of the console.
    #[serde(default)]
    pub session: bool,
}

/// A token to make. What is left out is the caller's own.
#[derive(Debug, Clone, Default, Serialize)]
pub struct NewToken {
    /// Whose it is to be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// What it may do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Where it may do so.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
    /// How long it lasts, such as `12h`; absent: until revoked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl: Option<String>,
}

/// A new token. Its secret is shown here and never again.
#[derive(Clone, Serialize, Deserialize)]
pub struct CreatedToken {
    /// Names it.
    pub id: String,
    /// The secret.
    pub token: String,
}

impl std::fmt::Debug for CreatedToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CreatedToken").field("id", &self.id).finish_non_exhaustive()
    }
}

/// A time as RFC 3339 text, or as the number of microseconds that it is inside the server.
#[derive(Deserialize)]
#[serde(untagged)]
enum Moment {
    Text(String),
    Micros(Timestamp),
}

impl Moment {
    fn text(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::Micros(at) => at.rfc3339(),
        }
    }
}

fn moment<'de, D: Deserializer<'de>>(d: D) -> std::result::Result<String, D::Error> {
    Moment::deserialize(d).map(Moment::text)
}

fn maybe_moment<'de, D: Deserializer<'de>>(d: D) -> std::result::Result<Option<String>, D::Error> {
    Option::<Moment>::deserialize(d).map(|m| m.map(Moment::text))
}

impl Client {
    /// A temporary credential for S3 clients.
    pub async fn credential(&self, wanted: &CredentialRequest) -> Result<CredentialResponse> {
        self.post("/credentials", wanted).await
    }

    /// The users. For administrators.
    pub async fn users(&self) -> Result<Vec<User>> {
        self.get("/users", &[]).await
    }

    /// Makes a user. For administrators.
    pub async fn create_user(&self, name: &str, role: &str) -> Result<()> {
        self.tell(self.request(Method::POST, "/users").json(&json!({"name": name, "role": role}))).await
    }

    /// Gives a user another role. For administrators.
    pub async fn set_role(&self, name: &str, role: &str) -> Result<()> {
        self.tell(self.request(Method::PATCH, &format!("/users/{}", segment(name))).json(&json!({"role": role}))).await
    }

    /// Removes a user, and with it the user's tokens. For administrators.
    pub async fn remove_user(&self, name: &str) -> Result<()> {
        self.tell(self.request(Method::DELETE, &format!("/users/{}", segment(name)))).await
    }

    /// Tokens: of one user, or all that the caller may see.
    pub async fn tokens(&self, user: Option<&str>) -> Result<Vec<Token>> {
        self.get("/tokens", &pairs([("user", user.map(str::to_owned))])).await
    }

    /// Makes a token.
    pub async fn create_token(&self, new: &NewToken) -> Result<CreatedToken> {
        self.post("/tokens", new).await
    }

    /// Ends a token.
    pub async fn revoke_token(&self, id: &str) -> Result<()> {
        self.tell(self.request(Method::DELETE, &format!("/tokens/{}", segment(id)))).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_text_and_as_numbers() {
        let json = r#"{"id":"t1","user":"ann","role":"user","scopes":["*"],"created_at":1767225600000000,"expires_at":"2026-02-01T00:00:00Z","revoked_at":null,"session":false}"#;
        let token: Token = serde_json::from_str(json).unwrap();
        assert_eq!(token.created_at, "2026-01-01T00:00:00Z");
        assert_eq!(token.expires_at.as_deref(), Some("2026-02-01T00:00:00Z"));
        assert_eq!(token.revoked_at, None);
    }
}
