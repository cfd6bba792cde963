//! HTTP edges, sessions and roles, console, S3 endpoint, SQL endpoint; assembly of drivers.
//!
//! An edge is a module that gives an `axum::Router<AppState>`. [`Edges`] says what is asked of a request before the edge sees it (a token, a
//! limit on time, an audit line), [`router`] makes one router of them all, and [`listen::serve`] puts it on a socket. So a new edge
//! is its handlers and one line in the assembly:
//!
//! ```no_run
//! use axum::extract::State;
//! use axum::routing::get;
//! use axum::{Json, Router};
//! use tidemill_server::auth::{Principal, Role};
//! use tidemill_server::error::ApiResult;
//! use tidemill_server::{AppState, Edges, router};
//!
//! async fn queues(State(state): State<AppState>, me: Principal) -> ApiResult<Json<Vec<String>>> {
//!     me.require(Role::Viewer)?;
//!     Ok(Json(state.blocks.queue.list().await?.into_iter().map(|q| q.name).collect()))
//! }
//!
//! fn assemble(state: AppState) -> Router {
//!     router(state, Edges::new().api(Router::new().route("/api/v1/queues", get(queues))))
//! }
//! ```

pub mod assembly;
pub mod audit;
pub mod auth;
pub mod batch;
pub mod config;
pub mod console;
mod edges;
pub mod error;
pub mod fleet;
pub mod grid;
pub mod health;
pub mod internal;
pub mod limits;
pub mod listen;
pub mod metrics;
pub mod objects;
pub mod openapi;
pub mod queues;
pub mod request;
pub mod s3;
pub mod sql;
mod state;
pub mod telemetry;

pub use assembly::{ServeOptions, serve};
pub use edges::{Edges, router};
pub use openapi::openapi;
pub use state::AppState;
