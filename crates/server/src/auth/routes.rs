//! Users, tokens and sessions over HTTP.

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tidemill_base::{Error, HumanDuration};

use super::{Principal, Role, SCOPE, Token, User, guard, guard_scope, session};
use crate::AppState;
use crate::error::ApiResult;

/// The routes that need no principal, and those that do.
pub fn routes() -> (Router<AppState>, Router<AppState>) {
    let public = Router::new().route("/api/v1/session", post(session::open));
    let users = Router::new()
        .route("/api/v1/users", get(users).post(create_user))
        .route("/api/v1/users/{name}", delete(remove_user).patch(change_user));
    let own = Router::new()
        .route("/api/v1/session", get(session::show).delete(session::close))
        .route("/api/v1/tokens", get(tokens).post(create_token))
        .route("/api/v1/tokens/{id}", delete(revoke));
    (public, guard_scope(guard(users, Role::Admin), SCOPE).merge(own))
}

#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewUser {
    name: String,
    role: Role,
}

#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChangeUser {
    role: Role,
}

#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewToken {
    /// The caller, if left out.
    user: Option<String>,
    /// The caller's own, if left out.
    role: Option<Role>,
    /// The caller's own, if left out.
    #[serde(default)]
    scopes: Vec<String>,
    /// Until revoked, if left out.
    #[schema(value_type = Option<String>, example = "12h")]
    ttl: Option<HumanDuration>,
}

#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct CreatedToken {
    id: String,
    /// Shown here and never again.
    token: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenFilter {
    user: Option<String>,
}

async fn users(State(state): State<AppState>) -> ApiResult<Json<Vec<User>>> {
    Ok(Json(state.auth.users().await?))
}

async fn create_user(State(state): State<AppState>, Json(new): Json<NewUser>) -> ApiResult<StatusCode> {
    state.auth.create_user(&new.name, new.role).await?;
    Ok(StatusCode::CREATED)
}

async fn change_user(
    State(state): State<AppState>,
    me: Principal,
    Path(name): Path<String>,
    Json(change): Json<ChangeUser>,
) -> ApiResult<StatusCode> {
    refuse_self(&me, &name)?;
    state.auth.set_role(&name, change.role).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn remove_user(State(state): State<AppState>, me: Principal, Path(name): Path<String>) -> ApiResult<StatusCode> {
    refuse_self(&me, &name)?;
    state.auth.remove_user(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn require_admin(me: &Principal) -> Result<(), Error> {
    me.require(Role::Admin)?;
    me.require_scope(SCOPE)
}

/// The last administrator would lock everybody out, and cannot tell that they are the last.
fn refuse_self(me: &Principal, name: &str) -> Result<(), Error> {
    if me.user == name { Err(Error::invalid("let another administrator change your own user")) } else { Ok(()) }
}

async fn tokens(State(state): State<AppState>, me: Principal, Query(filter): Query<TokenFilter>) -> ApiResult<Json<Vec<Token>>> {
    let whose = match filter.user {
        None if me.role == Role::Admin => None,
        None => Some(me.user.clone()),
        Some(user) if user == me.user => Some(user),
        Some(user) => {
            require_admin(&me)?;
            Some(user)
        }
    };
    Ok(Json(state.auth.tokens(whose.as_deref()).await?))
}

async fn create_token(
    State(state): State<AppState>,
    me: Principal,
    Json(new): Json<NewToken>,
) -> ApiResult<(StatusCode, Json<CreatedToken>)> {
    let role = new.role.unwrap_or(me.role);
    if !me.role.may_hold(role) {
        return Err(Error::denied(format!("a token of the role {} cannot make one of the role {role}", me.role)).into());
    }
    let scopes = if new.scopes.is_empty() { me.scopes.clone() } else { new.scopes };
    scopes.iter().try_for_each(|s| me.require_scope(s))?;
    let user = new.user.unwrap_or_else(|| me.user.clone());
    if user != me.user {
        require_admin(&me)?;
    }
    let (id, secret) = state.auth.create_token(&user, role, &scopes, new.ttl.map(|t| t.0)).await?;
    Ok((StatusCode::CREATED, Json(CreatedToken { id, token: secret.expose().to_owned() })))
}

async fn revoke(State(state): State<AppState>, me: Principal, Path(id): Path<String>) -> ApiResult<StatusCode> {
    let own = state.auth.tokens(Some(&me.user)).await?.iter().any(|t| t.id == id);
    if !own {
        require_admin(&me)?;
    }
    state.auth.revoke(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}
