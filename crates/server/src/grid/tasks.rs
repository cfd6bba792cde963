//! Taking tasks in.

use axum::Json;
use axum::body::{Body, to_bytes};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use tidemill_api::{CancelTasksRequest, CancelTasksResponse, SubmitTasksResponse};
use tidemill_base::Error;
use tidemill_batch::service::Manager;

use super::sessions::{may_change, owner};
use crate::AppState;
use crate::audit::InOwnRecords;
use crate::auth::Principal;
use crate::error::ApiResult;

/// The longest submission, bytes.
const MAX_BYTES: usize = 256 << 20;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SubmitQuery {
    client_token: Option<String>,
}

pub(super) async fn submit(
    State(state): State<AppState>,
    me: Principal,
    Path(id): Path<String>,
    Query(query): Query<SubmitQuery>,
    body: Body,
) -> ApiResult<Response> {
    let owner = owner(&state, &id).await?;
    me.require_owner(&owner)?;
    let body = to_bytes(body, MAX_BYTES).await.map_err(|e| {
        Error::invalid(format!("the submission cannot be read, or is longer than {MAX_BYTES} bytes; send it in parts")).with_source(e)
    })?;
    let taken = state.service::<Manager>()?.submit_tasks(&id, query.client_token.as_deref(), body, &me.user).await?;
    super::count_taken(&taken);
    let status = if taken.existing { StatusCode::OK } else { StatusCode::CREATED };
    let mut response =
        (status, Json(SubmitTasksResponse { first: taken.first, count: taken.count, existing: taken.existing })).into_response();
    if owner == me.user {
        response.extensions_mut().insert(InOwnRecords);
    }
    Ok(response)
}

/// Gives up tasks: those that nobody has begun, or with `running` those that run as well.
pub(super) async fn cancel(
    State(state): State<AppState>,
    me: Principal,
    Path(id): Path<String>,
    Json(request): Json<CancelTasksRequest>,
) -> ApiResult<(StatusCode, Json<CancelTasksResponse>)> {
    may_change(&state, &me, &id).await?;
    let tasks: Vec<(u64, u64)> = request.tasks.iter().map(|t| (t.first, t.count)).collect();
    let done = state.service::<Manager>()?.cancel_tasks(&id, &tasks, request.running, &me.user).await?;
    Ok((StatusCode::ACCEPTED, Json(CancelTasksResponse { cancelled: done.cancelled, asked: done.asked, ended: done.ended })))
}
