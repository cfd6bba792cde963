//! Folds reports: each once, in order.

use std::sync::Arc;

use tidemill_base::Timestamp;
use tidemill_blocks::ledger::Statement;

use super::effects::{DeadTask, LiveBatch};
use super::{Core, DeadResult, Exception, RangeWrite, StageEntry};
use crate::model::{FailureClass, RetrySpec, StageState, TaskColumns, TaskFailure, Wanted};
use crate::protocol::Report;
use crate::store::{self, rows::ExceptionWrite};

impl Core {
    /// The last report of a range that has been folded; `None` if the range is not outstanding (any more).
    pub(crate) fn folded_seq(&self, job: &str, stage: u32, range: u64) -> Option<u64> {
        Some(self.jobs.get(job)?.stages.get(stage as usize)?.outstanding.get(&range)?.folded_seq)
    }

    /// When a range of a session was released, if it is outstanding.
    pub(crate) fn released_at(&self, job: &str, stage: u32, range: u64) -> Option<Timestamp> {
        let s = self.jobs.get(job)?.stages.get(stage as usize)?;
        s.session.as_ref()?;
        Some(s.outstanding.get(&range)?.released_at)
    }

    /// Folds report number `seq` of a range. Reports out of order and of unknown ranges are passed over; the caller reads them from
    /// the table in order.
    pub(crate) fn on_report(&mut self, job: &str, stage: u32, range: u64, seq: u64, report: &Report, now: Timestamp) {
        if self.folded_seq(job, stage, range).is_none_or(|folded| seq != folded + 1) {
            return;
        }
        let columns = TaskColumns::unpack(&report.columns).unwrap_or_else(|e| {
            // The outcomes still count; the statistics of this report are lost, and that is said.
            tracing::error!(job, stage, range, seq, error = %e.chain(), "statistics of a report cannot be read");
            TaskColumns::default()
        });
        let Some(entry) = self.jobs.get_mut(job) else { return };
        let spec = Arc::clone(&entry.spec);
        let (wanted, Some(s)) = (entry.wanted, entry.stages.get_mut(stage as usize)) else { return };
        let rows = columns.len() as u64;
        let slot_us = s.sums.add(&columns);
        if rows > 0 {
            let seen = slot_us as f64 / rows as f64;
            // The more tasks a report speaks of, the more it weighs.
            let weight = if s.mean_us == 0.0 { 1.0 } else { (rows as f64 / 50.0).clamp(0.1, 0.7) };
            s.mean_us += (seen - s.mean_us) * weight;
        }
        let newly = settle_runs(s, range, &report.succeeded);
        let returned = settle_runs(s, range, &report.returned);
        let cancelled = settle_runs(s, range, &report.cancelled);
        let failed: Vec<TaskFailure> =
            report.failed.iter().filter(|f| !settle_runs(s, range, &[(f.task, 1)]).is_empty()).cloned().collect();
        let attempt = s.outstanding.get(&range).map_or(1, |r| r.attempt);
        if let Some(r) = s.outstanding.get_mut(&range) {
            r.folded_seq = seq;
        }

        let mut recovered = Vec::new();
        for &(start, len) in &newly {
            s.succeeded += len;
            recovered.extend(s.exceptions.range(start..start + len).map(|(t, _)| *t));
        }
        for task in recovered {
            s.exceptions.remove(&task);
            self.effects.ledger.push(store::exception_delete(job, stage, task));
        }
        for runs in [&returned, &cancelled] {
            self.take_back(job, stage, runs, wanted, now);
        }
        let retry = &spec.stages[stage as usize].retry;
        let mut dead = Vec::new();
        for failure in &failed {
            if !self.fail(job, stage, retry, failure, attempt, &report.worker, wanted, now) {
                dead.push(DeadResult { task: failure.task, class: Some(failure.class), message: failure.message.clone() });
            }
        }
        self.on_results(job, stage, range, seq, &newly, dead);
        self.finish_range(job, stage, range, report.finished, now);
        if wanted != Wanted::Cancel {
            self.pass_on(job, stage, &newly);
        }
        if !columns.is_empty() {
            self.effects.columns.push(LiveBatch {
                job: job.into(),
                stage,
                range,
                seq,
                worker: report.worker.as_str().into(),
                columns: Arc::new(columns),
            });
        }
        self.mark_stage(job, stage);
    }

    /// A range was taken from whoever had it (cancelled before anybody took it, or delivered too often). All of its reports have
    /// been folded. `lost` says that its unfinished tasks may have killed their workers.
    pub(crate) fn on_range_revoked(&mut self, job: &str, stage: u32, range: u64, lost: bool, now: Timestamp) {
        let Some(entry) = self.jobs.get_mut(job) else { return };
        let spec = Arc::clone(&entry.spec);
        let (wanted, Some(s)) = (entry.wanted, entry.stages.get_mut(stage as usize)) else { return };
        let Some(r) = s.outstanding.get(&range) else { return };
        let attempt = r.attempt;
        let all: Vec<(u64, u64)> = unsettled_runs(r);
        let rest = if wanted == Wanted::Cancel { all.clone() } else { self.without_given_up(job, stage, &all) };
        let single = rest.iter().map(|(_, len)| len).sum::<u64>() == 1;
        let Some(s) = self.jobs.get_mut(job).and_then(|j| j.stages.get_mut(stage as usize)) else { return };
        if wanted == Wanted::Cancel {
            self.effects.ledger.extend(cancel_runs(s, job, stage, &rest));
        } else if lost && single {
            let message = "the worker was lost each time this task was running".to_owned();
            let failure = TaskFailure { task: rest[0].0, class: FailureClass::LostWorker, exit: None, signal: None, message };
            settle_runs(s, range, &rest);
            if !self.fail(job, stage, &spec.stages[stage as usize].retry, &failure, attempt, "", wanted, now) {
                let dead = DeadResult { task: failure.task, class: Some(failure.class), message: failure.message };
                self.on_results(job, stage, range, 0, &[], vec![dead]);
            }
        } else if lost {
            // One of them may be the poison: from now on each goes alone. This is written down, for the next manager must know it too:
            // the range is finished and the tasks are not among the pending, so nothing else tells that they are still to be done.
            for task in rest.iter().flat_map(|(start, len)| *start..start + len) {
                let (class, attempts) = (FailureClass::LostWorker, attempt.saturating_sub(1));
                s.exceptions.insert(task, Exception { attempts, class, due: Some(now), dead: false });
                let message = "the worker was lost each time while this task or others of its range were running".to_owned();
                let failure = TaskFailure { task, class, exit: None, signal: None, message };
                let write = ExceptionWrite { failure: &failure, attempts, worker: "", due: Some(now), at: now };
                self.effects.ledger.push(store::exception_upsert(job, stage, &write));
            }
        } else {
            give_back(s, &rest, now);
        }
        if let Some(s) = self.jobs.get_mut(job).and_then(|j| j.stages.get_mut(stage as usize)) {
            settle_runs(s, range, &all);
        }
        self.finish_range(job, stage, range, true, now);
        self.mark_stage(job, stage);
    }

    /// Tasks came back that were not begun, or were stopped: they are released again, unless nobody wants them any more.
    fn take_back(&mut self, job: &str, stage: u32, runs: &[(u64, u64)], wanted: Wanted, now: Timestamp) {
        let rest = if wanted == Wanted::Cancel { runs.to_vec() } else { self.without_given_up(job, stage, runs) };
        let Some(s) = self.jobs.get_mut(job).and_then(|j| j.stages.get_mut(stage as usize)) else { return };
        if wanted == Wanted::Cancel {
            self.effects.ledger.extend(cancel_runs(s, job, stage, &rest));
        } else {
            give_back(s, &rest, now);
        }
    }

    fn finish_range(&mut self, job: &str, stage: u32, range: u64, finished: bool, now: Timestamp) {
        let Some(entry) = self.jobs.get_mut(job) else { return };
        let (wanted, Some(s)) = (entry.wanted, entry.stages.get_mut(stage as usize)) else { return };
        let write = if finished {
            let Some(r) = s.outstanding.remove(&range) else { return };
            // A worker that finishes a range has settled all of it; should it not have, nothing is lost.
            let rest = unsettled_runs(&r);
            self.take_back(job, stage, &rest, wanted, now);
            self.effects.finished_ranges.push((job.to_owned(), stage, range));
            RangeWrite::Finished(r)
        } else {
            RangeWrite::Changed
        };
        self.dirty_ranges.insert((job.to_owned(), stage, range), write);
    }

    /// Returns whether it will be tried again.
    #[expect(clippy::too_many_arguments, reason = "all of it is the circumstances of one failure")]
    fn fail(
        &mut self,
        job: &str,
        stage: u32,
        retry: &RetrySpec,
        failure: &TaskFailure,
        attempt: u32,
        worker: &str,
        wanted: Wanted,
        now: Timestamp,
    ) -> bool {
        let again = wanted != Wanted::Cancel && may_retry(retry, failure, attempt) && !self.is_given_up(job, stage, failure.task);
        let due = again.then(|| now + retry.policy.delay(attempt, &self.env));
        let Some(s) = self.jobs.get_mut(job).and_then(|j| j.stages.get_mut(stage as usize)) else { return again };
        s.exceptions.insert(failure.task, Exception { attempts: attempt, class: failure.class, due, dead: !again });
        let write = ExceptionWrite { failure, attempts: attempt, worker, due, at: now };
        self.effects.ledger.push(store::exception_upsert(job, stage, &write));
        if !again {
            s.failed += 1;
            self.effects.dead.push(DeadTask { job: job.to_owned(), stage, attempts: attempt, failure: failure.clone() });
            if wanted != Wanted::Cancel {
                self.skip_downstream(job, stage, failure.task, 1);
            }
        }
        again
    }

    /// Streaming stages take each task as soon as the one before has succeeded.
    fn pass_on(&mut self, job: &str, stage: u32, runs: &[(u64, u64)]) {
        for next in self.streaming_from(job, stage) {
            let Some(s) = self.jobs.get_mut(job).and_then(|j| j.stages.get_mut(next as usize)) else { continue };
            for &(start, len) in runs {
                s.skipped.remove_run(start, len);
                s.pending.insert_run(start, len);
            }
            if s.state == StageState::Done && !s.pending.is_empty() {
                s.state = StageState::Open;
                s.finished_at = None;
            }
            self.mark_stage(job, next);
        }
    }

    /// Streaming stages behind this one will not get these tasks.
    pub(super) fn skip_downstream(&mut self, job: &str, stage: u32, start: u64, len: u64) {
        for next in self.streaming_from(job, stage) {
            if let Some(s) = self.jobs.get_mut(job).and_then(|j| j.stages.get_mut(next as usize)) {
                s.skipped.insert_run(start, len);
                // Behind a grouping stage that never opened, nobody knows how many there would have been.
                s.total = s.total.max(start + len);
            }
            self.mark_stage(job, next);
            self.skip_downstream(job, next, start, len);
        }
    }
}

/// Whether a failed attempt is followed by another.
pub(super) fn may_retry(retry: &RetrySpec, failure: &TaskFailure, attempt: u32) -> bool {
    let allowed = retry.attempts_by_class.get(&failure.class).copied().unwrap_or(retry.policy.attempts);
    let never = failure.exit.is_some_and(|code| retry.never_exit_codes.contains(&code));
    retry.classes.contains(&failure.class) && !never && attempt < allowed
}

/// Marks runs of a range settled. Returns the parts of them that lie in the range and were not settled before.
pub(super) fn settle_runs(s: &mut StageEntry, range: u64, runs: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let Some(r) = s.outstanding.get_mut(&range) else { return Vec::new() };
    let mut fresh = tidemill_base::RunSet::new();
    for &(start, len) in runs {
        let (from, until) = (start.max(r.start), start.saturating_add(len).min(r.start + r.len));
        fresh.insert_run(from, until.saturating_sub(from));
    }
    fresh.subtract(&r.settled);
    r.settled.union_with(&fresh);
    fresh.runs().collect()
}

fn unsettled_runs(r: &super::Outstanding) -> Vec<(u64, u64)> {
    let mut rest = tidemill_base::RunSet::from_run(r.start, r.len);
    rest.subtract(&r.settled);
    rest.runs().collect()
}

/// Counts tasks as cancelled. What failed attempts they had behind them is forgotten, and the statements that forget it are returned:
/// a task that will not run again must not be read back as one that waits for its next attempt.
pub(super) fn cancel_runs(s: &mut StageEntry, job: &str, stage: u32, runs: &[(u64, u64)]) -> Vec<Statement> {
    let mut forgotten = Vec::new();
    for &(start, len) in runs {
        s.cancelled += len;
        forgotten.extend(s.exceptions.range(start..start + len).filter(|(_, e)| !e.dead).map(|(t, _)| *t));
    }
    for task in &forgotten {
        s.exceptions.remove(task);
    }
    forgotten.into_iter().map(|task| store::exception_delete(job, stage, task)).collect()
}

/// Makes tasks releasable again: those with failed attempts behind them as retries, the others as if never released.
fn give_back(s: &mut StageEntry, runs: &[(u64, u64)], now: Timestamp) {
    for &(start, len) in runs {
        let retries: Vec<u64> = s.exceptions.range(start..start + len).filter(|(_, e)| !e.dead).map(|(t, _)| *t).collect();
        s.pending.insert_run(start, len);
        for task in retries {
            s.pending.remove_run(task, 1);
            if let Some(e) = s.exceptions.get_mut(&task) {
                e.due = Some(now);
            }
        }
    }
}
