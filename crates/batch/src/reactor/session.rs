//! What a stage has beside the usual when it takes submissions: it is open until somebody closes it, its tasks may need the results of
//! others, and whoever waits for results is told of them in the order in which they were folded.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tidemill_base::{RunSet, Timestamp};

use super::{Core, StageEntry};
use crate::model::{FailureClass, Wanted};
use crate::protocol::ResultAt;

/// Tasks that a range of a session has at most when some of them need results: each of those is named in the message.
const MAX_NEEDY_RANGE: u64 = 256;

/// The state of a session's stage.
#[derive(Debug, Clone, Default)]
pub(crate) struct SessionState {
    /// More may be submitted.
    pub open: bool,
    /// It ends by itself, and that is about to be written down.
    pub closing: bool,
    /// A budget is used up: what has not begun is not run.
    pub stopped: bool,
    /// So many tasks had been submitted when it was closed. It is not over before it has heard of all of them.
    pub expected: u64,
    /// How many completions there have been; the last one's number.
    pub completions: u64,
    /// Tasks that were cancelled one by one. Whatever is said of them afterwards does not count.
    pub given_up: RunSet,
    /// Tasks that are given up unless a worker has begun them, which it has not said yet.
    pub asked: RunSet,
    /// Tasks that wait for results, and how many of those are missing.
    pub blocked: BTreeMap<u64, u32>,
    /// When its client was last heard of.
    pub seen: Timestamp,
    /// When something was last done in it.
    pub active: Timestamp,
    /// What tasks need that have not succeeded.
    needs: BTreeMap<u64, Vec<u64>>,
    /// Who waits for a task's result.
    dependents: BTreeMap<u64, Vec<u64>>,
    /// Where results are: the first task of a run, its length, and the report.
    results: BTreeMap<u64, (u64, u64, u64)>,
}

/// What of it is kept in the stage's row. The rest follows from submissions and completions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SessionRow {
    pub open: bool,
    pub completions: u64,
    pub stopped: bool,
    pub expected: u64,
    pub given_up: RunSet,
    pub asked: RunSet,
}

/// Something that those who wait for results are told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Completion {
    pub job: String,
    pub stage: u32,
    /// Grows by one from 1 within the session.
    pub n: u64,
    /// The report that holds the results; its number is 0 when there is none.
    pub range: u64,
    pub seq: u64,
    /// Runs of tasks that succeeded.
    pub succeeded: Vec<(u64, u64)>,
    /// Tasks that will not succeed unless somebody asks for a retry.
    pub dead: Vec<DeadResult>,
    /// Tasks that will never have a result, if there are any.
    pub cancelled: Option<Cancelled>,
}

/// Tasks that were cancelled together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancelled {
    /// Runs of tasks.
    pub tasks: Vec<(u64, u64)>,
    /// What is said of it.
    pub message: String,
}

/// A task without a result, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadResult {
    /// The task.
    pub task: u64,
    /// How it failed; `None`: it was not run, since a result that it needs is missing.
    pub class: Option<FailureClass>,
    /// What is said of it.
    pub message: String,
}

impl SessionState {
    /// As it was kept. `now` stands for what nobody wrote down: when it was last heard of.
    pub(crate) fn new(row: SessionRow, now: Timestamp) -> Self {
        Self {
            open: row.open,
            completions: row.completions,
            stopped: row.stopped,
            expected: row.expected,
            given_up: row.given_up,
            asked: row.asked,
            seen: now,
            active: now,
            ..Self::default()
        }
    }

    /// As it is kept.
    pub(crate) fn row(&self) -> SessionRow {
        SessionRow {
            open: self.open,
            completions: self.completions,
            stopped: self.stopped,
            expected: self.expected,
            given_up: self.given_up.clone(),
            asked: self.asked.clone(),
        }
    }

    /// Whether a submission would be taken.
    pub(crate) const fn takes_tasks(&self) -> bool {
        self.open && !self.closing && !self.stopped
    }

    /// Notes where results are.
    pub(crate) fn found(&mut self, runs: &[(u64, u64)], range: u64, seq: u64) {
        for &(start, len) in runs {
            self.results.insert(start, (len, range, seq));
        }
    }

    /// Where a task's result is, if it has one.
    pub(crate) fn result_of(&self, task: u64) -> Option<ResultAt> {
        // A task has at most one result that counts, so the nearest run that begins before it is the one, if any is.
        let (start, &(len, range, seq)) = self.results.range(..=task).next_back()?;
        (task < start + len).then_some(ResultAt { task, range, seq })
    }

    /// What the tasks of a run need, for the worker that gets them.
    pub(crate) fn needs_of(&self, start: u64, len: u64) -> Vec<(u64, Vec<ResultAt>)> {
        let needy = self.needs.range(start..start + len);
        needy.map(|(task, needs)| (*task, needs.iter().filter_map(|n| self.result_of(*n)).collect())).collect()
    }

    /// Takes in what a task needs. Returns whether it has to wait.
    pub(crate) fn needs(&mut self, task: u64, needs: Vec<u64>) -> bool {
        let missing: Vec<u64> = needs.iter().copied().filter(|n| self.result_of(*n).is_none()).collect();
        for needed in &missing {
            self.dependents.entry(*needed).or_default().push(task);
        }
        self.needs.insert(task, needs);
        if missing.is_empty() {
            return false;
        }
        self.blocked.insert(task, u32::try_from(missing.len()).unwrap_or(u32::MAX));
        true
    }

    /// Results have come: the tasks that need nothing more.
    fn unblock(&mut self, runs: &[(u64, u64)]) -> Vec<u64> {
        let mut free = Vec::new();
        for &(start, len) in runs {
            let met: Vec<u64> = self.dependents.range(start..start + len).map(|(t, _)| *t).collect();
            for needed in met {
                for task in self.dependents.remove(&needed).unwrap_or_default() {
                    let Some(missing) = self.blocked.get_mut(&task) else { continue };
                    *missing -= 1;
                    if *missing == 0 {
                        self.blocked.remove(&task);
                        free.push(task);
                    }
                }
            }
            let done: Vec<u64> = self.needs.range(start..start + len).map(|(t, _)| *t).collect();
            for task in done {
                self.needs.remove(&task);
            }
        }
        free
    }

    /// Everybody who needs the result of one of these, directly or through others, with the one that is missing. They stay known: a
    /// retry may yet bring the result.
    fn bereft(&self, of: u64) -> Vec<(u64, u64)> {
        let (mut open, mut out) = (vec![of], Vec::new());
        let mut seen = RunSet::new();
        while let Some(missing) = open.pop() {
            for &task in self.dependents.get(&missing).into_iter().flatten() {
                if seen.insert(task) {
                    out.push((task, missing));
                    open.push(task);
                }
            }
        }
        out
    }

    /// Tasks of a run whose results somebody waits for.
    pub(super) fn needed(&self, start: u64, len: u64) -> Vec<u64> {
        self.dependents.range(start..start + len).map(|(task, _)| *task).collect()
    }

    /// Whether a task needs nothing that is lost.
    fn needs_nothing_lost(&self, task: u64, lost: impl Fn(u64) -> bool) -> bool {
        !self.needs.get(&task).into_iter().flatten().any(|needed| lost(*needed))
    }

    /// Lets go of tasks of a run that wait for results, and says which.
    pub(super) fn stop_waiting(&mut self, start: u64, len: u64, except: &RunSet) -> Vec<u64> {
        let waiting: Vec<u64> = self.blocked.range(start..start + len).map(|(t, _)| *t).filter(|t| !except.contains(*t)).collect();
        for task in &waiting {
            self.blocked.remove(task);
            self.needs.remove(task);
        }
        waiting
    }

    /// The most tasks that the next range may have.
    pub(crate) fn longest(&self, start: u64, len: u64) -> u64 {
        if self.needs.range(start..start + len).next().is_some() { len.min(MAX_NEEDY_RANGE) } else { len }
    }

    /// Forgets who waits: the session was cancelled.
    pub(crate) fn forget_waiting(&mut self) {
        self.blocked.clear();
        self.dependents.clear();
        self.needs.clear();
        self.asked = RunSet::new();
    }
}

impl StageEntry {
    /// More may come, or has come and is not known of yet.
    pub(crate) fn is_open_ended(&self) -> bool {
        self.session.as_ref().is_some_and(|s| s.open || self.total < s.expected)
    }

    /// Whether a task will have no result, as things are.
    fn is_lost(&self, task: u64) -> bool {
        let given_up = self.session.as_ref().is_some_and(|s| s.given_up.contains(task));
        given_up || self.skipped.contains(task) || self.exceptions.get(&task).is_some_and(|e| e.dead)
    }
}

impl Core {
    /// Tasks were submitted. `needs` names those that need results, with the tasks that make them.
    pub(crate) fn on_submitted(&mut self, job: &str, first: u64, count: u64, needs: Vec<(u64, Vec<u64>)>, now: Timestamp) {
        let Some(entry) = self.jobs.get_mut(job) else { return };
        let cancelled = entry.wanted == Wanted::Cancel;
        let Some(s) = entry.stages.first_mut() else { return };
        let Some(session) = s.session.as_mut() else { return };
        s.total = s.total.max(first + count);
        (session.seen, session.active) = (session.seen.max(now), now);
        let stopped = session.stopped;
        if cancelled {
            s.cancelled += count;
        } else {
            s.pending.insert_run(first, count);
            let mut dead = Vec::new();
            for (task, needs) in needs {
                let lost = needs.iter().copied().find(|n| s.is_lost(*n));
                if s.session.as_mut().is_some_and(|session| session.needs(task, needs)) {
                    s.pending.remove_run(task, 1);
                }
                dead.extend(lost);
            }
            self.effects.bereft.extend(dead.into_iter().map(|missing| (job.to_owned(), missing)));
        }
        self.mark_stage(job, 0);
        if stopped && !cancelled {
            // They were on their way when it was stopped.
            let why = self.jobs.get(job).map(|entry| entry.reason.clone()).unwrap_or_default();
            self.on_cancelled_tasks(job, &[(first, count)], false, &why, now);
        }
        self.skip_bereft(job);
        self.settle(now);
    }

    /// What tasks need, read back: those that have succeeded need nothing any more, those that were given up do not either, and in a
    /// session that is being cancelled nobody waits: those who did are counted as cancelled. What was submitted and not heard of yet
    /// comes by its command, and must not be counted twice.
    pub(crate) fn on_needs_read(&mut self, job: &str, needs: Vec<(u64, Vec<u64>)>) {
        let Some(entry) = self.jobs.get_mut(job).filter(|entry| entry.wanted != Wanted::Cancel) else { return };
        let Some(s) = entry.stages.first_mut() else { return };
        let Some(session) = s.session.as_mut() else { return };
        for (task, needs) in needs.into_iter().filter(|(task, _)| *task < s.total) {
            if session.result_of(task).is_none() && !session.given_up.contains(task) {
                session.needs(task, needs);
            }
        }
    }

    /// Nothing more will be submitted than the first `expected` tasks.
    pub(crate) fn on_closed(&mut self, job: &str, expected: u64, now: Timestamp) {
        let Some(session) = self.jobs.get_mut(job).and_then(|j| j.stages.first_mut()).and_then(|s| s.session.as_mut()) else { return };
        (session.open, session.closing, session.expected) = (false, false, expected);
        self.mark_stage(job, 0);
        self.settle(now);
    }

    /// A report of a session's range was folded: tells those who wait, and lets go of those who waited for its results.
    pub(super) fn on_results(&mut self, job: &str, stage: u32, range: u64, seq: u64, succeeded: &[(u64, u64)], dead: Vec<DeadResult>) {
        let now = self.env.now();
        let Some(s) = self.jobs.get_mut(job).and_then(|j| j.stages.get_mut(stage as usize)) else { return };
        let Some(session) = s.session.as_mut() else { return };
        session.active = now;
        session.found(succeeded, range, seq);
        for task in session.unblock(succeeded) {
            s.skipped.remove_run(task, 1);
            s.pending.insert(task);
        }
        succeeded.iter().for_each(|(start, len)| _ = session.asked.remove_run(*start, *len));
        dead.iter().for_each(|d| _ = session.asked.remove_run(d.task, 1));
        self.effects.bereft.extend(dead.iter().map(|d| (job.to_owned(), d.task)));
        self.tell(Completion { job: job.to_owned(), stage, range, seq, succeeded: succeeded.to_vec(), dead, ..Completion::default() });
        self.skip_bereft(job);
    }

    /// Gives what happened the next number of its session.
    pub(super) fn tell(&mut self, completion: Completion) {
        let stage = self.jobs.get_mut(&completion.job).and_then(|j| j.stages.get_mut(completion.stage as usize));
        let Some(session) = stage.and_then(|s| s.session.as_mut()) else { return };
        if completion.succeeded.is_empty() && completion.dead.is_empty() && completion.cancelled.is_none() {
            return;
        }
        session.completions += 1;
        self.effects.completions.push(Completion { n: session.completions, ..completion });
    }

    /// Tasks that need the result of one that failed for good are skipped, and those who wait for them are told.
    pub(super) fn skip_bereft(&mut self, job: &str) {
        let (own, others): (Vec<_>, Vec<_>) = std::mem::take(&mut self.effects.bereft).into_iter().partition(|(j, _)| j == job);
        self.effects.bereft = others;
        let mut dead = Vec::new();
        for (_, missing) in own {
            let Some(s) = self.jobs.get_mut(job).and_then(|j| j.stages.first_mut()) else { return };
            let Some(session) = s.session.as_ref() else { return };
            for (task, because) in session.bereft(missing) {
                if !session.given_up.contains(task) && s.skipped.insert(task) {
                    let how = if session.given_up.contains(because) { "was cancelled" } else { "has failed" };
                    dead.push(DeadResult { task, class: None, message: format!("task {because}, whose result it needs, {how}") });
                }
            }
        }
        if !dead.is_empty() {
            self.tell(Completion { job: job.to_owned(), dead, ..Completion::default() });
            self.mark_stage(job, 0);
        }
    }

    /// A task that had failed for good is tried again: those who need it wait again, unless they need another that is lost.
    pub(super) fn unskip_dependents(&mut self, job: &str, task: u64) {
        let Some(s) = self.jobs.get_mut(job).and_then(|j| j.stages.first_mut()) else { return };
        let Some(session) = &s.session else { return };
        let mut waiting: Vec<u64> = session.bereft(task).into_iter().map(|(task, _)| task).collect();
        // A task needs only tasks before it, so that in their order each finds its needs as they are now.
        waiting.sort_unstable();
        for waiting in waiting {
            if s.session.as_ref().is_some_and(|session| session.needs_nothing_lost(waiting, |needed| s.is_lost(needed))) {
                s.skipped.remove_run(waiting, 1);
            }
        }
    }
}
