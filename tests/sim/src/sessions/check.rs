//! What must be so of sessions when all is done.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use futures::TryStreamExt as _;
use tidemill_base::{Error, Result};
use tidemill_batch::model::JobState;
use tidemill_batch::protocol::{ResultBody, ResultPage, decode, keys};
use tidemill_batch::service::{BatchSettings, Manager};
use tidemill_batch::store::read::{self, JobRow, StageRow};
use tidemill_blocks::objects;
use tidemill_blocks::table::{Range, read_all};
use tidemill_blocks_test::sim::Sim;
use tidemill_worker::simulated_result;

use super::plan::Ending;
use super::{SessionPlan, Shared, Story, Word, Words, words};
use crate::RowSink;
use crate::check::{counted, statistics};

/// Checks a session: every task was told of, once for each time that it ended, whatever cursor it is read from; each result is what
/// follows from the task's payload and what it needed; nothing has come of a task after it was cancelled; counts and state agree.
pub(crate) async fn check(sim: &Sim, plan: &SessionPlan, story: &Shared) -> Result<()> {
    // All is done: nobody adds to it any more, and a lock is not held while the system is asked.
    let story = std::mem::take(&mut *story.lock());
    let ledger = sim.blocks().ledger.as_ref();
    let wrong = |what: String| Error::internal(format!("session {} ({}): {what}", plan.spec.name, story.id));
    let job = read::job(ledger, &story.id).await?;
    let stages = read::stages(ledger, Some(&story.id)).await?;
    let stage = stages.first().ok_or_else(|| wrong("it has no stage".into()))?;
    if stage.total != story.tasks.len() as u64 {
        return Err(wrong(format!("{} tasks were taken in and {} are known", story.tasks.len(), stage.total)));
    }
    counted(stage).map_err(wrong)?;
    let rows = statistics(sim, &story.id).await?;
    if rows.len() as u64 != stage.attempts {
        return Err(wrong(format!("{} attempts in the ledger, {} rows of statistics", stage.attempts, rows.len())));
    }
    let told = deliveries(sim, &story).await?;
    if let Some((n, _)) = story.read.iter().find(|(n, seen)| told.get(n) != Some(seen)) {
        return Err(wrong(format!("delivery {n} was read as {:?}, and is {:?}", story.read[n], told.get(n))));
    }
    let by_task = by_task(&told);
    let whole = job.state != JobState::Cancelled;
    for (task, early) in &story.early {
        // Whoever was told of a result may have cancelled the task before a manager that died in between was succeeded.
        let last = by_task.get(task).and_then(|words| words.last());
        if last.is_none_or(|(_, word)| word != early && *word != Word::Cancelled) && whole {
            return Err(wrong(format!("task {task} was told early as {early:?}, and is {last:?}")));
        }
    }
    in_order(plan, &by_task).map_err(wrong)?;
    results_are_right(&story, &by_task).map_err(wrong)?;
    cancelled_is_cancelled(&story, &by_task, whole).map_err(wrong)?;
    if whole {
        agree(&job, stage, &story, &by_task).map_err(wrong)?;
    }
    large_results_are_named(sim, &story.id).await?;
    ended_for_a_reason(plan, &job, stage).map_err(wrong)
}

/// What is in an object is named by a page, and what no page names was swept.
async fn large_results_are_named(sim: &Sim, job: &str) -> Result<()> {
    let blocks = sim.blocks();
    let items = read_all(blocks.table.as_ref(), keys::STATE_TABLE, Range::all(keys::result_partition(job, 0), 1000)).await?;
    let mut named = BTreeSet::new();
    for item in items {
        if let ResultBody::Object(path) = decode::<ResultPage>("results", &item.value)?.body {
            named.insert(path);
        }
    }
    let folder = keys::job_prefix(job).join("out");
    let stored: Vec<_> = blocks.objects.list(Some(&folder)).try_collect().await.map_err(|e| objects::error("list", &folder, e))?;
    let stored: BTreeSet<String> = stored.into_iter().map(|o| o.location.to_string()).collect();
    match (named.difference(&stored).next(), stored.difference(&named).next()) {
        (Some(lost), _) => Err(Error::internal(format!("a page names `{lost}`, which is not there"))),
        (_, Some(left)) => Err(Error::internal(format!("a result that does not count was not swept: {left}"))),
        _ => Ok(()),
    }
}

async fn deliveries(sim: &Sim, story: &Story) -> Result<BTreeMap<u64, Words>> {
    let manager = Manager::new(sim.blocks().clone(), sim.env().clone(), BatchSettings::default(), std::sync::Arc::new(RowSink)).await?;
    let mut out = BTreeMap::new();
    loop {
        let after = out.len() as u64;
        let some = manager.deliveries(&story.id, after, 1_000).await?;
        if some.is_empty() {
            return Ok(out);
        }
        for d in some {
            if d.n != out.len() as u64 + 1 {
                return Err(Error::internal(format!("session {}: delivery {} comes after {}", story.id, d.n, out.len())));
            }
            out.insert(d.n, words(&d)?);
        }
    }
}

/// What was told of each task, and by which delivery.
fn by_task(told: &BTreeMap<u64, Words>) -> BTreeMap<u64, Vec<(u64, Word)>> {
    let mut out: BTreeMap<u64, Vec<(u64, Word)>> = BTreeMap::new();
    for (n, words) in told {
        words.iter().for_each(|(task, word)| out.entry(*task).or_default().push((*n, word.clone())));
    }
    out
}

/// A result and a cancellation are the last word; only a failure may be followed by another word, when it was tried again.
fn in_order(plan: &SessionPlan, by_task: &BTreeMap<u64, Vec<(u64, Word)>>) -> std::result::Result<(), String> {
    for (task, said) in by_task {
        let more = said.iter().rev().skip(1);
        if let Some((n, word)) = more.clone().find(|(_, word)| *word != Word::None) {
            return Err(format!("of task {task} it was told {word:?} by delivery {n}, and more afterwards: {said:?}"));
        }
        if said.len() > 1 && !plan.is_retried() {
            return Err(format!("nobody has tried task {task} again, and it was told {said:?}"));
        }
    }
    Ok(())
}

fn results_are_right(story: &Story, by_task: &BTreeMap<u64, Vec<(u64, Word)>>) -> std::result::Result<(), String> {
    let mut expected: BTreeMap<u64, Bytes> = BTreeMap::new();
    for (task, (payload, needs)) in (0..).zip(&story.tasks) {
        let Some((_, Word::Result(found))) = by_task.get(&task).and_then(|said| said.last()) else { continue };
        let needed: Option<Vec<Bytes>> = needs.iter().map(|n| expected.get(n).cloned()).collect();
        let needed = needed.ok_or_else(|| format!("task {task} has a result, and what it needs, {needs:?}, has none"))?;
        let right = simulated_result(payload, &needed);
        if *found != right {
            return Err(format!("the result of task {task} is {found:?} and not {right:?}"));
        }
        expected.insert(task, right);
    }
    Ok(())
}

/// When somebody was told that tasks were cancelled, what runs included, the last word of each had been said.
fn cancelled_is_cancelled(story: &Story, by_task: &BTreeMap<u64, Vec<(u64, Word)>>, whole: bool) -> std::result::Result<(), String> {
    for &(first, count, last) in &story.cancelled {
        for task in first..first + count {
            let said = by_task.get(&task).and_then(|said| said.first());
            match said {
                Some((n, _)) if *n <= last => {}
                // All of the session was being cancelled: nothing more is told at all.
                None if !whole => {}
                _ => return Err(format!("task {task} was cancelled when delivery {last} was the last, and then came {said:?}")),
            }
        }
    }
    Ok(())
}

/// The last words, counted, are what the ledger says, and the session's state follows from them.
fn agree(job: &JobRow, s: &StageRow, story: &Story, by_task: &BTreeMap<u64, Vec<(u64, Word)>>) -> std::result::Result<(), String> {
    let last: Vec<&Word> = by_task.values().filter_map(|said| said.last().map(|(_, word)| word)).collect();
    let results = last.iter().filter(|w| matches!(w, Word::Result(_))).count() as u64;
    let none = last.iter().filter(|w| ***w == Word::None).count() as u64;
    let cancelled = last.len() as u64 - results - none;
    if (results, none, cancelled) != (s.succeeded, s.failed + s.skipped, s.cancelled) || last.len() != story.tasks.len() {
        let untold: BTreeSet<u64> = (0..story.tasks.len() as u64).filter(|t| !by_task.contains_key(t)).collect();
        return Err(format!(
            "{results} results, {none} without, {cancelled} cancelled were told, {untold:?} not at all; the ledger: {s:?}"
        ));
    }
    let stopped = job.reason.contains("used up") && !job.reason.contains("tasks is used up");
    let good = s.failed + s.skipped == 0 && (s.cancelled == 0 || !stopped);
    if (job.state == JobState::Succeeded) != good {
        return Err(format!("it is {:?}: {job:?} {s:?}", job.state));
    }
    Ok(())
}

/// A session ends because somebody ends it, or because its terms say so.
fn ended_for_a_reason(plan: &SessionPlan, job: &JobRow, s: &StageRow) -> std::result::Result<(), String> {
    let terms = plan.terms();
    let b = &terms.budget;
    let limited = b.failures.is_some() || b.engine_time.is_some() || b.wall.is_some() || b.tasks.is_some();
    let asked = plan.steps.iter().any(|(_, step)| *step == super::Step::CancelAll);
    if !job.reason.is_empty() && !limited && plan.ending == Ending::Closed {
        return Err(format!("nobody wanted it to end by itself: {job:?}"));
    }
    if plan.ending == Ending::Idle && job.reason.is_empty() && !asked {
        return Err(format!("it was idle, and does not say so: {job:?}"));
    }
    if job.state == JobState::Cancelled && !asked && job.reason.is_empty() {
        return Err(format!("nobody cancelled it: {job:?}"));
    }
    // One that is closed may have met it with its last task.
    match b.failures {
        Some(most) if s.failed >= most && job.reason.is_empty() && !asked && plan.ending != Ending::Closed => {
            Err(format!("{} tasks failed, and it went on: {job:?}", s.failed))
        }
        _ => Ok(()),
    }
}
