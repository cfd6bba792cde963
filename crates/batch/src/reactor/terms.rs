//! Sessions that end by themselves: they are idle, their client has gone, or what they may do is done.

use std::time::Duration;

use tidemill_base::{HumanDuration, Timestamp};

use super::{Core, JobEntry, StageEntry};
use crate::model::{Budget, JobState, OnAbandon, OnBudget, Terms, Wanted};

/// A manager that has just begun to lead gives everybody so long to be heard of: while nobody led, nobody could be.
const GRACE: Duration = Duration::from_secs(60);

/// How a session ends by itself.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// It takes no more, and what it has is done.
    Close(String),
    /// It takes no more, what has not begun is not run, and what runs ends as it ends.
    Stop(String),
    /// All of it is stopped.
    Cancel(String),
}

impl Core {
    /// The client of a session was heard of: it has submitted, read, or said that it is there.
    pub(crate) fn on_seen(&mut self, job: &str, at: Timestamp) {
        let Some(session) = self.jobs.get_mut(job).and_then(|j| j.stages.first_mut()).and_then(|s| s.session.as_mut()) else { return };
        session.seen = session.seen.max(at);
    }

    /// Ends the sessions whose terms say so.
    pub(super) fn keep_terms(&mut self, now: Timestamp) {
        let ends: Vec<(String, End)> = self.jobs.iter().filter_map(|(id, j)| Some((id.clone(), end_of(j, self.since, now)?))).collect();
        for (id, end) in ends {
            let (End::Close(why) | End::Stop(why) | End::Cancel(why)) = &end;
            tracing::info!(session = id, why, "a session ends by itself");
            if let Some(job) = self.jobs.get_mut(&id) {
                job.reason.clone_from(why);
                if let Some(session) = job.stages.first_mut().and_then(|s| s.session.as_mut()) {
                    session.stopped = matches!(end, End::Stop(_));
                    session.closing = session.open && !matches!(end, End::Cancel(_));
                    if session.closing {
                        self.effects.closings.push(id.clone());
                    }
                }
            }
            match &end {
                End::Close(_) => {}
                End::Stop(why) => self.on_cancelled_tasks(&id, &[(0, u64::MAX)], false, why, now),
                End::Cancel(_) => self.on_wanted(&id, Wanted::Cancel, now),
            }
            self.mark_job(&id);
            self.mark_stage(&id, 0);
        }
    }

    /// When the next session may end by itself.
    pub(super) fn next_end(&self) -> Option<Timestamp> {
        self.jobs.values().filter_map(|j| next_look(j, self.since)).min()
    }

    /// Whether anybody's being heard of matters.
    pub(crate) fn listens(&self) -> bool {
        self.jobs.values().any(|j| matches!(parts(j), Some((t, _)) if t.keep_alive.is_some() || t.idle_timeout.is_some()))
    }
}

/// The terms and the stage of a session that has not ended.
fn parts(job: &JobEntry) -> Option<(&Terms, &StageEntry)> {
    let live = matches!(job.state, JobState::Waiting | JobState::Running | JobState::Paused);
    let stage = job.stages.first().filter(|s| live && s.session.as_ref().is_some_and(|session| !session.stopped && !session.closing))?;
    Some((job.spec.terms()?, stage))
}

fn end_of(job: &JobEntry, since: Timestamp, now: Timestamp) -> Option<End> {
    let (terms, stage) = parts(job)?;
    let session = stage.session.as_ref()?;
    if stage.is_complete() {
        return None;
    }
    if let Some(why) = used_up(&terms.budget, job.submitted_at, stage, now) {
        return Some(if terms.budget.on_met == OnBudget::Cancel { End::Cancel(why) } else { End::Stop(why) });
    }
    if !session.takes_tasks() {
        return None;
    }
    if let Some(limit) = terms.keep_alive
        && now >= session.seen.max(since + GRACE) + limit.0
    {
        let why = format!("its client was not heard of for {limit}, which is its keep_alive");
        return Some(if terms.on_abandon == OnAbandon::Close { End::Close(why) } else { End::Cancel(why) });
    }
    if let Some(tasks) = terms.budget.tasks.filter(|tasks| stage.total >= *tasks) {
        return Some(End::Close(format!("its budget of {tasks} tasks is used up")));
    }
    let limit = terms.idle_timeout.filter(|_| stage.has_nothing_to_do())?;
    let idle_since = session.seen.max(session.active).max(since + GRACE.min(limit.0));
    (now >= idle_since + limit.0).then(|| End::Close(format!("there was nothing to do, and nobody submitted or read, for {limit}")))
}

/// What of a budget is used up, in words, if anything is.
fn used_up(budget: &Budget, opened: Timestamp, stage: &StageEntry, now: Timestamp) -> Option<String> {
    if let Some(most) = budget.failures.filter(|most| stage.failed >= *most) {
        return Some(format!("its budget of {most} failures is used up: {} tasks have failed", stage.failed));
    }
    let used = Duration::from_micros(stage.sums.run_us);
    if let Some(most) = budget.engine_time.filter(|most| used >= most.0) {
        return Some(format!("its budget of {most} in engines is used up: they took {}", HumanDuration(used)));
    }
    budget.ends_at(opened).filter(|end| now >= *end).map(|end| match (budget.wall, budget.deadline) {
        (_, Some(deadline)) if deadline == end => format!("its deadline, {deadline}, has passed"),
        (wall, _) => format!("its budget of {} since it was opened is used up", wall.unwrap_or_default()),
    })
}

fn next_look(job: &JobEntry, since: Timestamp) -> Option<Timestamp> {
    let (terms, stage) = parts(job)?;
    let session = stage.session.as_ref()?;
    let idle = terms.idle_timeout.filter(|_| session.open && stage.has_nothing_to_do());
    let idle = idle.map(|limit| session.seen.max(session.active).max(since + GRACE.min(limit.0)) + limit.0);
    let gone = terms.keep_alive.filter(|_| session.open).map(|limit| session.seen.max(since + GRACE) + limit.0);
    terms.budget.ends_at(job.submitted_at).into_iter().chain(idle).chain(gone).min()
}
