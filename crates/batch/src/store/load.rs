//! Reads the state of live jobs back, when a manager begins to lead.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidemill_base::{Error, Result, Timestamp};
use tidemill_blocks::ledger::{Ledger, Row, Value};

use super::rows::{narrow, stage_state};
use super::sessions::completions;
use crate::model::{FailureClass, JobSpec, JobState, Wanted};
use crate::protocol::decode;
use crate::reactor::{Exception, JobEntry, Outstanding, SessionRow, SessionState, StageEntry, Sums};

const COMPLETIONS_AT_ONCE: u64 = 1_000;

/// Reads jobs: those in `ids`, or all that are not final.
pub(crate) async fn load(ledger: &dyn Ledger, only: Option<&str>) -> Result<BTreeMap<String, JobEntry>> {
    const JOB: &str = "SELECT id, user_name, class, priority, state, wanted, reason, spec, submitted_us, start_after_us, started_us, finished_us, cut FROM batch_jobs";
    let live = "state NOT IN ('succeeded', 'failed', 'cancelled')";
    let rows = match only {
        Some(id) => ledger.query(&format!("{JOB} WHERE id = $1"), vec![id.into()]).await?,
        None => ledger.query(&format!("{JOB} WHERE {live}"), vec![]).await?,
    };
    let mut jobs = BTreeMap::new();
    for row in rows {
        let id = row.text(0)?.to_owned();
        let mut entry = job(&row)?;
        entry.stages = stages(ledger, &id).await?;
        ranges(ledger, &id, &mut entry.stages).await?;
        exceptions(ledger, &id, &mut entry.stages).await?;
        results(ledger, &id, &mut entry.stages).await?;
        activity(ledger, &id, entry.submitted_at, &mut entry.stages).await?;
        jobs.insert(id, entry);
    }
    Ok(jobs)
}

fn job(row: &Row) -> Result<JobEntry> {
    let spec: JobSpec = serde_json::from_str(row.text(7)?)
        .map_err(|e| Error::corrupt(format!("job {} does not decode", row.text(0).unwrap_or("?"))).with_source(e))?;
    let bad = |what: &str| Error::corrupt(format!("job {} has an unknown {what}", row.text(0).unwrap_or("?")));
    Ok(JobEntry {
        user: row.text(1)?.to_owned(),
        class: row.text(2)?.to_owned(),
        priority: i32::try_from(row.int(3)?).unwrap_or(0),
        state: JobState::from_word(row.text(4)?).ok_or_else(|| bad("state"))?,
        wanted: Wanted::from_word(row.text(5)?).ok_or_else(|| bad("wish"))?,
        reason: row.text(6)?.to_owned(),
        submitted_at: row.time(8)?,
        start_after: row.time(9)?,
        started_at: row.int_opt(10)?.map(tidemill_base::Timestamp),
        finished_at: row.int_opt(11)?.map(tidemill_base::Timestamp),
        unmet: spec.after.iter().cloned().collect(),
        spec: Arc::new(spec),
        stages: Vec::new(),
        cut: row.bool(12)?,
        cutting: false,
        last_tick: tidemill_base::Timestamp::ZERO,
    })
}

async fn stages(ledger: &dyn Ledger, job: &str) -> Result<Vec<StageEntry>> {
    let sql = "SELECT state, total, pending, skipped_runs, next_range, succeeded, failed, cancelled, attempts, failed_attempts, wait_us, stage_in_us,
               run_us, stage_out_us, wasted_us, cpu_us, peak_memory, bytes_in, bytes_out, mean_us, started_us, finished_us, session
               FROM batch_stages WHERE job = $1 ORDER BY stage";
    let rows = ledger.query(sql, vec![Value::from(job)]).await?;
    rows.iter()
        .map(|r| {
            Ok(StageEntry {
                state: stage_state(r.text(0)?)?,
                total: r.uint(1)?,
                pending: decode("pending tasks", r.blob(2)?)?,
                skipped: decode("skipped tasks", r.blob(3)?)?,
                next_range: r.uint(4)?,
                succeeded: r.uint(5)?,
                failed: r.uint(6)?,
                cancelled: r.uint(7)?,
                sums: Sums {
                    attempts: r.uint(8)?,
                    failed_attempts: r.uint(9)?,
                    wait_us: r.uint(10)?,
                    stage_in_us: r.uint(11)?,
                    run_us: r.uint(12)?,
                    stage_out_us: r.uint(13)?,
                    wasted_us: r.uint(14)?,
                    cpu_us: r.uint(15)?,
                    peak_memory: r.uint(16)?,
                    bytes_in: r.uint(17)?,
                    bytes_out: r.uint(18)?,
                },
                mean_us: r.real(19)?,
                started_at: r.int_opt(20)?.map(tidemill_base::Timestamp),
                finished_at: r.int_opt(21)?.map(tidemill_base::Timestamp),
                outstanding: BTreeMap::new(),
                exceptions: BTreeMap::new(),
                opening: false,
                session: session(r)?,
            })
        })
        .collect()
}

fn session(row: &Row) -> Result<Option<Box<SessionState>>> {
    if row.is_null(22) {
        return Ok(None);
    }
    Ok(Some(Box::new(SessionState::new(decode::<SessionRow>("session", row.blob(22)?)?, Timestamp::ZERO))))
}

/// Where the results of a session are that have been told of.
async fn results(ledger: &dyn Ledger, job: &str, stages: &mut [StageEntry]) -> Result<()> {
    let Some(session) = stages.first_mut().and_then(|s| s.session.as_mut()) else { return Ok(()) };
    let mut after = 0;
    loop {
        let page = completions(ledger, job, after, COMPLETIONS_AT_ONCE).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = last.n;
        page.iter().for_each(|c| session.found(&c.succeeded, c.range, c.seq));
    }
}

/// When somebody was last heard of in a session, and when something was last done in it.
async fn activity(ledger: &dyn Ledger, job: &str, opened: Timestamp, stages: &mut [StageEntry]) -> Result<()> {
    let Some(session) = stages.first_mut().and_then(|s| s.session.as_mut()) else { return Ok(()) };
    let sql = "SELECT (SELECT seen_us FROM batch_jobs WHERE id = $1), (SELECT MAX(at_us) FROM batch_submissions WHERE job = $1),
               (SELECT MAX(at_us) FROM batch_completions WHERE job = $1)";
    let rows = ledger.query(sql, vec![job.into()]).await?;
    let Some(row) = rows.first() else { return Ok(()) };
    let at = |column: usize| Ok::<_, Error>(Timestamp(row.int_opt(column)?.unwrap_or(0)));
    session.seen = opened.max(at(0)?).max(at(1)?);
    session.active = session.seen.max(at(2)?);
    Ok(())
}

async fn ranges(ledger: &dyn Ledger, job: &str, stages: &mut [StageEntry]) -> Result<()> {
    let sql = "SELECT stage, range_id, start_task, len, attempt, released_us, folded_seq, settled FROM batch_ranges WHERE job = $1 AND finished = 0";
    for r in ledger.query(sql, vec![Value::from(job)]).await? {
        let range = Outstanding {
            start: r.uint(2)?,
            len: r.uint(3)?,
            attempt: narrow(r.uint(4)?),
            released_at: r.time(5)?,
            folded_seq: r.uint(6)?,
            settled: decode("settled tasks", r.blob(7)?)?,
        };
        if let Some(stage) = usize::try_from(r.uint(0)?).ok().and_then(|s| stages.get_mut(s)) {
            stage.outstanding.insert(r.uint(1)?, range);
        }
    }
    Ok(())
}

async fn exceptions(ledger: &dyn Ledger, job: &str, stages: &mut [StageEntry]) -> Result<()> {
    let sql = "SELECT stage, task, attempts, class, state, due_us FROM batch_exceptions WHERE job = $1";
    for r in ledger.query(sql, vec![Value::from(job)]).await? {
        let Some(stage) = usize::try_from(r.uint(0)?).ok().and_then(|s| stages.get_mut(s)) else { continue };
        let class = FailureClass::from_word(r.text(3)?).ok_or_else(|| Error::corrupt(format!("job {job} has an unknown failure class")))?;
        let dead = r.text(4)? == "dead";
        let task = r.uint(1)?;
        let released = stage.outstanding.values().any(|o| task >= o.start && task < o.start + o.len && !o.settled.contains(task));
        let due = if dead || released { None } else { r.int_opt(5)?.map(tidemill_base::Timestamp) };
        stage.exceptions.insert(task, Exception { attempts: narrow(r.uint(2)?), class, due, dead });
    }
    Ok(())
}

/// A range with reports that are folded and not yet in a segment.
#[derive(Debug, Clone)]
pub(crate) struct UnflushedRange {
    pub job: String,
    pub stage: u32,
    pub range: u64,
    pub flushed_seq: u64,
    pub folded_seq: u64,
    pub finished: bool,
}

/// All of them, of live and of ended jobs.
pub(crate) async fn unflushed(ledger: &dyn Ledger) -> Result<Vec<UnflushedRange>> {
    let sql =
        "SELECT job, stage, range_id, flushed_seq, folded_seq, finished FROM batch_ranges WHERE folded_seq > flushed_seq OR finished = 1";
    let rows = ledger.query(sql, vec![]).await?;
    rows.iter()
        .map(|r| {
            Ok(UnflushedRange {
                job: r.text(0)?.to_owned(),
                stage: narrow(r.uint(1)?),
                range: r.uint(2)?,
                flushed_seq: r.uint(3)?,
                folded_seq: r.uint(4)?,
                finished: r.bool(5)?,
            })
        })
        .collect()
}
