//! Cancelling single tasks of a session.
//!
//! A task that no worker can have begun is cancelled at once. Of one that is released nobody knows here whether it has begun, so there are
//! two ways to ask. With `running` it is settled as cancelled now: the first word counts, so whatever its worker reports of it afterwards
//! does not, and the worker is told to stop it. Without, its worker is asked to let go of it unless it has begun it; it is cancelled when
//! the worker says so, and its result counts when it had begun.

use tidemill_base::{RunSet, Timestamp};

use super::fold::{cancel_runs, settle_runs};
use super::session::{Cancelled, Completion};
use super::{Core, RangeWrite};
use crate::model::Wanted;
use crate::protocol::{MAX_RANGE, Recall};

impl Core {
    /// Somebody gives tasks up; `why` is what those are told who wait for them. Doing it again changes nothing.
    pub(crate) fn on_cancelled_tasks(&mut self, job: &str, tasks: &[(u64, u64)], running: bool, why: &str, now: Timestamp) {
        let Some(entry) = self.jobs.get_mut(job) else { return };
        if entry.wanted == Wanted::Cancel || entry.state.is_final() {
            return;
        }
        let Some(s) = entry.stages.first_mut().filter(|s| s.session.is_some()) else { return };
        let mut wanted = RunSet::new();
        for &(start, len) in tasks {
            wanted.insert_run(start, len.min(s.total.saturating_sub(start)));
        }
        let (mut gone, mut asked) = (RunSet::new(), RunSet::new());
        for (start, len) in wanted.runs() {
            s.pending.within(start, len).for_each(|(start, len)| _ = gone.insert_run(start, len));
            let waiting = s.session.as_mut().map(|session| session.stop_waiting(start, len, &s.skipped)).unwrap_or_default();
            waiting.into_iter().for_each(|task| _ = gone.insert(task));
            let retrying = s.exceptions.range(start..start + len).filter(|(_, e)| e.due.is_some() && !e.dead);
            retrying.for_each(|(task, _)| _ = gone.insert(*task));
        }
        s.pending.subtract(&gone);
        let runs: Vec<(u64, u64)> = gone.runs().collect();
        self.effects.ledger.extend(cancel_runs(s, job, 0, &runs));
        let ranges: Vec<(u64, u64, u64)> = s.outstanding.iter().map(|(id, r)| (*id, r.start, r.len)).collect();
        for (range, start, len) in ranges {
            let named: Vec<(u64, u64)> = wanted.within(start, len).collect();
            if named.is_empty() {
                continue;
            }
            if running {
                let open = settle_runs(s, range, &named);
                self.effects.ledger.extend(cancel_runs(s, job, 0, &open));
                open.iter().for_each(|(start, len)| _ = gone.insert_run(*start, *len));
                self.dirty_ranges.entry((job.to_owned(), 0, range)).or_insert(RangeWrite::Changed);
            } else if let Some(r) = s.outstanding.get(&range) {
                let mut open: RunSet = named.into();
                open.subtract(&r.settled);
                asked.union_with(&open);
            }
        }
        if let Some(session) = s.session.as_mut() {
            session.asked.subtract(&gone);
            session.asked.union_with(&asked);
            session.active = now;
        }
        self.effects.recalls.insert(job.to_owned());
        self.give_up(job, &gone, why);
        self.mark_stage(job, 0);
        self.settle(now);
    }

    /// Tasks that were released and not begun come back: those that somebody has given up meanwhile are cancelled. Returns the others.
    pub(super) fn without_given_up(&mut self, job: &str, stage: u32, runs: &[(u64, u64)]) -> Vec<(u64, u64)> {
        let Some(entry) = self.jobs.get_mut(job) else { return Vec::new() };
        let reason = entry.reason.clone();
        let Some(s) = entry.stages.get_mut(stage as usize) else { return Vec::new() };
        let Some(session) = s.session.as_mut() else { return runs.to_vec() };
        let mut rest: RunSet = runs.to_vec().into();
        let gone = if session.stopped {
            std::mem::take(&mut rest)
        } else {
            let gone: RunSet = runs.iter().flat_map(|(start, len)| session.asked.within(*start, *len)).collect::<Vec<_>>().into();
            rest.subtract(&gone);
            gone
        };
        if gone.is_empty() {
            return runs.to_vec();
        }
        session.asked.subtract(&gone);
        let why = if session.stopped { reason } else { CANCELLED.to_owned() };
        let runs: Vec<(u64, u64)> = gone.runs().collect();
        self.effects.ledger.extend(cancel_runs(s, job, stage, &runs));
        self.give_up(job, &gone, &why);
        rest.runs().collect()
    }

    /// Whether a task that has failed is not to be tried again, since somebody has given it up.
    pub(super) fn is_given_up(&self, job: &str, stage: u32, task: u64) -> bool {
        let session = self.jobs.get(job).and_then(|j| j.stages.get(stage as usize)).and_then(|s| s.session.as_ref());
        session.is_some_and(|s| s.stopped || s.asked.contains(task))
    }

    /// Tells those who wait, and skips those who need what will not come. The tasks are counted already.
    fn give_up(&mut self, job: &str, gone: &RunSet, why: &str) {
        let Some(session) = self.jobs.get_mut(job).and_then(|j| j.stages.first_mut()).and_then(|s| s.session.as_mut()) else { return };
        session.given_up.union_with(gone);
        let needed: Vec<u64> = gone.runs().flat_map(|(start, len)| session.needed(start, len)).collect();
        self.effects.bereft.extend(needed.into_iter().map(|task| (job.to_owned(), task)));
        let mut rest = gone.clone();
        while !rest.is_empty() {
            // A delivery of millions would be a frame of millions.
            let (mut tasks, mut room) = (Vec::new(), MAX_RANGE);
            while room > 0
                && let Some((start, len)) = rest.take_first(room)
            {
                tasks.push((start, len));
                room -= len;
            }
            let cancelled = Some(Cancelled { tasks, message: why.to_owned() });
            self.tell(Completion { job: job.to_owned(), cancelled, ..Completion::default() });
        }
        self.skip_bereft(job);
    }

    /// What workers are to let go of. Tasks of ranges that are over are left out: nobody has them.
    pub(crate) fn recall_of(&self, job: &str) -> Recall {
        let mut recall = Recall::default();
        let Some(s) = self.jobs.get(job).and_then(|j| j.stages.first()) else { return recall };
        let Some(session) = &s.session else { return recall };
        for r in s.outstanding.values() {
            recall.unless_begun.extend(session.asked.within(r.start, r.len));
            recall.at_once.extend(session.given_up.within(r.start, r.len));
        }
        recall
    }

    /// Sessions of which something is to be let go.
    pub(crate) fn recalled_jobs(&self) -> Vec<String> {
        let some =
            |s: &super::StageEntry| s.session.as_ref().is_some_and(|session| !session.asked.is_empty() || !session.given_up.is_empty());
        self.jobs.iter().filter(|(_, j)| j.stages.first().is_some_and(some)).map(|(id, _)| id.clone()).collect()
    }

    /// Ranges of which nothing is wanted any more: if nobody has begun them, nobody need.
    pub(crate) fn unwanted_ranges(&self) -> Vec<(String, u32, u64)> {
        let mut out = Vec::new();
        for (id, job) in &self.jobs {
            let Some(s) = job.stages.first() else { continue };
            let Some(session) = &s.session else { continue };
            if session.asked.is_empty() && session.given_up.is_empty() {
                continue;
            }
            let unwanted = |r: &super::Outstanding| {
                let asked: u64 = session.asked.within(r.start, r.len).map(|(_, len)| len).sum();
                asked == r.unsettled()
            };
            out.extend(s.outstanding.iter().filter(|(_, r)| unwanted(r)).map(|(range, _)| (id.clone(), 0, *range)));
        }
        out
    }
}

/// What those are told who wait for a task that somebody cancelled.
pub(crate) const CANCELLED: &str = "it was cancelled";
