//! Deleting jobs that have ended, with all that is left of them.
//!
//! A deletion is a row in the ledger until it is done, so that it goes on after a crash and under another leader. First the job's
//! rows go, in one transaction: from then on nobody sees half a job. Then its outputs' pages and reports, its dead letters and its objects go;
//! doing any of that twice is harmless. The fences of its ranges stay until they expire: a message that is still in a queue finds by them
//! that there is nothing to do.

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use object_store::ObjectStore;
use object_store::path::Path;
use serde::{Deserialize, Serialize};
use tidemill_base::{Error, Result};
use tidemill_blocks::ledger::{Statement, Value};
use tidemill_blocks::objects;
use tidemill_blocks::queue::{QueueSettings, Redrive};
use tidemill_blocks::schedule;
use tidemill_blocks::table::{Condition, Range, Write};

use super::lead::{Leader, News};
use super::{LEASE, Manager, Shared, uploads};
use crate::model::JobSpec;
use crate::protocol::keys;

/// Dead letters are moved here to be dropped, since a queue drops all or nothing.
const TRASH_QUEUE: &str = "batch.trash";
/// Dead letters looked through at a time.
const BROWSE: usize = 1000;
/// Objects deleted between two words on how far it has come.
const OBJECTS_A_STEP: usize = 1000;
/// Jobs whose time is over that are taken at once.
const RETIRED_AT_ONCE: u64 = 100;
/// How often it is looked for them.
const RETIRE_EVERY: Duration = Duration::from_secs(60);
/// A deletion that failed is tried again after so long.
const AGAIN: Duration = Duration::from_secs(5);

/// How far a deletion has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deletion {
    /// Objects that are gone.
    pub removed: u64,
    /// Objects that there were; 0 while they have not been counted.
    pub total: u64,
}

/// What has to be known of a job once its rows are gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Remains {
    /// Of each stage, how many ranges there were.
    ranges: Vec<u64>,
    /// Uploads that were made for this job alone.
    uploads: Vec<String>,
}

impl Manager {
    /// Deletes a job that has ended and everything that is left of it: results, logs, statistics, dead letters, what was uploaded for it alone.
    /// `Conflict` when it has not ended, or another job waits for it. Returns when it is written down that it shall go.
    pub async fn delete(&self, job: &str, user: &str) -> Result<()> {
        let state = self.state_of(job).await?;
        if !state.is_final() {
            let what =
                format!("job {job} is {}; only a job that has ended can be deleted: `tidemill batch cancel {job}` ends it", state.as_str());
            return Err(Error::conflict(what));
        }
        let shared = self.shared();
        if let Some(waiting) = waits_for(shared, job).await? {
            return Err(Error::conflict(format!(
                "job {waiting} waits for job {job}; delete it when that has started, or cancel that first"
            )));
        }
        shared.blocks.ledger.transact(vec![insert(job, user, shared)]).await?;
        shared.nudge_to_look();
        Ok(())
    }

    /// How far the deletion of a job has come; `None` when it is not being deleted, or is gone.
    pub async fn deletion(&self, job: &str) -> Result<Option<Deletion>> {
        let sql = "SELECT removed, total FROM batch_deletions WHERE job = $1";
        let rows = self.shared().blocks.ledger.query(sql, vec![job.into()]).await?;
        rows.first().map(|r| Ok(Deletion { removed: r.uint(0)?, total: r.uint(1)? })).transpose()
    }
}

fn insert(job: &str, user: &str, shared: &Shared) -> Statement {
    Statement::new(
        "INSERT INTO batch_deletions (job, by_user, at_us, begun, remains, removed, total) VALUES ($1, $2, $3, 0, '', 0, 0)
         ON CONFLICT (job) DO NOTHING",
        vec![job.into(), user.into(), shared.env.now().into()],
    )
}

/// A job that has not started and must not before `job` has succeeded.
async fn waits_for(shared: &Shared, job: &str) -> Result<Option<String>> {
    let sql = "SELECT id, spec FROM batch_jobs WHERE state = 'waiting' AND spec LIKE $1";
    let rows = shared.blocks.ledger.query(sql, vec![format!("%{job}%").into()]).await?;
    for row in rows {
        let spec: JobSpec = serde_json::from_str(row.text(1)?).map_err(|e| Error::corrupt("a job does not decode").with_source(e))?;
        if spec.after.iter().any(|a| a == job) {
            return Ok(Some(row.text(0)?.to_owned()));
        }
    }
    Ok(None)
}

/// One round of the leader: jobs whose time is over, and the next deletion if none is under way.
pub(super) async fn round(leader: &mut Leader<'_>) -> Result<()> {
    let keep = leader.shared.settings.keep;
    if let Some(keep) = keep
        && leader.is_due("retire", RETIRE_EVERY.min(keep))
    {
        retire(leader, keep).await?;
    }
    if leader.deleting.is_some() || !leader.is_due("delete", Duration::from_millis(300)) {
        return Ok(());
    }
    let sql = "SELECT job, begun, remains FROM batch_deletions ORDER BY at_us, job LIMIT 1";
    let rows = leader.shared.blocks.ledger.query(sql, vec![]).await?;
    let Some(row) = rows.first() else { return Ok(()) };
    let job = row.text(0)?.to_owned();
    let remains = if row.uint(1)? == 0 {
        let Some(remains) = begin(leader, &job).await? else { return Ok(()) };
        remains
    } else {
        serde_json::from_str(row.text(2)?).map_err(|e| Error::corrupt(format!("deletion of job {job} does not decode")).with_source(e))?
    };
    leader.deleting = Some(job.clone());
    let (shared, fence) = (Arc::clone(leader.shared), leader.fence);
    leader.side_task(async move {
        let outcome = purge(&shared, fence, &job, &remains).await;
        if outcome.is_err() {
            tidemill_runtime::sleep(AGAIN).await;
        }
        News::Deleted(job, outcome)
    });
    Ok(())
}

/// Marks what ended longer ago than jobs are kept.
async fn retire(leader: &Leader<'_>, keep: Duration) -> Result<()> {
    let shared = leader.shared;
    let sql = "SELECT id FROM batch_jobs WHERE state IN ('succeeded', 'failed', 'cancelled') AND finished_us < $1
               AND id NOT IN (SELECT job FROM batch_deletions) ORDER BY finished_us LIMIT $2";
    let rows = shared.blocks.ledger.query(sql, vec![(shared.env.now() - keep).into(), RETIRED_AT_ONCE.into()]).await?;
    let mut ledger = vec![schedule::fenced(LEASE, &shared.holder, leader.fence)];
    for row in &rows {
        let job = row.text(0)?;
        if waits_for(shared, job).await?.is_none() {
            tracing::info!(job, "the job's time is over, deleting it");
            ledger.push(insert(job, "", shared));
        }
    }
    if ledger.len() > 1 {
        shared.blocks.ledger.transact(ledger).await?;
    }
    Ok(())
}

/// Takes the job's rows away. `None` when it was brought back to life meanwhile, and stays.
async fn begin(leader: &Leader<'_>, job: &str) -> Result<Option<Remains>> {
    let shared = leader.shared;
    let guard = schedule::fenced(LEASE, &shared.holder, leader.fence);
    if leader.core.jobs.contains_key(job) {
        tracing::warn!(job, "not deleted, since it is tried again");
        shared.blocks.ledger.transact(vec![guard, forget(job)]).await?;
        return Ok(None);
    }
    let remains = remains(shared, job).await?;
    let text = serde_json::to_string(&remains).map_err(|e| Error::internal("encode a deletion").with_source(e))?;
    let begun = Statement::new("UPDATE batch_deletions SET begun = 1, remains = $2 WHERE job = $1", vec![job.into(), text.into()]);
    let mut ledger = vec![guard, begun];
    for table in [
        "batch_uploads",
        "batch_submissions",
        "batch_completions",
        "batch_segments",
        "batch_ranges",
        "batch_exceptions",
        "batch_commands",
        "batch_stages",
        "batch_sweeps",
    ] {
        ledger.push(Statement::new(format!("DELETE FROM {table} WHERE job = $1"), vec![job.into()]));
    }
    ledger.push(Statement::new("DELETE FROM batch_jobs WHERE id = $1", vec![job.into()]));
    shared.live.forget(job).await;
    shared.blocks.ledger.transact(ledger).await?;
    shared.mark_changed();
    Ok(Some(remains))
}

fn forget(job: &str) -> Statement {
    Statement::new("DELETE FROM batch_deletions WHERE job = $1", vec![job.into()])
}

async fn remains(shared: &Shared, job: &str) -> Result<Remains> {
    let ledger = shared.blocks.ledger.as_ref();
    let stages = ledger.query("SELECT next_range FROM batch_stages WHERE job = $1 ORDER BY stage", vec![job.into()]).await?;
    let ranges = stages.iter().map(|r| r.uint(0)).collect::<Result<_>>()?;
    Ok(Remains { ranges, uploads: uploads::of_job_alone(ledger, job).await? })
}

/// Removes what is left of a job whose rows are gone, then the word that it shall go.
async fn purge(shared: &Shared, fence: u64, job: &str, remains: &Remains) -> Result<()> {
    for (stage, ranges) in (0_u32..).zip(&remains.ranges) {
        clear(shared, &keys::output_partition(job, stage)).await?;
        clear(shared, &keys::result_partition(job, stage)).await?;
        for range in 0..*ranges {
            clear(shared, &keys::report_partition(job, stage, range)).await?;
        }
    }
    let control = [keys::control_job(job), keys::control_tasks(job)].map(|key| Write::delete(key, Condition::Any)).to_vec();
    shared.blocks.table.write_many(keys::CONTROL_TABLE, control).await?;
    bury(shared, job).await?;
    let folders = remains.uploads.iter().map(|u| Path::from(u.as_str())).chain([keys::job_prefix(job)]);
    remove_objects(shared, fence, job, &folders.collect::<Vec<_>>()).await?;
    let done = vec![schedule::fenced(LEASE, &shared.holder, fence), forget(job)];
    shared.blocks.ledger.transact(done).await?;
    tracing::info!(job, "job deleted");
    Ok(())
}

async fn clear(shared: &Shared, partition: &str) -> Result<()> {
    let table = &shared.blocks.table;
    loop {
        let page = table.range(keys::STATE_TABLE, Range::all(partition, 500)).await?;
        let more = page.next.is_some();
        let deletes: Vec<_> = page.items.into_iter().map(|i| Write::delete(i.key, Condition::Any)).collect();
        if !deletes.is_empty() {
            table.write_many(keys::STATE_TABLE, deletes).await?;
        }
        if !more {
            return Ok(());
        }
    }
}

/// Drops the job's dead letters.
async fn bury(shared: &Shared, job: &str) -> Result<()> {
    let queue = &shared.blocks.queue;
    let total = usize::try_from(queue.stats(keys::DEAD_QUEUE).await?.ready).unwrap_or(usize::MAX);
    let letters = queue.browse(keys::DEAD_QUEUE, total.saturating_add(BROWSE)).await?;
    let of_job = |body: &[u8]| serde_json::from_slice::<serde_json::Value>(body).is_ok_and(|letter| letter["job"] == job);
    let ids: Vec<_> = letters.into_iter().filter(|m| of_job(&m.body)).map(|m| m.id).collect();
    if ids.is_empty() {
        return Ok(());
    }
    queue.ensure(TRASH_QUEUE, QueueSettings::default()).await?;
    for chunk in ids.chunks(BROWSE) {
        queue.redrive(keys::DEAD_QUEUE, Redrive::Only(chunk.to_vec()), Some(TRASH_QUEUE)).await?;
    }
    queue.purge(TRASH_QUEUE).await.map(drop)
}

async fn remove_objects(shared: &Shared, fence: u64, job: &str, folders: &[Path]) -> Result<()> {
    let store = shared.blocks.objects.as_ref();
    let mut names = Vec::new();
    for folder in folders {
        let mut listed = store.list(Some(folder));
        while let Some(meta) = listed.try_next().await.map_err(|e| objects::error("list", folder, e))? {
            names.push(meta.location);
        }
    }
    let (total, mut removed) = (names.len() as u64, 0);
    for chunk in names.chunks(OBJECTS_A_STEP) {
        let progress = "UPDATE batch_deletions SET removed = $2, total = $3 WHERE job = $1";
        let values: Vec<Value> = vec![job.into(), removed.into(), total.into()];
        let guard = schedule::fenced(LEASE, &shared.holder, fence);
        shared.blocks.ledger.transact(vec![guard, Statement::new(progress, values)]).await?;
        removed += chunk.len() as u64;
        delete_all(store, chunk).await?;
    }
    Ok(())
}

async fn delete_all(store: &dyn ObjectStore, names: &[Path]) -> Result<()> {
    let mut deleted = store.delete_stream(stream::iter(names.to_vec()).map(Ok).boxed());
    while let Some(outcome) = deleted.next().await {
        match outcome {
            Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
            Err(e) => return Err(objects::error("delete one of a thousand from", names.first().unwrap_or(&Path::default()), e)),
        }
    }
    Ok(())
}
