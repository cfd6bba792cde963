//! Temporary credentials for S3 clients, handed out to those who have a token.

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use tidemill_api::{CredentialRequest, CredentialResponse};
use tidemill_base::{Error, HumanDuration};
use tidemill_blocks::grants::{Credential, MAX_TTL, Scope, Verbs};

use crate::AppState;
use crate::auth::{Principal, Role};
use crate::error::ApiResult;
use crate::internal::usable;
use crate::s3::{StaticKey, StaticKeys, ensure_bucket};

/// The route.
pub(super) fn routes() -> Router<AppState> {
    Router::new().route("/api/v1/credentials", post(issue))
}

async fn issue(
    State(state): State<AppState>,
    me: Principal,
    Json(wanted): Json<CredentialRequest>,
) -> ApiResult<(StatusCode, Json<CredentialResponse>)> {
    me.require(if wanted.read_only { Role::Viewer } else { Role::User })?;
    let prefix = wanted.prefix.trim_matches('/').to_owned();
    let bucket = prefix.split('/').next().unwrap_or_default();
    if bucket.is_empty() || bucket == "system" || (["jobs", "packages"].contains(&bucket) && !wanted.read_only && me.role != Role::Admin) {
        return Err(Error::denied(format!("no credential reaches `{}`; name a bucket of your own", wanted.prefix.escape_debug())).into());
    }
    if !wanted.read_only {
        // A credential for a prefix cannot make the bucket around it.
        ensure_bucket(state.blocks.objects.as_ref(), bucket).await?;
    }
    let verbs = if wanted.read_only { Verbs::READ } else { Verbs::ALL };
    let ttl = wanted.ttl.as_deref().map(str::parse::<HumanDuration>).transpose()?.map_or(MAX_TTL, |t| t.0);
    let credential = usable(state.blocks.grants.issue(&me.user, vec![Scope { prefix, verbs }], ttl).await?)?;
    let Credential { access_key, secret_key, session_token, expires_at, endpoint, bucket } = credential;
    let expires_at = expires_at.rfc3339();
    Ok((StatusCode::CREATED, Json(CredentialResponse { access_key, secret_key, session_token, expires_at, endpoint, bucket })))
}

/// Nobody has lasting keys: whoever has a token asks for a temporary credential.
#[derive(Debug, Clone, Copy)]
pub(super) struct NoStaticKeys;

impl StaticKeys for NoStaticKeys {
    fn lookup(&self, _access_key: &str) -> Option<StaticKey> {
        None
    }
}
