//! Tasks made from data where it is: rows of objects, and of databases that the configuration names.
//!
//! The work is done here and not by the client, so that the rows go from where they lie to the workers and nowhere else. Each portion of
//! tasks is submitted with a token that follows from the call and the data, so that a call that was cut off is made again and goes on: what
//! was submitted before is known by its tokens. A database's answer is kept with the session first, because a second query need not answer
//! as the first one did; it is then a file like any other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use bytes::Bytes;
use futures::TryStreamExt as _;
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStoreExt as _, WriteMultipart};
use sha2::{Digest as _, Sha256};
use tidemill_api::{TasksFromRequest, TasksFromResponse};
use tidemill_base::{Error, Result};
use tidemill_batch::cut::Glob;
use tidemill_batch::model::RunSpec;
use tidemill_batch::protocol::submission;
use tidemill_batch::service::Manager;
use tidemill_batch::store::read;
use tidemill_blocks::objects;
use tidemill_grid::packages::hex;
use tidemill_query::payloads::{ColumnKind, Cut, Encoding, FileKind, JsonToArrow, Split, split};
use tokio::sync::mpsc;

use super::sessions::may_change;
use crate::AppState;
use crate::auth::Principal;
use crate::error::ApiResult;

/// Tasks in one submission, and bytes of their payloads.
const PORTION: (usize, usize) = (10_000, 16 << 20);
/// Payloads made ahead of the submission that takes them.
const AHEAD: usize = 256;
/// The most objects of one call, and the largest, bytes: one is in memory while its rows are read.
const MAX_OBJECTS: (usize, u64) = (100_000, 2 << 30);
/// The most rows of a task.
const MAX_ROWS: u64 = 10_000_000;
/// The longest query, bytes.
const MAX_QUERY: usize = 64 << 10;
/// Bytes sent to the store at once.
const PART_BYTES: usize = 8 << 20;

/// A database that tasks may be made from.
#[async_trait]
pub trait DataSource: std::fmt::Debug + Send + Sync {
    /// Starts a query, read-only.
    async fn open(&self, query: &str) -> Result<Box<dyn SourceRows>>;
}

/// A query's rows.
#[async_trait]
pub trait SourceRows: Send {
    /// Its columns.
    fn columns(&self) -> Vec<(String, ColumnKind)>;
    /// The next rows as JSON objects; none after the last.
    async fn next(&mut self) -> Result<Vec<String>>;
}

/// The databases by their names.
#[derive(Debug, Clone, Default)]
pub struct DataSources(pub Arc<BTreeMap<String, Arc<dyn DataSource>>>);

impl DataSources {
    fn get(&self, name: &str) -> Result<&Arc<dyn DataSource>> {
        self.0.get(name).ok_or_else(|| {
            let known: Vec<&str> = self.0.keys().map(String::as_str).collect();
            let known = if known.is_empty() { "it names none".to_owned() } else { format!("it names {}", known.join(", ")) };
            Error::not_found(format!("the server's configuration names no source `{}` in [[grid.source]]; {known}", name.escape_debug()))
        })
    }
}

/// One object to read.
#[derive(Debug, Clone, serde::Serialize)]
struct Input {
    path: String,
    size: u64,
    /// Tells contents apart.
    tag: Option<String>,
    modified: i64,
    #[serde(skip)]
    kind: Option<FileKind>,
}

pub(super) async fn tasks_from(
    State(state): State<AppState>,
    me: Principal,
    Path(id): Path<String>,
    Json(request): Json<TasksFromRequest>,
) -> ApiResult<(StatusCode, Json<TasksFromResponse>)> {
    may_change(&state, &me, &id).await?;
    let cut = cut(&request, encoding(&state, &id).await?)?;
    let (inputs, mark) = match (&request.source, &request.query) {
        (None, None) => {
            let inputs = find(&state, &me, &request.objects).await?;
            state.service::<Manager>()?.note_uploads(&id, inputs.iter().map(|input| input.path.as_str())).await?;
            let mark = fingerprint(&(&request, &inputs))?;
            (inputs, mark)
        }
        (Some(source), Some(query)) => {
            if !request.objects.is_empty() {
                return Err(Error::invalid("`objects` and `source` exclude each other; make two calls").into());
            }
            let mark = fingerprint(&request)?;
            (vec![answer(&state, &id, source, query, &mark).await?], mark)
        }
        _ => return Err(Error::invalid("`source` and `query` belong together; give both, or `objects`").into()),
    };
    let made = make(&state, &me, &id, inputs, cut, &mark).await?;
    let status = if made.existing == made.count { StatusCode::OK } else { StatusCode::CREATED };
    Ok((status, Json(made)))
}

/// How the session's payloads are encoded.
async fn encoding(state: &AppState, id: &str) -> Result<Encoding> {
    let spec = read::spec(state.blocks.ledger.as_ref(), id).await?;
    match spec.stages.first().map(|s| &s.run) {
        Some(RunSpec::Engine(engine)) if engine.input == "json" => Ok(Encoding::Json),
        Some(RunSpec::Engine(engine)) if engine.input == "arrow" => Ok(Encoding::Arrow),
        Some(RunSpec::Engine(engine)) => Err(Error::invalid(format!(
            "session {id} takes payloads as `{}`; tasks are made from data for sessions with the input `json` or `arrow`",
            engine.input
        ))),
        _ => Err(Error::internal(format!("session {id} has no engine"))),
    }
}

fn cut(request: &TasksFromRequest, encoding: Encoding) -> Result<Cut> {
    let split = match (request.rows, &request.group_by) {
        (Some(_), Some(_)) => return Err(Error::invalid("`rows` and `group_by` exclude each other")),
        (None, Some(column)) => Split::Group(column.clone()),
        (rows, None) => {
            let rows = rows.unwrap_or(1_000);
            if !(1..=MAX_ROWS).contains(&rows) {
                return Err(Error::invalid(format!("`rows` is {rows}; use 1 to {MAX_ROWS}")));
            }
            Split::Rows(usize::try_from(rows).unwrap_or(usize::MAX))
        }
    };
    let unique: BTreeSet<_> = request.columns.iter().collect();
    if unique.len() != request.columns.len() {
        return Err(Error::invalid("`columns` names a column twice"));
    }
    Ok(Cut { encoding, split, columns: request.columns.clone() })
}

/// The same for the same call over the same data.
fn fingerprint(what: &impl serde::Serialize) -> Result<String> {
    let text = serde_json::to_vec(what).map_err(|e| Error::internal("write a request as JSON").with_source(e))?;
    Ok(hex(&Sha256::digest(text))[..32].to_owned())
}

/// The objects that the patterns name, each once, in order.
async fn find(state: &AppState, me: &Principal, patterns: &[String]) -> Result<Vec<Input>> {
    if patterns.is_empty() {
        return Err(Error::invalid("nothing to make tasks from; give `objects`, or `source` and `query`"));
    }
    let store = &state.blocks.objects;
    let mut found = BTreeMap::new();
    for pattern in patterns {
        let glob = Glob::new(pattern)?;
        let place = if glob.prefix().contains('/') { glob.prefix().to_owned() } else { format!("{}/x", glob.prefix()) };
        let prefix = crate::objects::readable(me, &place).map(|_| objects::parse_path(glob.prefix()))??;
        let before = found.len();
        if glob.is_plain() {
            match store.head(&prefix).await {
                Ok(meta) => drop(found.insert(meta.location.to_string(), meta)),
                Err(object_store::Error::NotFound { .. }) => {}
                Err(e) => return Err(objects::error("look for", &prefix, e)),
            }
        } else {
            let mut listed = store.list(Some(&prefix));
            while let Some(meta) = listed.try_next().await.map_err(|e| objects::error("list", &prefix, e))? {
                if glob.matches(meta.location.as_ref()) {
                    found.insert(meta.location.to_string(), meta);
                }
                if found.len() > MAX_OBJECTS.0 {
                    return Err(Error::invalid(format!("more than {} objects; make several calls", MAX_OBJECTS.0)));
                }
            }
        }
        if found.len() == before {
            return Err(Error::not_found(format!(
                "`{}` names no object that is not named already; upload it, or check the name",
                pattern.escape_debug()
            )));
        }
    }
    let input = |(path, meta): (String, object_store::ObjectMeta)| {
        let kind = Some(FileKind::of(&path)?);
        if meta.size > MAX_OBJECTS.1 {
            let what = format!("`{path}` has {} bytes; at most {} can be read as rows, so divide it", meta.size, MAX_OBJECTS.1);
            return Err(Error::invalid(what));
        }
        Ok(Input { path, size: meta.size, tag: meta.e_tag, modified: meta.last_modified.timestamp_micros(), kind })
    };
    found.into_iter().map(input).collect()
}

/// The rows that a database answers, as an object of the session. They are asked for once: who comes again with the same call finds them.
async fn answer(state: &AppState, id: &str, source: &str, query: &str, mark: &str) -> Result<Input> {
    if query.trim().is_empty() || query.len() > MAX_QUERY {
        return Err(Error::invalid(format!("the query has {} bytes; 1 to {MAX_QUERY} are allowed", query.len())));
    }
    let store = state.blocks.objects.as_ref();
    let pointer = ObjectPath::from_iter(["jobs", id, "in", &format!("from-{mark}")]);
    if let Some(found) = objects::get_opt(store, &pointer).await? {
        return at(state, &found).await;
    }
    let sources = state.service::<DataSources>()?;
    let mut rows = sources.get(source)?.open(query).await.map_err(|e| e.context(format!("source `{source}`")))?;
    let path = ObjectPath::from_iter(["jobs", id, "in", &state.env.id("q")]);
    let failed = |e| objects::error("write", &path, e);
    let upload = store.put_multipart(&path).await.map_err(failed)?;
    let mut writer = WriteMultipart::new_with_chunk_size(upload, PART_BYTES);
    if let Err(e) = keep(rows.as_mut(), &mut writer).await {
        if let Err(e) = writer.abort().await {
            tracing::debug!(%path, error = %e, "an answer that broke off was not cleared away");
        }
        return Err(e.context(format!("source `{source}`")));
    }
    drop(rows);
    writer.finish().await.map_err(failed)?;
    if !objects::put_new(store, &pointer, Bytes::from(path.to_string())).await? {
        // The same call was made twice at the same time: the answer that came first is the one.
        objects::delete(store, &path).await?;
    }
    at(state, &objects::get(store, &pointer).await?).await
}

async fn keep(rows: &mut dyn SourceRows, writer: &mut WriteMultipart) -> Result<()> {
    let mut stream = JsonToArrow::new(&rows.columns())?;
    let mut bytes = 0_u64;
    loop {
        let some = rows.next().await?;
        let chunk = if some.is_empty() { None } else { Some(stream.push(&some)?) };
        let Some(chunk) = chunk else { break };
        bytes = bytes.saturating_add(chunk.len() as u64);
        if bytes > MAX_OBJECTS.1 {
            return Err(Error::exhausted(format!("the query answers more than {} bytes; divide it with WHERE", MAX_OBJECTS.1)));
        }
        writer.wait_for_capacity(4).await.map_err(|e| Error::unavailable("keep the answer").with_source(e))?;
        writer.put(chunk);
    }
    writer.put(stream.finish()?);
    Ok(())
}

async fn at(state: &AppState, pointer: &[u8]) -> Result<Input> {
    let path = String::from_utf8_lossy(pointer).into_owned();
    let place = objects::parse_path(&path)?;
    let meta = state.blocks.objects.head(&place).await.map_err(|e| objects::error("look for", &place, e))?;
    Ok(Input { path, size: meta.size, tag: None, modified: 0, kind: Some(FileKind::Arrow) })
}

/// Reads rows on a thread of its own, and submits what comes of them.
async fn make(state: &AppState, me: &Principal, id: &str, inputs: Vec<Input>, cut: Cut, mark: &str) -> Result<TasksFromResponse> {
    let manager = state.service::<Manager>()?;
    let (sender, mut payloads) = mpsc::channel::<Bytes>(AHEAD);
    let (store, runtime) = (state.blocks.objects.clone(), tokio::runtime::Handle::current());
    let reading = tokio::task::spawn_blocking(move || {
        let files = inputs.into_iter().map(|input| {
            let path = objects::parse_path(&input.path)?;
            let bytes = runtime.block_on(objects::get(store.as_ref(), &path))?;
            let kind = input.kind.map_or_else(|| FileKind::of(&input.path), Ok)?;
            Ok((input.path, kind, bytes))
        });
        split(files, &cut, &mut |payload| {
            sender.blocking_send(payload).map_err(|_| Error::unavailable("the call that wanted the tasks has ended"))
        })
    });
    let mut making = Making { manager, id, user: &me.user, mark, made: TasksFromResponse::default(), portions: 0 };
    let (mut portion, mut bytes) = (Vec::new(), 0);
    while let Some(payload) = payloads.recv().await {
        bytes += payload.len();
        portion.push(payload);
        if portion.len() >= PORTION.0 || bytes >= PORTION.1 {
            making.submit(std::mem::take(&mut portion)).await?;
            bytes = 0;
        }
    }
    // The last portion is whole only when the reading has come to its end, and a token stands for one portion for good.
    reading.await.map_err(|e| Error::internal("reading rows failed in a way it should not; please report it").with_source(e))??;
    if !portion.is_empty() {
        making.submit(portion).await?;
    }
    Ok(making.made)
}

struct Making<'a> {
    manager: Manager,
    id: &'a str,
    user: &'a str,
    mark: &'a str,
    made: TasksFromResponse,
    portions: u64,
}

impl Making<'_> {
    async fn submit(&mut self, payloads: Vec<Bytes>) -> Result<()> {
        let count = payloads.len() as u64;
        let token = format!("from-{}-{}", self.mark, self.portions);
        self.portions += 1;
        let taken = self.manager.submit_tasks(self.id, Some(&token), submission::write(payloads.into_iter()), self.user).await?;
        super::count_taken(&taken);
        if taken.count != count {
            return Err(Error::conflict(format!(
                "session {} has {} tasks of an earlier call where this one makes {count}; the data has changed, so open another session",
                self.id, taken.count
            )));
        }
        let made = &mut self.made;
        made.count += taken.count;
        made.existing += if taken.existing { taken.count } else { 0 };
        match made.runs.last_mut() {
            Some((first, count)) if *first + *count == taken.first => *count += taken.count,
            _ => made.runs.push((taken.first, taken.count)),
        }
        Ok(())
    }
}
