//! Sessions: jobs whose tasks come in submissions, and whose results are read while they come.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use tidemill_base::{Error, ErrorKind, Result};
use tidemill_blocks::objects;
use tidemill_blocks::table::Key;

use super::{Manager, Shared};
use crate::protocol::{Piece, PieceSource, ResultAt, ResultBody, ResultPage, Submission, WorkItem, decode, keys, submission};
use crate::reactor::{Cancelled, Completion, Core, DeadResult};
use crate::store::read::{self, JobKind};
use crate::store::sessions::{self, NewSubmission, SubmissionRow};
use crate::store::{self, Command};

/// A submission up to so many bytes is kept in the ledger, a larger one as an object.
const INLINE_BYTES: usize = 48 << 10;
/// A range's payloads up to so many bytes travel in its message.
const MESSAGE_BYTES: usize = 128 << 10;
/// Submitting is tried so often when others submit to the same session at the same moment.
const TRIES: u32 = 8;
/// Small submissions that are remembered until their tasks are released.
const REMEMBERED: usize = 4_096;

/// Tasks that were taken in. It is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    /// The number of the first.
    pub first: u64,
    /// How many.
    pub count: u64,
    /// An earlier submit with the same token had brought them.
    pub existing: bool,
}

/// Results that came together, or tasks that will have none.
#[derive(Debug, Clone)]
pub struct Delivered {
    /// Its number in the session, from 1 without a gap: asking for what came after it goes on from here.
    pub n: u64,
    /// Its results, if it has any; those of tasks that will be tried again are among them and are not results.
    pub page: Option<ResultPage>,
    /// The results' bytes, as [`ResultPage::split`] takes them.
    pub body: Bytes,
    /// Runs of tasks that succeeded.
    pub succeeded: Vec<(u64, u64)>,
    /// Tasks that failed for good, and why.
    pub dead: Vec<DeadResult>,
    /// Tasks that were cancelled.
    pub cancelled: Option<Cancelled>,
}

/// Where the bytes of a submission are kept.
#[derive(Debug, Clone)]
pub(super) enum Body {
    /// In the ledger, with its row.
    Inline,
    /// In an object of this name.
    Object(String),
}

impl Body {
    pub(super) fn stored<'a>(&'a self, submission: &'a Submission) -> std::result::Result<&'a [u8], &'a str> {
        match self {
            Self::Inline => Ok(submission.bytes()),
            Self::Object(path) => Err(path),
        }
    }

    pub(super) fn inline<'a>(&self, submission: &'a Submission) -> Option<&'a Bytes> {
        matches!(self, Self::Inline).then(|| submission.bytes())
    }
}

/// What the manager remembers of sessions, so that a submit need not ask the ledger. Whatever is wrong in it is found out there.
#[derive(Debug, Default)]
pub(super) struct Sessions(Mutex<Remembered>);

#[derive(Debug, Default)]
struct Remembered {
    /// The next submission's number, and its first task.
    next: BTreeMap<String, (u64, u64)>,
    /// Small submissions, by job and first task.
    small: BTreeMap<(String, u64), Bytes>,
    /// Whose sessions are.
    owners: BTreeMap<String, String>,
}

impl Sessions {
    fn lock(&self) -> std::sync::MutexGuard<'_, Remembered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of a session's next submission, and its first task.
    pub(super) fn next_of(&self, job: &str) -> Option<(u64, u64)> {
        self.lock().next.get(job).copied()
    }

    pub(super) fn remember(&self, job: &str, n: u64, first: u64, count: u64, body: Option<&Bytes>) {
        let mut inner = self.lock();
        inner.next.insert(job.to_owned(), (n + 1, first + count));
        if let Some(body) = body {
            if inner.small.len() >= REMEMBERED {
                inner.small.pop_first();
            }
            inner.small.insert((job.to_owned(), first), body.clone());
        }
    }

    /// The submission that begins with this task and holds no other than those up to `end`.
    fn small(&self, job: &str, first: u64) -> Option<Bytes> {
        self.lock().small.get(&(job.to_owned(), first)).cloned()
    }

    fn owner(&self, job: &str) -> Option<String> {
        self.lock().owners.get(job).cloned()
    }

    fn remember_owner(&self, job: &str, user: &str) {
        let mut inner = self.lock();
        if inner.owners.len() >= REMEMBERED {
            inner.owners.pop_first();
        }
        inner.owners.insert(job.to_owned(), user.to_owned());
    }

    /// What was remembered may not have come to be.
    pub(super) fn forget_all(&self) {
        *self.lock() = Remembered::default();
    }

    pub(super) fn forget(&self, job: &str) {
        let mut inner = self.lock();
        inner.next.remove(job);
        inner.owners.remove(job);
        inner.small.retain(|(j, _), _| j != job);
    }
}

impl Manager {
    /// Takes tasks in. `token` makes it safe to repeat: the tasks of a token are taken in once. `Invalid` when the bytes are no submission or
    /// a task needs one that does not come before it; `Conflict` when the session takes no more.
    pub async fn submit_tasks(&self, job: &str, token: Option<&str>, body: Bytes, user: &str) -> Result<Accepted> {
        let shared = self.shared();
        let submission = Submission::parse(body)?;
        let own;
        let token = match token {
            Some(token) => token,
            None => {
                own = shared.env.id("t");
                &own
            }
        };
        let body = shared.keep_body(job, &submission).await?;
        if let Some(accepted) = shared.submit_directly(job, token, &submission, &body).await? {
            return Ok(accepted);
        }
        let _by_ledger = shared.direct.by_ledger(job);
        let mut tries = 0;
        loop {
            match shared.try_submit(job, token, &submission, &body, user).await {
                Ok(accepted) => return Ok(accepted),
                Err(e) if e.kind() == ErrorKind::Conflict || e.kind() == ErrorKind::Unavailable => {
                    shared.sessions.forget(job);
                    // It went through although we were not told, or before: the token knows.
                    if let Some((first, count)) = sessions::submitted_by(shared.blocks.ledger.as_ref(), job, token).await? {
                        return Ok(Accepted { first, count, existing: true });
                    }
                    if let Some(refusal) = self.refusal(job, submission.len() as u64).await? {
                        return Err(refusal);
                    }
                    tries += 1;
                    if tries >= TRIES {
                        return Err(e);
                    }
                }
                Err(e) => return Err(e),
            }
        }
    }

    /// Whose session it is. `NotFound` when there is no such session.
    pub async fn session_owner(&self, job: &str) -> Result<String> {
        let shared = self.shared();
        if let Some(owner) = shared.sessions.owner(job) {
            return Ok(owner);
        }
        let row = read::job(shared.blocks.ledger.as_ref(), job).await?;
        if row.kind != JobKind::Session {
            return Err(Error::not_found(format!("`{job}` is a job and not a session; its tasks were given when it was submitted")));
        }
        shared.sessions.remember_owner(job, &row.user);
        Ok(row.user)
    }

    /// Nothing more will be submitted: the session ends when its tasks have.
    pub async fn close_session(&self, job: &str, user: &str) -> Result<()> {
        let shared = self.shared();
        let state = self.state_of(job).await?;
        if state.is_final() {
            return Ok(());
        }
        let command = store::command_insert(&shared.env.id("c"), job, &Command::Close, user, shared.env.now())?;
        shared.blocks.ledger.transact(vec![sessions::close(job), command]).await.map_err(|e| match e.kind() {
            ErrorKind::Conflict => Error::invalid(format!("`{job}` is a job and not a session; there is nothing to close")),
            _ => e,
        })?;
        shared.direct.close_session(job);
        shared.nudge_to_look();
        Ok(())
    }

    /// What has come of a session after delivery `after` (0: from the beginning), at most `most` deliveries, in order. What is not there
    /// yet is waited for by watching [`Manager::changes`].
    pub async fn deliveries(&self, job: &str, after: u64, most: u64) -> Result<Vec<Delivered>> {
        self.delivered(job, after, most, true).await
    }

    /// Results of which there will be a delivery in a moment, whatever its number: they are written down and final. Whoever takes them gets
    /// them once more with the delivery.
    pub fn early_deliveries(&self, job: &str) -> Vec<Delivered> {
        self.shared().tails.early_of(job)
    }

    /// As [`Manager::deliveries`], without the results' bytes: which tasks ended and how.
    pub async fn outcomes(&self, job: &str, after: u64, most: u64) -> Result<Vec<Delivered>> {
        self.delivered(job, after, most, false).await
    }

    /// Whether the session is known to go on, which saves asking for its state.
    pub fn goes_on(&self, job: &str) -> bool {
        self.leads() && self.shared().tails.has(job)
    }

    /// The submissions of a session that hold tasks `start..end`, in order and as they came, each with the number of its first task.
    pub async fn submissions(&self, job: &str, start: u64, end: u64) -> Result<Vec<(u64, Submission)>> {
        let shared = self.shared();
        let rows = sessions::submissions_of(shared.blocks.ledger.as_ref(), job, start, end).await?;
        let mut out = Vec::with_capacity(rows.len());
        for row in rows {
            out.push((row.first, Submission::parse(shared.body_of(&row).await?)?));
        }
        Ok(out)
    }

    /// How many tasks have been submitted to a session.
    pub async fn submitted(&self, job: &str) -> Result<u64> {
        sessions::next_submission(self.shared().blocks.ledger.as_ref(), job).await.map(|(_, tasks)| tasks)
    }

    async fn delivered(&self, job: &str, after: u64, most: u64, bodies: bool) -> Result<Vec<Delivered>> {
        let shared = self.shared();
        if let Some(tail) = self.leads().then(|| shared.tails.read(job, after, most)).flatten() {
            return Ok(tail);
        }
        let completions = sessions::completions(shared.blocks.ledger.as_ref(), job, after, most).await?;
        let keys: Vec<Key> = completions.iter().filter(|c| c.seq > 0).map(|c| keys::result_page(job, c.stage, c.range, c.seq)).collect();
        let mut pages = Vec::with_capacity(keys.len());
        for chunk in keys.chunks(100) {
            pages.extend(shared.blocks.table.get_many(keys::STATE_TABLE, chunk).await?);
        }
        let mut pages = pages.into_iter();
        let mut out = Vec::with_capacity(completions.len());
        for c in completions {
            let item = if c.seq > 0 { pages.next().flatten() } else { None };
            let page = item.map(|i| decode::<ResultPage>("results", &i.value)).transpose()?;
            out.push(shared.delivered(c, page, bodies).await?);
        }
        Ok(out)
    }
}

impl Shared {
    async fn keep_body(&self, job: &str, submission: &Submission) -> Result<Body> {
        if submission.bytes().len() <= INLINE_BYTES {
            return Ok(Body::Inline);
        }
        let path = keys::submission(job, &self.env.id("s"));
        objects::put(self.blocks.objects.as_ref(), &path, submission.bytes().clone()).await?;
        Ok(Body::Object(path.to_string()))
    }

    /// By the leader, if it is here. `None` when it is not, or leaves it to the ledger.
    async fn submit_directly(&self, job: &str, token: &str, submission: &Submission, body: &Body) -> Result<Option<Accepted>> {
        if !self.direct.takes(job) {
            return Ok(None);
        }
        let looked = !self.direct.knows_tokens(job);
        if looked && let Some((first, count)) = sessions::submitted_by(self.blocks.ledger.as_ref(), job, token).await? {
            return Ok(Some(Accepted { first, count, existing: true }));
        }
        let Some(answer) = self.direct.leave(job, token, submission, body, looked) else { return Ok(None) };
        self.nudge.notify_one();
        // Whether it was written down before the leader went, the ledger finds out by the token.
        match answer.await.unwrap_or(Ok(None)) {
            Err(e) if e.kind() == ErrorKind::Unavailable => Ok(None),
            answer => answer,
        }
    }

    async fn try_submit(&self, job: &str, token: &str, submission: &Submission, body: &Body, user: &str) -> Result<Accepted> {
        let ledger = self.blocks.ledger.as_ref();
        // What is remembered may not be written down yet.
        let (n, first) = sessions::next_submission(ledger, job).await?;
        submission.check_order(first)?;
        let (bytes, count, needy) = (submission.bytes().len() as u64, submission.len() as u64, submission.has_dependencies());
        let row = NewSubmission { job, n, first, count, needy, token, body: body.stored(submission), bytes, at: self.env.now() };
        let command = Command::Submitted { first, count, needy };
        let command = store::command_insert(&self.env.id("c"), job, &command, user, self.env.now())?;
        self.direct.going_by_ledger(job, first);
        ledger.transact(vec![sessions::still_open(job, first + count), sessions::submission_insert(&row), command]).await?;
        self.sessions.remember(job, n, first, count, body.inline(submission));
        self.nudge_to_look();
        Ok(Accepted { first, count, existing: false })
    }

    /// Feeds the reactor what the tasks of a submission need.
    pub(super) async fn needs(&self, job: &str, first: u64, count: u64) -> Result<Vec<(u64, Vec<u64>)>> {
        let rows = sessions::submissions_of(self.blocks.ledger.as_ref(), job, first, first + count).await?;
        let mut needs = Vec::new();
        for row in rows {
            needs.extend(self.needs_in(&row).await?);
        }
        Ok(needs)
    }

    async fn needs_in(&self, row: &SubmissionRow) -> Result<Vec<(u64, Vec<u64>)>> {
        Ok(Submission::parse(self.body_of(row).await?)?.needs(row.first))
    }

    /// What the tasks of live sessions wait for, when a manager begins to lead.
    pub(super) async fn read_needs(&self, core: &mut Core, job: &str) -> Result<()> {
        if core.jobs.get(job).and_then(|j| j.stages.first()).is_none_or(|s| s.session.is_none()) {
            return Ok(());
        }
        for row in sessions::needy_submissions(self.blocks.ledger.as_ref(), job).await? {
            let needs = self.needs_in(&row).await?;
            core.on_needs_read(job, needs);
        }
        Ok(())
    }

    async fn body_of(&self, row: &SubmissionRow) -> Result<Bytes> {
        match (&row.body, &row.object) {
            (Some(body), _) => Ok(body.clone().into()),
            (None, Some(path)) => objects::get(self.blocks.objects.as_ref(), &objects::parse_path(path)?).await,
            (None, None) => Err(Error::corrupt(format!("the submission of task {} has lost its body", row.first))),
        }
    }

    /// Where the payloads of a range's tasks are.
    pub(super) async fn pieces(&self, item: &WorkItem) -> Result<Vec<Piece>> {
        let end = item.start + item.len;
        if let Some(body) = self.sessions.small(&item.job, item.start)
            && let submission = Submission::parse(body)?
            && item.len <= submission.len() as u64
        {
            let part = submission.part(0, usize::try_from(item.len).unwrap_or(usize::MAX));
            return Ok(vec![Piece { first: item.start, count: item.len, source: PieceSource::Inline(part.into()) }]);
        }
        let rows = sessions::submissions_of(self.blocks.ledger.as_ref(), &item.job, item.start, end).await?;
        let (mut pieces, mut small, mut small_from) = (Vec::new(), Vec::new(), item.start);
        for row in rows {
            let (from, until) = (row.first.max(item.start), (row.first + row.count).min(end));
            match &row.object {
                Some(path) => {
                    self.add_small(item, &mut pieces, small_from, &mut small).await?;
                    pieces.push(Piece { first: row.first, count: row.count, source: PieceSource::Object(path.clone()) });
                    small_from = until;
                }
                None => {
                    let submission = Submission::parse(self.body_of(&row).await?)?;
                    let places = (from - row.first)..(until - row.first);
                    small.extend(places.filter_map(|at| submission.payload(usize::try_from(at).ok()?)));
                }
            }
        }
        self.add_small(item, &mut pieces, small_from, &mut small).await?;
        Ok(pieces)
    }

    /// Payloads of many small submissions become one piece.
    async fn add_small(&self, item: &WorkItem, pieces: &mut Vec<Piece>, first: u64, small: &mut Vec<Bytes>) -> Result<()> {
        if small.is_empty() {
            return Ok(());
        }
        let count = small.len() as u64;
        let body = submission::write(std::mem::take(small).into_iter());
        let source = if body.len() <= MESSAGE_BYTES {
            PieceSource::Inline(body.into())
        } else {
            let path = keys::submission(&item.job, &format!("range-{}-{first}", item.range));
            objects::put(self.blocks.objects.as_ref(), &path, body).await?;
            PieceSource::Object(path.to_string())
        };
        pieces.push(Piece { first, count, source });
        Ok(())
    }

    async fn delivered(&self, c: Completion, page: Option<ResultPage>, bodies: bool) -> Result<Delivered> {
        let body = match &page {
            Some(page) if bodies => {
                page.check()?;
                match &page.body {
                    ResultBody::Inline(bytes) => bytes.clone().into(),
                    ResultBody::Object(path) => objects::get(self.blocks.objects.as_ref(), &objects::parse_path(path)?).await?,
                }
            }
            _ => Bytes::new(),
        };
        Ok(Delivered { n: c.n, page, body, succeeded: c.succeeded, dead: c.dead, cancelled: c.cancelled })
    }
}

/// Reads the results that a task needs, in the order it named them. For workers: it takes table and objects alone.
pub async fn read_needed(
    table: &dyn tidemill_blocks::table::Table,
    store: &objects::Objects,
    job: &str,
    stage: u32,
    needed: &[ResultAt],
) -> Result<Vec<Bytes>> {
    let mut pages: BTreeMap<(u64, u64), BTreeMap<u64, Bytes>> = BTreeMap::new();
    let mut out = Vec::with_capacity(needed.len());
    for at in needed {
        if let std::collections::btree_map::Entry::Vacant(entry) = pages.entry((at.range, at.seq)) {
            let item = table.get(keys::STATE_TABLE, &keys::result_page(job, stage, at.range, at.seq)).await?;
            let item = item.ok_or_else(|| Error::not_found(format!("the result of task {} is gone", at.task)))?;
            let page: ResultPage = decode("results", &item.value)?;
            page.check()?;
            let body = match &page.body {
                ResultBody::Inline(bytes) => bytes.clone().into(),
                ResultBody::Object(path) => objects::get(store.as_ref(), &objects::parse_path(path)?).await?,
            };
            entry.insert(page.split(&body)?.into_iter().collect());
        }
        let result = pages.get(&(at.range, at.seq)).and_then(|page| page.get(&at.task));
        out.push(result.cloned().ok_or_else(|| Error::corrupt(format!("the result of task {} is not where it should be", at.task)))?);
    }
    Ok(out)
}
