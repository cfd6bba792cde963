//! Whether the server lives and whether it is ready: `/livez` and `/readyz`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use tidemill_runtime::{Phase, Shutdown};

use crate::AppState;

/// What each component says of itself. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Health(Arc<Mutex<BTreeMap<&'static str, Option<String>>>>);

/// One component's say in whether the server is ready.
#[derive(Debug, Clone)]
pub struct Component {
    name: &'static str,
    health: Health,
}

/// The body of `/readyz`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Readiness {
    /// `ready`, `starting` or `draining`.
    pub state: &'static str,
    /// What is not up and why, by component.
    pub waiting_for: BTreeMap<&'static str, String>,
}

impl Health {
    /// Registers a component. The server is not ready until it has said [`Component::up`].
    pub fn component(&self, name: &'static str) -> Component {
        let component = Component { name, health: self.clone() };
        component.down("starting");
        component
    }

    /// Where things stand.
    pub fn readiness(&self, shutdown: &Shutdown) -> Readiness {
        let said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting_for: BTreeMap<_, _> = said.iter().filter_map(|(name, why)| Some((*name, why.clone()?))).collect();
        let state = match shutdown.phase() {
            Phase::Running if waiting_for.is_empty() => "ready",
            Phase::Running => "starting",
            Phase::Draining | Phase::Closing => "draining",
        };
        Readiness { state, waiting_for }
    }

    fn say(&self, name: &'static str, why_not: Option<String>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name, why_not);
    }
}

impl Component {
    /// It works.
    pub fn up(&self) {
        self.health.say(self.name, None);
    }

    /// It does not, for this reason, which anybody may read.
    pub fn down(&self, why: impl Into<String>) {
        self.health.say(self.name, Some(why.into()));
    }
}

/// The two routes. They need no token: load balancers and supervisors have none.
pub fn routes() -> Router<AppState> {
    Router::new().route("/livez", get(|| async { "alive\n" })).route("/readyz", get(ready))
}

async fn ready(State(state): State<AppState>) -> Response {
    let readiness = state.health.readiness(&state.shutdown);
    let status = if readiness.state == "ready" { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(readiness)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_only_when_all_are_up_and_nothing_is_draining() {
        let (health, shutdown) = (Health::default(), Shutdown::new());
        let (a, b) = (health.component("queue"), health.component("ledger"));
        a.up();
        assert_eq!(health.readiness(&shutdown).waiting_for, BTreeMap::from([("ledger", "starting".to_owned())]));
        b.up();
        assert_eq!(health.readiness(&shutdown).state, "ready");
        a.down("disk full");
        assert_eq!(health.readiness(&shutdown).state, "starting");
        a.up();
        shutdown.drain();
        assert_eq!(health.readiness(&shutdown).state, "draining");
    }
}
