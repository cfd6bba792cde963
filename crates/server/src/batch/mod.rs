//! Batch over HTTP.

mod explain;
mod files;
mod jobs;
mod logs;
mod report;
mod tasks;
mod view;
mod wishes;

use axum::Router;
use axum::routing::{get, post, put};

pub(crate) use view::{Running, counts, job_summary, running, slot_hours};

use crate::AppState;

/// Calls that answer at once.
pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/api/v1/batch/jobs", get(jobs::list).post(jobs::submit))
        .route("/api/v1/batch/jobs/{id}", get(jobs::show).delete(wishes::delete))
        .route("/api/v1/batch/jobs/{id}/deletion", get(wishes::deletion))
        .route("/api/v1/batch/jobs/{id}/pause", post(wishes::pause))
        .route("/api/v1/batch/jobs/{id}/resume", post(wishes::resume))
        .route("/api/v1/batch/jobs/{id}/cancel", post(wishes::cancel))
        .route("/api/v1/batch/jobs/{id}/priority", put(wishes::priority))
        .route("/api/v1/batch/jobs/{id}/retry", post(wishes::retry))
        .route("/api/v1/batch/jobs/{id}/tasks", get(tasks::list))
        .route("/api/v1/batch/jobs/{id}/results", get(files::list))
        .route("/api/v1/batch/jobs/{id}/explain", get(explain::explain))
        .route("/api/v1/batch/jobs/{id}/report", get(report::report))
        .route("/api/v1/batch/jobs/{id}/logs/{stage}/{task}", get(logs::read))
}

/// Calls that wait, or carry what is large.
pub fn streams() -> Router<AppState> {
    Router::new()
        .route("/api/v1/batch/jobs/{id}/events", get(jobs::events))
        .route("/api/v1/batch/jobs/{id}/files/{stage}/{task}/{*name}", get(files::read))
}
