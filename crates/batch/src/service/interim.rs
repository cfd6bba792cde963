//! Drops the outputs of stages that keep none (`keep = { outputs = false }`), once the job has succeeded.
//!
//! Pages lose the files' names first, then the files go: whoever dies in between leaves objects that nobody is pointed to and that go with
//! the job, never a name whose file is gone. Logs are in the same objects as small files; an object that holds a log stays.

use std::collections::BTreeSet;

use tidemill_base::{Error, ErrorKind, Result};
use tidemill_blocks::table::{Condition, Item, Range, Write};

use super::{Shared, sweep};
use crate::model::{JobSpec, JobState};
use crate::protocol::{OutputPage, StoredFile, decode, encode, keys};

/// Nothing, unless every task of the job has succeeded: a task that is tried again needs what the stage before made.
pub(super) async fn outputs(shared: &Shared, job: &str) -> Result<()> {
    let query = "SELECT j.spec, j.state, (SELECT CAST(coalesce(sum(failed + cancelled), 0) AS BIGINT) FROM batch_stages s WHERE s.job = j.id) \
                 FROM batch_jobs j WHERE j.id = $1";
    let rows = shared.blocks.ledger.query(query, vec![job.into()]).await?;
    let Some(row) = rows.first() else { return Ok(()) };
    if row.text(1)? != JobState::Succeeded.as_str() || row.uint(2)? > 0 {
        return Ok(());
    }
    let spec: JobSpec =
        serde_json::from_str(row.text(0)?).map_err(|e| Error::corrupt(format!("job {job} does not decode")).with_source(e))?;
    for (stage, _) in (0u32..).zip(&spec.stages).filter(|(_, s)| !s.keep.outputs) {
        let kept = forget(shared, job, stage).await?;
        let folder = keys::job_prefix(job).join("out").join(stage.to_string());
        sweep::remove(shared.blocks.objects.as_ref(), &folder, |name| !kept.contains(name.as_ref())).await?;
    }
    Ok(())
}

/// Takes the files out of the stage's pages. The objects that its logs are in.
async fn forget(shared: &Shared, job: &str, stage: u32) -> Result<BTreeSet<String>> {
    let mut kept = BTreeSet::new();
    let mut next = Some(Range::all(keys::output_partition(job, stage), 500));
    while let Some(range) = next {
        let page = shared.blocks.table.range(keys::STATE_TABLE, range).await?;
        for item in page.items {
            kept.extend(forget_page(shared, item).await?);
        }
        next = page.next;
    }
    Ok(kept)
}

async fn forget_page(shared: &Shared, item: Item) -> Result<Vec<String>> {
    let mut page: OutputPage = decode("output page", &item.value)?;
    let named = page.tasks.iter().any(|t| !t.files.is_empty());
    for task in &mut page.tasks {
        task.files.clear();
    }
    if named {
        let write = Write::put(item.key, encode(&page)?, Condition::Version(item.version));
        match shared.blocks.table.transact(keys::STATE_TABLE, vec![write]).await {
            // Another leader is at the same work.
            Err(e) if e.kind() == ErrorKind::Conflict => {}
            outcome => drop(outcome?),
        }
    }
    let logs = page.tasks.iter().flat_map(|t| [&t.stdout, &t.stderr]).flatten();
    Ok(logs.map(|StoredFile { path, .. }| path.clone()).collect())
}
