//! The grid over HTTP.

mod archive;
mod collect;
mod from;
mod look;
mod packages;
mod results;
mod sessions;
mod tasks;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post, put};

pub use from::{DataSource, DataSources, SourceRows};

use tidemill_batch::service::Accepted;

use crate::AppState;

/// The largest manifest and the largest description of data, bytes.
const MAX_REQUEST: usize = 16 << 20;

/// Calls that answer at once.
pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/api/v1/grid/sessions", get(sessions::list).post(sessions::open))
        .route("/api/v1/grid/sessions/{id}", get(sessions::show).delete(sessions::delete))
        .route("/api/v1/grid/sessions/{id}/progress", get(look::progress))
        .route("/api/v1/grid/sessions/{id}/failures", get(look::failures))
        .route("/api/v1/grid/sessions/{id}/tasks/{task}/failure", get(look::failure))
        .route("/api/v1/grid/sessions/{id}/engines", get(look::engines))
        .route("/api/v1/grid/sessions/{id}/close", post(sessions::close))
        .route("/api/v1/grid/sessions/{id}/pause", post(sessions::pause))
        .route("/api/v1/grid/sessions/{id}/resume", post(sessions::resume))
        .route("/api/v1/grid/sessions/{id}/cancel", post(sessions::cancel))
        .route("/api/v1/grid/sessions/{id}/priority", put(sessions::priority))
        .route("/api/v1/grid/sessions/{id}/retry", post(sessions::retry))
        .route("/api/v1/grid/sessions/{id}/keep-alive", post(sessions::keep_alive))
        .route("/api/v1/grid/sessions/{id}/tasks/cancel", post(tasks::cancel).layer(DefaultBodyLimit::max(MAX_REQUEST)))
        .route("/api/v1/grid/archives/{id}", get(archive::show).delete(archive::delete))
        .route("/api/v1/grid/archives/{id}/restore", post(archive::restore))
        .route("/api/v1/grid/packages/{name}/{version}", get(packages::show).delete(packages::delete))
}

/// Calls that wait, or carry what is large.
pub fn streams() -> Router<AppState> {
    Router::new()
        .route("/api/v1/grid/packages", get(packages::list).post(packages::publish).layer(DefaultBodyLimit::max(MAX_REQUEST)))
        .route("/api/v1/grid/packages/blobs/{sha256}", put(packages::put_blob))
        .route("/api/v1/grid/sessions/{id}/tasks", post(tasks::submit))
        .route("/api/v1/grid/sessions/{id}/tasks-from", post(from::tasks_from).layer(DefaultBodyLimit::max(MAX_REQUEST)))
        .route("/api/v1/grid/sessions/{id}/collect", post(collect::collect))
        .route("/api/v1/grid/sessions/{id}/archive", post(archive::archive))
        .route("/api/v1/grid/archives/{id}/rerun", post(archive::rerun))
        .route("/api/v1/grid/sessions/{id}/results", get(results::follow))
}

/// Counts tasks that were taken in just now, and not by an earlier call.
fn count_taken(taken: &Accepted) {
    if !taken.existing {
        metrics::counter!("tidemill_grid_tasks_submitted_total").increment(taken.count);
    }
}
