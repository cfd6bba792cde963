//! Sweeps what attempts left behind that did not count, and what the job file says is not to be kept.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::TryStreamExt;
use object_store::ObjectStore;
use object_store::path::Path;
use tidemill_base::{ErrorKind, HumanDuration, Result, RetryPolicy};
use tidemill_blocks::objects;

use super::open::pages;
use super::{Shared, interim, recover};
use crate::protocol::keys;

/// Sweeps, and tries again for a while when blocks cannot be reached.
pub(super) async fn until_done(shared: &Shared, job: &str) -> Result<()> {
    let policy = RetryPolicy { attempts: 10, base: HumanDuration(Duration::from_secs(1)), ..RetryPolicy::default() };
    let mut tries = 0;
    loop {
        tries += 1;
        match everything(shared, job).await {
            Err(e) if e.kind() == ErrorKind::Unavailable && policy.allows_another(tries) => {
                tidemill_runtime::sleep(policy.delay(tries, &shared.env)).await;
            }
            outcome => return outcome,
        }
    }
}

async fn everything(shared: &Shared, job: &str) -> Result<()> {
    losers(shared, job).await?;
    interim::outputs(shared, job).await
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
        let kept = reported(shared, job, stage).await?;
        for folder in ended.into_iter().filter(|f| f.filename().is_some_and(|name| !kept.contains(name))) {
            remove_folder(store, &folder).await?;
        }
    }
    remove_folder(shared.blocks.objects.as_ref(), &keys::job_prefix(job).join("live")).await
}

/// The folders of claims under which nothing can be reported any more.
async fn ended_claims(shared: &Shared, job: &str, stage: u32, folders: &[Path]) -> Result<Vec<Path>> {
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
            if fence.is_none_or(|f| f.finished || f.epoch > *epoch) {
                ended.push((*folder).clone());
            }
        }
    }
    Ok(ended)
}

async fn reported(shared: &Shared, job: &str, stage: u32) -> Result<BTreeSet<String>> {
    pages(shared, job, stage).map_ok(|page| format!("{}-{}", page.range, page.epoch)).try_collect().await
}

async fn remove_folder(store: &dyn ObjectStore, folder: &Path) -> Result<()> {
    let names: Vec<_> =
        store.list(Some(folder)).map_ok(|meta| meta.location).try_collect().await.map_err(|e| objects::error("list", folder, e))?;
    for name in names {
        objects::delete(store, &name).await?;
    }
    Ok(())
}
