//! Where a task is: with whom, or in which heap.

use tidemill_base::Timestamp;

use super::{Facts, RangeFacts, StageFacts};
use crate::model::ChainMode;
use crate::protocol::{Heartbeat, RunningTask};
use crate::reactor::upstream_of;
use crate::store::read::ExceptionRow;

/// Where a task is.
#[derive(Debug)]
pub(super) enum Place<'a> {
    /// A worker says that it runs it.
    Running(&'a Heartbeat, &'a RunningTask, &'a RangeFacts),
    /// In a range that is in the queue or with a worker.
    Out(&'a RangeFacts),
    /// Failed for good.
    Dead(&'a ExceptionRow),
    /// Waits for its next attempt.
    Retrying(&'a ExceptionRow, Timestamp),
    /// Will not run.
    Skipped,
    /// May be released.
    Pending,
    /// The stage waits for the one before it.
    Blocked,
    /// Waits for the task of this stage that it takes its input from.
    Upstream(u32),
    /// Waits for the results of these tasks of its session.
    Needs(&'a [u64]),
    /// None of these: its outcome has been counted.
    Settled,
}

/// Finds a task. A heartbeat is a moment old, so what the manager has counted goes before it.
pub(super) fn place<'a>(f: &'a Facts, s: &'a StageFacts, task: u64) -> Place<'a> {
    let stage = s.row.stage;
    if let Some(range) = s.ranges.iter().find(|r| r.holds(task)) {
        let running = f.running().find(|(_, t)| t.stage == stage && t.task == task);
        return running.map_or(Place::Out(range), |(w, t)| Place::Running(w, t, range));
    }
    match f.exceptions.get(&(stage, task)) {
        Some(e) if e.dead => return Place::Dead(e),
        Some(e) => return Place::Retrying(e, e.due.unwrap_or(f.now)),
        None => {}
    }
    if s.skipped.contains(task) {
        return Place::Skipped;
    }
    if s.pending.contains(task) {
        return Place::Pending;
    }
    if s.is_blocked() {
        return Place::Blocked;
    }
    if let Some(session) = f.session.as_ref().filter(|session| !session.missing.is_empty() && !s.is_done()) {
        return Place::Needs(&session.missing);
    }
    if let Some((from, ChainMode::Stream)) = upstream_of(&f.spec, stage)
        && let Some(source) = f.stages.get(from as usize)
        && !s.is_done()
        && !matches!(place(f, source, task), Place::Settled)
    {
        return Place::Upstream(from);
    }
    Place::Settled
}
