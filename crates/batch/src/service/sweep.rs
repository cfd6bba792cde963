//! Sweeps what attempts left behind that did not count, and what the job file says is not to be kept.
//!
//! That a job has to be swept is a row in the ledger, written with the job's end, so that it goes on after a crash and under another
//! leader. Each job is swept twice: when it ends, and once more a while later, since a worker that was cut off from everything (a closed lid,
//! a frozen machine) may come back, write an output that does not count any more, and die before it has removed it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use object_store::ObjectStore;
use object_store::path::Path;
use tidemill_base::{ErrorKind, Result, Timestamp};
use tidemill_blocks::ledger::Statement;
use tidemill_blocks::table::Range;
use tidemill_blocks::{objects, schedule};

use super::lead::{Leader, News};
use super::open::pages;
use super::{LEASE, Shared, interim, recover};
use crate::protocol::{ResultBody, ResultPage, decode, keys};

/// Jobs that are swept at the same time.
const AT_ONCE: usize = 4;
/// A sweep that could not reach the blocks is tried again after so long.
const AGAIN: Duration = Duration::from_secs(5);

/// What the leader knows of the jobs that have to be swept; the ledger's rows are the same.
#[derive(Debug, Default)]
pub(super) struct Sweeps {
    owed: BTreeMap<String, Owed>,
    under_way: BTreeSet<String>,
    /// Nothing is due before this. Rounds come many times a second, and jobs that ended lately may be many.
    quiet_until: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Owed {
    /// When the job ended; one that was retried and has ended anew is owed its sweeps anew.
    ended: Timestamp,
    due: Timestamp,
    /// It has been swept once.
    again: bool,
}

impl Sweeps {
    /// What earlier leaders left.
    pub(super) async fn load(shared: &Shared) -> Result<Self> {
        let rows = shared.blocks.ledger.query("SELECT job, ended_us, due_us, again FROM batch_sweeps", vec![]).await?;
        let owed = rows
            .iter()
            .map(|r| Ok((r.text(0)?.to_owned(), Owed { ended: r.time(1)?, due: r.time(2)?, again: r.bool(3)? })))
            .collect::<Result<_>>()?;
        Ok(Self { owed, ..Self::default() })
    }

    /// The job has ended now. The row that says so goes into the same transaction.
    pub(super) fn job_ended(&mut self, job: &str, now: Timestamp) -> Statement {
        self.owed.insert(job.to_owned(), Owed { ended: now, due: now, again: false });
        self.quiet_until = now;
        Statement::new(
            "INSERT INTO batch_sweeps (job, ended_us, due_us, again) VALUES ($1, $2, $2, 0)
             ON CONFLICT (job) DO UPDATE SET ended_us = $2, due_us = $2, again = 0",
            vec![job.into(), now.into()],
        )
    }

    /// The next that is due.
    fn take(&mut self, now: Timestamp) -> Option<(String, Owed)> {
        if now < self.quiet_until || self.under_way.len() >= AT_ONCE {
            return None;
        }
        let mut waiting = self.owed.iter().filter(|(job, _)| !self.under_way.contains(*job));
        if let Some((job, owed)) = waiting.find(|(_, owed)| owed.due <= now) {
            let taken = (job.clone(), *owed);
            self.under_way.insert(taken.0.clone());
            return Some(taken);
        }
        let waiting = self.owed.iter().filter(|(job, _)| !self.under_way.contains(*job));
        self.quiet_until = waiting.map(|(_, owed)| owed.due).min().unwrap_or(Timestamp(i64::MAX));
        None
    }

    /// A sweep has ended, well or not. If the job has not ended anew meanwhile, `next` is what is still owed.
    pub(super) fn swept(&mut self, job: &str, taken: Owed, next: Option<Owed>) {
        self.under_way.remove(job);
        self.quiet_until = Timestamp::ZERO;
        if self.owed.get(job).is_some_and(|owed| owed.ended == taken.ended) {
            match next {
                Some(next) => self.owed.insert(job.to_owned(), next),
                None => self.owed.remove(job),
            };
        }
    }
}

/// Begins the sweeps that are due.
pub(super) fn round(leader: &mut Leader<'_>) {
    while let Some((job, owed)) = leader.sweeps.take(leader.shared.env.now()) {
        let (shared, fence) = (Arc::clone(leader.shared), leader.fence);
        leader.side_task(async move {
            let next = match sweep(&shared, fence, &job, owed).await {
                Ok(next) => next,
                Err(e) => {
                    tracing::warn!(job, error = %e.chain(), "could not sweep what a job left, will try again");
                    let wait = if e.kind() == ErrorKind::Unavailable { AGAIN } else { shared.settings.sweep_again };
                    Some(Owed { due: shared.env.now() + wait, ..owed })
                }
            };
            News::Swept(job, owed, next)
        });
    }
}

/// Sweeps and writes down what is still owed, unless the job has ended anew meanwhile.
async fn sweep(shared: &Shared, fence: u64, job: &str, owed: Owed) -> Result<Option<Owed>> {
    losers(shared, job).await?;
    let (next, row) = if owed.again {
        let row = Statement::new("DELETE FROM batch_sweeps WHERE job = $1 AND ended_us = $2", vec![job.into(), owed.ended.into()]);
        (None, row)
    } else {
        interim::outputs(shared, job).await?;
        let due = shared.env.now() + shared.settings.sweep_again;
        let sql = "UPDATE batch_sweeps SET due_us = $3, again = 1 WHERE job = $1 AND ended_us = $2";
        (Some(Owed { due, again: true, ..owed }), Statement::new(sql, vec![job.into(), owed.ended.into(), due.into()]))
    };
    shared.blocks.ledger.transact(vec![schedule::fenced(LEASE, &shared.holder, fence), row]).await?;
    Ok(next)
}

/// Removes the output folders of claims that no report speaks of, and will not: the job may have been taken up again by a retry.
async fn losers(shared: &Shared, job: &str) -> Result<()> {
    let rows = shared.blocks.ledger.query("SELECT stage FROM batch_stages WHERE job = $1 ORDER BY stage", vec![job.into()]).await?;
    for row in rows {
        let stage = u32::try_from(row.uint(0)?).unwrap_or(0);
        let root = keys::job_prefix(job).join("out").join(stage.to_string());
        let store = shared.blocks.objects.as_ref();
        let listed = store.list_with_delimiter(Some(&root)).await.map_err(|e| objects::error("list", &root, e))?;
        if listed.common_prefixes.is_empty() {
            continue;
        }
        let ended = ended_claims(shared, job, stage, &listed.common_prefixes).await?;
        // After the fences: what was reported before a claim ended is seen here.
        let outputs = reported(shared, job, stage).await?;
        let results = with_results(shared, job, stage, &ended).await?;
        for Ended { folder, superseded } in ended {
            let name = folder.filename().unwrap_or_default();
            match results.get(name) {
                // What it wrote last, another may have kept it from reporting.
                Some(named) if superseded => {
                    remove(store, &folder, |path| keys::holds_results(path) && !named.contains(path.as_ref())).await?;
                }
                None if !outputs.contains(name) => remove(store, &folder, |_| true).await?,
                _ => {}
            }
        }
    }
    remove(shared.blocks.objects.as_ref(), &keys::job_prefix(job).join("live"), |_| true).await
}

/// The folder of a claim under which nothing can be reported any more.
struct Ended {
    folder: Path,
    /// Another claim of its range came after it.
    superseded: bool,
}

/// Those of the folders whose claims have ended.
async fn ended_claims(shared: &Shared, job: &str, stage: u32, folders: &[Path]) -> Result<Vec<Ended>> {
    let claims: Vec<(&Path, u64, u64)> = folders
        .iter()
        .filter_map(|folder| {
            let (range, epoch) = folder.filename()?.split_once('-')?;
            Some((folder, range.parse().ok()?, epoch.parse().ok()?))
        })
        .collect();
    let mut ended = Vec::new();
    for chunk in claims.chunks(100) {
        let ranges: Vec<_> = chunk.iter().map(|(_, range, _)| (job.to_owned(), stage, *range)).collect();
        for ((folder, _, epoch), fence) in chunk.iter().zip(recover::fences(shared, &ranges).await?) {
            // Without a fence the range has been begun, and what it wrote may be reported in the next moment: see decision 0009.
            if let Some(fence) = fence.filter(|f| f.finished || f.epoch > *epoch) {
                ended.push(Ended { folder: (*folder).clone(), superseded: fence.epoch != *epoch });
            }
        }
    }
    Ok(ended)
}

async fn reported(shared: &Shared, job: &str, stage: u32) -> Result<BTreeSet<String>> {
    pages(shared, job, stage).map_ok(|page| format!("{}-{}", page.range, page.epoch)).try_collect().await
}

/// Those folders of claims that hold results of a session, and the objects that pages of results name, as pages of outputs do. Only the
/// ranges that have a folder are asked for, since small results are in the pages themselves and may be many.
async fn with_results(shared: &Shared, job: &str, stage: u32, claims: &[Ended]) -> Result<BTreeMap<String, BTreeSet<String>>> {
    let mut kept: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for Ended { folder, .. } in claims {
        let Some((range, epoch)) = folder.filename().and_then(|name| name.split_once('-')) else { continue };
        let (Ok(range), Ok(epoch)) = (range.parse::<u64>(), epoch.parse::<u64>()) else { continue };
        let (from, until) = (range.to_be_bytes().to_vec(), range.saturating_add(1).to_be_bytes().to_vec());
        let mut next = Some(Range::all(keys::result_partition(job, stage), 50).from(from).until(until));
        while let Some(asked) = next {
            let page = shared.blocks.table.range(keys::STATE_TABLE, asked).await?;
            for item in page.items {
                let page = decode::<ResultPage>("results", &item.value)?;
                if page.epoch == epoch {
                    let named = kept.entry(format!("{range}-{epoch}")).or_default();
                    if let ResultBody::Object(path) = page.body {
                        named.insert(path);
                    }
                }
            }
            next = page.next;
        }
    }
    Ok(kept)
}

/// Removes those objects of a folder of which `goes` says so.
pub(super) async fn remove(store: &dyn ObjectStore, folder: &Path, goes: impl Fn(&Path) -> bool) -> Result<()> {
    let names: Vec<_> =
        store.list(Some(folder)).map_ok(|meta| meta.location).try_collect().await.map_err(|e| objects::error("list", folder, e))?;
    for name in names.into_iter().filter(|name| goes(name)) {
        objects::delete(store, &name).await?;
    }
    Ok(())
}
