//! Reads a leader's state back from ledger and table. Nobody is asked to start again.

use std::sync::Arc;

use tidemill_base::{Error, ErrorKind, Result};
use tidemill_blocks::ledger::Ledger;

use super::lead::read_reports;
use super::live::{self, Picture};
use super::{Shared, workers};
use crate::model::{JobState, TaskColumns};
use crate::protocol::{RangeState, WorkItem, decode, keys};
use crate::reactor::{Core, LiveBatch};
use crate::store;

/// Reading statistics is tried again so often when rows move meanwhile.
const PICTURE_TRIES: u32 = 10;

/// The reactor's state as the ledger has it, and the statistics that are in no segment yet.
pub(super) async fn core(shared: &Shared) -> Result<Core> {
    let mut core = Core::new(shared.settings.reactor.clone(), shared.env.clone());
    let ledger = shared.blocks.ledger.as_ref();
    for (id, entry) in store::load(ledger, None).await? {
        core.on_job(&id, entry);
        shared.read_needs(&mut core, &id).await?;
    }
    let waiting: Vec<String> = core.jobs.iter().filter(|(_, j)| !j.unmet.is_empty()).map(|(id, _)| id.clone()).collect();
    for id in waiting {
        resolve_dependencies(shared, &mut core, &id).await?;
    }
    live_columns(shared).await?;
    let now = shared.env.now();
    let live = workers::live_workers(shared.blocks.table.as_ref(), now).await?;
    core.on_workers(workers::capacity(&live));
    Ok(core)
}

/// Takes one job in, if the ledger has it.
pub(super) async fn adopt(shared: &Shared, core: &mut Core, job: &str) -> Result<()> {
    for (id, entry) in store::load(shared.blocks.ledger.as_ref(), Some(job)).await? {
        core.on_job(&id, entry);
        shared.read_needs(core, &id).await?;
        resolve_dependencies(shared, core, &id).await?;
    }
    Ok(())
}

/// Tells the reactor of jobs waited for that have ended already.
async fn resolve_dependencies(shared: &Shared, core: &mut Core, job: &str) -> Result<()> {
    let Some(entry) = core.jobs.get(job) else { return Ok(()) };
    for dependency in entry.unmet.clone() {
        // The reactor is ahead of the ledger: a job that has just ended in it will not be spoken of again.
        let state = match core.jobs.get(&dependency) {
            Some(live) => Some(live.state),
            None => {
                let sql = "SELECT state FROM batch_jobs WHERE id = $1";
                let rows = shared.blocks.ledger.query(sql, vec![dependency.as_str().into()]).await?;
                rows.first().map(|r| r.text(0)).transpose()?.and_then(JobState::from_word)
            }
        };
        let now = shared.env.now();
        match state {
            Some(s) if s.is_final() => core.on_job_ended(&dependency, s, now),
            // It was there at submit; deleted since, it can no longer succeed.
            None => core.on_job_ended(&dependency, JobState::Cancelled, now),
            Some(_) => {}
        }
    }
    Ok(())
}

/// Ranges that the ledger has released and nobody has claimed: their message may never have been sent.
pub(super) async fn unsent(shared: &Shared, core: &Core) -> Result<Vec<(String, WorkItem)>> {
    let mut out = Vec::new();
    for (id, job) in &core.jobs {
        for (stage, s) in (0_u32..).zip(&job.stages) {
            let ranges: Vec<_> = s.outstanding.keys().map(|r| (id.clone(), stage, *r)).collect();
            for chunk in ranges.chunks(100) {
                for ((_, _, range), fence) in chunk.iter().zip(fences(shared, chunk).await?) {
                    let (None, Some(r)) = (fence, s.outstanding.get(range)) else { continue };
                    let (start, len, attempt, released_at) = (r.start, r.len, r.attempt, r.released_at);
                    let needs = s.session.as_ref().map(|session| session.needs_of(start, len)).unwrap_or_default();
                    let (job_id, pieces) = (id.clone(), Vec::new());
                    let item = WorkItem { job: job_id, stage, range: *range, start, len, attempt, released_at, pieces, needs };
                    out.push((job.class.clone(), item));
                }
            }
        }
    }
    Ok(out)
}

/// The fences of ranges, in the order asked.
pub(super) async fn fences(shared: &Shared, ranges: &[(String, u32, u64)]) -> Result<Vec<Option<RangeState>>> {
    let keys: Vec<_> = ranges.iter().map(|(job, stage, range)| keys::fence(job, *stage, *range)).collect();
    let items = shared.blocks.table.get_many(keys::STATE_TABLE, &keys).await?;
    items.into_iter().map(|item| item.map(|i| decode("fence", &i.value)).transpose()).collect()
}

async fn live_columns(shared: &Shared) -> Result<()> {
    let (batches, finished) = unflushed_columns(shared, None).await?;
    shared.live.replace(batches, finished, shared.env.now());
    Ok(())
}

/// What SQL sees while this manager does not lead (another does, or it has just been started): the same as a leader's, read from the
/// reports. `Unavailable` when rows moved into segments during each of some tries.
pub(super) async fn picture(shared: &Shared, job: Option<&str>) -> Result<Picture> {
    let ledger = shared.blocks.ledger.as_ref();
    let mut segments = live::segments(ledger, job).await?;
    for _ in 0..PICTURE_TRIES {
        let (live, _) = unflushed_columns(shared, job).await?;
        let now = live::segments(ledger, job).await?;
        if now == segments {
            return Ok(Picture { live, segments });
        }
        segments = now;
    }
    Err(Error::unavailable("statistics kept moving while they were read; ask again"))
}

type Unflushed = (Vec<LiveBatch>, Vec<(String, u32, u64)>);

/// The folded reports that are in no segment, and the ranges among them that are finished.
async fn unflushed_columns(shared: &Shared, job: Option<&str>) -> Result<Unflushed> {
    let (mut batches, mut finished) = (Vec::new(), Vec::new());
    let ranges = store::unflushed(shared.blocks.ledger.as_ref() as &dyn Ledger).await?;
    for range in ranges.into_iter().filter(|r| job.is_none_or(|j| j == r.job)) {
        for (seq, report) in read_reports(shared, &range.job, range.stage, range.range, range.flushed_seq).await? {
            if seq > range.folded_seq {
                break;
            }
            match TaskColumns::unpack(&report.columns) {
                Ok(columns) if columns.is_empty() => {}
                Ok(columns) => batches.push(LiveBatch {
                    job: range.job.as_str().into(),
                    stage: range.stage,
                    range: range.range,
                    seq,
                    worker: report.worker.as_str().into(),
                    columns: Arc::new(columns),
                }),
                Err(e) if e.kind() == ErrorKind::Corrupt => {
                    tracing::error!(job = range.job, error = %e.chain(), "statistics of a report cannot be read")
                }
                Err(e) => return Err(e),
            }
        }
        if range.finished {
            finished.push((range.job, range.stage, range.range));
        }
    }
    Ok((batches, finished))
}
