//! What became of the tasks of sessions, wherever it is: with the session, or in a restored archive.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt as _, TryStreamExt as _};
use tidemill_base::{Env, Error, ErrorKind, Result};
use tidemill_batch::model::{EngineSpec, JobSpec, RunSpec};
use tidemill_batch::protocol::{MAX_RANGE, Submission};
use tidemill_batch::service::Manager;
use tidemill_batch::store::read::{self, JobKind, JobRow};
use tidemill_blocks::ledger::Ledger;
use tidemill_grid::archive::{Archive, Standing};
use tidemill_grid::{Record, records};
use tidemill_query::Scan;

use crate::AppState;

/// Deliveries read at once.
const AT_ONCE: u64 = 16;

/// Reads sessions. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Reader {
    ledger: Arc<dyn Ledger>,
    manager: Manager,
    archive: Archive,
    env: Env,
}

/// A session whose tasks can be read.
#[derive(Clone)]
pub(crate) struct Session {
    pub(crate) id: String,
    pub(crate) spec: JobSpec,
    /// Its row, unless it is read from an archive.
    pub(crate) row: Option<JobRow>,
}

impl Session {
    pub(crate) fn engine(&self) -> Option<&EngineSpec> {
        engine_of(&self.spec)
    }

    /// How results are encoded.
    pub(crate) fn output(&self) -> &str {
        self.engine().map_or("", |e| e.output.as_str())
    }

    /// How inputs are.
    pub(crate) fn input(&self) -> &str {
        self.engine().map_or("", |e| e.input.as_str())
    }
}

/// What the tasks of a session run in.
pub(crate) fn engine_of(spec: &JobSpec) -> Option<&EngineSpec> {
    match &spec.stages.first()?.run {
        RunSpec::Engine(engine) => Some(engine),
        _ => None,
    }
}

impl Reader {
    pub(crate) const fn new(ledger: Arc<dyn Ledger>, manager: Manager, archive: Archive, env: Env) -> Self {
        Self { ledger, manager, archive, env }
    }

    /// For a handler.
    pub(crate) fn of(state: &AppState) -> Result<Self> {
        let archive = Archive::new(Arc::clone(&state.blocks.objects), "");
        Ok(Self::new(Arc::clone(&state.blocks.ledger), state.service::<Manager>()?, archive, state.env.clone()))
    }

    pub(crate) fn ledger(&self) -> &dyn Ledger {
        self.ledger.as_ref()
    }

    pub(crate) const fn archive(&self) -> &Archive {
        &self.archive
    }

    pub(crate) const fn env(&self) -> &Env {
        &self.env
    }

    /// A session by its id. `NotFound` when there is none, here or restored.
    pub(crate) async fn session(&self, id: &str) -> Result<Session> {
        match read::job(self.ledger(), id).await {
            Ok(row) if row.kind == JobKind::Session => {
                let spec = read::spec(self.ledger(), id).await?;
                return Ok(Session { id: id.to_owned(), spec, row: Some(row) });
            }
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        if self.archive.find(id).await?.is_none() {
            return Err(Error::not_found(format!(
                "there is no session `{}`; `tidemill grid list` shows those there are",
                id.escape_debug()
            )));
        }
        let manifest = self.archive.readable(id, self.env.now()).await?;
        let spec = serde_json::from_value(manifest.spec)
            .map_err(|e| Error::corrupt(format!("the archive of session {id} does not decode")).with_source(e))?;
        Ok(Session { id: id.to_owned(), spec, row: None })
    }

    /// The sessions that a scan may want, in order: those it names, or all there are, here and restored.
    pub(crate) async fn wanted(&self, want: &Scan) -> Result<Vec<Session>> {
        let ids: BTreeSet<String> = match want.words("session") {
            Some(words) => words.clone(),
            None => {
                let here = read::all_jobs(self.ledger()).await?.into_iter().filter(|j| j.kind == JobKind::Session).map(|j| j.id);
                let mut ids: BTreeSet<String> = here.collect();
                for id in self.archive.sessions().await? {
                    if let Standing::Restored(_) = self.archive.standing(&id, self.env.now()).await? {
                        ids.insert(id);
                    }
                }
                ids
            }
        };
        let mut out = Vec::with_capacity(ids.len());
        for id in ids {
            match self.session(&id).await {
                Ok(session) => out.push(session),
                // An id that is none has no rows, as in any table; what is archived and not restored is said only when it is named.
                Err(e) if e.kind() == ErrorKind::NotFound || (want.words("session").is_none() && e.kind() == ErrorKind::Conflict) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(out)
    }

    /// What became of a session's tasks from delivery `after` on, delivery by delivery, each with its number; without the results' bytes
    /// unless `bodies`.
    pub(crate) fn records(&self, session: &Session, after: u64, bodies: bool) -> BoxStream<'static, Result<(u64, Vec<Record>)>> {
        if session.row.is_none() {
            return self.archived(session.id.clone(), after);
        }
        let (manager, id) = (self.manager.clone(), session.id.clone());
        stream::try_unfold(after, move |after| {
            let (manager, id) = (manager.clone(), id.clone());
            async move {
                let delivered =
                    if bodies { manager.deliveries(&id, after, AT_ONCE).await? } else { manager.outcomes(&id, after, AT_ONCE).await? };
                let Some(last) = delivered.last().map(|d| d.n) else { return Ok(None) };
                let pages: Vec<Result<(u64, Vec<Record>)>> = delivered.iter().map(|d| Ok((d.n, records(d)?))).collect();
                Ok::<_, Error>(Some((stream::iter(pages), last)))
            }
        })
        .try_flatten()
        .boxed()
    }

    /// The same from an archive, whose parts count as deliveries.
    fn archived(&self, id: String, after: u64) -> BoxStream<'static, Result<(u64, Vec<Record>)>> {
        let reader = self.clone();
        let skip = usize::try_from(after).unwrap_or(usize::MAX);
        let begin = async move {
            let manifest = reader.archive.readable(&id, reader.env.now()).await?;
            let numbered = reader.archive.records(&manifest).enumerate().skip(skip);
            Ok::<_, Error>(numbered.map(|(n, page)| page.map(|page| (n as u64 + 1, page))))
        };
        stream::once(begin).try_flatten().boxed()
    }

    /// A session's submissions, each with the number of its first task.
    pub(crate) fn submissions(&self, session: &Session) -> BoxStream<'static, Result<(u64, Submission)>> {
        let (reader, id) = (self.clone(), session.id.clone());
        if session.row.is_none() {
            let begin = async move {
                let manifest = reader.archive.readable(&id, reader.env.now()).await?;
                let pages = reader.archive.inputs(&manifest);
                Ok::<_, Error>(pages.map_ok(|page| stream::iter(page.into_iter().map(Ok::<_, Error>))).try_flatten())
            };
            let numbered = stream::once(begin).try_flatten().scan(0_u64, |first, bytes: Result<Bytes>| {
                let read = bytes.and_then(Submission::parse).map(|submission| {
                    let own = *first;
                    *first += submission.len() as u64;
                    (own, submission)
                });
                futures::future::ready(Some(read))
            });
            return numbered.boxed();
        }
        let begin = async move {
            let total = reader.manager.submitted(&id).await?;
            Ok::<_, Error>(
                stream::try_unfold(0_u64, move |start| {
                    let (manager, id) = (reader.manager.clone(), id.clone());
                    async move {
                        if start >= total {
                            return Ok(None);
                        }
                        let found = manager.submissions(&id, start, (start + MAX_RANGE).min(total)).await?;
                        let Some(end) = found.last().map(|(first, s)| first + s.len() as u64) else { return Ok(None) };
                        Ok::<_, Error>(Some((stream::iter(found.into_iter().map(Ok::<_, Error>)), end)))
                    }
                })
                .try_flatten(),
            )
        };
        stream::once(begin).try_flatten().boxed()
    }
}

/// The bytes as JSON text, when they are JSON. `known` is the encoding they are said to have.
pub(super) fn json_text(known: &str, bytes: &[u8]) -> Option<String> {
    if known == "pickle" || known == "arrow" {
        return None;
    }
    let text = std::str::from_utf8(bytes).ok()?;
    (known == "json" || serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()).then(|| text.to_owned())
}
