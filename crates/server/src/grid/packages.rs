//! Packages of files: publishing, looking, deleting, and what sessions pin of them.

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use futures::TryStreamExt;
use object_store::{ObjectStoreExt, WriteMultipart};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use tidemill_api::{PackageDetail, PackageEngine, PackageFile, PackageList, PackageManifest, PackageSummary, PublishPackageResponse};
use tidemill_base::{Error, Result};
use tidemill_batch::model::{JobState, PackagePin, RunSpec};
use tidemill_batch::store::read::{self, JobFilter, JobKind};
use tidemill_blocks::objects;
use tidemill_grid::packages::{self, MAX_FILE_BYTES, Manifest, Packages, Stored, blob_path, hex, is_sha256};

use crate::AppState;
use crate::auth::{Principal, Role};
use crate::error::ApiResult;

/// Bytes sent to the store at once.
const PART_BYTES: usize = 8 << 20;
/// Sessions read at once when somebody wants to know who pins a package.
const PAGE: u64 = 200;

fn all(state: &AppState) -> Packages {
    Packages::new(state.blocks.objects.clone(), state.env.clone())
}

fn manifest(from: PackageManifest) -> Result<Manifest> {
    let file = |f: PackageFile| packages::PackageFile { path: f.path, size: f.size, sha256: f.sha256, executable: f.executable };
    let engine = from.engine.map(|e| packages::PackageEngine { program: e.program, args: e.args });
    Manifest { name: from.name, version: from.version, files: from.files.into_iter().map(file).collect(), engine }.checked()
}

/// Says what is missing, or publishes.
pub(super) async fn publish(
    State(state): State<AppState>,
    me: Principal,
    Json(request): Json<PackageManifest>,
) -> ApiResult<(StatusCode, Json<PublishPackageResponse>)> {
    me.require(Role::User)?;
    let manifest = manifest(request)?;
    let digest = manifest.digest()?;
    let missing = all(&state).missing(&manifest).await?;
    if !missing.is_empty() {
        return Ok((StatusCode::OK, Json(PublishPackageResponse { published: false, existing: false, digest, missing })));
    }
    let (_, new) = all(&state).publish(manifest, &me.user).await?;
    let status = if new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(PublishPackageResponse { published: true, existing: !new, digest, missing })))
}

/// Takes a file's bytes, which have to be what their name says.
pub(super) async fn put_blob(
    State(state): State<AppState>,
    me: Principal,
    Path(sha256): Path<String>,
    body: Body,
) -> ApiResult<StatusCode> {
    me.require(Role::User)?;
    if !is_sha256(&sha256) {
        return Err(Error::invalid(format!("`{}` is no SHA-256 of 64 lower-case hexadecimal digits", sha256.escape_debug())).into());
    }
    let path = blob_path(&sha256);
    let store = state.blocks.objects.as_ref();
    let failed = |e| objects::error("write", &path, e);
    let upload = store.put_multipart(&path).await.map_err(failed)?;
    let mut writer = WriteMultipart::new_with_chunk_size(upload, PART_BYTES);
    let (mut stream, mut hash, mut bytes) = (body.into_data_stream(), Sha256::new(), 0_u64);
    let received = loop {
        match stream.try_next().await {
            Ok(Some(chunk)) => {
                bytes = bytes.saturating_add(chunk.len() as u64);
                if bytes > MAX_FILE_BYTES {
                    break Err(Error::invalid(format!("a file of a package has at most {MAX_FILE_BYTES} bytes; divide it")));
                }
                hash.update(&chunk);
                if let Err(e) = writer.wait_for_capacity(4).await {
                    break Err(failed(e));
                }
                writer.put(chunk);
            }
            Ok(None) => break Ok(()),
            Err(e) => break Err(Error::invalid("the body broke off; send it again").with_source(e)),
        }
    };
    let found = hex(&hash.finalize());
    let received = received.and_then(|()| {
        if found == sha256 {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "the bytes have the SHA-256 {found} and not {sha256}; the file changed while it was sent, so push again"
        )))
    });
    if let Err(e) = received {
        // Nothing half-uploaded becomes visible.
        if let Err(e) = writer.abort().await {
            tracing::debug!(%path, error = %e, "an upload was not cleared away");
        }
        return Err(e.into());
    }
    if bytes == 0 {
        // Stores differ in what they make of an upload without parts.
        drop(writer.abort().await);
        objects::put(store, &path, bytes::Bytes::new()).await?;
    } else {
        writer.finish().await.map_err(failed)?;
    }
    Ok(StatusCode::CREATED)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    name: Option<String>,
}

pub(super) async fn list(State(state): State<AppState>, me: Principal, Query(query): Query<ListQuery>) -> ApiResult<Json<PackageList>> {
    me.require(Role::Viewer)?;
    let found = match &query.name {
        Some(name) => all(&state).versions(name).await?,
        None => all(&state).all().await?,
    };
    Ok(Json(PackageList { packages: found.iter().map(summary).collect::<Result<_>>()? }))
}

pub(super) async fn show(
    State(state): State<AppState>,
    me: Principal,
    Path((name, version)): Path<(String, String)>,
) -> ApiResult<Json<PackageDetail>> {
    me.require(Role::Viewer)?;
    let stored = all(&state).get(&name, &version).await?;
    let summary = summary(&stored)?;
    let file = |f: packages::PackageFile| PackageFile { path: f.path, size: f.size, sha256: f.sha256, executable: f.executable };
    let program = stored.manifest.engine.map(|e| PackageEngine { program: e.program, args: e.args });
    Ok(Json(PackageDetail { summary, contents: stored.manifest.files.into_iter().map(file).collect(), program }))
}

fn summary(stored: &Stored) -> Result<PackageSummary> {
    let m = &stored.manifest;
    Ok(PackageSummary {
        name: m.name.clone(),
        version: m.version.clone(),
        digest: m.digest()?,
        files: m.files.len() as u64,
        bytes: m.bytes(),
        engine: m.engine.is_some(),
        published_at: stored.published_at.rfc3339(),
        published_by: stored.published_by.clone(),
    })
}

/// One's own versions, or as an operator anybody's.
pub(super) async fn delete(
    State(state): State<AppState>,
    me: Principal,
    Path((name, version)): Path<(String, String)>,
) -> ApiResult<StatusCode> {
    me.require(Role::User)?;
    me.require_owner(&all(&state).get(&name, &version).await?.published_by)?;
    all(&state).delete(&name, &version, |pin| pinned_by(&state, pin)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A session that has not ended and pins the version.
async fn pinned_by(state: &AppState, pin: PackagePin) -> Result<Option<String>> {
    let ledger = state.blocks.ledger.as_ref();
    for live in [JobState::Waiting, JobState::Running, JobState::Paused, JobState::Cancelling] {
        let mut after = None;
        loop {
            let filter = JobFilter { kind: Some(JobKind::Session), state: Some(live), user: None, after, limit: PAGE };
            let rows = read::jobs(ledger, &filter).await?;
            for row in &rows {
                let spec = read::spec(ledger, &row.id).await?;
                let pins = spec.stages.iter().any(|s| matches!(&s.run, RunSpec::Engine(e) if e.packages.contains(&pin)));
                if pins {
                    return Ok(Some(format!("session {} of {}", row.id, row.user)));
                }
            }
            if (rows.len() as u64) < PAGE {
                break;
            }
            after = rows.last().map(|r| r.id.clone());
        }
    }
    Ok(None)
}

/// What a session that names these pins: their newest versions where it names none.
pub(super) async fn resolve(state: &AppState, wanted: &[PackagePin]) -> Result<Vec<PackagePin>> {
    let mut pins = Vec::with_capacity(wanted.len());
    for package in wanted {
        pins.push(all(state).resolve(package).await.map_err(|e| e.context("session: `packages`"))?);
    }
    Ok(pins)
}

/// Whether everything pinned is still there. Asked once the session is written down: whoever deletes from then on sees it.
pub(super) async fn still_there(state: &AppState, pins: &[PackagePin]) -> Result<()> {
    for pin in pins {
        all(state).get(&pin.name, &pin.version).await?;
    }
    Ok(())
}
