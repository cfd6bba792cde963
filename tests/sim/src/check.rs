//! The invariants, held against what is in the blocks when all is done.

use std::collections::{BTreeMap, BTreeSet};

use tidemill_base::{Error, Result};
use tidemill_batch::model::JobState;
use tidemill_batch::protocol::{OutputPage, decode, keys};
use tidemill_batch::store::read::{self, StageRow};
use tidemill_blocks::objects;
use tidemill_blocks::table::{Range, read_all};
use tidemill_blocks_test::sim::Sim;

use crate::sink::{self, Row};
use crate::{JobPlan, Plan, Wish};

/// Checks every job. `ids` are those of the jobs by name.
pub async fn check(sim: &Sim, plan: &Plan, ids: &BTreeMap<String, String>) -> Result<()> {
    for job in &plan.jobs {
        let id = &ids[&job.name];
        let wrong = |what: String| Error::internal(format!("job {} ({id}): {what}", job.name));
        let row = read::job(sim.blocks().ledger.as_ref(), id).await?;
        let stages = read::stages(sim.blocks().ledger.as_ref(), Some(id)).await?;
        let rows = statistics(sim, id).await?;
        for s in &stages {
            counted_once(s, row.state).map_err(wrong)?;
            statistics_agree(s, &rows).map_err(wrong)?;
        }
        if job.wish != Wish::Cancel {
            outcomes_are_as_drawn(sim, plan, job, id, &stages, &rows).await.map_err(|e| wrong(e.chain()))?;
        }
        outputs_are_there(sim, id, &stages, &rows).await.map_err(|e| wrong(e.chain()))?;
    }
    Ok(())
}

/// Every task ended in one place only.
fn counted_once(s: &StageRow, state: JobState) -> Result<(), String> {
    let sum = s.succeeded + s.failed + s.cancelled + s.skipped;
    if sum != s.total || s.outstanding != 0 || s.retrying != 0 {
        return Err(format!("stage {} does not add up: {s:?}", s.stage));
    }
    if state == JobState::Succeeded && s.succeeded != s.total {
        return Err(format!("it is said to have succeeded and stage {} has {} of {}", s.stage, s.succeeded, s.total));
    }
    if state != JobState::Cancelled && s.cancelled != 0 {
        return Err(format!("nobody cancelled it and stage {} has {} cancelled tasks", s.stage, s.cancelled));
    }
    Ok(())
}

/// The rows of all segments. Nothing is left in a manager's memory.
async fn statistics(sim: &Sim, job: &str) -> Result<Vec<Row>> {
    let blocks = sim.blocks();
    let mut out = Vec::new();
    for row in blocks.ledger.query("SELECT path FROM batch_segments WHERE job = $1", vec![job.into()]).await? {
        let path = objects::parse_path(row.text(0)?)?;
        out.extend(sink::decode(&objects::get(blocks.objects.as_ref(), &path).await?)?);
    }
    out.sort_unstable();
    Ok(out)
}

/// Each settled attempt has one row, and each success is one of them.
fn statistics_agree(s: &StageRow, rows: &[Row]) -> Result<(), String> {
    let mine: Vec<&Row> = rows.iter().filter(|r| r.stage == s.stage).collect();
    let succeeded: BTreeSet<u64> = mine.iter().filter(|r| r.class == 0).map(|r| r.task).collect();
    let successes = mine.iter().filter(|r| r.class == 0).count() as u64;
    if successes != s.succeeded || succeeded.len() as u64 != s.succeeded {
        let twice = mine.windows(2).find(|w| w[0].class == 0 && w[1].class == 0 && w[0].task == w[1].task).map(|w| (w[0], w[1]));
        return Err(format!(
            "stage {}: {} succeeded, {successes} successful rows of {} tasks; twice: {twice:?}",
            s.stage,
            s.succeeded,
            succeeded.len()
        ));
    }
    if mine.len() as u64 != s.attempts {
        return Err(format!("stage {}: {} attempts in the ledger, {} rows of statistics", s.stage, s.attempts, mine.len()));
    }
    let distinct: BTreeSet<(u64, u32, u8)> = mine.iter().map(|r| (r.task, r.attempt, r.class)).collect();
    // A task that was retried after the end starts its attempts where it left off, so attempts never repeat.
    if distinct.len() != mine.len() {
        return Err(format!("stage {}: an attempt was counted twice", s.stage));
    }
    Ok(())
}

/// Whoever was not doomed succeeded, unless its workers died under it or its input failed.
async fn outcomes_are_as_drawn(sim: &Sim, plan: &Plan, job: &JobPlan, id: &str, stages: &[StageRow], rows: &[Row]) -> Result<()> {
    let failures = read::exceptions(sim.blocks().ledger.as_ref(), id, None, 100_000).await?;
    for f in &failures {
        let retry = &job.spec.stages[f.stage as usize].retry;
        let excused = f.class == "lost_worker" || retry.policy.attempts == 1 || f.attempts >= retry.policy.attempts;
        if !f.dead || !(plan.is_doomed(f.stage, f.task) || excused) {
            return Err(Error::internal(format!("a task that should have succeeded has not: {f:?}")));
        }
    }
    for s in stages {
        let failed = failures.iter().filter(|f| f.stage == s.stage).count() as u64;
        if failed != s.failed {
            return Err(Error::internal(format!("stage {} counts {} failed tasks and names {failed}", s.stage, s.failed)));
        }
    }
    if let Some(r) = rows.iter().find(|r| r.class == 0 && plan.is_doomed(r.stage, r.task)) {
        return Err(Error::internal(format!("a doomed task succeeded: {r:?}")));
    }
    Ok(())
}

/// Outputs belong to tasks that succeeded, are all there, and losers' are swept.
async fn outputs_are_there(sim: &Sim, job: &str, stages: &[StageRow], rows: &[Row]) -> Result<()> {
    let blocks = sim.blocks();
    for s in stages {
        let items = read_all(blocks.table.as_ref(), keys::STATE_TABLE, Range::all(keys::output_partition(job, s.stage), 1000)).await?;
        let mut seen = BTreeSet::new();
        for item in items {
            let page: OutputPage = decode("output page", &item.value)?;
            for output in page.tasks.iter().filter(|t| t.ok) {
                if !rows.iter().any(|r| r.class == 0 && r.stage == s.stage && r.task == output.task) {
                    return Err(Error::internal(format!("stage {} has an output of task {}, which did not succeed", s.stage, output.task)));
                }
                if !seen.insert(output.task) {
                    return Err(Error::internal(format!("stage {} has two outputs of task {}", s.stage, output.task)));
                }
                for file in &output.files {
                    let bytes = objects::get(blocks.objects.as_ref(), &objects::parse_path(&file.path)?).await?;
                    let (from, until) =
                        (usize::try_from(file.offset).unwrap_or(usize::MAX), usize::try_from(file.offset + file.len).unwrap_or(usize::MAX));
                    let expected = format!("{}/{}", s.stage, output.task);
                    if bytes.get(from..until) != Some(expected.as_bytes()) {
                        return Err(Error::internal(format!(
                            "the output of task {} of stage {} is not what it wrote",
                            output.task, s.stage
                        )));
                    }
                }
            }
        }
    }
    Ok(())
}
