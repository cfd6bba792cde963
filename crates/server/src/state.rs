//! What every handler can reach.

use std::any::type_name;
use std::sync::Arc;

use axum::http::Extensions;
use metrics_exporter_prometheus::PrometheusHandle;
use tidemill_base::{Env, Error, Result};
use tidemill_blocks::Blocks;
use tidemill_runtime::{Shutdown, Tasks};

use crate::audit::Audit;
use crate::auth::Auth;
use crate::config::ServerConfig;
use crate::health::Health;
use crate::limits::RateLimit;
use crate::metrics;
use crate::telemetry::Traces;

/// What every handler can reach. Cheap to clone.
#[derive(Debug, Clone)]
pub struct AppState {
    /// The drivers.
    pub blocks: Blocks,
    /// Users and tokens.
    pub auth: Auth,
    /// Who changed what.
    pub audit: Audit,
    /// Clock and randomness.
    pub env: Env,
    /// What is spawned on behalf of requests.
    pub tasks: Tasks,
    /// Asks handlers that wait to stop waiting.
    pub shutdown: Shutdown,
    /// The settings.
    pub config: Arc<ServerConfig>,
    /// Whether the server is ready.
    pub health: Health,
    /// The recorder behind `/metrics`.
    pub metrics: PrometheusHandle,
    /// Requests a second, by caller.
    pub rate: RateLimit,
    /// Where spans of requests and jobs go.
    pub traces: Traces,
    /// Whether callers reach us by TLS.
    pub secure: bool,
    services: Arc<Extensions>,
}

impl AppState {
    /// With migrations of users, tokens and audit applied to the ledger.
    pub async fn new(blocks: Blocks, env: Env, tasks: Tasks, config: ServerConfig, secure: bool) -> Result<Self> {
        let auth = Auth::new(blocks.ledger.clone(), env.clone());
        auth.migrate().await?;
        Ok(Self {
            audit: Audit::new(blocks.ledger.clone(), env.clone()),
            rate: RateLimit::new(env.clone(), config.limits.requests_per_second),
            shutdown: tasks.shutdown().clone(),
            traces: Traces::start(&config.telemetry.otlp, &tasks)?,
            health: Health::default(),
            metrics: metrics::install()?,
            config: Arc::new(config),
            services: Arc::default(),
            auth,
            blocks,
            env,
            tasks,
            secure,
        })
    }

    /// Adds a system's service for its handlers to find with [`AppState::service`]. For the time of assembly: clones made before do
    /// not see it.
    #[must_use]
    pub fn with_service<T: Clone + Send + Sync + 'static>(mut self, service: T) -> Self {
        let mut services = Extensions::clone(&self.services);
        services.insert(service);
        self.services = Arc::new(services);
        self
    }

    /// The service of this type. `Internal` when the assembly did not add it.
    pub fn service<T: Clone + Send + Sync + 'static>(&self) -> Result<T> {
        self.services.get::<T>().cloned().ok_or_else(|| Error::internal(format!("the server was assembled without {}", type_name::<T>())))
    }
}
