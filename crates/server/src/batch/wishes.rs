//! Pausing, resuming, cancelling, retrying, changing priority.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use tidemill_api::{DeletionProgress, PriorityRequest, RetryRequest, RetryResponse};
use tidemill_base::{Error, Result};
use tidemill_batch::model::Wanted;
use tidemill_batch::service::Manager;
use tidemill_batch::store::read;

use crate::AppState;
use crate::auth::{Principal, Role};
use crate::error::ApiResult;

type Accepted = (StatusCode, Json<serde_json::Value>);

/// One's own jobs, or as an operator anybody's.
async fn may_change(state: &AppState, me: &Principal, job: &str) -> Result<()> {
    me.require(Role::User)?;
    let row = read::job(state.blocks.ledger.as_ref(), job).await?;
    me.require_owner(&row.user)
}

async fn want(state: &AppState, me: &Principal, job: &str, wanted: Wanted) -> ApiResult<Accepted> {
    may_change(state, me, job).await?;
    state.service::<Manager>()?.want(job, wanted, &me.user).await?;
    Ok((StatusCode::ACCEPTED, Json(serde_json::json!({}))))
}

pub(super) async fn pause(State(state): State<AppState>, me: Principal, Path(id): Path<String>) -> ApiResult<Accepted> {
    want(&state, &me, &id, Wanted::Pause).await
}

pub(super) async fn resume(State(state): State<AppState>, me: Principal, Path(id): Path<String>) -> ApiResult<Accepted> {
    want(&state, &me, &id, Wanted::Run).await
}

pub(super) async fn cancel(State(state): State<AppState>, me: Principal, Path(id): Path<String>) -> ApiResult<Accepted> {
    want(&state, &me, &id, Wanted::Cancel).await
}

pub(super) async fn priority(
    State(state): State<AppState>,
    me: Principal,
    Path(id): Path<String>,
    Json(request): Json<PriorityRequest>,
) -> ApiResult<Accepted> {
    may_change(&state, &me, &id).await?;
    state.service::<Manager>()?.set_priority(&id, request.priority, &me.user).await?;
    Ok((StatusCode::ACCEPTED, Json(serde_json::json!({}))))
}

pub(super) async fn retry(
    State(state): State<AppState>,
    me: Principal,
    Path(id): Path<String>,
    Json(request): Json<RetryRequest>,
) -> ApiResult<(StatusCode, Json<RetryResponse>)> {
    may_change(&state, &me, &id).await?;
    let only = request.tasks.map(|tasks| tasks.iter().map(|t| (t.stage, t.task)).collect());
    let tasks = state.service::<Manager>()?.retry(&id, only, &me.user).await?;
    Ok((StatusCode::ACCEPTED, Json(RetryResponse { tasks })))
}

pub(super) async fn delete(State(state): State<AppState>, me: Principal, Path(id): Path<String>) -> ApiResult<Accepted> {
    may_change(&state, &me, &id).await?;
    state.service::<Manager>()?.delete(&id, &me.user).await?;
    Ok((StatusCode::ACCEPTED, Json(serde_json::json!({}))))
}

pub(super) async fn deletion(State(state): State<AppState>, me: Principal, Path(id): Path<String>) -> ApiResult<Json<DeletionProgress>> {
    me.require(Role::Viewer)?;
    let found = state.service::<Manager>()?.deletion(&id).await?;
    let d = found.ok_or_else(|| Error::not_found(format!("job `{}` is not being deleted, or is gone", id.escape_debug())))?;
    Ok(Json(DeletionProgress { removed: d.removed, total: d.total }))
}
