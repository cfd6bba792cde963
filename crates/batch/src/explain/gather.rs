//! Reads the facts.

use std::collections::BTreeMap;

use tidemill_base::{ErrorKind, Result, RunSet, Timestamp};
use tidemill_blocks::Blocks;
use tidemill_blocks::ledger::{Ledger, Value};
use tidemill_blocks::table::Table;

use super::{About, Facts, FailureCount, GroupFacts, RangeFacts, Rival, StageFacts, session};
use crate::model::{ChainMode, JobSpec, JobState};
use crate::protocol::{decode, keys};
use crate::reactor::upstream_of;
use crate::service::live_workers;
use crate::store::read::{self, ExceptionRow};
use crate::store::rows::narrow;

/// Kinds of failures that are told apart.
const FAILURES: u64 = 6;
/// Other jobs that are looked at.
const RIVALS: u64 = 50;
/// Fences read in one call.
const FENCES: usize = 100;

impl Facts {
    /// Reads what an explanation of `about` needs; attempts come from the statistics and are left empty. `NotFound` names the job.
    pub async fn gather(blocks: &Blocks, id: &str, about: About, now: Timestamp) -> Result<Self> {
        let ledger = blocks.ledger.as_ref();
        let job = read::job(ledger, id).await?;
        let spec = read::spec(ledger, id).await?;
        let cut = ledger.query("SELECT cut FROM batch_jobs WHERE id = $1", vec![id.into()]).await?;
        let after = after(ledger, &spec).await?;
        Ok(Self {
            now,
            led: led(ledger, now).await?,
            cut: cut.first().map(|r| r.bool(0)).transpose()?.unwrap_or(false),
            stages: stages(ledger, blocks.table.as_ref(), id, now).await?,
            failures: failures(ledger, id).await?,
            exceptions: exceptions(ledger, id, &spec, about).await?,
            attempts: Vec::new(),
            session: session::gather(blocks, id, &spec, about).await?,
            workers: live_workers(blocks.table.as_ref(), now).await?,
            groups: groups(blocks).await?,
            queue: match blocks.queue.stats(&keys::work_queue(&job.class)).await {
                Ok(stats) => stats,
                Err(e) if e.kind() == ErrorKind::NotFound => Default::default(),
                Err(e) => return Err(e),
            },
            rivals: rivals(ledger, &job.class, id).await?,
            job,
            spec,
            after,
        })
    }
}

async fn led(ledger: &dyn Ledger, now: Timestamp) -> Result<bool> {
    let sql = "SELECT until_us FROM schedule_leases WHERE name = $1";
    let rows = ledger.query(sql, vec![crate::service::LEASE.into()]).await?;
    Ok(rows.first().map(|r| r.time(0)).transpose()?.is_some_and(|until| until > now))
}

async fn after(ledger: &dyn Ledger, spec: &JobSpec) -> Result<Vec<(String, Option<JobState>)>> {
    let mut out = Vec::with_capacity(spec.after.len());
    for id in &spec.after {
        let rows = ledger.query("SELECT state FROM batch_jobs WHERE id = $1", vec![id.as_str().into()]).await?;
        let state = rows.first().map(|r| r.text(0)).transpose()?.and_then(JobState::from_word);
        out.push((id.clone(), state));
    }
    Ok(out)
}

async fn stages(ledger: &dyn Ledger, table: &dyn Table, job: &str, now: Timestamp) -> Result<Vec<StageFacts>> {
    let mut out: Vec<StageFacts> = read::stages(ledger, Some(job))
        .await?
        .into_iter()
        .map(|row| StageFacts { row, pending: RunSet::new(), skipped: RunSet::new(), ranges: Vec::new(), first_retry: None })
        .collect();
    let sql = "SELECT stage, pending, skipped_runs FROM batch_stages WHERE job = $1";
    for r in ledger.query(sql, vec![job.into()]).await? {
        if let Some(s) = out.get_mut(narrow(r.uint(0)?) as usize) {
            (s.pending, s.skipped) = (decode("pending tasks", r.blob(1)?)?, decode("skipped tasks", r.blob(2)?)?);
        }
    }
    let sql = "SELECT stage, MIN(due_us) FROM batch_exceptions WHERE job = $1 AND state <> 'dead' AND due_us > $2 GROUP BY stage";
    for r in ledger.query(sql, vec![job.into(), now.into()]).await? {
        if let Some(s) = out.get_mut(narrow(r.uint(0)?) as usize) {
            s.first_retry = r.int_opt(1)?.map(Timestamp);
        }
    }
    for (stage, range) in ranges(ledger, table, job).await? {
        if let Some(s) = out.get_mut(stage as usize) {
            s.ranges.push(range);
        }
    }
    Ok(out)
}

async fn ranges(ledger: &dyn Ledger, table: &dyn Table, job: &str) -> Result<Vec<(u32, RangeFacts)>> {
    let sql = "SELECT stage, range_id, start_task, len, attempt, released_us, settled FROM batch_ranges
               WHERE job = $1 AND finished = 0 ORDER BY stage, range_id";
    let mut out = Vec::new();
    for r in ledger.query(sql, vec![Value::from(job)]).await? {
        let range = RangeFacts {
            range: r.uint(1)?,
            start: r.uint(2)?,
            len: r.uint(3)?,
            attempt: narrow(r.uint(4)?),
            released_at: r.time(5)?,
            settled: decode("settled tasks", r.blob(6)?)?,
            fence: None,
        };
        out.push((narrow(r.uint(0)?), range));
    }
    for chunk in out.chunks_mut(FENCES) {
        let keys: Vec<_> = chunk.iter().map(|(stage, r)| keys::fence(job, *stage, r.range)).collect();
        for ((_, range), item) in chunk.iter_mut().zip(table.get_many(keys::STATE_TABLE, &keys).await?) {
            range.fence = item.map(|i| decode("fence", &i.value)).transpose()?;
        }
    }
    Ok(out)
}

async fn failures(ledger: &dyn Ledger, job: &str) -> Result<Vec<FailureCount>> {
    let sql = "SELECT stage, class, state, COUNT(*), MIN(task) FROM batch_exceptions WHERE job = $1
               GROUP BY stage, class, state ORDER BY COUNT(*) DESC, stage, class LIMIT $2";
    let mut out = Vec::new();
    for r in ledger.query(sql, vec![job.into(), FAILURES.into()]).await? {
        let (stage, first) = (narrow(r.uint(0)?), r.uint(4)?);
        let message = read::exception(ledger, job, stage, first).await?.map(|e| e.message).unwrap_or_default();
        out.push(FailureCount { stage, class: r.text(1)?.to_owned(), dead: r.text(2)? == "dead", tasks: r.uint(3)?, first, message });
    }
    Ok(out)
}

/// The failures of a task and of those that it takes its input from.
async fn exceptions(ledger: &dyn Ledger, job: &str, spec: &JobSpec, about: About) -> Result<BTreeMap<(u32, u64), ExceptionRow>> {
    let mut out = BTreeMap::new();
    let About::Task(stage, task) = about else { return Ok(out) };
    let mut next = Some(stage);
    while let Some(stage) = next {
        if let Some(e) = read::exception(ledger, job, stage, task).await? {
            out.insert((stage, task), e);
        }
        next = match upstream_of(spec, stage) {
            Some((from, ChainMode::Stream)) => Some(from),
            _ => None,
        };
    }
    Ok(out)
}

async fn groups(blocks: &Blocks) -> Result<Vec<GroupFacts>> {
    let mut out = Vec::new();
    for group in blocks.fleet.groups().await? {
        let trouble = blocks.fleet.trouble(&group.spec.name).await?;
        out.push(GroupFacts { group, trouble });
    }
    Ok(out)
}

async fn rivals(ledger: &dyn Ledger, class: &str, job: &str) -> Result<Vec<Rival>> {
    let sql = "SELECT j.id, j.user_name, j.priority, CAST(SUM(s.total - s.succeeded - s.failed - s.cancelled - s.skipped) AS BIGINT)
               FROM batch_jobs j JOIN batch_stages s ON s.job = j.id
               WHERE j.class = $1 AND j.id <> $2 AND j.state IN ('running', 'cancelling')
               GROUP BY j.id, j.user_name, j.priority ORDER BY j.priority DESC, j.id LIMIT $3";
    let rows = ledger.query(sql, vec![class.into(), job.into(), RIVALS.into()]).await?;
    rows.iter()
        .map(|r| {
            Ok(Rival {
                id: r.text(0)?.to_owned(),
                user: r.text(1)?.to_owned(),
                priority: i32::try_from(r.int(2)?).unwrap_or(0),
                open: u64::try_from(r.int(3)?).unwrap_or(0),
            })
        })
        .collect()
}
