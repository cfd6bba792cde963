//! What tasks wrote to standard output and error.

use axum::extract::{Path, Query, State};
use axum::http::{HeaderName, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use tidemill_base::{Error, Result};
use tidemill_batch::protocol::{TaskOutput, keys};
use tidemill_batch::service::live_workers;
use tidemill_batch::store::read;
use tidemill_blocks::objects;

use super::files::{outputs_of, tail};
use crate::AppState;
use crate::auth::{Principal, Role};
use crate::error::ApiResult;

/// No more of one log than this goes into one answer.
const MAX_LOG_BYTES: u64 = 16 << 20;
/// What a task writes to.
const STREAMS: [&str; 2] = ["stdout", "stderr"];

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LogQuery {
    stream: Option<String>,
    attempt: Option<u32>,
}

const LIVE: HeaderName = HeaderName::from_static("x-tidemill-live");

pub(super) async fn read(
    State(state): State<AppState>,
    me: Principal,
    Path((id, stage, task)): Path<(String, u32, u64)>,
    Query(query): Query<LogQuery>,
) -> ApiResult<Response> {
    me.require(Role::Viewer)?;
    read::job(state.blocks.ledger.as_ref(), &id).await?;
    require_task(&state, &id, stage, task).await?;
    let stream = query.stream.as_deref().unwrap_or("both");
    if stream != "both" && !STREAMS.contains(&stream) {
        return Err(Error::invalid(format!("`stream={stream}` is none of stdout, stderr and both")).into());
    }
    let workers = live_workers(state.blocks.table.as_ref(), state.env.now()).await?;
    let running = workers.iter().flat_map(|w| &w.running).find(|t| t.job == id && t.stage == stage && t.task == task);
    let outputs = outputs_of(&state, &id, stage, task).await?;
    // A heartbeat is a moment old: what it says is running may have settled since.
    let live = running.is_some_and(|r| outputs.iter().all(|o| o.attempt < r.attempt));
    let kind = (header::CONTENT_TYPE, "text/plain; charset=utf-8");
    if live && query.attempt.is_none() {
        let text = live_text(&state, &id, stage, task, stream).await?;
        return Ok(([kind], [(LIVE, "true")], text).into_response());
    }
    let wanted = outputs.iter().find(|o| query.attempt.is_none_or(|a| a == o.attempt));
    let text = match wanted {
        Some(output) => text_of(&state, output, stream).await?,
        // A task that wrote nothing leaves no log; one that has not run has none yet.
        None => Vec::new(),
    };
    Ok(([kind], text).into_response())
}

/// `NotFound` unless the job has this task.
async fn require_task(state: &AppState, job: &str, stage: u32, task: u64) -> Result<()> {
    let stages = read::stages(state.blocks.ledger.as_ref(), Some(job)).await?;
    let Some(found) = stages.iter().find(|s| s.stage == stage) else {
        return Err(Error::not_found(format!("job {job} has no stage {stage}; it has {}, counted from 0", stages.len())));
    };
    // A stage that has not been cut yet may still get the task.
    if task < found.total || found.state == "blocked" {
        return Ok(());
    }
    Err(Error::not_found(format!("stage {stage} of job {job} has no task {task}; it has {}, counted from 0", found.total)))
}

async fn live_text(state: &AppState, job: &str, stage: u32, task: u64, stream: &str) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    for name in STREAMS.into_iter().filter(|name| stream == *name || stream == "both") {
        let path = keys::live_log(job, stage, task, name);
        out.extend_from_slice(&objects::get_opt(state.blocks.objects.as_ref(), &path).await?.unwrap_or_default());
    }
    Ok(out)
}

async fn text_of(state: &AppState, output: &TaskOutput, stream: &str) -> Result<Vec<u8>> {
    let store = state.blocks.objects.as_ref();
    let mut out = Vec::new();
    for (name, file) in STREAMS.into_iter().zip([&output.stdout, &output.stderr]) {
        if let Some(file) = file
            && (stream == name || stream == "both")
        {
            out.extend_from_slice(&tail(store, file, MAX_LOG_BYTES).await?);
        }
    }
    Ok(out)
}
