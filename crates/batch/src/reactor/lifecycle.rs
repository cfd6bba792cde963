//! Jobs and stages come, wait, start, open, are paused or cancelled, and end.

use tidemill_base::{Error, ErrorKind, Result, RunSet, Timestamp};

use super::{Core, JobEntry, StageEntry};
use crate::model::{ChainMode, InputSpec, JobSpec, JobState, StageState, UpstreamPolicy, Wanted};
use crate::protocol::Control;
use crate::store;

impl Core {
    /// Takes a job in: a new one, or one read back from the ledger.
    pub(crate) fn on_job(&mut self, id: &str, entry: JobEntry) {
        self.jobs.entry(id.to_owned()).or_insert(entry);
    }

    /// A job that others wait for has ended.
    pub(crate) fn on_job_ended(&mut self, ended: &str, state: JobState, now: Timestamp) {
        let waiting: Vec<String> = self.jobs.iter().filter(|(_, j)| j.unmet.contains(ended)).map(|(id, _)| id.clone()).collect();
        for id in waiting {
            let Some(job) = self.jobs.get_mut(&id) else { continue };
            if state == JobState::Succeeded {
                job.unmet.remove(ended);
            } else {
                job.reason = format!("job {ended}, which it waits for, has {}", state.as_str());
                self.on_wanted(&id, Wanted::Cancel, now);
            }
        }
    }

    /// Somebody wants the job to run, to pause, or to stop.
    pub(crate) fn on_wanted(&mut self, id: &str, wanted: Wanted, now: Timestamp) {
        let Some(job) = self.jobs.get_mut(id) else { return };
        // A wish that arrives after the end must not be remembered either, or a retry would still find it.
        if job.wanted == Wanted::Cancel || job.state.is_final() {
            return;
        }
        job.wanted = wanted;
        job.state = match (wanted, job.state) {
            (Wanted::Run, JobState::Paused) if job.started_at.is_some() => JobState::Running,
            (Wanted::Run, JobState::Paused) => JobState::Waiting,
            (Wanted::Run, s) => s,
            (Wanted::Pause, _) => JobState::Paused,
            (Wanted::Cancel, _) => JobState::Cancelling,
        };
        self.effects.control.push((id.to_owned(), Control::from(wanted)));
        if wanted == Wanted::Cancel {
            self.drop_unreleased(id);
        }
        self.mark_job(id);
        self.settle(now);
    }

    /// Somebody changed the job's priority.
    pub(crate) fn on_priority(&mut self, id: &str, priority: i32) {
        if let Some(job) = self.jobs.get_mut(id) {
            job.priority = priority;
            self.mark_job(id);
        }
    }

    /// Somebody wants failed tasks tried again; `only` names them by stage and task.
    pub(crate) fn on_retry(&mut self, id: &str, only: Option<&[(u32, u64)]>, now: Timestamp) {
        let Some(job) = self.jobs.get_mut(id) else { return };
        let stopped = job.stages.iter().any(|s| s.session.as_ref().is_some_and(|session| session.stopped));
        if job.wanted == Wanted::Cancel || stopped {
            return;
        }
        let mut revived: Vec<(u32, u64)> = Vec::new();
        for (stage, s) in (0_u32..).zip(&mut job.stages) {
            for (&task, e) in s.exceptions.iter_mut().filter(|(_, e)| e.dead) {
                if only.is_none_or(|o| o.contains(&(stage, task))) {
                    e.dead = false;
                    e.due = Some(now);
                    s.failed -= 1;
                    revived.push((stage, task));
                }
            }
            if revived.last().is_some_and(|r| r.0 == stage) {
                s.state = StageState::Open;
                s.finished_at = None;
            }
        }
        if revived.is_empty() {
            return;
        }
        if job.state.is_final() {
            job.state = JobState::Running;
            // It may have come to its end while it was paused; workers would hand everything back.
            job.wanted = Wanted::Run;
            self.effects.control.push((id.to_owned(), Control::Run));
        }
        job.finished_at = None;
        job.reason.clear();
        for &(stage, task) in &revived {
            self.effects.ledger.push(store::exception_revive(id, stage, task, now));
            self.unskip_downstream(id, stage, task, 1);
            self.unskip_dependents(id, task);
            if self.jobs.get(id).is_some_and(|job| job.spec.is_session()) {
                self.effects.recalls.insert(id.to_owned());
            }
            self.mark_stage(id, stage);
        }
        self.mark_job(id);
    }

    /// The tasks of a grouping stage have been found, and with them the totals of stages behind it: `(stage, total)`, it first.
    pub(crate) fn on_stage_opened(&mut self, id: &str, totals: &[(u32, u64)]) {
        let Some(job) = self.jobs.get_mut(id) else { return };
        if job.wanted != Wanted::Cancel && !job.reason.is_empty() {
            // It could not be opened before.
            job.reason.clear();
            self.dirty_jobs.insert(id.to_owned());
        }
        for (at, &(stage, total)) in totals.iter().enumerate() {
            let Some(s) = job.stages.get_mut(stage as usize) else { continue };
            s.total = total;
            if at == 0 {
                s.opening = false;
                s.pending = RunSet::from_run(0, total);
                s.state = StageState::Open;
            }
            self.dirty_stages.insert((id.to_owned(), stage));
        }
        // Cancelled meanwhile: only now is it known how many tasks that were.
        if job.wanted == Wanted::Cancel {
            self.drop_unreleased(id);
        }
    }

    /// The tasks of a grouping stage cannot be found: not now, which is tried again, or not ever.
    pub(crate) fn on_stage_unopenable(&mut self, id: &str, stage: u32, why: &Error, now: Timestamp) {
        let Some(job) = self.jobs.get_mut(id) else { return };
        job.reason = format!("stage {}: {}", job.spec.stages[stage as usize].name, why.chain());
        job.stages[stage as usize].opening = false;
        self.mark_job(id);
        if why.kind() != ErrorKind::Unavailable {
            self.on_wanted(id, Wanted::Cancel, now);
        }
    }

    /// The inputs of a job that was due have been cut into tasks, or cannot be.
    pub(crate) fn on_job_cut(&mut self, id: &str, outcome: Result<Vec<StageEntry>>, now: Timestamp) {
        let Some(job) = self.jobs.get_mut(id) else { return };
        job.cutting = false;
        match outcome {
            Ok(stages) => {
                job.stages = stages;
                job.cut = true;
                job.reason.clear();
            }
            // It stays due, so it is tried again.
            Err(e) if e.kind() == ErrorKind::Unavailable => job.reason = format!("its inputs cannot be read now: {}", e.chain()),
            Err(e) => {
                job.reason = e.chain();
                job.state = JobState::Failed;
                job.finished_at = Some(now);
                self.on_job_ended(id, JobState::Failed, now);
            }
        }
        let stages = self.jobs.get(id).map_or(0, |j| j.stages.len());
        for stage in 0..u32::try_from(stages).unwrap_or(0) {
            self.mark_stage(id, stage);
        }
        self.mark_job(id);
    }

    pub(super) fn start_due(&mut self, now: Timestamp) {
        let due: Vec<String> = self
            .jobs
            .iter()
            .filter(|(_, j)| j.state == JobState::Waiting && j.spec.cron.is_none() && j.start_after <= now && j.unmet.is_empty())
            .map(|(id, _)| id.clone())
            .collect();
        for id in due {
            match self.jobs.get_mut(&id) {
                Some(job) if job.cut => {
                    job.state = JobState::Running;
                    job.started_at = Some(now);
                    self.mark_job(&id);
                }
                Some(job) if !job.cutting => {
                    job.cutting = true;
                    self.effects.cut.push(id);
                }
                _ => {}
            }
        }
    }

    /// Ends stages and jobs that have nothing left to do, and opens the stages behind them.
    pub(super) fn settle(&mut self, now: Timestamp) {
        let ids: Vec<String> = self
            .jobs
            .iter()
            .filter(|(_, j)| matches!(j.state, JobState::Running | JobState::Cancelling | JobState::Paused))
            .map(|(id, _)| id.clone())
            .collect();
        for id in ids {
            // One before it may have ended it: a job that it waits for.
            if self.jobs.get(&id).is_none_or(|j| j.state.is_final()) {
                continue;
            }
            let stages = self.jobs.get(&id).map_or(0, |j| j.stages.len());
            for stage in 0..u32::try_from(stages).unwrap_or(u32::MAX) {
                self.settle_stage(&id, stage, now);
            }
            self.settle_job(&id, now);
        }
    }

    fn settle_stage(&mut self, id: &str, stage: u32, now: Timestamp) {
        let Some(job) = self.jobs.get_mut(id) else { return };
        let cancelling = job.wanted == Wanted::Cancel;
        let upstream = upstream_of(&job.spec, stage).map(|(from, mode)| (from, mode.clone()));
        if let Some((from, mode)) = upstream {
            let source = &job.stages[from as usize];
            let (source_done, source_clean, source_kept) = (source.state == StageState::Done, source.is_clean(), source.succeeded);
            let policy = job.spec.stages[stage as usize].upstream;
            let s = &mut job.stages[stage as usize];
            if mode != ChainMode::Stream && !cancelling && source_done && !s.opening {
                let runnable = source_clean || (policy == UpstreamPolicy::TakeWhatSucceeded && source_kept > 0);
                let untouched =
                    s.state == StageState::Blocked || (s.state == StageState::Done && !s.skipped.is_empty() && s.succeeded + s.failed == 0);
                if runnable && untouched {
                    s.finished_at = None;
                    let unskipped = std::mem::take(&mut s.skipped);
                    if matches!(mode, ChainMode::Group { .. }) {
                        s.opening = true;
                        s.state = StageState::Blocked;
                        self.effects.open.push((id.to_owned(), stage));
                    } else {
                        s.state = StageState::Open;
                        s.pending = RunSet::from_run(0, s.total);
                    }
                    self.mark_stage(id, stage);
                    for (start, len) in unskipped.runs() {
                        self.unskip_downstream(id, stage, start, len);
                    }
                } else if !runnable && s.state == StageState::Blocked {
                    // Not knowing how many groups there would have been, one stands for them.
                    s.total = s.total.max(1);
                    let total = s.total;
                    s.skipped = RunSet::from_run(0, total);
                    s.state = StageState::Open;
                    self.mark_stage(id, stage);
                    self.skip_downstream(id, stage, 0, total);
                }
            }
        }
        let Some(s) = self.jobs.get_mut(id).and_then(|j| j.stages.get_mut(stage as usize)) else { return };
        if s.state == StageState::Open && s.is_complete() {
            s.state = StageState::Done;
            s.finished_at = Some(now);
            self.mark_stage(id, stage);
        }
    }

    fn settle_job(&mut self, id: &str, now: Timestamp) {
        let Some(job) = self.jobs.get_mut(id) else { return };
        let cancelling = job.state == JobState::Cancelling;
        let idle = job.stages.iter().all(|s| s.outstanding.is_empty() && !s.opening);
        let state = if cancelling {
            if !idle {
                return;
            }
            JobState::Cancelled
        } else if job.stages.iter().all(|s| s.state == StageState::Done) {
            if job.stages.iter().all(StageEntry::is_clean) { JobState::Succeeded } else { JobState::Failed }
        } else {
            return;
        };
        job.state = state;
        job.finished_at = Some(now);
        if cancelling {
            for (stage, s) in (0_u32..).zip(&mut job.stages) {
                if s.state != StageState::Done {
                    s.state = StageState::Done;
                    s.finished_at = Some(now);
                    self.dirty_stages.insert((id.to_owned(), stage));
                }
            }
        }
        self.mark_job(id);
        self.on_job_ended(id, state, now);
    }

    /// Counts everything that is not with a worker as cancelled.
    fn drop_unreleased(&mut self, id: &str) {
        let Some(job) = self.jobs.get_mut(id) else { return };
        let mut changed = Vec::new();
        for (stage, s) in (0_u32..).zip(&mut job.stages) {
            s.pending = RunSet::new();
            if let Some(session) = &mut s.session {
                session.open = false;
                session.forget_waiting();
            }
            let waiting: Vec<u64> = s.exceptions.iter().filter(|(_, e)| e.due.is_some()).map(|(t, _)| *t).collect();
            for task in waiting {
                s.exceptions.remove(&task);
                changed.push((stage, Some(task)));
            }
            s.cancelled = s.total.saturating_sub(s.succeeded + s.failed + s.skipped.len() + s.outstanding_tasks());
            changed.push((stage, None));
        }
        for (stage, task) in changed {
            if let Some(task) = task {
                self.effects.ledger.push(store::exception_delete(id, stage, task));
            }
            self.mark_stage(id, stage);
        }
    }

    /// Stages that take this one's tasks one by one.
    pub(super) fn streaming_from(&self, id: &str, stage: u32) -> Vec<u32> {
        let Some(job) = self.jobs.get(id) else { return Vec::new() };
        let followers = (0..u32::try_from(job.stages.len()).unwrap_or(0))
            .filter(|&s| matches!(upstream_of(&job.spec, s), Some((from, ChainMode::Stream)) if from == stage));
        followers.collect()
    }

    fn unskip_downstream(&mut self, id: &str, stage: u32, start: u64, len: u64) {
        for next in self.streaming_from(id, stage) {
            if let Some(s) = self.jobs.get_mut(id).and_then(|j| j.stages.get_mut(next as usize)) {
                s.skipped.remove_run(start, len);
                if s.state == StageState::Done {
                    s.state = StageState::Open;
                    s.finished_at = None;
                }
            }
            self.mark_stage(id, next);
            self.unskip_downstream(id, next, start, len);
        }
    }
}

/// The stage that a stage takes its input from, and how.
pub(crate) fn upstream_of(spec: &JobSpec, stage: u32) -> Option<(u32, &ChainMode)> {
    match &spec.stages.get(stage as usize)?.input {
        InputSpec::Stage { stage: name, mode } => {
            let from = spec.stages.iter().position(|s| &s.name == name)?;
            Some((u32::try_from(from).ok()?, mode))
        }
        _ => None,
    }
}
