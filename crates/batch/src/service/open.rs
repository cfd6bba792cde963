//! Finds the tasks of a grouping stage, once the stage it takes its input from is done.

use std::sync::Arc;

use futures::{Stream, TryStreamExt, stream};
use tidemill_base::{Error, Result};
use tidemill_blocks::table::Range;

use super::Shared;
use super::lead::News;
use super::submit::definition_of_follower;
use crate::cut::{self, Cutting, Limits, StageDefinition, UpstreamInfo};
use crate::model::{ChainMode, JobSpec};
use crate::protocol::{OutputPage, decode, keys};
use crate::reactor::upstream_of;

/// Lists the groups in the stage's manifest. Doing it again gives the same manifest.
pub(super) async fn open(shared: Arc<Shared>, job: String, stage: u32) -> News {
    let outcome = find(&shared, &job, stage).await;
    News::Opened(job, stage, outcome)
}

/// The totals of the stage and of those whose number of tasks follows from it.
async fn find(shared: &Shared, job: &str, stage: u32) -> Result<Vec<(u32, u64)>> {
    let rows = shared.blocks.ledger.query("SELECT spec FROM batch_jobs WHERE id = $1", vec![job.into()]).await?;
    let row = rows.first().ok_or_else(|| Error::not_found(format!("there is no job `{job}`")))?;
    let spec: JobSpec =
        serde_json::from_str(row.text(0)?).map_err(|e| Error::corrupt(format!("job {job} does not decode")).with_source(e))?;
    let Some((from, ChainMode::Group { key })) = upstream_of(&spec, stage) else {
        return Err(Error::internal(format!("stage {stage} of job {job} does not group")));
    };
    let upstream_total = totals(shared, job, from).await?;
    let mut progress = |_| {};
    let mut cutting = Cutting { objects: &shared.blocks.objects, job, stage, limits: Limits::default(), progress: &mut progress };
    let cut = cut::cut_group(key, pages(shared, job, from), &mut cutting).await?;
    let upstream = UpstreamInfo { stage: from, mode: ChainMode::Group { key: key.clone() }, total: upstream_total };
    let s = spec.stages[stage as usize].clone();
    let definition =
        StageDefinition { job_name: spec.name.clone(), spec: s, total: cut.total, manifest: cut.manifest, upstream: Some(upstream) };
    definition.store(&shared.blocks.objects, job, stage).await?;
    let mut known = vec![(stage, cut.total)];
    let mut at = 0;
    while let Some(&(source, total)) = known.get(at) {
        for next in source + 1..u32::try_from(spec.stages.len()).unwrap_or(0) {
            if let Some(definition) = definition_of_follower(&spec, next, source, total) {
                definition.store(&shared.blocks.objects, job, next).await?;
                known.push((next, definition.total));
            }
        }
        at += 1;
    }
    Ok(known)
}

/// The output pages of a stage, one after the other.
pub(super) fn pages<'a>(shared: &'a Shared, job: &str, stage: u32) -> impl Stream<Item = Result<OutputPage>> + 'a {
    let first = Some(Range::all(keys::output_partition(job, stage), 500));
    let batches = stream::try_unfold(first, move |next| async move {
        let Some(range) = next else { return Ok::<_, Error>(None) };
        let page = shared.blocks.table.range(keys::STATE_TABLE, range).await?;
        Ok(Some((stream::iter(page.items.into_iter().map(|i| decode("output page", &i.value))), page.next)))
    });
    batches.try_flatten()
}

async fn totals(shared: &Shared, job: &str, stage: u32) -> Result<u64> {
    let rows =
        shared.blocks.ledger.query("SELECT total FROM batch_stages WHERE job = $1 AND stage = $2", vec![job.into(), stage.into()]).await?;
    rows.first().ok_or_else(|| Error::corrupt(format!("job {job} has lost its stage {stage}")))?.uint(0)
}
