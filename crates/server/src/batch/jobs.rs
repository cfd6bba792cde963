//! Submitting, listing, showing and following jobs.

use std::convert::Infallible;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use futures::{Stream, stream};
use serde::Deserialize;
use tidemill_api::{JobDetail, JobList, SubmitRequest, SubmitResponse};
use tidemill_base::{Error, Result};
use tidemill_batch::model::{JobSpec, JobState};
use tidemill_batch::service::{Manager, Submit};
use tidemill_batch::spec;
use tidemill_batch::store::read::{self, JobFilter, JobKind};

use super::view;
use crate::AppState;
use crate::auth::{Principal, Role};
use crate::error::ApiResult;
use crate::telemetry::{TRACEPARENT, TraceContext, join_trace};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SubmitQuery {
    client_token: Option<String>,
}

pub(super) async fn submit(
    State(state): State<AppState>,
    me: Principal,
    Query(query): Query<SubmitQuery>,
    headers: HeaderMap,
    body: Bytes,
) -> ApiResult<(StatusCode, Json<SubmitResponse>)> {
    me.require(Role::User)?;
    let (mut spec, token) = read_job(&state, &headers, &body)?;
    if let Some(caller) = headers.get(TRACEPARENT).and_then(|v| v.to_str().ok()).and_then(TraceContext::parse) {
        join_trace(&mut spec, &caller, &state.env);
    }
    let submit = Submit { user: me.user.clone(), spec, client_token: token.or(query.client_token) };
    let made = state.service::<Manager>()?.submit(submit).await?;
    let status = if made.existing { StatusCode::OK } else { StatusCode::CREATED };
    Ok((status, Json(SubmitResponse { id: made.id, existing: made.existing, tasks: made.tasks })))
}

/// A job file as TOML, or a request as JSON.
fn read_job(state: &AppState, headers: &HeaderMap, body: &Bytes) -> Result<(JobSpec, Option<String>)> {
    let text = std::str::from_utf8(body).map_err(|e| Error::invalid("the job is not UTF-8 text").with_source(e))?;
    let now = state.env.now();
    let kind = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("application/json");
    if kind.starts_with("application/toml") {
        return Ok((spec::from_toml(text, now)?, None));
    }
    let request: SubmitRequest =
        serde_json::from_str(text).map_err(|e| Error::invalid(format!("the request does not read as JSON: {e}")).with_source(e))?;
    Ok((spec::from_json(&request.job.to_string(), now)?, request.client_token))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    state: Option<String>,
    user: Option<String>,
    after: Option<String>,
    limit: Option<u64>,
}

pub(super) async fn list(State(state): State<AppState>, me: Principal, Query(query): Query<ListQuery>) -> ApiResult<Json<JobList>> {
    me.require(Role::Viewer)?;
    let wanted = match query.state.as_deref() {
        None | Some("") => None,
        Some(word) => Some(JobState::from_word(word).ok_or_else(|| Error::invalid(format!("`{word}` is no state of a job")))?),
    };
    let limit = query.limit.unwrap_or(50).clamp(1, 1000);
    let filter = JobFilter { kind: Some(JobKind::Job), state: wanted, user: query.user, after: query.after, limit: (limit + 1).min(1000) };
    let ledger = state.blocks.ledger.as_ref();
    let mut rows = read::jobs(ledger, &filter).await?;
    let more = rows.len() as u64 > limit;
    rows.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    let running = view::running(state.blocks.table.as_ref(), &state.env).await?;
    let mut jobs = Vec::with_capacity(rows.len());
    for row in &rows {
        jobs.push(view::job_summary(row, &read::stages(ledger, Some(&row.id)).await?, &running));
    }
    let next = if more { jobs.last().map(|j| j.id.clone()) } else { None };
    Ok(Json(JobList { jobs, next }))
}

pub(super) async fn show(State(state): State<AppState>, me: Principal, Path(id): Path<String>) -> ApiResult<Json<JobDetail>> {
    me.require(Role::Viewer)?;
    Ok(Json(detail(&state, &id).await?))
}

pub(super) async fn detail(state: &AppState, id: &str) -> Result<JobDetail> {
    let ledger = state.blocks.ledger.as_ref();
    let job = read::job(ledger, id).await?;
    let spec = read::spec(ledger, id).await?;
    let stages = read::stages(ledger, Some(id)).await?;
    let running = view::running(state.blocks.table.as_ref(), &state.env).await?;
    view::job_detail(&job, &spec, &stages, &running, state.config.fleet.price_per_slot_hour)
}

/// Events are no closer together than this.
const EVENT_PAUSE: Duration = Duration::from_millis(100);
/// With nothing new from the manager, running counts are looked at so often.
const EVENT_IDLE: Duration = Duration::from_secs(1);

pub(super) async fn events(
    State(state): State<AppState>,
    me: Principal,
    Path(id): Path<String>,
) -> ApiResult<Sse<impl Stream<Item = Result<Event, Infallible>>>> {
    me.require(Role::Viewer)?;
    read::job(state.blocks.ledger.as_ref(), &id).await?;
    let changes = state.service::<Manager>()?.changes();
    let follow = Follow { state, id, changes, last: String::new(), ended: false };
    let events = stream::unfold(follow, |mut follow| async move {
        let event = follow.next().await?;
        Some((Ok(event), follow))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::default()))
}

struct Follow {
    state: AppState,
    id: String,
    changes: tokio::sync::watch::Receiver<u64>,
    last: String,
    ended: bool,
}

impl Follow {
    /// The job whenever it has changed, up to its final state.
    async fn next(&mut self) -> Option<Event> {
        while !self.ended && self.state.shutdown.phase().is_running() {
            self.changes.mark_unchanged();
            match detail(&self.state, &self.id).await {
                Ok(job) => {
                    self.ended = JobState::from_word(&job.state).is_some_and(JobState::is_final);
                    let text = serde_json::to_string(&job).ok()?;
                    if text != self.last {
                        let first = self.last.is_empty();
                        self.last.clone_from(&text);
                        if !first && !self.ended {
                            tidemill_runtime::sleep(EVENT_PAUSE).await;
                        }
                        return Some(Event::default().data(text));
                    }
                }
                Err(e) => {
                    tracing::debug!(job = self.id, error = %e.chain(), "cannot follow a job");
                    return None;
                }
            }
            tokio::select! {
                biased;
                () = self.state.shutdown.draining() => {}
                changed = self.changes.changed() => changed.ok()?,
                () = tidemill_runtime::sleep(EVENT_IDLE) => {}
            }
        }
        None
    }
}
