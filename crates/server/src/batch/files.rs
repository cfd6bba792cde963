//! Results: which files a job's tasks left behind, and their bytes.

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::{GetOptions, GetRange, ObjectStore};
use serde::Deserialize;
use tidemill_api::{FileList, ResultFile};
use tidemill_base::{Error, Result};
use tidemill_batch::protocol::{MAX_RANGE, OutputPage, StoredFile, TaskOutput, decode, keys};
use tidemill_batch::store::read;
use tidemill_blocks::objects;
use tidemill_blocks::table::{Page, Range, sort_u64};

use crate::AppState;
use crate::auth::{Principal, Role};
use crate::error::ApiResult;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ResultQuery {
    /// A stage's number or name, or `all`.
    stage: Option<String>,
    after: Option<String>,
    limit: Option<usize>,
}

pub(super) async fn list(
    State(state): State<AppState>,
    me: Principal,
    Path(id): Path<String>,
    Query(query): Query<ResultQuery>,
) -> ApiResult<Json<FileList>> {
    me.require(Role::Viewer)?;
    let ledger = state.blocks.ledger.as_ref();
    let spec = read::spec(ledger, &id).await?;
    let last = u32::try_from(spec.stages.len().saturating_sub(1)).unwrap_or(0);
    let stages: Vec<u32> = match query.stage.as_deref() {
        None | Some("") => vec![last],
        Some("all") => (0..=last).collect(),
        Some(word) => {
            let by_name = spec.stages.iter().position(|s| s.name == word).and_then(|i| u32::try_from(i).ok());
            let found = by_name.or_else(|| word.parse().ok().filter(|n| *n <= last));
            vec![found.ok_or_else(|| Error::not_found(format!("job {id} has no stage `{word}`")))?]
        }
    };
    let limit = query.limit.unwrap_or(1000).clamp(1, 10_000);
    let (from_stage, from_page) = match query.after.as_deref() {
        None | Some("") => (0, Bytes::new()),
        Some(text) => parse_cursor(text)?,
    };
    let mut files = Vec::new();
    for stage in stages.into_iter().filter(|s| *s >= from_stage) {
        let from = if stage == from_stage { from_page.clone() } else { Bytes::new() };
        let mut next = Some(Range::all(keys::output_partition(&id, stage), 50).from(from));
        while let Some(range) = next {
            let page = state.blocks.table.range(keys::STATE_TABLE, range).await?;
            for item in &page.items {
                // Whole pages only, so that the cursor can name one.
                if files.len() >= limit {
                    return Ok(Json(FileList { files, next: Some(format!("{stage}.{}", hex::encode(&item.key.sort))) }));
                }
                let outputs: OutputPage = decode("output page", &item.value)?;
                files.extend(outputs.tasks.iter().filter(|t| t.ok).flat_map(|t| t.files.iter().map(|f| result(&id, stage, t.task, f))));
            }
            next = page.next;
        }
    }
    Ok(Json(FileList { files, next: None }))
}

fn parse_cursor(text: &str) -> Result<(u32, Bytes)> {
    let parsed = text.split_once('.').and_then(|(stage, sort)| Some((stage.parse().ok()?, Bytes::from(hex::decode(sort).ok()?))));
    parsed.ok_or_else(|| Error::invalid(format!("`after={text}` is not where a page ended")))
}

fn result(job: &str, stage: u32, task: u64, file: &StoredFile) -> ResultFile {
    let name: Vec<String> = file.name.split('/').map(encode_segment).collect();
    let href = format!("/batch/jobs/{job}/files/{stage}/{task}/{}", name.join("/"));
    ResultFile { stage, task, name: file.name.clone(), bytes: file.len, href }
}

/// Percent-encoding of one path segment (RFC 3986, everything but unreserved characters).
fn encode_segment(segment: &str) -> String {
    let mut out = String::with_capacity(segment.len());
    for b in segment.bytes() {
        if b.is_ascii_alphanumeric() || b"-._~".contains(&b) {
            out.push(char::from(b));
        } else {
            out.push_str(&format!("%{b:02X}"));
        }
    }
    out
}

/// What a task's attempts left behind: the successful one first, then by attempt, newest first.
pub(super) async fn outputs_of(state: &AppState, job: &str, stage: u32, task: u64) -> Result<Vec<TaskOutput>> {
    let from = sort_u64(task.saturating_sub(MAX_RANGE));
    let until = sort_u64(task.saturating_add(1));
    let mut next = Some(Range::all(keys::output_partition(job, stage), 100).from(from).until(until));
    let mut found: Vec<TaskOutput> = Vec::new();
    while let Some(range) = next {
        let Page { items, next: more } = state.blocks.table.range(keys::STATE_TABLE, range).await?;
        for item in &items {
            let page: OutputPage = decode("output page", &item.value)?;
            found.extend(page.tasks.into_iter().filter(|t| t.task == task));
        }
        next = more;
    }
    found.sort_by_key(|t| (!t.ok, std::cmp::Reverse(t.attempt)));
    Ok(found)
}

pub(super) async fn read(
    State(state): State<AppState>,
    me: Principal,
    Path((id, stage, task, name)): Path<(String, u32, u64, String)>,
) -> ApiResult<Response> {
    me.require(Role::Viewer)?;
    read::job(state.blocks.ledger.as_ref(), &id).await?;
    let outputs = outputs_of(&state, &id, stage, task).await?;
    let file = outputs.iter().filter(|t| t.ok).flat_map(|t| &t.files).find(|f| f.name == name);
    let file =
        file.ok_or_else(|| Error::not_found(format!("task {task} of stage {stage} of job {id} has no output `{}`", name.escape_debug())))?;
    let body = open(state.blocks.objects.as_ref(), file).await?;
    let plain: String = name
        .rsplit('/')
        .next()
        .unwrap_or("file")
        .chars()
        .map(|c| if c.is_ascii_graphic() && c != '"' && c != '\\' { c } else { '_' })
        .collect();
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_LENGTH, file.len.to_string()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{plain}\"")),
    ];
    Ok((headers, body).into_response())
}

/// A stored file's bytes as a body.
async fn open(store: &dyn ObjectStore, file: &StoredFile) -> Result<Body> {
    if file.len == 0 {
        return Ok(Body::empty());
    }
    let path = objects::parse_path(&file.path)?;
    let range = if file.whole { None } else { Some(GetRange::Bounded(file.offset..file.offset + file.len)) };
    let got = store.get_opts(&path, GetOptions { range, ..GetOptions::default() }).await.map_err(|e| objects::error("read", &path, e))?;
    Ok(Body::from_stream(got.into_stream().map_err(std::io::Error::other)))
}

/// A stored file's bytes, at most the last `max` of them.
pub(super) async fn tail(store: &dyn ObjectStore, file: &StoredFile, max: u64) -> Result<Bytes> {
    if file.len == 0 {
        return Ok(Bytes::new());
    }
    let path = objects::parse_path(&file.path)?;
    let end = file.offset + file.len;
    let start = end - file.len.min(max);
    store
        .get_opts(&path, GetOptions { range: Some(GetRange::Bounded(start..end)), ..GetOptions::default() })
        .await
        .map_err(|e| objects::error("read", &path, e))?
        .bytes()
        .await
        .map_err(|e| objects::error("read", &path, e))
}
