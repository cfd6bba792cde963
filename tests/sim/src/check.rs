//! The invariants, held against what is in the blocks when all is done.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::TryStreamExt;
use tidemill_base::{Error, Result};
use tidemill_batch::model::{ChainMode, InputSpec, JobState};
use tidemill_batch::protocol::{OutputPage, decode, keys};
use tidemill_batch::store::read::{self, JobRow, StageRow};
use tidemill_blocks::objects;
use tidemill_blocks::queue::Receive;
use tidemill_blocks::table::{Range, read_all};
use tidemill_blocks_test::sim::{EPOCH, Sim};

use crate::sink::{self, Row};
use crate::{End, JobPlan, Plan};

/// Checks every job: those that people submitted, and those that cron lines did.
pub async fn check(sim: &Sim, plan: &Plan, end: &End) -> Result<()> {
    let ledger = sim.blocks().ledger.as_ref();
    let letters = letters(sim).await?;
    for row in ledger.query("SELECT id FROM batch_jobs WHERE kind = 'job' ORDER BY id", vec![]).await? {
        let id = row.text(0)?;
        let row = read::job(ledger, id).await?;
        let wrong = |what: String| Error::internal(format!("job {} ({id}): {what}", row.name));
        let job = plan.jobs.iter().find(|j| j.name == row.name).ok_or_else(|| wrong("nobody submitted it".to_owned()))?;
        let stages = read::stages(ledger, Some(id)).await?;
        let rows = statistics(sim, id).await?;
        for s in &stages {
            counted_once(s, row.state).map_err(wrong)?;
            statistics_agree(s, &rows).map_err(wrong)?;
        }
        ended_for_a_reason(sim, plan, job, &row, end).await.map_err(|e| wrong(e.chain()))?;
        outcomes_are_as_drawn(sim, plan, job, &row, &stages, &rows).await.map_err(|e| wrong(e.chain()))?;
        for f in read::exceptions(ledger, id, None, 100_000).await?.iter().filter(|f| f.dead) {
            if !letters.contains(&(id.to_owned(), f.stage, f.task)) {
                return Err(wrong(format!("no dead letter of task {} of stage {}", f.task, f.stage)));
            }
        }
        outputs_are_there(sim, id, &stages, &rows).await.map_err(|e| wrong(e.chain()))?;
        if job.spec.cron.is_some() && row.cron_parent.is_none() {
            fired_once_a_tick(sim, &row, end).await.map_err(|e| wrong(e.chain()))?;
        }
    }
    // What was answered is there.
    if end.ids.len() != plan.jobs.len() {
        return Err(Error::internal(format!("{} jobs were submitted and {} are known", plan.jobs.len(), end.ids.len())));
    }
    for id in end.ids.values() {
        read::job(ledger, id).await?;
    }
    Ok(())
}

/// The dead letters: job, stage, task.
async fn letters(sim: &Sim) -> Result<BTreeSet<(String, u32, u64)>> {
    let mut out = BTreeSet::new();
    loop {
        let got = sim.blocks().queue.receive(keys::DEAD_QUEUE, Receive::up_to(100, Duration::from_secs(3600))).await?;
        if got.is_empty() {
            return Ok(out);
        }
        for letter in got {
            let text = String::from_utf8_lossy(&letter.body).into_owned();
            let field = |name: &str| {
                let rest = text.split_once(&format!("\"{name}\":"))?.1;
                Some(rest.trim_start_matches('"').chars().take_while(char::is_ascii_alphanumeric).collect::<String>())
            };
            let parsed = || Some((field("job")?, field("stage")?.parse().ok()?, field("task")?.parse().ok()?));
            out.insert(parsed().ok_or_else(|| Error::internal(format!("a dead letter says `{text}`")))?);
        }
    }
}

/// A job starts when it may, and is cancelled only by somebody or for a reason.
async fn ended_for_a_reason(sim: &Sim, plan: &Plan, job: &JobPlan, row: &JobRow, end: &End) -> Result<()> {
    if row.started_at.is_some_and(|at| at < row.start_after) {
        return Err(Error::internal(format!("it started before its time: {row:?}")));
    }
    let groups = job.spec.stages.iter().any(|s| matches!(s.input, InputSpec::Stage { mode: ChainMode::Group { .. }, .. }));
    let mut excused = job.is_cancelled_by_people() && row.cron_parent.is_none();
    if let Some(before) = job.after {
        let before_job = &plan.jobs[before];
        let before = read::job(sim.blocks().ledger.as_ref(), &end.ids[&before]).await?;
        // One that was taken up again after its end tells nothing about how it was then.
        if !before_job.is_retried() {
            let allowed = before.state == JobState::Succeeded && before.finished_at <= row.started_at;
            if row.started_at.is_some() && !allowed {
                return Err(Error::internal(format!("it did not wait: {row:?} after {before:?}")));
            }
        }
        excused |= before_job.is_retried() || before.state != JobState::Succeeded;
    }
    // A grouping stage behind one without any output.
    excused |= groups && row.reason.contains("stage s");
    if row.state == JobState::Cancelled && !excused {
        return Err(Error::internal(format!("nobody cancelled it: {row:?}")));
    }
    Ok(())
}

/// One copy for a tick, and none missing while all was well.
async fn fired_once_a_tick(sim: &Sim, row: &JobRow, end: &End) -> Result<()> {
    let sql = "SELECT client_token, submitted_us FROM batch_jobs WHERE cron_parent = $1";
    let copies = sim.blocks().ledger.query(sql, vec![row.id.as_str().into()]).await?;
    let prefix = format!("cron/{}/", row.id);
    let ticks: Vec<u64> = copies.iter().filter_map(|r| r.text(0).ok()?.strip_prefix(&prefix)?.parse().ok()).collect();
    let distinct: BTreeSet<u64> = ticks.iter().copied().collect();
    let minute = Duration::from_secs(60);
    // The first manager may need a while to lead again.
    let well = end.calm_since + Duration::from_secs(25);
    let until = row.finished_at.unwrap_or(well) - Duration::from_secs(5);
    let missing = (1..)
        .map(|n| EPOCH + minute * n)
        .skip_while(|t| *t < well)
        .take_while(|t| *t < until)
        .find(|t| !distinct.contains(&u64::try_from(t.millis()).unwrap_or(0)));
    if distinct.len() != copies.len() || missing.is_some() {
        return Err(Error::internal(format!("its ticks {ticks:?} are not one a minute; missing: {missing:?}")));
    }
    Ok(())
}

/// Every task ended in one place only.
fn counted_once(s: &StageRow, state: JobState) -> Result<(), String> {
    counted(s)?;
    if state == JobState::Succeeded && s.succeeded != s.total {
        return Err(format!("it is said to have succeeded and stage {} has {} of {}", s.stage, s.succeeded, s.total));
    }
    if state != JobState::Cancelled && s.cancelled != 0 {
        return Err(format!("nobody cancelled it and stage {} has {} cancelled tasks", s.stage, s.cancelled));
    }
    Ok(())
}

/// Nothing is left, and all of it is somewhere.
pub(crate) fn counted(s: &StageRow) -> Result<(), String> {
    let sum = s.succeeded + s.failed + s.cancelled + s.skipped;
    if sum != s.total || s.outstanding != 0 || s.retrying != 0 {
        return Err(format!("stage {} does not add up: {s:?}", s.stage));
    }
    Ok(())
}

/// The rows of all segments. Nothing is left in a manager's memory.
pub(crate) async fn statistics(sim: &Sim, job: &str) -> Result<Vec<Row>> {
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
async fn outcomes_are_as_drawn(sim: &Sim, plan: &Plan, job: &JobPlan, row: &JobRow, stages: &[StageRow], rows: &[Row]) -> Result<()> {
    let failures = read::exceptions(sim.blocks().ledger.as_ref(), &row.id, None, 100_000).await?;
    for f in &failures {
        let retry = &job.spec.stages[f.stage as usize].retry;
        let excused = row.state == JobState::Cancelled
            || f.class == "lost_worker"
            || retry.policy.attempts == 1
            || f.attempts >= retry.policy.attempts;
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
    let mut claims = BTreeSet::new();
    for s in stages {
        let items = read_all(blocks.table.as_ref(), keys::STATE_TABLE, Range::all(keys::output_partition(job, s.stage), 1000)).await?;
        let mut seen = BTreeSet::new();
        for item in items {
            let page: OutputPage = decode("output page", &item.value)?;
            claims.insert(keys::attempt_folder(job, s.stage, page.range, page.epoch));
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
    let folder = keys::job_prefix(job).join("out");
    let stored: Vec<_> = blocks.objects.list(Some(&folder)).try_collect().await.map_err(|e| objects::error("list", &folder, e))?;
    if let Some(left) = stored.iter().find(|o| !claims.iter().any(|c| o.location.prefix_matches(c))) {
        return Err(Error::internal(format!("an output that does not count was not swept: {}", left.location)));
    }
    Ok(())
}
