//! Submissions and completions of sessions.

use tidemill_base::{Error, Result, Timestamp};
use tidemill_blocks::ledger::{Ledger, Row, Statement, Value};

use super::rows::narrow;
use crate::protocol::{decode, encode};
use crate::reactor::{Cancelled, Completion, DeadResult, SessionRow};

/// A submission about to be written down.
#[derive(Debug, Clone)]
pub(crate) struct NewSubmission<'a> {
    pub job: &'a str,
    pub n: u64,
    pub first: u64,
    pub count: u64,
    /// Some of its tasks need the results of others.
    pub needy: bool,
    pub token: &'a str,
    /// Its bytes, or the object that holds them.
    pub body: Result<&'a [u8], &'a str>,
    pub bytes: u64,
    pub at: Timestamp,
}

/// The job takes submissions still, with so many tasks in all; the transaction fails otherwise.
pub(crate) fn still_open(job: &str, tasks: u64) -> Statement {
    let sql = "UPDATE batch_jobs SET closed = 0 WHERE id = $1 AND kind = 'session' AND closed = 0
               AND state NOT IN ('succeeded', 'failed', 'cancelled', 'cancelling') AND (task_limit IS NULL OR task_limit >= $2)";
    Statement::new(sql, vec![job.into(), tasks.into()]).expecting(1)
}

/// Nobody may submit any more.
pub(crate) fn close(job: &str) -> Statement {
    Statement::new("UPDATE batch_jobs SET closed = 1 WHERE id = $1 AND kind = 'session'", vec![job.into()]).expecting(1)
}

pub(crate) fn submission_insert(s: &NewSubmission<'_>) -> Statement {
    let (body, object) = match s.body {
        Ok(bytes) => (Value::Blob(bytes.to_vec()), Value::Null),
        Err(path) => (Value::Null, path.into()),
    };
    Statement::new(
        "INSERT INTO batch_submissions (job, n, first_task, task_count, needy, token, body, object, bytes, at_us)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        vec![
            s.job.into(),
            s.n.into(),
            s.first.into(),
            s.count.into(),
            s.needy.into(),
            s.token.into(),
            body,
            object,
            s.bytes.into(),
            s.at.into(),
        ],
    )
}

/// A submission as it was written down.
#[derive(Debug, Clone)]
pub(crate) struct SubmissionRow {
    pub first: u64,
    pub count: u64,
    pub body: Option<Vec<u8>>,
    pub object: Option<String>,
}

const COLUMNS: &str = "SELECT first_task, task_count, body, object FROM batch_submissions";

fn submission(row: &Row) -> Result<SubmissionRow> {
    let body = if row.is_null(2) { None } else { Some(row.blob(2)?.to_vec()) };
    Ok(SubmissionRow { first: row.uint(0)?, count: row.uint(1)?, body, object: row.text_opt(3)?.map(str::to_owned) })
}

/// The submissions that hold tasks `start..end`, in order.
pub(crate) async fn submissions_of(ledger: &dyn Ledger, job: &str, start: u64, end: u64) -> Result<Vec<SubmissionRow>> {
    // The one that begins last before `start` may reach into the run; those before it end where it begins.
    let sql = format!(
        "{COLUMNS} WHERE job = $1 AND first_task < $3 AND first_task >= COALESCE(
           (SELECT MAX(first_task) FROM batch_submissions WHERE job = $1 AND first_task <= $2), 0) ORDER BY first_task"
    );
    ledger.query(&sql, vec![job.into(), start.into(), end.into()]).await?.iter().map(submission).collect()
}

/// The submissions with tasks that need results.
pub(crate) async fn needy_submissions(ledger: &dyn Ledger, job: &str) -> Result<Vec<SubmissionRow>> {
    let sql = format!("{COLUMNS} WHERE job = $1 AND needy = 1 ORDER BY first_task");
    ledger.query(&sql, vec![job.into()]).await?.iter().map(submission).collect()
}

/// What an earlier submit with the token was given: the first task and how many.
pub(crate) async fn submitted_by(ledger: &dyn Ledger, job: &str, token: &str) -> Result<Option<(u64, u64)>> {
    let sql = "SELECT first_task, task_count FROM batch_submissions WHERE job = $1 AND token = $2";
    let rows = ledger.query(sql, vec![job.into(), token.into()]).await?;
    rows.first().map(|r| Ok((r.uint(0)?, r.uint(1)?))).transpose()
}

/// The number of the next submission, and of the first task that it will hold.
pub(crate) async fn next_submission(ledger: &dyn Ledger, job: &str) -> Result<(u64, u64)> {
    let sql = "SELECT n, first_task, task_count FROM batch_submissions WHERE job = $1 ORDER BY n DESC LIMIT 1";
    let rows = ledger.query(sql, vec![job.into()]).await?;
    rows.first().map_or(Ok((1, 0)), |r| Ok((r.uint(0)? + 1, r.uint(1)? + r.uint(2)?)))
}

pub(crate) fn completion_insert(c: &Completion, at: Timestamp) -> Result<Statement> {
    Ok(Statement::new(
        "INSERT INTO batch_completions (job, n, stage, range_id, seq, succeeded, dead, at_us, cancelled)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        vec![
            c.job.as_str().into(),
            c.n.into(),
            c.stage.into(),
            c.range.into(),
            c.seq.into(),
            encode(&c.succeeded)?.into(),
            encode(&c.dead)?.into(),
            at.into(),
            c.cancelled.as_ref().map(encode).transpose()?.into(),
        ],
    ))
}

/// Completions of a job after number `after`, at most so many, in their order.
pub(crate) async fn completions(ledger: &dyn Ledger, job: &str, after: u64, most: u64) -> Result<Vec<Completion>> {
    let sql =
        "SELECT n, stage, range_id, seq, succeeded, dead, cancelled FROM batch_completions WHERE job = $1 AND n > $2 ORDER BY n LIMIT $3";
    let rows = ledger.query(sql, vec![job.into(), after.into(), most.into()]).await?;
    let read = |r: &Row| {
        Ok::<_, Error>(Completion {
            job: job.to_owned(),
            n: r.uint(0)?,
            stage: narrow(r.uint(1)?),
            range: r.uint(2)?,
            seq: r.uint(3)?,
            succeeded: decode("succeeded tasks", r.blob(4)?)?,
            dead: decode::<Vec<DeadResult>>("failed tasks", r.blob(5)?)?,
            cancelled: if r.is_null(6) { None } else { Some(decode::<Cancelled>("cancelled tasks", r.blob(6)?)?) },
        })
    };
    rows.iter().map(read).collect()
}

/// A client of the session was heard of. What was heard later is not undone.
pub(crate) fn heard(job: &str, at: Timestamp) -> Statement {
    let sql = "UPDATE batch_jobs SET seen_us = $2 WHERE id = $1 AND kind = 'session' AND (seen_us IS NULL OR seen_us < $2)";
    Statement::new(sql, vec![job.into(), at.into()])
}

/// When clients of sessions that have not ended were last heard of.
pub(crate) async fn seen(ledger: &dyn Ledger) -> Result<Vec<(String, Timestamp)>> {
    let sql = "SELECT id, seen_us FROM batch_jobs WHERE kind = 'session' AND seen_us IS NOT NULL
               AND state NOT IN ('succeeded', 'failed', 'cancelled')";
    ledger.query(sql, vec![]).await?.iter().map(|r| Ok((r.text(0)?.to_owned(), r.time(1)?))).collect()
}

/// What is kept of a session's stage.
pub(crate) async fn row(ledger: &dyn Ledger, job: &str) -> Result<Option<SessionRow>> {
    let rows = ledger.query("SELECT session FROM batch_stages WHERE job = $1 AND stage = 0", vec![job.into()]).await?;
    rows.first().filter(|r| !r.is_null(0)).map(|r| decode("session", r.blob(0)?)).transpose()
}
