//! Users and tokens in the ledger.

use std::time::Duration;

use serde::Serialize;
use tidemill_base::{Error, ErrorKind, Result, Timestamp};
use tidemill_blocks::ledger::{Ledger, Migration, Row, Statement, Value};

use super::token::{self, Hash, Secret};
use super::{Auth, EVERYTHING, Role, check_scope};

/// The tables of users and tokens.
pub const MIGRATIONS: &[Migration] = &[Migration {
    name: "auth-001-users-and-tokens",
    sql: "CREATE TABLE auth_users (name TEXT PRIMARY KEY, role TEXT NOT NULL, created_us BIGINT NOT NULL, removed_us BIGINT);
          CREATE TABLE auth_tokens (
            id TEXT PRIMARY KEY, user_name TEXT NOT NULL, role TEXT NOT NULL, scopes TEXT NOT NULL, hash BYTEA NOT NULL,
            created_us BIGINT NOT NULL, expires_us BIGINT, revoked_us BIGINT, parent TEXT);
          CREATE INDEX auth_tokens_by_user ON auth_tokens (user_name);
          CREATE INDEX auth_tokens_by_parent ON auth_tokens (parent)",
}];

/// A user as listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct User {
    /// `a-z 0-9 - _ . @`, 1 to 64 characters.
    pub name: String,
    /// The most that the user's tokens may do.
    pub role: Role,
    /// When the user was made.
    #[schema(value_type = i64)]
    pub created_at: Timestamp,
}

/// A token as listed: everything but its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Token {
    /// Names it; not secret.
    pub id: String,
    /// Whose it is.
    pub user: String,
    /// What it may do.
    pub role: Role,
    /// Where it may do so.
    pub scopes: Vec<String>,
    /// When it was made.
    #[schema(value_type = i64)]
    pub created_at: Timestamp,
    /// When it ends by itself.
    #[schema(value_type = Option<i64>)]
    pub expires_at: Option<Timestamp>,
    /// When it was ended.
    #[schema(value_type = Option<i64>)]
    pub revoked_at: Option<Timestamp>,
    /// Whether it is a session of the console.
    pub session: bool,
}

/// What a check needs to know of a token.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) user: String,
    pub(super) role: Role,
    pub(super) user_role: Role,
    pub(super) scopes: Vec<String>,
    pub(super) hash: Hash,
    pub(super) parent: Option<String>,
    expires_at: Option<Timestamp>,
    revoked_at: Option<Timestamp>,
}

impl Stored {
    /// From when on it is refused.
    pub(super) fn ends_at(&self) -> Option<Timestamp> {
        match (self.expires_at, self.revoked_at) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }
}

/// The token with this id, of a user who has not been removed.
pub(super) async fn find(ledger: &dyn Ledger, id: &str) -> Result<Option<Stored>> {
    let sql = "SELECT t.user_name, t.role, u.role, t.scopes, t.hash, t.parent, t.expires_us, t.revoked_us
               FROM auth_tokens t JOIN auth_users u ON u.name = t.user_name WHERE t.id = $1 AND u.removed_us IS NULL";
    let rows = ledger.query(sql, vec![id.into()]).await?;
    rows.first().map(read_stored).transpose()
}

fn read_stored(row: &Row) -> Result<Stored> {
    Ok(Stored {
        user: row.text(0)?.to_owned(),
        role: row.text(1)?.parse()?,
        user_role: row.text(2)?.parse()?,
        scopes: split_scopes(row.text(3)?),
        hash: Hash::from_stored(row.blob(4)?).ok_or_else(|| Error::corrupt("a token's hash in the ledger is not 32 bytes"))?,
        parent: row.text_opt(5)?.map(str::to_owned),
        expires_at: row.int_opt(6)?.map(Timestamp),
        revoked_at: row.int_opt(7)?.map(Timestamp),
    })
}

impl Auth {
    /// Makes a user. `Conflict` when there is one of that name, removed ones included: names are not used twice, since the audit log
    /// refers to them.
    pub async fn create_user(&self, name: &str, role: Role) -> Result<()> {
        check_user(name)?;
        let sql = "INSERT INTO auth_users (name, role, created_us) VALUES ($1, $2, $3)";
        let made = self.ledger.transact(vec![Statement::new(sql, vec![name.into(), role.as_str().into(), self.env.now().into()])]).await;
        made.map(drop).map_err(|e| match e.kind() {
            ErrorKind::Conflict => Error::conflict(format!("there is or was a user `{name}`; choose another name")),
            _ => e,
        })
    }

    /// Changes a user's role; tokens that have more than it stop working.
    pub async fn set_role(&self, name: &str, role: Role) -> Result<()> {
        let sql = "UPDATE auth_users SET role = $2 WHERE name = $1 AND removed_us IS NULL";
        self.change_user(name, sql, role.as_str().into()).await
    }

    /// Removes a user; the user's tokens stop working.
    pub async fn remove_user(&self, name: &str) -> Result<()> {
        let sql = "UPDATE auth_users SET removed_us = $2 WHERE name = $1 AND removed_us IS NULL";
        self.change_user(name, sql, self.env.now().into()).await
    }

    async fn change_user(&self, name: &str, sql: &str, value: Value) -> Result<()> {
        let changed = self.ledger.transact(vec![Statement::new(sql, vec![name.into(), value])]).await?;
        self.forget(|_, stored| stored.user == name);
        if changed == [1] { Ok(()) } else { Err(Error::not_found(format!("there is no user `{}`", name.escape_debug()))) }
    }

    /// Every user, by name.
    pub async fn users(&self) -> Result<Vec<User>> {
        let sql = "SELECT name, role, created_us FROM auth_users WHERE removed_us IS NULL ORDER BY name";
        let rows = self.ledger.query(sql, vec![]).await?;
        rows.iter().map(|r| Ok(User { name: r.text(0)?.to_owned(), role: r.text(1)?.parse()?, created_at: r.time(2)? })).collect()
    }

    /// Makes a token for `user` and returns its id and its text, which is kept nowhere. No scopes: everything the role allows. No `ttl`:
    /// until revoked. `Denied` when the user's role does not allow `role`.
    pub async fn create_token(&self, user: &str, role: Role, scopes: &[String], ttl: Option<Duration>) -> Result<(String, Secret)> {
        let everything = [EVERYTHING.to_owned()];
        let scopes = if scopes.is_empty() { &everything } else { scopes };
        self.insert_token(user, role, scopes, ttl.map(|ttl| self.env.now() + ttl), None).await
    }

    pub(super) async fn insert_token(
        &self,
        user: &str,
        role: Role,
        scopes: &[String],
        expires_at: Option<Timestamp>,
        parent: Option<&str>,
    ) -> Result<(String, Secret)> {
        scopes.iter().try_for_each(|s| check_scope(s))?;
        let rows = self.ledger.query("SELECT role FROM auth_users WHERE name = $1 AND removed_us IS NULL", vec![user.into()]).await?;
        let Some(row) = rows.first() else { return Err(Error::not_found(format!("there is no user `{}`", user.escape_debug()))) };
        let user_role: Role = row.text(0)?.parse()?;
        if !user_role.may_hold(role) {
            return Err(Error::denied(format!("`{user}` has the role {user_role} and cannot hold a token of the role {role}")));
        }
        let (id, text, hash) = token::generate(&self.env);
        let sql = "INSERT INTO auth_tokens (id, user_name, role, scopes, hash, created_us, expires_us, parent)
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
        let params = vec![
            id.as_str().into(),
            user.into(),
            role.as_str().into(),
            scopes.join(" ").into(),
            hash.to_vec().into(),
            self.env.now().into(),
            expires_at.into(),
            parent.into(),
        ];
        self.ledger.transact(vec![Statement::new(sql, params)]).await?;
        Ok((id, text))
    }

    /// Ends a token and the sessions that were opened with it. `NotFound` when there is none that still runs.
    pub async fn revoke(&self, id: &str) -> Result<()> {
        let sql = "UPDATE auth_tokens SET revoked_us = $2 WHERE (id = $1 OR parent = $1) AND revoked_us IS NULL";
        let ended = self.ledger.transact(vec![Statement::new(sql, vec![id.into(), self.env.now().into()])]).await?;
        self.forget(|cached, stored| cached == id || stored.parent.as_deref() == Some(id));
        if ended.first() > Some(&0) { Ok(()) } else { Err(Error::not_found(format!("there is no running token `{}`", id.escape_debug()))) }
    }

    /// The tokens of `user`, or of everybody, the newest first.
    pub async fn tokens(&self, user: Option<&str>) -> Result<Vec<Token>> {
        let sql = "SELECT id, user_name, role, scopes, created_us, expires_us, revoked_us, parent FROM auth_tokens
                   WHERE CAST($1 AS TEXT) IS NULL OR user_name = $1 ORDER BY created_us DESC, id DESC LIMIT 10000";
        let rows = self.ledger.query(sql, vec![user.into()]).await?;
        rows.iter().map(read_token).collect()
    }
}

fn read_token(row: &Row) -> Result<Token> {
    Ok(Token {
        id: row.text(0)?.to_owned(),
        user: row.text(1)?.to_owned(),
        role: row.text(2)?.parse()?,
        scopes: split_scopes(row.text(3)?),
        created_at: row.time(4)?,
        expires_at: row.int_opt(5)?.map(Timestamp),
        revoked_at: row.int_opt(6)?.map(Timestamp),
        session: !row.is_null(7),
    })
}

fn split_scopes(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn check_user(name: &str) -> Result<()> {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.@".contains(&b);
    if (1..=64).contains(&name.len()) && name.bytes().all(fits) {
        Ok(())
    } else {
        Err(Error::invalid(format!("user name `{}` must be 1 to 64 characters of a-z 0-9 - _ . @", name.escape_debug())))
    }
}
