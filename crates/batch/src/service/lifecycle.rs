//! What clients ask of single tasks of a session, and that they are there.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tidemill_base::{Error, Result, RunSet, Timestamp};

use super::Manager;
use crate::model::Terms;
use crate::store::{Command, read, sessions};

/// The most runs of tasks in one call.
const MAX_RUNS: usize = 100_000;
/// That a client is there is written down at least so often as long as it is, and at most so often.
const HEARD_EVERY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(600));
/// Sessions of which it is remembered when that was written down last.
const REMEMBERED: usize = 10_000;

/// What became of tasks that somebody gave up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GivenUp {
    /// They are cancelled: there will be no result of them.
    pub cancelled: u64,
    /// They are with workers, which let go of them unless they have begun.
    pub asked: u64,
    /// They had ended before.
    pub ended: u64,
}

/// When it was last written down that clients of sessions are there, and when it is worth writing down again.
#[derive(Debug, Default)]
pub(super) struct Heard(Mutex<BTreeMap<String, (Timestamp, Duration)>>);

impl Heard {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, (Timestamp, Duration)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How often it is worth writing down that a client is there.
fn heard_every(terms: Option<&Terms>) -> Duration {
    let limits = terms.map(|t| [t.keep_alive, t.idle_timeout]).unwrap_or_default();
    limits.into_iter().flatten().map(|limit| limit.0 / 4).min().unwrap_or(HEARD_EVERY.1).clamp(HEARD_EVERY.0, HEARD_EVERY.1)
}

impl Manager {
    /// Gives up tasks of a session, runs of them. What no worker has is cancelled at once; what workers have is cancelled unless they have
    /// begun it, or with `running` in any case. No result of a cancelled task is delivered from then on. Asking again changes nothing.
    ///
    /// `Invalid` when there are no such tasks; `Conflict` when the session has ended.
    pub async fn cancel_tasks(&self, job: &str, tasks: &[(u64, u64)], running: bool, user: &str) -> Result<GivenUp> {
        let ledger = self.shared().blocks.ledger.as_ref();
        if tasks.is_empty() || tasks.len() > MAX_RUNS {
            return Err(Error::invalid(format!("{} runs of tasks are named; 1 to {MAX_RUNS} are allowed, so ask in parts", tasks.len())));
        }
        let named: RunSet = tasks.to_vec().into();
        let (_, submitted) = sessions::next_submission(ledger, job).await?;
        if let Some((first, len)) = tasks.iter().find(|(first, len)| *len == 0 || first.saturating_add(*len) > submitted) {
            let last = first.saturating_add(len.saturating_sub(1));
            return Err(Error::invalid(format!("there are no tasks {first} to {last}: session {job} has {submitted}, numbered from 0")));
        }
        if !self.state_of(job).await?.is_final() {
            let command = Command::CancelTasks { tasks: named.runs().collect(), running };
            let command = self.command(job, &command, user).await?;
            if !self.is_carried_out(&command).await? {
                return Err(Error::unavailable("nobody leads for the moment: the tasks will be cancelled, ask again to hear how many"));
            }
        }
        let Some(row) = sessions::row(ledger, job).await? else {
            return Err(Error::invalid(format!("`{job}` is a job and not a session; its tasks are cancelled together")));
        };
        let of = |set: &RunSet| named.runs().flat_map(|(first, len)| set.within(first, len)).map(|(_, len)| len).sum::<u64>();
        let (cancelled, asked) = (of(&row.given_up), of(&row.asked));
        Ok(GivenUp { cancelled, asked, ended: named.len() - cancelled - asked })
    }

    /// A client of the session is there: it reads, or says so. Cheap: it is written down as seldom as the session's terms allow.
    pub async fn heard_of(&self, job: &str) -> Result<()> {
        let shared = self.shared();
        let now = shared.env.now();
        let known = shared.heard.lock().get(job).copied();
        if known.is_some_and(|(at, every)| now.since(at) < every) {
            return Ok(());
        }
        let every = match known {
            Some((_, every)) => every,
            None => heard_every(read::spec(shared.blocks.ledger.as_ref(), job).await?.terms()),
        };
        shared.blocks.ledger.transact(vec![sessions::heard(job, now)]).await?;
        let mut heard = shared.heard.lock();
        heard.insert(job.to_owned(), (now, every));
        while heard.len() > REMEMBERED {
            // Identifiers begin with the time, so the first is the oldest.
            heard.pop_first();
        }
        Ok(())
    }

    /// Why a session takes no more tasks, or not so many.
    pub(super) async fn refusal(&self, job: &str, count: u64) -> Result<Option<Error>> {
        let ledger = self.shared().blocks.ledger.as_ref();
        let rows = ledger.query("SELECT kind, closed, task_limit, reason, state FROM batch_jobs WHERE id = $1", vec![job.into()]).await?;
        let Some(row) = rows.first() else {
            return Ok(Some(Error::not_found(format!("there is no session `{job}`; it may have been deleted"))));
        };
        if row.text(0)? != "session" {
            let text = format!("`{job}` is a job and not a session; its tasks were given when it was submitted");
            return Ok(Some(Error::invalid(text)));
        }
        let (closed, reason, state) = (row.bool(1)?, row.text(3)?, row.text(4)?);
        let ended = matches!(state, "succeeded" | "failed" | "cancelled" | "cancelling");
        if closed || ended {
            let is = if ended { state } else { "closed" };
            let because = if reason.is_empty() { String::new() } else { format!(": {reason}") };
            let next = if reason.contains("budget") || reason.contains("deadline") { "open another with more" } else { "open another" };
            return Ok(Some(Error::conflict(format!("session {job} is {is} and takes no more tasks{because}; {next}"))));
        }
        let Some(limit) = row.int_opt(2)?.and_then(|limit| u64::try_from(limit).ok()) else { return Ok(None) };
        let (_, submitted) = sessions::next_submission(ledger, job).await?;
        Ok((submitted.saturating_add(count) > limit).then(|| {
            let left = limit.saturating_sub(submitted);
            Error::conflict(format!(
                "session {job} may have {limit} tasks (its budget.tasks) and has {submitted}, so it does not take {count} more; \
                 submit at most {left}, or open another with a larger budget"
            ))
        }))
    }

    /// Whether it is a session, whose failed tasks may be tried again. `Conflict` when it was stopped by its budget.
    pub(super) async fn is_retryable_session(&self, job: &str) -> Result<bool> {
        let ledger = self.shared().blocks.ledger.as_ref();
        let row = sessions::row(ledger, job).await?;
        if row.as_ref().is_some_and(|row| row.stopped) {
            let reason = read::job(ledger, job).await?.reason;
            return Err(Error::conflict(format!(
                "session {job} was stopped: {reason}; submit what failed to another with a larger budget"
            )));
        }
        Ok(row.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_written_down_often_enough_for_the_terms_and_no_oftener() {
        let terms = |keep: Option<u64>, idle: Option<u64>| {
            let span = |s: Option<u64>| s.map(|s| Duration::from_secs(s).into());
            heard_every(Some(&Terms { keep_alive: span(keep), idle_timeout: span(idle), ..Terms::default() })).as_secs()
        };
        assert_eq!((terms(Some(60), Some(86_400)), terms(None, Some(86_400)), terms(Some(1), None)), (15, 600, 1));
        assert_eq!(heard_every(None), HEARD_EVERY.1);
    }
}
