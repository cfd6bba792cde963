//! Statistics on their way into segments, and the picture of both that SQL sees.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};

use tidemill_base::{Result, Timestamp};
use tidemill_blocks::ledger::Ledger;
use tokio::sync::RwLock;

use crate::reactor::LiveBatch;

/// Rows in memory and segments in objects: together each settled attempt once.
#[derive(Debug, Clone, Default)]
pub struct Picture {
    /// Not in a segment yet.
    pub live: Vec<LiveBatch>,
    /// Segments: path, rows, bytes.
    pub segments: Vec<(String, u64, u64)>,
}

/// What one job has waiting.
#[derive(Debug, Default)]
pub(super) struct JobLive {
    pub batches: Vec<LiveBatch>,
    pub finished: Vec<(u32, u64)>,
    pub rows: usize,
    pub since: Timestamp,
    pub ended: bool,
}

/// A job, its rows, and the ranges (stage, range) finished among them.
pub(super) type DueRows = (String, Vec<LiveBatch>, Vec<(u32, u64)>);

#[derive(Debug, Default)]
pub(crate) struct LiveColumns {
    jobs: Mutex<BTreeMap<String, JobLive>>,
    /// Until when what is here is all there is, microseconds: while this manager leads. A manager that was frozen past the end of its lease
    /// does not know yet that another has led since, and must not mix its rows with segments of that one.
    complete_until: AtomicI64,
    /// Held for writing while rows move from memory into a segment, so that nobody sees them twice or not at all.
    moving: RwLock<()>,
}

impl LiveColumns {
    fn jobs(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, JobLive>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, batches: Vec<LiveBatch>, finished: Vec<(String, u32, u64)>, now: Timestamp) {
        let mut jobs = self.jobs();
        for batch in batches {
            let job = jobs.entry(batch.job.to_string()).or_insert_with(|| JobLive { since: now, ..JobLive::default() });
            job.rows += batch.columns.len();
            job.batches.push(batch);
        }
        for (id, stage, range) in finished {
            jobs.entry(id).or_insert_with(|| JobLive { since: now, ..JobLive::default() }).finished.push((stage, range));
        }
    }

    pub(super) fn replace(&self, batches: Vec<LiveBatch>, finished: Vec<(String, u32, u64)>, now: Timestamp) {
        self.jobs().clear();
        self.add(batches, finished, now);
    }

    /// This manager leads until then, and what is here is all there is.
    pub(super) fn lead_until(&self, end: Timestamp) {
        self.complete_until.store(end.micros(), Ordering::Release);
    }

    /// Whether [`LiveColumns::picture`] knows every row. While it does not, the reports in the table have to be read.
    pub(super) fn is_complete(&self, now: Timestamp) -> bool {
        now.micros() < self.complete_until.load(Ordering::Acquire)
    }

    /// The leadership has ended: from now on another manager's reports are not seen here.
    pub(super) fn let_go(&self) {
        self.complete_until.store(0, Ordering::Release);
        self.jobs().clear();
    }

    pub(super) fn job_ended(&self, job: &str) {
        if let Some(live) = self.jobs().get_mut(job) {
            live.ended = true;
        }
    }

    /// Drops what a job has, which is being deleted.
    pub(super) async fn forget(&self, job: &str) {
        let _moving = self.begin_move().await;
        self.jobs().remove(job);
    }

    /// A job whose rows are due for a segment, with a copy of what it has.
    pub(super) fn due(&self, is_due: impl Fn(&JobLive) -> bool) -> Option<DueRows> {
        let jobs = self.jobs();
        let (id, live) = jobs.iter().find(|(_, j)| is_due(j))?;
        Some((id.clone(), live.batches.clone(), live.finished.clone()))
    }

    pub(super) async fn begin_move(&self) -> tokio::sync::RwLockWriteGuard<'_, ()> {
        self.moving.write().await
    }

    /// Forgets what now is in a segment: the first of each.
    pub(super) fn moved(&self, job: &str, batches: usize, finished: usize, now: Timestamp) {
        let mut jobs = self.jobs();
        let Some(live) = jobs.get_mut(job) else { return };
        live.batches.drain(..batches.min(live.batches.len()));
        live.finished.drain(..finished.min(live.finished.len()));
        live.rows = live.batches.iter().map(|b| b.columns.len()).sum();
        live.since = now;
        if live.batches.is_empty() && live.finished.is_empty() {
            jobs.remove(job);
        }
    }

    pub(super) async fn picture(&self, ledger: &dyn Ledger, job: Option<&str>) -> Result<Picture> {
        let _still = self.moving.read().await;
        let segments = segments(ledger, job).await?;
        let live = self
            .jobs()
            .iter()
            .filter(|(id, _)| job.is_none_or(|j| j == id.as_str()))
            .flat_map(|(_, j)| j.batches.iter().cloned())
            .collect();
        Ok(Picture { live, segments })
    }
}

/// The segments of one job or of all: path, rows, bytes.
pub(super) async fn segments(ledger: &dyn Ledger, job: Option<&str>) -> Result<Vec<(String, u64, u64)>> {
    let rows = match job {
        Some(job) => {
            ledger.query("SELECT path, task_rows, bytes FROM batch_segments WHERE job = $1 ORDER BY path", vec![job.into()]).await?
        }
        None => ledger.query("SELECT path, task_rows, bytes FROM batch_segments ORDER BY path", vec![]).await?,
    };
    rows.iter().map(|r| Ok((r.text(0)?.to_owned(), r.uint(1)?, r.uint(2)?))).collect()
}
