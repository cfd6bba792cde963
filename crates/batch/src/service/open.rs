//! Finds the tasks of a grouping stage, once the stage it takes its input from is done.

use std::sync::Arc;

use tidemill_base::{Error, Result};
use tidemill_blocks::table::{Item, Range, read_all};

use super::Shared;
use super::lead::News;
use super::submit::definition_of_follower;
use crate::cut::{self, StageDefinition, UpstreamInfo};
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
    let spec: JobSpec = serde_json::from_str(row.text(0)?).map_err(|e| Error::corrupt(format!("job {job} does not decode")).with_source(e))?;
    let Some((from, ChainMode::Group { key })) = upstream_of(&spec, stage) else {
        return Err(Error::internal(format!("stage {stage} of job {job} does not group")));
    };
    let upstream_total = totals(shared, job, from).await?;
    let pages = read_all(shared.blocks.table.as_ref(), keys::STATE_TABLE, Range::all(keys::output_partition(job, from), 500)).await?;
    let pages: Result<Vec<OutputPage>> = pages.iter().map(|i: &Item| decode("output page", &i.value)).collect();
    let cut = cut::cut_group(&shared.blocks.objects, job, stage, &pages?, key).await?;
    let upstream = UpstreamInfo { stage: from, mode: ChainMode::Group { key: key.clone() }, total: upstream_total };
    let s = spec.stages[stage as usize].clone();
    let definition = StageDefinition { job_name: spec.name.clone(), spec: s, total: cut.total, manifest: cut.manifest, upstream: Some(upstream) };
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

async fn totals(shared: &Shared, job: &str, stage: u32) -> Result<u64> {
    let rows = shared.blocks.ledger.query("SELECT total FROM batch_stages WHERE job = $1 AND stage = $2", vec![job.into(), stage.into()]).await?;
    rows.first().ok_or_else(|| Error::corrupt(format!("job {job} has lost its stage {stage}")))?.uint(0)
}
