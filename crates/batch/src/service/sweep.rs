//! Sweeps what attempts left behind that did not count.

use std::collections::BTreeSet;

use futures::TryStreamExt;
use object_store::ObjectStore;
use object_store::path::Path;
use tidemill_base::Result;
use tidemill_blocks::objects;

use super::Shared;
use super::open::pages;
use crate::protocol::keys;

/// Removes the output folders of claims that no report speaks of.
pub(super) async fn losers(shared: &Shared, job: &str) -> Result<()> {
    let rows = shared.blocks.ledger.query("SELECT stage FROM batch_stages WHERE job = $1 ORDER BY stage", vec![job.into()]).await?;
    for row in rows {
        let stage = u32::try_from(row.uint(0)?).unwrap_or(0);
        let root = keys::job_prefix(job).join("out").join(stage.to_string());
        let store = shared.blocks.objects.as_ref();
        let listed = store.list_with_delimiter(Some(&root)).await.map_err(|e| objects::error("list", &root, e))?;
        if listed.common_prefixes.is_empty() {
            continue;
        }
        let kept = reported(shared, job, stage).await?;
        for folder in listed.common_prefixes {
            if folder.filename().is_some_and(|name| !kept.contains(name)) {
                remove_folder(store, &folder).await?;
            }
        }
    }
    remove_folder(shared.blocks.objects.as_ref(), &keys::job_prefix(job).join("live")).await
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
