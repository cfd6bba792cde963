//! SQL over HTTP, and what the systems show in it.

pub(crate) mod grid;
mod segments;
mod sources;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use tidemill_api::{SqlColumn, SqlRequest, SqlResponse};
use tidemill_base::{Error, Result};
use tidemill_batch::service::Manager;
use tidemill_blocks::Blocks;
use tidemill_grid::archive::Archive;
use tidemill_query::{Engine, EngineSettings, Limits};

pub use segments::ParquetSink;

use crate::AppState;
use crate::auth::{Principal, Role};
use crate::error::ApiResult;

/// The routes; statements have a timeout of their own.
pub fn routes() -> Router<AppState> {
    Router::new().route("/api/v1/sql", post(query))
}

/// The engine with every table there is.
pub fn engine(blocks: &Blocks, manager: &Manager, env: tidemill_base::Env, settings: EngineSettings, price: f64) -> Result<Arc<Engine>> {
    let engine = Engine::new(Arc::clone(&blocks.objects), settings)?;
    sources::register(&engine, blocks, manager, env.clone(), price);
    // It only reads, and so needs no storage class.
    grid::register(&engine, blocks, manager, env, Archive::new(Arc::clone(&blocks.objects), ""), price);
    Ok(Arc::new(engine))
}

async fn query(State(state): State<AppState>, me: Principal, headers: HeaderMap, Json(request): Json<SqlRequest>) -> ApiResult<Response> {
    me.require(Role::Viewer)?;
    let engine = state.service::<Arc<Engine>>()?;
    let answer = engine.query(&request.sql, Limits::default()).await?;
    let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or("application/json");
    if accept.contains("text/csv") {
        return Ok(([(header::CONTENT_TYPE, "text/csv; charset=utf-8")], Body::from_stream(answer.into_csv())).into_response());
    }
    if accept.contains("text/plain") {
        return Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], answer.to_table().await?).into_response());
    }
    let columns = answer.columns().into_iter().map(|c| SqlColumn { name: c.name, kind: c.kind }).collect();
    let rows: Result<Vec<_>> = answer
        .to_json_rows()
        .await?
        .into_iter()
        .map(|row| match row {
            serde_json::Value::Object(map) => Ok(map),
            other => Err(Error::internal(format!("a row is not an object: {other}"))),
        })
        .collect();
    Ok(Json(SqlResponse { columns, rows: rows? }).into_response())
}
