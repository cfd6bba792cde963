//! The statements that write batch's tables, and the commands that managers leave for the leader.

use serde::{Deserialize, Serialize};
use tidemill_base::{Error, Result, Timestamp};
use tidemill_blocks::ledger::{Ledger, Statement, Value};

use crate::model::{JobSpec, JobState, StageState, TaskFailure, Wanted};
use crate::protocol::encode;
use crate::reactor::{JobEntry, Outstanding, StageEntry};

/// A job about to be inserted.
#[derive(Debug)]
pub(crate) struct NewJob<'a> {
    pub id: &'a str,
    pub user: &'a str,
    pub spec: &'a JobSpec,
    pub client_token: Option<&'a str>,
    pub cron_parent: Option<&'a str>,
    pub submitted_at: Timestamp,
    /// Its inputs have been cut into tasks already.
    pub cut: bool,
    pub stages: Vec<StageEntry>,
}

/// The statements that insert a job and its stages, with the command that tells the leader.
pub(crate) fn insert_job(job: &NewJob<'_>, command_id: &str) -> Result<Vec<Statement>> {
    let spec = serde_json::to_string(job.spec).map_err(|e| Error::internal("encode job").with_source(e))?;
    let start_after = job.spec.at.unwrap_or(job.submitted_at);
    let mut out = vec![Statement::new(
        "INSERT INTO batch_jobs (id, name, user_name, class, priority, state, wanted, reason, spec, client_token, cron_parent, submitted_us, start_after_us, cut, kind,
          task_limit)
         VALUES ($1, $2, $3, $4, $5, $6, $7, '', $8, $9, $10, $11, $12, $13, $14, $15)",
        vec![
            job.id.into(),
            job.spec.name.as_str().into(),
            job.user.into(),
            job.spec.class.as_str().into(),
            job.spec.priority.into(),
            JobState::Waiting.as_str().into(),
            Wanted::Run.as_str().into(),
            spec.into(),
            job.client_token.into(),
            job.cron_parent.into(),
            job.submitted_at.into(),
            start_after.into(),
            job.cut.into(),
            if job.spec.is_session() { "session" } else { "job" }.into(),
            job.spec.terms().and_then(|terms| terms.budget.tasks).into(),
        ],
    )];
    for (stage, (entry, spec)) in (0_u32..).zip(job.stages.iter().zip(&job.spec.stages)) {
        out.push(Statement::new(
            "INSERT INTO batch_stages (job, stage, name, state, total, pending, skipped_runs, next_range, succeeded, failed, cancelled, skipped, retrying,
             outstanding, attempts, failed_attempts, wait_us, stage_in_us, run_us, stage_out_us, wasted_us, cpu_us, peak_memory, bytes_in, bytes_out, mean_us,
             session)
             VALUES ($1, $2, $3, $4, $5, $6, $7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, $8)",
            vec![
                job.id.into(),
                stage.into(),
                spec.name.as_str().into(),
                entry.state.as_str().into(),
                entry.total.into(),
                encode(&entry.pending)?.into(),
                encode(&entry.skipped)?.into(),
                session_column(entry)?,
            ],
        ));
    }
    out.push(command_insert(command_id, job.id, &Command::Adopt, job.user, job.submitted_at)?);
    Ok(out)
}

/// Brings a job's row in line with its state.
pub(crate) fn job_update(id: &str, job: &JobEntry) -> Statement {
    Statement::new(
        "UPDATE batch_jobs SET priority = $2, state = $3, wanted = $4, reason = $5, started_us = $6, finished_us = $7, cut = $8 WHERE id = $1",
        vec![
            id.into(),
            job.priority.into(),
            job.state.as_str().into(),
            job.wanted.as_str().into(),
            job.reason.as_str().into(),
            job.started_at.into(),
            job.finished_at.into(),
            job.cut.into(),
        ],
    )
}

/// Brings a stage's row in line with its state.
pub(crate) fn stage_update(job: &str, stage: u32, s: &StageEntry) -> Result<Statement> {
    let n = &s.sums;
    Ok(Statement::new(
        "UPDATE batch_stages SET state = $3, total = $4, pending = $5, skipped_runs = $6, next_range = $7, succeeded = $8, failed = $9, cancelled = $10,
         skipped = $11, retrying = $12, outstanding = $13, attempts = $14, failed_attempts = $15, wait_us = $16, stage_in_us = $17, run_us = $18,
         stage_out_us = $19, wasted_us = $20, cpu_us = $21, peak_memory = $22, bytes_in = $23, bytes_out = $24, mean_us = $25, started_us = $26,
         finished_us = $27, session = $28 WHERE job = $1 AND stage = $2",
        vec![
            job.into(),
            stage.into(),
            s.state.as_str().into(),
            s.total.into(),
            encode(&s.pending)?.into(),
            encode(&s.skipped)?.into(),
            s.next_range.into(),
            s.succeeded.into(),
            s.failed.into(),
            s.cancelled.into(),
            s.skipped.len().into(),
            s.retrying().into(),
            s.outstanding_tasks().into(),
            n.attempts.into(),
            n.failed_attempts.into(),
            n.wait_us.into(),
            n.stage_in_us.into(),
            n.run_us.into(),
            n.stage_out_us.into(),
            n.wasted_us.into(),
            n.cpu_us.into(),
            n.peak_memory.into(),
            n.bytes_in.into(),
            n.bytes_out.into(),
            s.mean_us.into(),
            s.started_at.into(),
            s.finished_at.into(),
            session_column(s)?,
        ],
    ))
}

fn session_column(s: &StageEntry) -> Result<Value> {
    Ok(s.session.as_ref().map(|session| encode(&session.row())).transpose()?.into())
}

pub(crate) fn range_insert(job: &str, stage: u32, id: u64, r: &Outstanding) -> Result<Statement> {
    Ok(Statement::new(
        "INSERT INTO batch_ranges (job, stage, range_id, start_task, len, attempt, released_us, folded_seq, settled, finished, flushed_seq)
         VALUES ($1, $2, $3, $4, $5, $6, $7, 0, $8, 0, 0)",
        vec![
            job.into(),
            stage.into(),
            id.into(),
            r.start.into(),
            r.len.into(),
            r.attempt.into(),
            r.released_at.into(),
            encode(&r.settled)?.into(),
        ],
    ))
}

pub(crate) fn range_update(job: &str, stage: u32, id: u64, r: &Outstanding, finished: bool) -> Result<Statement> {
    Ok(Statement::new(
        "UPDATE batch_ranges SET folded_seq = $4, settled = $5, finished = $6 WHERE job = $1 AND stage = $2 AND range_id = $3",
        vec![job.into(), stage.into(), id.into(), r.folded_seq.into(), encode(&r.settled)?.into(), finished.into()],
    ))
}

/// Statistics of a range up to `seq` lie safely in a segment.
pub(crate) fn range_flushed(job: &str, stage: u32, id: u64, seq: u64) -> Statement {
    let sql = "UPDATE batch_ranges SET flushed_seq = $4 WHERE job = $1 AND stage = $2 AND range_id = $3";
    Statement::new(sql, vec![job.into(), stage.into(), id.into(), seq.into()])
}

/// Forgets a finished range whose statistics lie safely in segments.
pub(crate) fn range_delete(job: &str, stage: u32, id: u64) -> Statement {
    Statement::new("DELETE FROM batch_ranges WHERE job = $1 AND stage = $2 AND range_id = $3", vec![job.into(), stage.into(), id.into()])
}

pub(crate) struct ExceptionWrite<'a> {
    pub failure: &'a TaskFailure,
    pub attempts: u32,
    pub worker: &'a str,
    pub due: Option<Timestamp>,
    pub at: Timestamp,
}

pub(crate) fn exception_upsert(job: &str, stage: u32, e: &ExceptionWrite<'_>) -> Statement {
    let state = if e.due.is_some() { "retrying" } else { "dead" };
    Statement::new(
        "INSERT INTO batch_exceptions (job, stage, task, attempts, class, exit_code, signal, message, worker, state, due_us, at_us)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
         ON CONFLICT (job, stage, task) DO UPDATE SET attempts = excluded.attempts, class = excluded.class, exit_code = excluded.exit_code,
           signal = excluded.signal, message = excluded.message, worker = excluded.worker, state = excluded.state, due_us = excluded.due_us, at_us = excluded.at_us",
        vec![
            job.into(),
            stage.into(),
            e.failure.task.into(),
            e.attempts.into(),
            e.failure.class.as_str().into(),
            e.failure.exit.into(),
            e.failure.signal.into(),
            e.failure.message.as_str().into(),
            e.worker.into(),
            state.into(),
            e.due.into(),
            e.at.into(),
        ],
    )
}

/// The task succeeded after all, or was cancelled.
pub(crate) fn exception_delete(job: &str, stage: u32, task: u64) -> Statement {
    Statement::new("DELETE FROM batch_exceptions WHERE job = $1 AND stage = $2 AND task = $3", vec![job.into(), stage.into(), task.into()])
}

/// A task that had failed for good is tried again.
pub(crate) fn exception_revive(job: &str, stage: u32, task: u64, due: Timestamp) -> Statement {
    let sql = "UPDATE batch_exceptions SET state = 'retrying', due_us = $4 WHERE job = $1 AND stage = $2 AND task = $3";
    Statement::new(sql, vec![job.into(), stage.into(), task.into(), due.into()])
}

pub(crate) fn segment_insert(job: &str, path: &str, rows: u64, bytes: u64, at: Timestamp) -> Statement {
    Statement::new(
        "INSERT INTO batch_segments (job, path, task_rows, bytes, at_us) VALUES ($1, $2, $3, $4, $5)",
        vec![job.into(), path.into(), rows.into(), bytes.into(), at.into()],
    )
}

/// What any manager may ask of the leading one. Kept in the ledger until its effects are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Command {
    /// There is a new job.
    Adopt,
    /// Run, pause or cancel it.
    Want(Wanted),
    /// Change its priority.
    Priority(i32),
    /// Try failed tasks again: all of the job's, or the given `(stage, task)`.
    Retry(Option<Vec<(u32, u64)>>),
    /// So many tasks from `first` on were submitted; `needy`: some of them need the results of others.
    Submitted { first: u64, count: u64, needy: bool },
    /// Nothing more will be submitted.
    Close,
    /// Give up tasks of a session, runs of them; `running`: those as well that have begun.
    CancelTasks { tasks: Vec<(u64, u64)>, running: bool },
}

#[derive(Debug, Clone)]
pub(crate) struct CommandRow {
    pub id: String,
    pub job: String,
    pub command: Command,
}

pub(crate) fn command_insert(id: &str, job: &str, command: &Command, user: &str, at: Timestamp) -> Result<Statement> {
    let body = serde_json::to_string(command).map_err(|e| Error::internal("encode command").with_source(e))?;
    let kind = match command {
        Command::Adopt => "adopt",
        Command::Want(w) => w.as_str(),
        Command::Priority(_) => "priority",
        Command::Retry(_) => "retry",
        Command::Submitted { .. } => "submitted",
        Command::Close => "close",
        Command::CancelTasks { .. } => "cancel_tasks",
    };
    Ok(Statement::new(
        "INSERT INTO batch_commands (id, job, kind, body, by_user, at_us) VALUES ($1, $2, $3, $4, $5, $6)",
        vec![id.into(), job.into(), kind.into(), body.into(), user.into(), at.into()],
    ))
}

pub(crate) fn command_delete(id: &str) -> Statement {
    Statement::new("DELETE FROM batch_commands WHERE id = $1", vec![Value::from(id)])
}

/// The commands that nobody has carried out yet, oldest first.
pub(crate) async fn commands(ledger: &dyn Ledger) -> Result<Vec<CommandRow>> {
    let rows = ledger.query("SELECT id, job, body FROM batch_commands ORDER BY at_us, id LIMIT 1000", vec![]).await?;
    rows.iter()
        .map(|r| {
            let command = serde_json::from_str(r.text(2)?)
                .map_err(|e| Error::corrupt(format!("command {} does not decode", r.text(0).unwrap_or("?"))).with_source(e))?;
            Ok(CommandRow { id: r.text(0)?.to_owned(), job: r.text(1)?.to_owned(), command })
        })
        .collect()
}

/// A number that the schema keeps small.
pub(crate) fn narrow(n: u64) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// Parses a stage's state.
pub(crate) fn stage_state(word: &str) -> Result<StageState> {
    StageState::from_word(word).ok_or_else(|| Error::corrupt(format!("ledger holds the stage state `{word}`")))
}
