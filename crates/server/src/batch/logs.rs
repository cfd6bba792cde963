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
    let stream = query.stream.as_deref().unwrap_or("both");
    if !["stdout", "stderr", "both"].contains(&stream) {
        return Err(Error::invalid(format!("`stream={stream}` is none of stdout, stderr and both")).into());
    }
    let workers = live_workers(state.blocks.table.as_ref(), state.env.now()).await?;
    let live = workers.iter().flat_map(|w| &w.running).any(|t| t.job == id && t.stage == stage && t.task == task);
    let kind = (header::CONTENT_TYPE, "text/plain; charset=utf-8");
    if live && query.attempt.is_none() {
        let text = objects::get_opt(state.blocks.objects.as_ref(), &keys::live_log(&id, stage, task)).await?.unwrap_or_default();
        return Ok(([kind], [(LIVE, "true")], text).into_response());
    }
    let outputs = outputs_of(&state, &id, stage, task).await?;
    let wanted = outputs.iter().find(|o| query.attempt.is_none_or(|a| a == o.attempt));
    let text = match wanted {
        Some(output) => text_of(&state, output, stream).await?,
        // A task that wrote nothing leaves no log; one that has not run has none yet.
        None => Vec::new(),
    };
    Ok(([kind], text).into_response())
}

async fn text_of(state: &AppState, output: &TaskOutput, stream: &str) -> Result<Vec<u8>> {
    let store = state.blocks.objects.as_ref();
    let mut out = Vec::new();
    for (name, file) in [("stdout", &output.stdout), ("stderr", &output.stderr)] {
        if let Some(file) = file
            && (stream == name || stream == "both")
        {
            out.extend_from_slice(&tail(store, file, MAX_LOG_BYTES).await?);
        }
    }
    Ok(out)
}
