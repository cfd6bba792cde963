//! Objects over plain HTTP, for uploads by the command line and the console. Any S3 client does the same on the S3 endpoint.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures::TryStreamExt;
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStoreExt, WriteMultipart};
use tidemill_api::UploadResponse;
use tidemill_base::{Error, Result};
use tidemill_blocks::objects;

use crate::AppState;
use crate::auth::{Principal, Role};
use crate::error::ApiResult;
use crate::s3::ensure_bucket;

/// Buckets that belong to the system and are not written to from outside.
const RESERVED: [&str; 4] = ["archive", "jobs", "packages", "system"];
/// Bodies up to this are put whole; larger ones go in parts of this size.
const PART_BYTES: usize = 8 << 20;

/// The routes; they carry large bodies.
pub fn routes() -> Router<AppState> {
    Router::new().route("/api/v1/uploads", post(upload)).route("/api/v1/objects/{*path}", get(read).put(write))
}

/// A fresh prefix that nobody else uploads to.
async fn upload(State(state): State<AppState>, me: Principal) -> ApiResult<(StatusCode, Json<UploadResponse>)> {
    me.require(Role::User)?;
    Ok((StatusCode::CREATED, Json(UploadResponse { prefix: format!("uploads/{}", state.env.id("u")) })))
}

fn parse(path: &str) -> Result<ObjectPath> {
    let parsed = objects::parse_path(path)?;
    if parsed.parts().count() < 2 {
        return Err(Error::invalid(format!("`{path}` names a bucket; an object is `bucket/name`")));
    }
    Ok(parsed)
}

fn bucket(path: &ObjectPath) -> String {
    path.parts().next().map(|p| p.as_ref().to_owned()).unwrap_or_default()
}

/// An object that a caller may write, in a bucket that is there. `Denied` for a bucket that is the system's own.
pub(crate) async fn writable(store: &dyn object_store::ObjectStore, path: &str) -> Result<ObjectPath> {
    let path = parse(path)?;
    let bucket = bucket(&path);
    if RESERVED.contains(&bucket.as_str()) {
        return Err(Error::denied(format!("bucket `{bucket}` is the system's own; use another, `uploads` for example")));
    }
    ensure_bucket(store, &bucket).await?;
    Ok(path)
}

async fn write(State(state): State<AppState>, me: Principal, Path(path): Path<String>, body: Body) -> ApiResult<StatusCode> {
    me.require(Role::User)?;
    let store = state.blocks.objects.as_ref();
    let path = writable(store, &path).await?;
    let mut stream = body.into_data_stream();
    let mut first = Vec::new();
    while first.len() < PART_BYTES {
        match stream.try_next().await.map_err(broken)? {
            Some(chunk) => first.extend_from_slice(&chunk),
            None => {
                objects::put(store, &path, bytes::Bytes::from(first)).await?;
                return Ok(StatusCode::CREATED);
            }
        }
    }
    let upload = store.put_multipart(&path).await.map_err(|e| objects::error("write", &path, e))?;
    let mut writer = WriteMultipart::new_with_chunk_size(upload, PART_BYTES);
    writer.put(first.into());
    loop {
        match stream.try_next().await {
            Ok(Some(chunk)) => {
                writer.wait_for_capacity(4).await.map_err(|e| objects::error("write", &path, e))?;
                writer.put(chunk);
            }
            Ok(None) => break,
            Err(e) => {
                // Nothing half-uploaded becomes visible.
                if let Err(e) = writer.abort().await {
                    tracing::debug!(%path, error = %e, "an upload was not cleared away");
                }
                return Err(broken(e).into());
            }
        }
    }
    writer.finish().await.map_err(|e| objects::error("write", &path, e))?;
    Ok(StatusCode::CREATED)
}

fn broken(e: axum::Error) -> Error {
    Error::invalid("the body broke off; send it again").with_source(e)
}

/// An object that a caller may read. `Denied` for what is the system's own.
pub(crate) fn readable(me: &Principal, path: &str) -> Result<ObjectPath> {
    me.require(Role::Viewer)?;
    let path = parse(path)?;
    if bucket(&path) == "system" {
        return Err(Error::denied("bucket `system` is not for reading"));
    }
    Ok(path)
}

async fn read(State(state): State<AppState>, me: Principal, Path(path): Path<String>) -> ApiResult<Response> {
    let path = readable(&me, &path)?;
    let got = state.blocks.objects.get(&path).await.map_err(|e| objects::error("read", &path, e))?;
    let headers = [(header::CONTENT_TYPE, "application/octet-stream".to_owned()), (header::CONTENT_LENGTH, got.meta.size.to_string())];
    Ok((headers, Body::from_stream(got.into_stream().map_err(std::io::Error::other))).into_response())
}
