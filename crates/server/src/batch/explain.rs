//! Why a job, a stage or a task is as it is.

use axum::Json;
use axum::extract::{Path, Query, State};
use serde::Deserialize;
use serde_json::Value;
use tidemill_api::Explanation;
use tidemill_base::{Error, Result};
use tidemill_batch::explain::{self, About, Attempt, Facts};
use tidemill_batch::model::FailureClass;
use tidemill_batch::store::read::JobRow;
use tidemill_query::{Engine, Limits};

use crate::AppState;
use crate::auth::{Principal, Role};
use crate::error::ApiResult;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExplainQuery {
    stage: Option<u32>,
    task: Option<u64>,
}

pub(super) async fn explain(
    State(state): State<AppState>,
    me: Principal,
    Path(id): Path<String>,
    Query(query): Query<ExplainQuery>,
) -> ApiResult<Json<Explanation>> {
    me.require(Role::Viewer)?;
    let about = match (query.stage, query.task) {
        (None, None) => About::Job,
        (Some(stage), None) => About::Stage(stage),
        (Some(stage), Some(task)) => About::Task(stage, task),
        (None, Some(task)) => return Err(Error::invalid(format!("`task={task}` needs its stage: add `stage=N`, from 0")).into()),
    };
    let mut facts = Facts::gather(&state.blocks, &id, about, state.env.now()).await?;
    if let About::Task(stage, task) = about {
        facts.attempts = attempts(&state, &facts.job, stage, task).await?;
    }
    let e = explain::explain(&facts, about)?;
    Ok(Json(Explanation { subject: e.subject, state: e.state, because: e.because, next: e.next }))
}

/// The settled attempts of a task, oldest first.
async fn attempts(state: &AppState, job: &JobRow, stage: u32, task: u64) -> Result<Vec<Attempt>> {
    let table = super::view::attempts_table(job.kind);
    let sql = format!(
        "SELECT attempt, class, worker, run_us FROM {table} WHERE job = '{}' AND stage_number = {stage} AND task = {task} ORDER BY attempt",
        job.id.replace('\'', "''")
    );
    let engine = state.service::<std::sync::Arc<Engine>>()?;
    let rows = engine.query(&sql, Limits::default()).await?.to_json_rows().await?;
    Ok(rows.iter().map(attempt).collect())
}

fn attempt(row: &Value) -> Attempt {
    Attempt {
        attempt: row["attempt"].as_u64().and_then(|n| u32::try_from(n).ok()).unwrap_or(0),
        class: row["class"].as_str().and_then(FailureClass::from_word),
        worker: row["worker"].as_str().unwrap_or_default().to_owned(),
        run_us: row["run_us"].as_u64().unwrap_or(0),
    }
}
