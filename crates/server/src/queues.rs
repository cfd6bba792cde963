//! Queues and dead letters over HTTP.

use std::collections::BTreeMap;

use axum::extract::{Path, Query, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine as _;
use serde::Deserialize;
use tidemill_api::{DeadLetter, DeadLetterList, Queue, QueueList, RedriveRequest, RedriveResponse};
use tidemill_base::{Error, Result};
use tidemill_batch::protocol::keys;
use tidemill_batch::service::Manager;
use tidemill_blocks::queue::{Browsed, MessageId, Receipt, Receive, Redrive};

use crate::AppState;
use crate::auth::{Principal, Role};
use crate::error::ApiResult;

/// The routes.
pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/api/v1/queues", get(list))
        .route("/api/v1/queues/{name}/messages", get(messages))
        .route("/api/v1/queues/{name}/redrive", post(redrive))
}

async fn list(State(state): State<AppState>, me: Principal) -> ApiResult<Json<QueueList>> {
    me.require(Role::Viewer)?;
    let queues = state.blocks.queue.list().await?.into_iter().map(|q| Queue {
        name: q.name,
        ready: q.stats.ready,
        delayed: q.stats.delayed,
        in_flight: q.stats.in_flight,
        oldest_us: q.stats.oldest_age.map(|d| u64::try_from(d.as_micros()).unwrap_or(u64::MAX)),
        max_receives: q.settings.max_receives,
        dead_letter: q.settings.dead_letter,
    });
    Ok(Json(QueueList { queues: queues.collect() }))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct MessageQuery {
    limit: Option<usize>,
}

async fn messages(
    State(state): State<AppState>,
    me: Principal,
    Path(name): Path<String>,
    Query(query): Query<MessageQuery>,
) -> ApiResult<Json<DeadLetterList>> {
    me.require(Role::Viewer)?;
    let found = state.blocks.queue.browse(&name, query.limit.unwrap_or(100).clamp(1, 1000)).await?;
    Ok(Json(DeadLetterList { messages: found.iter().map(letter).collect() }))
}

fn letter(b: &Browsed) -> DeadLetter {
    let body = serde_json::from_slice(&b.body).unwrap_or_else(|_| match std::str::from_utf8(&b.body) {
        Ok(text) => serde_json::Value::String(text.to_owned()),
        Err(_) => serde_json::Value::String(base64::engine::general_purpose::STANDARD.encode(&b.body)),
    });
    DeadLetter { id: b.id.0.clone(), body, receives: b.receives, sent_at: b.sent_at.rfc3339(), died_in: b.died_in.clone() }
}

async fn redrive(
    State(state): State<AppState>,
    me: Principal,
    Path(name): Path<String>,
    Json(request): Json<RedriveRequest>,
) -> ApiResult<Json<RedriveResponse>> {
    me.require(Role::Operator)?;
    let moved = if name == keys::DEAD_QUEUE {
        retry_dead_tasks(&state, &me, request.ids.as_deref()).await?
    } else {
        let which = request.ids.map_or(Redrive::All, |ids| Redrive::Only(ids.into_iter().map(MessageId).collect()));
        state.blocks.queue.redrive(&name, which, None).await?
    };
    Ok(Json(RedriveResponse { moved }))
}

#[derive(Debug, Deserialize)]
struct DeadTask {
    job: String,
    stage: u32,
    task: u64,
}

/// Dead letters of one job: stage and number of each task, and what acknowledges them.
#[derive(Debug, Default)]
struct Letters {
    tasks: Vec<(u32, u64)>,
    receipts: Vec<Receipt>,
}

/// A task that failed for good is not a message to be sent again: it is retried, so that its job knows of it.
async fn retry_dead_tasks(state: &AppState, me: &Principal, only: Option<&[String]>) -> Result<u64> {
    let manager = state.service::<Manager>()?;
    let queue = &state.blocks.queue;
    let (mut moved, mut passed_over) = (0, Vec::new());
    loop {
        let got = queue.receive(keys::DEAD_QUEUE, Receive::up_to(100, std::time::Duration::from_secs(60))).await?;
        if got.is_empty() {
            break;
        }
        let mut by_job: BTreeMap<String, Letters> = BTreeMap::new();
        for d in got {
            if only.is_some_and(|ids| !ids.contains(&d.id.0)) {
                passed_over.push(d.receipt);
                continue;
            }
            let task: DeadTask =
                serde_json::from_slice(&d.body).map_err(|e| Error::corrupt("a dead task's record does not decode").with_source(e))?;
            let letters = by_job.entry(task.job).or_default();
            letters.tasks.push((task.stage, task.task));
            letters.receipts.push(d.receipt);
        }
        for (job, letters) in by_job {
            match manager.retry(&job, Some(letters.tasks), &me.user).await {
                Ok(count) => moved += count,
                // Retried by other means since, or the job is gone: the letters have had their day.
                Err(e) => tracing::info!(job, error = %e.chain(), "dead tasks were not redriven"),
            }
            queue.ack(keys::DEAD_QUEUE, &letters.receipts).await?;
        }
    }
    for receipts in passed_over.chunks(500) {
        queue.extend(keys::DEAD_QUEUE, receipts, std::time::Duration::ZERO).await?;
    }
    Ok(moved)
}
