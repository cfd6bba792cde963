//! Sessions in cold storage, and their way back.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use tidemill_api::{ArchiveDetail, ArchiveRequest, OpenSessionResponse};
use tidemill_base::{Error, Result, Timestamp};
use tidemill_batch::model::{FunctionRef, JobSpec, RunSpec};
use tidemill_batch::service::{Manager, Submit};
use tidemill_batch::store::read;
use tidemill_blocks::objects;
use tidemill_grid::archive::{Archive, Contents, Holds, Manifest, Standing};

use super::sessions::{Moment, detail, may_change, may_look};
use crate::AppState;
use crate::auth::{Principal, Role};
use crate::error::ApiResult;
use crate::sql::grid::{Reader, Session};

fn store(state: &AppState) -> Archive {
    Archive::new(Arc::clone(&state.blocks.objects), &state.config.archive.storage_class)
}

pub(super) async fn archive(
    State(state): State<AppState>,
    me: Principal,
    Path(id): Path<String>,
    Json(request): Json<ArchiveRequest>,
) -> ApiResult<(StatusCode, Json<ArchiveDetail>)> {
    may_change(&state, &me, &id).await?;
    let row = may_look(&state, &me, &id).await?;
    if !row.state.is_final() {
        let word = row.state.as_str();
        let what = format!("session {id} is {word}; only one that has ended can be archived: `tidemill grid close {id}` lets it end");
        return Err(Error::conflict(what).into());
    }
    let (reader, archive) = (Reader::of(&state)?, store(&state));
    let session = reader.session(&id).await?;
    let delivered = read::session(state.blocks.ledger.as_ref(), &id).await?;
    let shown_now = detail(&state, &row, &Moment::of(&state).await?).await?;
    let facts = serde_json::to_value(shown_now).map_err(|e| Error::internal("encode a session").with_source(e))?;
    let spec = serde_json::to_value(&session.spec).map_err(|e| Error::internal("encode a session").with_source(e))?;
    let contents = Contents { session: id.clone(), facts, spec, blobs: blobs(&state, &session).await? };
    let records = reader.records(&session, 0, true).map_ok(|(_, page)| page).boxed();
    let inputs = reader.submissions(&session).map_ok(|(_, submission)| submission.bytes().clone()).boxed();
    let manifest = archive.write(contents, records, inputs, state.env.now()).await?;
    archive.verify(&manifest).await?;
    if read::session(state.blocks.ledger.as_ref(), &id).await? != delivered {
        archive.delete(&id).await?;
        return Err(Error::conflict(format!("session {id} went on while it was archived; archive it when it has ended again")).into());
    }
    if request.delete {
        state.service::<Manager>()?.delete(&id, &me.user).await?;
    }
    Ok((StatusCode::CREATED, Json(shown(&state, &archive, manifest).await?)))
}

/// Function and set-up, as far as they lie in objects.
async fn blobs(state: &AppState, session: &Session) -> Result<Vec<(Holds, Bytes)>> {
    let Some(engine) = session.engine() else { return Ok(Vec::new()) };
    let packed = |function: &FunctionRef| match function {
        FunctionRef::Packed(object) => Some(object.clone()),
        FunctionRef::Name(_) | FunctionRef::Module(_) => None,
    };
    let named = [
        (Holds::Function, packed(&engine.function)),
        (Holds::SetupFunction, engine.setup_function.as_ref().and_then(packed)),
        (Holds::Setup, engine.setup.clone()),
    ];
    let mut out = Vec::new();
    for (holds, object) in named {
        if let Some(object) = object {
            out.push((holds, objects::get(state.blocks.objects.as_ref(), &objects::parse_path(&object)?).await?));
        }
    }
    Ok(out)
}

async fn shown(state: &AppState, archive: &Archive, manifest: Manifest) -> Result<ArchiveDetail> {
    let standing = archive.standing(&manifest.session, state.env.now()).await?;
    let retrieval = match standing {
        Standing::Archived => None,
        Standing::Restoring(retrieval) | Standing::Restored(retrieval) => Some(retrieval),
    };
    Ok(ArchiveDetail {
        session: manifest.session,
        state: standing.as_str().to_owned(),
        tasks: manifest.tasks,
        records: manifest.records,
        parts: manifest.parts.len() as u64,
        bytes: manifest.parts.iter().map(|p| p.bytes).sum(),
        archived_at: Timestamp(manifest.archived_us).rfc3339(),
        due_at: retrieval.map(|r| Timestamp(r.due_us).rfc3339()),
        readable_until: retrieval.map(|r| Timestamp(r.until_us).rfc3339()),
        facts: manifest.facts,
    })
}

pub(super) async fn show(State(state): State<AppState>, me: Principal, Path(id): Path<String>) -> ApiResult<Json<ArchiveDetail>> {
    me.require(Role::Viewer)?;
    let archive = store(&state);
    let manifest = archive.manifest(&id).await?;
    Ok(Json(shown(&state, &archive, manifest).await?))
}

/// One's own archives, or as an operator anybody's.
async fn own(archive: &Archive, me: &Principal, id: &str) -> Result<Manifest> {
    me.require(Role::User)?;
    let manifest = archive.manifest(id).await?;
    me.require_owner(manifest.facts["user"].as_str().unwrap_or_default())?;
    Ok(manifest)
}

pub(super) async fn restore(
    State(state): State<AppState>,
    me: Principal,
    Path(id): Path<String>,
) -> ApiResult<(StatusCode, Json<ArchiveDetail>)> {
    let archive = store(&state);
    let manifest = own(&archive, &me, &id).await?;
    let settings = &state.config.archive;
    archive.restore(&id, state.env.now(), settings.delay.0, settings.readable.0).await?;
    Ok((StatusCode::ACCEPTED, Json(shown(&state, &archive, manifest).await?)))
}

pub(super) async fn delete(
    State(state): State<AppState>,
    me: Principal,
    Path(id): Path<String>,
) -> ApiResult<(StatusCode, Json<serde_json::Value>)> {
    let archive = store(&state);
    own(&archive, &me, &id).await?;
    archive.delete(&id).await?;
    Ok((StatusCode::ACCEPTED, Json(serde_json::json!({}))))
}

/// Opens a session with what an archived one had, and hands it the same tasks.
pub(super) async fn rerun(
    State(state): State<AppState>,
    me: Principal,
    Path(id): Path<String>,
) -> ApiResult<(StatusCode, Json<OpenSessionResponse>)> {
    let archive = store(&state);
    own(&archive, &me, &id).await?;
    let manifest = archive.readable(&id, state.env.now()).await?;
    let mut spec: JobSpec = serde_json::from_value(manifest.spec.clone())
        .map_err(|e| Error::corrupt(format!("the archive of session {id} does not decode")).with_source(e))?;
    bring_back(&state, &archive, &manifest, &mut spec).await?;
    let manager = state.service::<Manager>()?;
    let made = manager.submit(Submit { user: me.user.clone(), spec, client_token: None }).await?;
    let mut pages = archive.inputs(&manifest);
    let mut n = 0_u64;
    while let Some(page) = pages.try_next().await? {
        for submission in page {
            super::count_taken(&manager.submit_tasks(&made.id, Some(&format!("rerun-{n}")), submission, &me.user).await?);
            n += 1;
        }
    }
    manager.close_session(&made.id, &me.user).await?;
    Ok((StatusCode::CREATED, Json(OpenSessionResponse { id: made.id, existing: made.existing })))
}

/// Puts function and set-up back into uploads, which go when the new session is deleted, and names them in its definition.
async fn bring_back(state: &AppState, archive: &Archive, manifest: &Manifest, spec: &mut JobSpec) -> Result<()> {
    let folder = format!("uploads/{}", state.env.id("u"));
    let put = async |holds: Holds, what: &str| {
        let bytes = archive.blob(manifest, holds).await?;
        let bytes = bytes.ok_or_else(|| Error::corrupt(format!("the archive of session {} has lost its {what}", manifest.session)))?;
        let path = format!("{folder}/{what}");
        objects::put(state.blocks.objects.as_ref(), &objects::parse_path(&path)?, bytes).await?;
        Ok::<_, Error>(path)
    };
    let Some(RunSpec::Engine(engine)) = spec.stages.first_mut().map(|s| &mut s.run) else {
        return Err(Error::corrupt(format!("the archive of session {} has lost its engine", manifest.session)));
    };
    if let FunctionRef::Packed(object) = &mut engine.function {
        *object = put(Holds::Function, "function").await?;
    }
    if let Some(FunctionRef::Packed(object)) = &mut engine.setup_function {
        *object = put(Holds::SetupFunction, "setup-function").await?;
    }
    if let Some(object) = &mut engine.setup {
        *object = put(Holds::Setup, "setup").await?;
    }
    Ok(())
}
