//! Opening, showing, and steering sessions.

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use tidemill_api::{OpenSessionRequest, OpenSessionResponse, PriorityRequest, RetryRequest, RetryResponse, SessionDetail, SessionList};
use tidemill_base::{Error, ErrorKind, Result};
use tidemill_batch::model::{EngineSpec, FunctionRef, JobSpec, JobState, RunSpec, Wanted};
use tidemill_batch::protocol::EnginesBeat;
use tidemill_batch::service::{Manager, Submit, live_engines};
use tidemill_batch::store::course;
use tidemill_batch::store::read::{self, JobFilter, JobKind, JobRow};
use tidemill_blocks::objects;
use tidemill_grid::{SessionSpec, Stored};

use super::{look, packages};
use crate::AppState;
use crate::auth::{Principal, Role};
use crate::batch::{Running, counts, running, slot_hours};
use crate::error::ApiResult;

type Accepted = (StatusCode, Json<serde_json::Value>);

/// Anybody who may look at jobs may look at sessions.
pub(super) async fn may_look(state: &AppState, me: &Principal, id: &str) -> Result<JobRow> {
    me.require(Role::Viewer)?;
    session(state, id).await
}

/// One's own sessions, or as an operator anybody's.
pub(super) async fn may_change(state: &AppState, me: &Principal, id: &str) -> Result<()> {
    me.require(Role::User)?;
    me.require_owner(&session(state, id).await?.user)
}

async fn session(state: &AppState, id: &str) -> Result<JobRow> {
    let row = read::job(state.blocks.ledger.as_ref(), id).await.map_err(|e| unknown(id, e))?;
    if row.kind == JobKind::Session { Ok(row) } else { Err(no_session(id)) }
}

/// Whose session it is, without a look at the rest of it.
pub(super) async fn owner(state: &AppState, id: &str) -> Result<String> {
    state.service::<Manager>()?.session_owner(id).await.map_err(|e| unknown(id, e))
}

fn unknown(id: &str, e: Error) -> Error {
    if e.kind() == ErrorKind::NotFound { no_session(id) } else { e }
}

fn no_session(id: &str) -> Error {
    Error::not_found(format!("there is no session `{id}`; `tidemill grid list` shows those there are"))
}

pub(super) async fn open(
    State(state): State<AppState>,
    me: Principal,
    Json(request): Json<OpenSessionRequest>,
) -> ApiResult<(StatusCode, Json<OpenSessionResponse>)> {
    me.require(Role::User)?;
    let mut spec: SessionSpec = serde_json::from_value(request.session.clone())
        .map_err(|e| Error::invalid(format!("the session does not read: {e}")).with_source(e))?;
    spec.check()?;
    spec.packages = packages::resolve(&state, &spec.packages).await?;
    let stored = store(&state, &me, &spec, &request).await?;
    let submit = Submit { user: me.user.clone(), spec: spec.to_job(&stored), client_token: request.client_token };
    let manager = state.service::<Manager>()?;
    let made = manager.submit(submit).await?;
    if let Err(e) = packages::still_there(&state, &spec.packages).await {
        manager.want(&made.id, Wanted::Cancel, &me.user).await?;
        return Err(e.into());
    }
    let status = if made.existing { StatusCode::OK } else { StatusCode::CREATED };
    Ok((status, Json(OpenSessionResponse { id: made.id, existing: made.existing })))
}

/// Keeps what is too large for the session's row, under a name of its own in the uploads, which go when the session is deleted.
async fn store(state: &AppState, me: &Principal, spec: &SessionSpec, request: &OpenSessionRequest) -> Result<Stored> {
    let folder = format!("uploads/{}", state.env.id("u"));
    let keep = async |what: &str, bytes: Bytes| {
        let path = format!("{folder}/{what}");
        objects::put(state.blocks.objects.as_ref(), &objects::parse_path(&path)?, bytes).await?;
        Ok::<_, Error>(Some(path))
    };
    let packed = |field: &str, text: &Option<String>| {
        let text = text.as_ref().ok_or_else(|| Error::invalid(format!("`{field}` is packed, and no bytes were sent along")))?;
        decode(field, text)
    };
    let mut stored = Stored::default();
    if spec.function == tidemill_grid::Function::Packed {
        stored.function = keep("function", packed("function", &request.function)?).await?;
    }
    if spec.setup_function == Some(tidemill_grid::Function::Packed) {
        stored.setup_function = keep("setup-function", packed("setup_function", &request.setup_function)?).await?;
    }
    match (&request.setup, &request.setup_object) {
        (Some(_), Some(_)) => return Err(Error::invalid("`setup` and `setup_object` exclude each other")),
        (Some(text), None) => stored.setup = keep("setup", decode("setup", text)?).await?,
        (None, Some(object)) => {
            let path = crate::objects::readable(me, object)?;
            stored.setup = keep("setup", objects::get(state.blocks.objects.as_ref(), &path).await?).await?;
        }
        (None, None) => {}
    }
    Ok(stored)
}

fn decode(field: &str, text: &str) -> Result<Bytes> {
    STANDARD.decode(text).map(Bytes::from).map_err(|e| Error::invalid(format!("`{field}` is not base64: {e}")).with_source(e))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    state: Option<String>,
    user: Option<String>,
    after: Option<String>,
    limit: Option<u64>,
}

pub(super) async fn list(State(state): State<AppState>, me: Principal, Query(query): Query<ListQuery>) -> ApiResult<Json<SessionList>> {
    me.require(Role::Viewer)?;
    let wanted = match query.state.as_deref() {
        None | Some("") => None,
        Some(word) => Some(JobState::from_word(word).ok_or_else(|| Error::invalid(format!("`{word}` is no state of a session")))?),
    };
    let limit = query.limit.unwrap_or(50).clamp(1, 200);
    let filter = JobFilter { kind: Some(JobKind::Session), state: wanted, user: query.user, after: query.after, limit: limit + 1 };
    let mut rows = read::jobs(state.blocks.ledger.as_ref(), &filter).await?;
    let more = rows.len() as u64 > limit;
    rows.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    let next = if more { rows.last().map(|r| r.id.clone()) } else { None };
    let (mut sessions, moment) = (Vec::with_capacity(rows.len()), Moment::of(&state).await?);
    for row in &rows {
        sessions.push(detail(&state, row, &moment).await?);
    }
    Ok(Json(SessionList { sessions, next }))
}

pub(super) async fn show(State(state): State<AppState>, me: Principal, Path(id): Path<String>) -> ApiResult<Json<SessionDetail>> {
    let row = may_look(&state, &me, &id).await?;
    Ok(Json(detail(&state, &row, &Moment::of(&state).await?).await?))
}

/// What workers say of themselves, asked once for all sessions that are shown.
pub(super) struct Moment {
    running: Running,
    engines: Vec<EnginesBeat>,
}

impl Moment {
    pub(super) async fn of(state: &AppState) -> Result<Self> {
        let table = state.blocks.table.as_ref();
        Ok(Self { running: running(table, &state.env).await?, engines: live_engines(table, state.env.now()).await? })
    }
}

pub(super) async fn detail(state: &AppState, row: &JobRow, moment: &Moment) -> Result<SessionDetail> {
    let ledger = state.blocks.ledger.as_ref();
    let spec = read::spec(ledger, &row.id).await?;
    let stages = read::stages(ledger, Some(&row.id)).await?;
    let stage = stages.first().ok_or_else(|| Error::corrupt(format!("session {} has lost its tasks", row.id)))?;
    let (open, deliveries) = read::session(ledger, &row.id).await?;
    let engine = engine(&spec);
    let (engines, busy) = look::warm(&moment.engines, &row.id);
    let mut tasks = counts(stage, &moment.running);
    // A heartbeat names tasks that run by themselves; of those that travel together an engine runs one at a time.
    let more = busy.min(stage.outstanding).saturating_sub(tasks.running);
    tasks.running += more;
    tasks.waiting = tasks.waiting.saturating_sub(more);
    Ok(SessionDetail {
        id: row.id.clone(),
        name: row.name.clone(),
        user: row.user.clone(),
        engine: engine.map(|e| e.engine.clone()).unwrap_or_default(),
        function: engine.map(|e| function(&e.function)).unwrap_or_default(),
        class: row.class.clone(),
        priority: row.priority,
        state: row.state.as_str().to_owned(),
        reason: row.reason.clone(),
        open: open && !row.state.is_final(),
        tasks,
        bundle: course::newest_range(ledger, &row.id).await?,
        engines,
        attempts: stage.attempts,
        deliveries,
        run_seconds: stage.run_us as f64 / 1e6,
        mean_seconds: stage.mean_us / 1e6,
        cost: slot_hours(stage) * state.config.fleet.price_per_slot_hour,
        labels: spec.labels.clone(),
        opened_at: row.submitted_at.rfc3339(),
        started_at: row.started_at.map(|t| t.rfc3339()),
        finished_at: row.finished_at.map(|t| t.rfc3339()),
    })
}

fn engine(spec: &JobSpec) -> Option<&EngineSpec> {
    match &spec.stages.first()?.run {
        RunSpec::Engine(engine) => Some(engine),
        _ => None,
    }
}

fn function(function: &FunctionRef) -> String {
    match function {
        FunctionRef::Name(name) | FunctionRef::Module(name) => name.clone(),
        FunctionRef::Packed(_) => "packed".to_owned(),
    }
}

pub(super) async fn close(State(state): State<AppState>, me: Principal, Path(id): Path<String>) -> ApiResult<Accepted> {
    may_change(&state, &me, &id).await?;
    state.service::<Manager>()?.close_session(&id, &me.user).await?;
    Ok((StatusCode::ACCEPTED, Json(serde_json::json!({}))))
}

async fn want(state: &AppState, me: &Principal, id: &str, wanted: Wanted) -> ApiResult<Accepted> {
    may_change(state, me, id).await?;
    state.service::<Manager>()?.want(id, wanted, &me.user).await?;
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

/// The client is there. What it does otherwise says so as well.
pub(super) async fn keep_alive(State(state): State<AppState>, me: Principal, Path(id): Path<String>) -> ApiResult<Accepted> {
    may_change(&state, &me, &id).await?;
    state.service::<Manager>()?.heard_of(&id).await?;
    Ok((StatusCode::ACCEPTED, Json(serde_json::json!({}))))
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
    let only = request.tasks.map(|tasks| tasks.iter().map(|t| (0, t.task)).collect());
    let tasks = state.service::<Manager>()?.retry(&id, only, &me.user).await?;
    Ok((StatusCode::ACCEPTED, Json(RetryResponse { tasks })))
}

pub(super) async fn delete(State(state): State<AppState>, me: Principal, Path(id): Path<String>) -> ApiResult<Accepted> {
    may_change(&state, &me, &id).await?;
    state.service::<Manager>()?.delete(&id, &me.user).await?;
    Ok((StatusCode::ACCEPTED, Json(serde_json::json!({}))))
}
