//! Results as files.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tidemill_api::{CollectRequest, Collected, CollectedFile};
use tidemill_base::{Error, Result};
use tidemill_blocks::objects;
use tidemill_query::{Engine, FileFormat, Limits};

use crate::AppState;
use crate::auth::{Principal, Role};
use crate::error::ApiResult;
use crate::sql::grid::Reader;

/// A file has so many times 8,192 rows at most: a million.
const STEPS: usize = 128;

pub(super) async fn collect(
    State(state): State<AppState>,
    me: Principal,
    Path(id): Path<String>,
    Json(request): Json<CollectRequest>,
) -> ApiResult<(StatusCode, Json<Collected>)> {
    me.require(Role::User)?;
    let session = Reader::of(&state)?.session(&id).await?;
    let format = if request.format.is_empty() { FileFormat::default() } else { FileFormat::from_word(&request.format)? };
    // The order of tasks, and of rows within a task: it does not depend on when results came.
    let sql = request.sql.unwrap_or_else(|| format!("SELECT * FROM grid.\"{}\" ORDER BY _task, _row", session.id));
    let folder = request.to.trim_end_matches('/');
    if folder.is_empty() {
        return Err(Error::invalid("`to` is empty; name the folder of objects that the files go to, such as `data/out/`").into());
    }
    let name = |rest: &str| format!("{folder}/{}{rest}", session.id);
    let mut collected = Collected {
        session: session.id.clone(),
        format: format.suffix().to_owned(),
        rows: 0,
        files: Vec::new(),
        manifest: name(".manifest.json"),
        sql,
    };
    let engine = state.service::<Arc<Engine>>()?;
    let mut files = engine.query(&collected.sql, Limits::default()).await?.into_files(format, STEPS)?;
    while let Some(file) = files.next().await? {
        let path = name(&format!("-{:05}.{}", collected.files.len(), format.suffix()));
        let sha256 = format!("{:x}", Sha256::digest(&file.bytes));
        let bytes = file.bytes.len() as u64;
        put(&state, &path, file.bytes).await?;
        collected.rows += file.rows;
        collected.files.push(CollectedFile { path, rows: file.rows, bytes, sha256 });
    }
    let text = serde_json::to_vec_pretty(&collected).map_err(|e| Error::internal("encode a manifest").with_source(e))?;
    put(&state, &collected.manifest, text.into()).await?;
    Ok((StatusCode::CREATED, Json(collected)))
}

async fn put(state: &AppState, path: &str, bytes: Bytes) -> Result<()> {
    let store = state.blocks.objects.as_ref();
    objects::put(store, &crate::objects::writable(store, path).await?, bytes).await
}
