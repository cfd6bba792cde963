//! What people ask of the ledger: jobs, stages, failures. Any manager can answer.

use std::collections::BTreeSet;

use tidemill_base::{Error, Result, Timestamp};
use tidemill_blocks::ledger::{Ledger, Row, Value};

use super::rows::narrow;
use crate::model::{JobSpec, JobState};

/// Whether a job's tasks were there at its submit, or come in submissions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum JobKind {
    /// They were.
    #[default]
    Job,
    /// They come.
    Session,
}

/// A job's row.
#[derive(Debug, Clone)]
pub struct JobRow {
    /// Its id.
    pub id: String,
    /// Whether it is a session.
    pub kind: JobKind,
    /// Its name.
    pub name: String,
    /// Whose it is.
    pub user: String,
    /// The class of workers that runs it.
    pub class: String,
    /// Its priority.
    pub priority: i32,
    /// Where it stands.
    pub state: JobState,
    /// Why, when that is not plain.
    pub reason: String,
    /// The job that submitted it by its cron line.
    pub cron_parent: Option<String>,
    /// When it was submitted.
    pub submitted_at: Timestamp,
    /// Not started before this.
    pub start_after: Timestamp,
    /// When it started.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
}

/// A stage's row.
#[derive(Debug, Clone)]
pub struct StageRow {
    /// The job.
    pub job: String,
    /// Its place, from 0.
    pub stage: u32,
    /// Its name.
    pub name: String,
    /// `blocked`, `open`, `done`.
    pub state: String,
    /// Tasks in all.
    pub total: u64,
    /// Succeeded.
    pub succeeded: u64,
    /// Failed for good.
    pub failed: u64,
    /// Stopped or never started.
    pub cancelled: u64,
    /// Not run because their input failed.
    pub skipped: u64,
    /// Waiting for the next attempt.
    pub retrying: u64,
    /// Released and not settled: in the queue or with a worker.
    pub outstanding: u64,
    /// Attempts settled.
    pub attempts: u64,
    /// Of them, failed ones.
    pub failed_attempts: u64,
    /// From release to start, microseconds, summed.
    pub wait_us: u64,
    /// Fetching input, summed.
    pub stage_in_us: u64,
    /// Running, summed.
    pub run_us: u64,
    /// Storing output, summed.
    pub stage_out_us: u64,
    /// Slot time of failed attempts.
    pub wasted_us: u64,
    /// CPU time, summed.
    pub cpu_us: u64,
    /// Largest resident set, bytes.
    pub peak_memory: u64,
    /// Bytes of input fetched.
    pub bytes_in: u64,
    /// Bytes of output stored.
    pub bytes_out: u64,
    /// Slot time that one task is expected to take, microseconds.
    pub mean_us: f64,
    /// When its first task was released.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
}

/// A task whose last attempt failed.
#[derive(Debug, Clone)]
pub struct ExceptionRow {
    /// The stage, from 0.
    pub stage: u32,
    /// The task.
    pub task: u64,
    /// Attempts so far.
    pub attempts: u32,
    /// The failure's class.
    pub class: String,
    /// Exit code.
    pub exit: Option<i32>,
    /// Signal.
    pub signal: Option<i32>,
    /// What happened.
    pub message: String,
    /// Who ran it.
    pub worker: String,
    /// Failed for good; otherwise it is or will be tried again.
    pub dead: bool,
    /// When it is tried again.
    pub due: Option<Timestamp>,
    /// When it failed.
    pub at: Timestamp,
}

/// Which jobs to list, newest first.
#[derive(Debug, Clone, Default)]
pub struct JobFilter {
    /// Jobs or sessions; `None`: both.
    pub kind: Option<JobKind>,
    /// In this state.
    pub state: Option<JobState>,
    /// Of this user.
    pub user: Option<String>,
    /// Older than this job.
    pub after: Option<String>,
    /// At most so many, 1 to 1000.
    pub limit: u64,
}

const JOB_COLUMNS: &str =
    "id, name, user_name, class, priority, state, reason, cron_parent, submitted_us, start_after_us, started_us, finished_us, kind";
const STAGE_COLUMNS: &str =
    "job, stage, name, state, total, succeeded, failed, cancelled, skipped, retrying, outstanding, attempts, failed_attempts,
    wait_us, stage_in_us, run_us, stage_out_us, wasted_us, cpu_us, peak_memory, bytes_in, bytes_out, mean_us, started_us, finished_us";

/// Jobs by a filter, newest first.
pub async fn jobs(ledger: &dyn Ledger, filter: &JobFilter) -> Result<Vec<JobRow>> {
    let mut params: Vec<Value> = Vec::new();
    let mut wheres = Vec::new();
    let kind = filter.kind.map(|k| if k == JobKind::Session { "session" } else { "job" }.to_owned());
    let pairs = [
        ("kind =", kind),
        ("state =", filter.state.map(|s| s.as_str().to_owned())),
        ("user_name =", filter.user.clone()),
        ("id <", filter.after.clone()),
    ];
    for (test, value) in pairs {
        if let Some(v) = value {
            params.push(v.into());
            wheres.push(format!("{test} ${}", params.len()));
        }
    }
    let filter_sql = if wheres.is_empty() { String::new() } else { format!("WHERE {}", wheres.join(" AND ")) };
    params.push(filter.limit.clamp(1, 1000).into());
    let sql = format!("SELECT {JOB_COLUMNS} FROM batch_jobs {filter_sql} ORDER BY id DESC LIMIT ${}", params.len());
    ledger.query(&sql, params).await?.iter().map(job_row).collect()
}

/// Every job, for SQL.
pub async fn all_jobs(ledger: &dyn Ledger) -> Result<Vec<JobRow>> {
    let rows = ledger.query(&format!("SELECT {JOB_COLUMNS} FROM batch_jobs ORDER BY id"), vec![]).await?;
    rows.iter().map(job_row).collect()
}

/// The ids of all sessions.
pub async fn sessions(ledger: &dyn Ledger) -> Result<BTreeSet<String>> {
    let rows = ledger.query("SELECT id FROM batch_jobs WHERE kind = 'session'", vec![]).await?;
    rows.iter().map(|r| Ok(r.text(0)?.to_owned())).collect()
}

/// One job. `NotFound` names it.
pub async fn job(ledger: &dyn Ledger, id: &str) -> Result<JobRow> {
    let rows = ledger.query(&format!("SELECT {JOB_COLUMNS} FROM batch_jobs WHERE id = $1"), vec![id.into()]).await?;
    rows.first()
        .map(job_row)
        .transpose()?
        .ok_or_else(|| Error::not_found(format!("there is no job `{id}`; `tidemill batch list` shows those there are")))
}

/// A job as it was submitted.
pub async fn spec(ledger: &dyn Ledger, id: &str) -> Result<JobSpec> {
    let rows = ledger.query("SELECT spec FROM batch_jobs WHERE id = $1", vec![id.into()]).await?;
    let row =
        rows.first().ok_or_else(|| Error::not_found(format!("there is no job `{id}`; `tidemill batch list` shows those there are")))?;
    serde_json::from_str(row.text(0)?).map_err(|e| Error::corrupt(format!("job {id} does not decode")).with_source(e))
}

/// Whether a session takes tasks, and how many deliveries there have been.
pub async fn session(ledger: &dyn Ledger, id: &str) -> Result<(bool, u64)> {
    let sql = "SELECT closed, (SELECT COALESCE(MAX(n), 0) FROM batch_completions WHERE job = $1) FROM batch_jobs WHERE id = $1";
    let rows = ledger.query(sql, vec![id.into()]).await?;
    rows.first().map_or(Ok((false, 0)), |r| Ok((!r.bool(0)?, r.uint(1)?)))
}

/// The stages of one job, or of all, in order.
pub async fn stages(ledger: &dyn Ledger, job: Option<&str>) -> Result<Vec<StageRow>> {
    let rows = match job {
        Some(id) => {
            ledger.query(&format!("SELECT {STAGE_COLUMNS} FROM batch_stages WHERE job = $1 ORDER BY stage"), vec![id.into()]).await?
        }
        None => ledger.query(&format!("SELECT {STAGE_COLUMNS} FROM batch_stages ORDER BY job, stage"), vec![]).await?,
    };
    rows.iter().map(stage_row).collect()
}

/// Tasks of a job whose last attempt failed, from `after` (exclusive) on, at most `limit`.
pub async fn exceptions(ledger: &dyn Ledger, job: &str, after: Option<(u32, u64)>, limit: u64) -> Result<Vec<ExceptionRow>> {
    let sql = "SELECT stage, task, attempts, class, exit_code, signal, message, worker, state, due_us, at_us FROM batch_exceptions
               WHERE job = $1 AND (stage > $2 OR (stage = $2 AND task > $3)) ORDER BY stage, task LIMIT $4";
    let (stage, task) = after.map_or((-1, -1), |(s, t)| (i64::from(s), i64::try_from(t).unwrap_or(i64::MAX)));
    let rows = ledger.query(sql, vec![job.into(), stage.into(), task.into(), limit.into()]).await?;
    rows.iter().map(exception_row).collect()
}

/// One task whose last attempt failed.
pub async fn exception(ledger: &dyn Ledger, job: &str, stage: u32, task: u64) -> Result<Option<ExceptionRow>> {
    let sql = "SELECT stage, task, attempts, class, exit_code, signal, message, worker, state, due_us, at_us FROM batch_exceptions
               WHERE job = $1 AND stage = $2 AND task = $3";
    let rows = ledger.query(sql, vec![job.into(), stage.into(), task.into()]).await?;
    rows.first().map(exception_row).transpose()
}

fn job_row(r: &Row) -> Result<JobRow> {
    Ok(JobRow {
        id: r.text(0)?.to_owned(),
        name: r.text(1)?.to_owned(),
        user: r.text(2)?.to_owned(),
        class: r.text(3)?.to_owned(),
        priority: i32::try_from(r.int(4)?).unwrap_or(0),
        state: JobState::from_word(r.text(5)?).ok_or_else(|| Error::corrupt("a job has an unknown state"))?,
        reason: r.text(6)?.to_owned(),
        cron_parent: r.text_opt(7)?.map(str::to_owned),
        submitted_at: r.time(8)?,
        start_after: r.time(9)?,
        started_at: r.int_opt(10)?.map(Timestamp),
        finished_at: r.int_opt(11)?.map(Timestamp),
        kind: if r.text(12)? == "session" { JobKind::Session } else { JobKind::Job },
    })
}

fn stage_row(r: &Row) -> Result<StageRow> {
    Ok(StageRow {
        job: r.text(0)?.to_owned(),
        stage: narrow(r.uint(1)?),
        name: r.text(2)?.to_owned(),
        state: r.text(3)?.to_owned(),
        total: r.uint(4)?,
        succeeded: r.uint(5)?,
        failed: r.uint(6)?,
        cancelled: r.uint(7)?,
        skipped: r.uint(8)?,
        retrying: r.uint(9)?,
        outstanding: r.uint(10)?,
        attempts: r.uint(11)?,
        failed_attempts: r.uint(12)?,
        wait_us: r.uint(13)?,
        stage_in_us: r.uint(14)?,
        run_us: r.uint(15)?,
        stage_out_us: r.uint(16)?,
        wasted_us: r.uint(17)?,
        cpu_us: r.uint(18)?,
        peak_memory: r.uint(19)?,
        bytes_in: r.uint(20)?,
        bytes_out: r.uint(21)?,
        mean_us: r.real(22)?,
        started_at: r.int_opt(23)?.map(Timestamp),
        finished_at: r.int_opt(24)?.map(Timestamp),
    })
}

fn exception_row(r: &Row) -> Result<ExceptionRow> {
    let small = |at: usize| -> Result<Option<i32>> { Ok(r.int_opt(at)?.and_then(|v| i32::try_from(v).ok())) };
    Ok(ExceptionRow {
        stage: narrow(r.uint(0)?),
        task: r.uint(1)?,
        attempts: narrow(r.uint(2)?),
        class: r.text(3)?.to_owned(),
        exit: small(4)?,
        signal: small(5)?,
        message: r.text(6)?.to_owned(),
        worker: r.text(7)?.to_owned(),
        dead: r.text(8)? == "dead",
        due: r.int_opt(9)?.map(Timestamp),
        at: r.time(10)?,
    })
}
