//! Prometheus metrics: one recorder for the process, rendered at `/metrics`. [`METRICS`] says what each of them is; a test reads the sources
//! for metrics that are not in it, and `docs/reference/metrics.md` is made of it.

mod list;

use std::sync::OnceLock;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tidemill_base::{Error, Result};
use tidemill_runtime::{Shutdown, sleep};

use crate::AppState;
use crate::auth::{Principal, Role};
use crate::error::{ApiError, ApiResult};
use crate::request::Peer;

pub use list::{Kind, METRICS, Metric, reference};

/// Upper bounds of the histograms, in seconds: from a lookup in memory to a long-poll.
const BUCKETS: &[f64] = &[0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// Of the run times of tasks, which are anything between a function that does nothing and an hour of Monte Carlo.
const RUN_BUCKETS: &[f64] = &[0.000_01, 0.000_1, 0.000_5, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0, 300.0, 3600.0];
/// Of numbers of tasks.
const TASK_BUCKETS: &[f64] = &[1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 10_000.0];
/// What histograms were told is put into its buckets so often. Until then each value lies in memory by itself, asked for or not.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// Installs the recorder behind the `metrics` macros. Later calls change nothing and give the same one.
pub fn install() -> Result<PrometheusHandle> {
    static HANDLE: OnceLock<Result<PrometheusHandle, String>> = OnceLock::new();
    let built = HANDLE.get_or_init(|| {
        PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), BUCKETS)
            .and_then(|b| b.set_buckets_for_metric(Matcher::Full("tidemill_grid_task_run_seconds".to_owned()), RUN_BUCKETS))
            .and_then(|b| b.set_buckets_for_metric(Matcher::Full("tidemill_grid_bundle_tasks".to_owned()), TASK_BUCKETS))
            .and_then(PrometheusBuilder::install_recorder)
            .inspect(|_| METRICS.iter().for_each(Metric::describe))
            .map_err(|e| e.to_string())
    });
    built.clone().map_err(|e| Error::internal(format!("metrics recorder: {e}")))
}

/// Keeps the memory of histograms bounded until the end, whether or not somebody asks for metrics.
pub(crate) async fn keep_up(metrics: &PrometheusHandle, shutdown: &Shutdown) -> Result<()> {
    loop {
        tokio::select! {
            biased;
            () = shutdown.closing() => return Ok(()),
            () = sleep(UPKEEP_EVERY) => metrics.run_upkeep(),
        }
    }
}

/// The route. On loopback it needs no token, elsewhere one of a viewer.
pub fn routes() -> Router<AppState> {
    Router::new().route("/metrics", get(render))
}

async fn render(State(state): State<AppState>, request: Request) -> ApiResult<impl IntoResponse> {
    let local = request.extensions().get::<Peer>().is_some_and(|p| p.0.ip().is_loopback());
    // Behind a proxy every peer is local, so there the token is always asked for.
    if !local || state.config.server.insecure {
        let principal = request.extensions().get::<Principal>();
        principal.ok_or_else(|| ApiError::unauthenticated("metrics are for loopback and for tokens"))?.require(Role::Viewer)?;
    }
    state.metrics.run_upkeep();
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], state.metrics.render()))
}
