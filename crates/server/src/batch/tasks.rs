//! A job's tasks: running ones from the heartbeats, failing ones from the ledger, settled ones from the statistics.

use std::cmp::Reverse;

use axum::Json;
use axum::extract::{Path, Query, State};
use serde::Deserialize;
use tidemill_api::{TaskList, TaskRow};
use tidemill_base::{Error, Result, Timestamp};
use tidemill_batch::model::FailureClass;
use tidemill_batch::service::live_workers;
use tidemill_batch::store::read;
use tidemill_query::Engine;

use crate::AppState;
use crate::auth::{Principal, Role};
use crate::error::ApiResult;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TaskQuery {
    stage: Option<u32>,
    state: Option<String>,
    after: Option<String>,
    limit: Option<u64>,
}

pub(super) async fn list(
    State(state): State<AppState>,
    me: Principal,
    Path(id): Path<String>,
    Query(query): Query<TaskQuery>,
) -> ApiResult<Json<TaskList>> {
    me.require(Role::Viewer)?;
    read::job(state.blocks.ledger.as_ref(), &id).await?;
    let limit = query.limit.unwrap_or(100).clamp(1, 1000);
    let after = query.after.as_deref().map(cursor).transpose()?;
    let mut tasks = match query.state.as_deref().unwrap_or("all") {
        "running" => running(&state, &id).await?,
        "failed" => exceptions(&state, &id, after, limit, true).await?,
        "retrying" => exceptions(&state, &id, after, limit, false).await?,
        "succeeded" => settled(&state, &id, query.stage, after, limit, true).await?,
        "all" => settled(&state, &id, query.stage, after, limit, false).await?,
        other => {
            return Err(
                Error::invalid(format!("`{other}` is no state of a task; choose running, failed, retrying, succeeded or all")).into()
            );
        }
    };
    tasks.retain(|t| query.stage.is_none_or(|s| s == t.stage));
    let next = (tasks.len() as u64 >= limit).then(|| tasks.last().map(|t| format!("{}.{}.{}", t.stage, t.task, t.attempt))).flatten();
    Ok(Json(TaskList { tasks, next }))
}

/// `stage.task.attempt`, as the page before ended.
fn cursor(text: &str) -> Result<(u32, u64, u32)> {
    let mut parts = text.split('.');
    let parsed = (|| Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?)))();
    parsed.ok_or_else(|| Error::invalid(format!("`after={text}` is not where a page ended")))
}

async fn running(state: &AppState, job: &str) -> Result<Vec<TaskRow>> {
    let now = state.env.now();
    let workers = live_workers(state.blocks.table.as_ref(), now).await?;
    let mut out: Vec<TaskRow> = Vec::new();
    for w in &workers {
        for t in w.running.iter().filter(|t| t.job == job) {
            let run_us = u64::try_from(now.since(t.started_at).as_micros()).unwrap_or(u64::MAX);
            out.push(TaskRow {
                started_at: Some(t.started_at.rfc3339()),
                run_us,
                peak_memory: t.memory,
                ..row(t.stage, t.task, t.attempt, "running", &w.worker)
            });
        }
    }
    out.sort_by_key(|t| (t.stage, t.task, Reverse(t.attempt)));
    Ok(out)
}

async fn exceptions(state: &AppState, job: &str, after: Option<(u32, u64, u32)>, limit: u64, dead: bool) -> Result<Vec<TaskRow>> {
    let mut out = Vec::new();
    let mut at = after.map(|(s, t, _)| (s, t));
    loop {
        let page = read::exceptions(state.blocks.ledger.as_ref(), job, at, limit.max(100)).await?;
        at = page.last().map(|e| (e.stage, e.task));
        let full = page.len() as u64 >= limit.max(100);
        for e in page.into_iter().filter(|e| e.dead == dead) {
            let word = if e.dead { "failed" } else { "retrying" };
            out.push(TaskRow {
                class: Some(e.class),
                exit: e.exit,
                message: Some(e.message),
                started_at: Some(e.at.rfc3339()),
                ..row(e.stage, e.task, e.attempts, word, &e.worker)
            });
            if out.len() as u64 >= limit {
                return Ok(out);
            }
        }
        if !full {
            return Ok(out);
        }
    }
}

async fn settled(
    state: &AppState,
    job: &str,
    stage: Option<u32>,
    after: Option<(u32, u64, u32)>,
    limit: u64,
    only_ok: bool,
) -> Result<Vec<TaskRow>> {
    let mut wheres = vec![format!("job = '{}'", job.replace('\'', "''"))];
    if let Some(stage) = stage {
        wheres.push(format!("stage_number = {stage}"));
    }
    if only_ok {
        wheres.push("class = 'ok'".to_owned());
    }
    if let Some((s, t, a)) = after {
        wheres.push(format!("(stage_number > {s} OR (stage_number = {s} AND (task > {t} OR (task = {t} AND attempt > {a}))))"));
    }
    let table = super::view::attempts_table(read::job(state.blocks.ledger.as_ref(), job).await?.kind);
    let sql = format!(
        "SELECT stage_number, task, attempt, class, exit_code, worker, CAST(started_at AS BIGINT) AS started_us, wait_us, stage_in_us, run_us, stage_out_us,
         cpu_us, peak_memory FROM {table} WHERE {} ORDER BY stage_number, task, attempt LIMIT {limit}",
        wheres.join(" AND ")
    );
    let engine = state.service::<std::sync::Arc<Engine>>()?;
    let rows = engine.query(&sql, tidemill_query::Limits::default()).await?.to_json_rows().await?;
    Ok(rows.iter().map(settled_row).collect())
}

fn settled_row(v: &serde_json::Value) -> TaskRow {
    let number = |name: &str| v[name].as_u64().unwrap_or(0);
    let small = |name: &str| u32::try_from(number(name)).unwrap_or(u32::MAX);
    let class = v["class"].as_str().and_then(FailureClass::from_word);
    let word = if class.is_some() { "failed" } else { "succeeded" };
    TaskRow {
        class: class.map(|c| c.as_str().to_owned()),
        exit: v["exit_code"].as_i64().and_then(|e| i32::try_from(e).ok()),
        started_at: v["started_us"].as_i64().map(|us| Timestamp(us).rfc3339()),
        wait_us: number("wait_us"),
        stage_in_us: number("stage_in_us"),
        run_us: number("run_us"),
        stage_out_us: number("stage_out_us"),
        cpu_us: number("cpu_us"),
        peak_memory: number("peak_memory"),
        ..row(small("stage_number"), number("task"), small("attempt"), word, v["worker"].as_str().unwrap_or(""))
    }
}

fn row(stage: u32, task: u64, attempt: u32, state: &str, worker: &str) -> TaskRow {
    TaskRow {
        stage,
        task,
        attempt,
        state: state.to_owned(),
        class: None,
        exit: None,
        message: None,
        worker: worker.to_owned(),
        started_at: None,
        wait_us: 0,
        stage_in_us: 0,
        run_us: 0,
        stage_out_us: 0,
        cpu_us: 0,
        peak_memory: 0,
    }
}
