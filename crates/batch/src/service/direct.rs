//! Submissions that go straight to the leader when it is in this process: one transaction takes the tasks in and releases them, and all
//! that come at the same time share it.
//!
//! The way over the ledger, by a command, stays for managers that do not lead. Both number the tasks of a session one after the other, so
//! a session whose tasks also come by another manager is left to the ledger, where the numbers cannot be given twice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tidemill_base::Result;
use tidemill_blocks::ledger::Statement;
use tokio::sync::oneshot;

use super::lead::Leader;
use super::recover;
use super::session::{Accepted, Body};
use crate::model::Wanted;
use crate::protocol::Submission;
use crate::store::sessions::{self, NewSubmission};

/// Tokens that are remembered, of all sessions.
const TOKENS: usize = 65_536;

/// A submission that waits for the leader. It is declined by `None`, and then has to go by the ledger.
#[derive(Debug)]
pub(super) struct Request {
    pub job: String,
    pub token: String,
    pub submission: Submission,
    pub body: Body,
    /// The ledger has been asked for the token, and did not know it.
    looked: bool,
    answer: oneshot::Sender<Result<Option<Accepted>>>,
}

/// What waits for the leader of this process.
#[derive(Debug, Default)]
pub(super) struct Direct(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// A leader takes from here.
    open: bool,
    waiting: Vec<Request>,
    /// Submissions of this process that go by the ledger now, by session.
    by_ledger: BTreeMap<String, u32>,
    /// Those of them whose command the leader has not met.
    own: BTreeSet<(String, u64)>,
    /// Sessions whose tasks come by other managers too.
    elsewhere: BTreeSet<String>,
    tokens: BTreeMap<String, Tokens>,
}

/// Tokens of a session that came this way, so that one that comes again is known before the ledger says so.
#[derive(Debug, Default)]
struct Tokens {
    /// No other has ever come, so the ledger need not be asked.
    all: bool,
    known: BTreeMap<String, Accepted>,
}

/// Says for as long as it lives that a submission of the session goes by the ledger.
#[derive(Debug)]
pub(super) struct ByLedger<'a>(&'a Direct, String);

impl Drop for ByLedger<'_> {
    fn drop(&mut self) {
        let mut inner = self.0.lock();
        if let Some(n) = inner.by_ledger.get_mut(&self.1) {
            *n -= 1;
            if *n == 0 {
                inner.by_ledger.remove(&self.1);
            }
        }
    }
}

impl Direct {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is a leader here that takes tasks of the session.
    pub(super) fn takes(&self, job: &str) -> bool {
        let inner = self.lock();
        inner.open && !inner.elsewhere.contains(job)
    }

    /// Whether a leader is here.
    pub(super) fn is_open(&self) -> bool {
        self.lock().open
    }

    /// Leaves a submission; what is received tells what became of it, and nothing is received from a leader that has gone.
    pub(super) fn leave(
        &self,
        job: &str,
        token: &str,
        submission: &Submission,
        body: &Body,
        looked: bool,
    ) -> Option<oneshot::Receiver<Result<Option<Accepted>>>> {
        let (answer, answered) = oneshot::channel();
        let mut inner = self.lock();
        if !inner.open {
            return None;
        }
        let (job, token) = (job.to_owned(), token.to_owned());
        inner.waiting.push(Request { job, token, submission: submission.clone(), body: body.clone(), looked, answer });
        Some(answered)
    }

    pub(super) fn by_ledger(&self, job: &str) -> ByLedger<'_> {
        let mut inner = self.lock();
        *inner.by_ledger.entry(job.to_owned()).or_default() += 1;
        inner.tokens.remove(job);
        ByLedger(self, job.to_owned())
    }

    /// Tasks of this process may be met by their command from now on.
    pub(super) fn going_by_ledger(&self, job: &str, first: u64) {
        let mut inner = self.lock();
        if inner.open {
            inner.own.insert((job.to_owned(), first));
        }
    }

    /// Nothing more is taken for the session here; what the leader has not heard of yet, the ledger knows.
    pub(super) fn close_session(&self, job: &str) {
        let mut inner = self.lock();
        inner.elsewhere.insert(job.to_owned());
        inner.tokens.remove(job);
    }

    /// The leader has met a command that speaks of tasks of this session.
    pub(super) fn met(&self, job: &str, first: u64) {
        let mut inner = self.lock();
        if !inner.own.remove(&(job.to_owned(), first)) {
            inner.elsewhere.insert(job.to_owned());
            inner.tokens.remove(job);
        }
    }

    pub(super) fn forget(&self, job: &str) {
        let mut inner = self.lock();
        inner.elsewhere.remove(job);
        inner.own.retain(|(j, _)| j != job);
        inner.tokens.remove(job);
    }

    pub(super) fn open(&self) {
        self.lock().open = true;
    }

    /// The leader has gone: what waits hears nothing, and asks the ledger.
    pub(super) fn close(&self) {
        let mut inner = self.lock();
        let elsewhere = std::mem::take(&mut inner.elsewhere);
        *inner = Inner { by_ledger: std::mem::take(&mut inner.by_ledger), elsewhere, ..Inner::default() };
    }

    fn take(&self) -> Vec<Request> {
        std::mem::take(&mut self.lock().waiting)
    }

    fn goes_by_ledger(&self, job: &str) -> bool {
        let inner = self.lock();
        inner.by_ledger.contains_key(job) || inner.elsewhere.contains(job)
    }

    /// Whether every token that the session's tasks have come by is known here.
    pub(super) fn knows_tokens(&self, job: &str) -> bool {
        self.lock().tokens.get(job).is_some_and(|t| t.all)
    }

    fn token(&self, job: &str, token: &str) -> Option<Accepted> {
        self.lock().tokens.get(job)?.known.get(token).copied()
    }

    /// `first_of_all`: nothing had been submitted to the session before.
    fn keep_token(&self, job: &str, token: &str, accepted: Accepted, first_of_all: bool) {
        let mut inner = self.lock();
        if inner.tokens.values().map(|t| t.known.len()).sum::<usize>() >= TOKENS {
            inner.tokens.clear();
        }
        let tokens = inner.tokens.entry(job.to_owned()).or_default();
        tokens.all |= first_of_all;
        tokens.known.insert(token.to_owned(), Accepted { existing: true, ..accepted });
    }
}

/// Submissions that a round has taken in, to be answered when they are written down.
#[derive(Debug, Default)]
pub(super) struct TakenIn {
    pub statements: Vec<Statement>,
    answers: Vec<(oneshot::Sender<Result<Option<Accepted>>>, Accepted)>,
}

impl TakenIn {
    /// They are durable.
    pub(super) fn answer(self) {
        for (answer, accepted) in self.answers {
            // Whoever has gone away asks again, with the token.
            drop(answer.send(Ok(Some(accepted))));
        }
    }
}

impl Leader<'_> {
    /// Takes in what was submitted here.
    pub(super) async fn take_in(&mut self) -> Result<TakenIn> {
        let mut taken = TakenIn::default();
        for request in self.shared.direct.take() {
            match self.take_one(&request).await {
                Ok(Some((accepted, statement))) => {
                    taken.statements.extend(statement);
                    taken.answers.push((request.answer, accepted));
                }
                Ok(None) => drop(request.answer.send(Ok(None))),
                Err(e) => drop(request.answer.send(Err(e))),
            }
        }
        Ok(taken)
    }

    async fn take_one(&mut self, r: &Request) -> Result<Option<(Accepted, Option<Statement>)>> {
        let direct = &self.shared.direct;
        if let Some(accepted) = direct.token(&r.job, &r.token) {
            return Ok(Some((accepted, None)));
        }
        // What was known of its tokens when it came may have been let go of since.
        if direct.goes_by_ledger(&r.job) || !(r.looked || direct.knows_tokens(&r.job)) {
            return Ok(None);
        }
        if !self.core.jobs.contains_key(&r.job) {
            recover::adopt(self.shared, &mut self.core, &r.job).await?;
        }
        let Some(first) = self.next_task(&r.job) else { return Ok(None) };
        let ledger = self.shared.blocks.ledger.as_ref();
        let n = match self.shared.sessions.next_of(&r.job) {
            Some((n, at)) if at == first => n,
            _ => match sessions::next_submission(ledger, &r.job).await? {
                (n, at) if at == first => n,
                // A command that speaks of more has not been met.
                _ => return Ok(None),
            },
        };
        r.submission.check_order(first)?;
        let (count, needy, now) = (r.submission.len() as u64, r.submission.has_dependencies(), self.shared.env.now());
        let (body, bytes) = (r.body.stored(&r.submission), r.submission.bytes().len() as u64);
        let row = NewSubmission { job: &r.job, n, first, count, needy, token: &r.token, body, bytes, at: now };
        let statement = sessions::submission_insert(&row);
        self.shared.sessions.remember(&r.job, n, first, count, r.body.inline(&r.submission));
        let needs = r.submission.needs(first);
        self.core.on_submitted(&r.job, first, count, needs, now);
        let accepted = Accepted { first, count, existing: false };
        direct.keep_token(&r.job, &r.token, accepted, first == 0);
        Ok(Some((accepted, Some(statement))))
    }

    /// The number of the session's next task; `None` when it takes none, which the ledger can say more about.
    fn next_task(&self, job: &str) -> Option<u64> {
        let entry = self.core.jobs.get(job)?;
        let stage = entry.stages.first()?;
        let takes = stage.session.as_ref().is_some_and(|session| session.takes_tasks());
        let open = takes && entry.wanted != Wanted::Cancel && !entry.state.is_final();
        // How many it may take in all, the ledger knows.
        let limited = entry.spec.terms().is_some_and(|t| t.budget.tasks.is_some());
        (open && !limited).then_some(stage.total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::submission;

    fn leave(direct: &Direct, job: &str) -> Option<oneshot::Receiver<Result<Option<Accepted>>>> {
        let submission = Submission::parse(submission::write(std::iter::once(bytes::Bytes::from_static(b"x")))).unwrap();
        direct.leave(job, "t", &submission, &Body::Inline, true)
    }

    #[tokio::test]
    async fn a_leader_that_goes_leaves_nobody_waiting() {
        let direct = Direct::default();
        assert!(leave(&direct, "s").is_none() && !direct.takes("s"), "nobody leads");
        direct.open();
        let waiting = leave(&direct, "s").unwrap();
        direct.close();
        assert!(waiting.await.is_err() && !direct.takes("s"));
    }

    #[test]
    fn sessions_that_others_submit_to_are_left_to_the_ledger() {
        let direct = Direct::default();
        direct.open();
        direct.going_by_ledger("own", 3);
        direct.met("own", 3);
        direct.met("shared", 7);
        assert!(direct.takes("own") && !direct.takes("shared"));
        let by_ledger = direct.by_ledger("own");
        assert!(direct.goes_by_ledger("own"), "its numbers are being given");
        drop(by_ledger);
        assert!(!direct.goes_by_ledger("own"));
        direct.close();
        direct.open();
        assert!(!direct.takes("shared"), "another term, the same clients");
        direct.forget("shared");
        assert!(direct.takes("shared"));
    }

    #[test]
    fn a_token_is_known_at_once() {
        let direct = Direct::default();
        direct.open();
        let accepted = Accepted { first: 4, count: 2, existing: false };
        direct.keep_token("s", "t", accepted, false);
        assert_eq!(direct.token("s", "t"), Some(Accepted { existing: true, ..accepted }));
        assert_eq!(direct.token("other", "t"), None);
        assert!(!direct.knows_tokens("s"), "others came before it");
    }

    #[test]
    fn all_tokens_are_known_from_the_first_on_until_one_may_have_come_another_way() {
        let direct = Direct::default();
        let accepted = Accepted { first: 0, count: 1, existing: false };
        let fresh = || {
            direct.open();
            direct.keep_token("s", "t", accepted, true);
            direct.keep_token("s", "u", accepted, false);
            assert!(direct.knows_tokens("s"));
        };
        fresh();
        drop(direct.by_ledger("s"));
        assert!(!direct.knows_tokens("s"), "by the ledger");
        fresh();
        direct.met("s", 9);
        assert!(!direct.knows_tokens("s"), "by another manager");
        fresh();
        direct.close_session("s");
        assert!(!direct.knows_tokens("s"), "closed");
        fresh();
        direct.close();
        assert!(!direct.knows_tokens("s"), "another term");
        fresh();
        for n in 0..TOKENS {
            direct.keep_token("s", &n.to_string(), accepted, false);
        }
        assert!(!direct.knows_tokens("s"), "too many");
    }
}
