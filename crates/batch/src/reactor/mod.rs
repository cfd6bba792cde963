//! Decides. Plain synchronous code over the state of live jobs: told of commands, reports, workers and the time, it answers with
//! [`Effects`], which the service carries out in an order that survives a crash.
//!
//! Every entry is named `on_` plus what happened; [`Core::tick`] is the passing of time; [`Core::take_effects`] hands over what has
//! to be written and sent.

mod cancel;
mod effects;
mod fold;
mod lifecycle;
mod release;
mod session;
mod state;
mod terms;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tidemill_base::{Env, Result, Timestamp};

pub(crate) use cancel::CANCELLED;
pub use effects::LiveBatch;
pub(crate) use effects::{DeadTask, Effects};
pub(crate) use lifecycle::upstream_of;
pub use session::{Cancelled, DeadResult};
pub(crate) use session::{Completion, SessionRow, SessionState};
pub(crate) use state::{Exception, JobEntry, Outstanding, StageEntry, Sums};

use crate::model::JobState;
use crate::store;

/// What the reactor goes by.
#[derive(Debug, Clone)]
pub struct ReactorSettings {
    /// A range should keep a worker busy for about so long.
    pub target_range: Duration,
    /// So much work is released ahead of what the fleet has finished. Priority, pause and fair share take effect within it.
    pub lead: Duration,
    /// Weight of a user's share; 1 for those not named.
    pub weights: BTreeMap<String, f64>,
}

impl Default for ReactorSettings {
    fn default() -> Self {
        Self { target_range: Duration::from_secs(2), lead: Duration::from_secs(4), weights: BTreeMap::new() }
    }
}

/// What the workers of a class can do at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Capacity {
    /// Live workers.
    pub workers: u32,
    /// Their slots in all.
    pub slots: u32,
}

/// The state of all live jobs.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) settings: ReactorSettings,
    pub(crate) env: Env,
    pub(crate) jobs: BTreeMap<String, JobEntry>,
    capacity: BTreeMap<String, Capacity>,
    /// Virtual time of each user in each class: released work divided by weight. Whoever has the least goes first.
    shares: BTreeMap<Party, f64>,
    /// The same for each lane of such a user: somebody waits for each session, so they take turns; jobs of the user are one lane more, and
    /// go one after the other.
    lanes: BTreeMap<Lane, f64>,
    /// Since when it decides.
    since: Timestamp,
    dirty_jobs: BTreeSet<String>,
    dirty_stages: BTreeSet<(String, u32)>,
    dirty_ranges: BTreeMap<(String, u32, u64), RangeWrite>,
    effects: Effects,
}

/// A class of workers and a user.
type Party = (String, String);
/// And a session of theirs; none: all their jobs.
type Lane = (Party, Option<String>);

/// What the ledger has to learn of a range.
#[derive(Debug, Clone)]
enum RangeWrite {
    New,
    Changed,
    Finished(Outstanding),
}

impl Core {
    pub(crate) fn new(settings: ReactorSettings, env: Env) -> Self {
        Self {
            settings,
            since: env.now(),
            env,
            jobs: BTreeMap::new(),
            capacity: BTreeMap::new(),
            shares: BTreeMap::new(),
            lanes: BTreeMap::new(),
            dirty_jobs: BTreeSet::new(),
            dirty_stages: BTreeSet::new(),
            dirty_ranges: BTreeMap::new(),
            effects: Effects::default(),
        }
    }

    /// The fleet as the heartbeats show it.
    pub(crate) fn on_workers(&mut self, capacity: BTreeMap<String, Capacity>) {
        self.capacity = capacity;
    }

    /// Lets time do its work: starts what is due, releases ranges, finishes what is finished.
    pub(crate) fn tick(&mut self, now: Timestamp) {
        self.start_due(now);
        self.keep_terms(now);
        self.release_due_retries(now);
        self.release(now);
        self.settle(now);
    }

    /// When [`Core::tick`] is next worth calling although nothing has happened; `None`: not before something happens.
    pub(crate) fn next_due(&self) -> Option<Timestamp> {
        let starts = self
            .jobs
            .values()
            .filter(|j| j.state == JobState::Waiting && j.unmet.is_empty() && j.spec.cron.is_none() && !j.cutting)
            .map(|j| j.start_after);
        let retries = self
            .jobs
            .values()
            .filter(|j| j.state == JobState::Running)
            .flat_map(|j| &j.stages)
            .filter_map(|s| s.exceptions.values().filter_map(|e| e.due).min());
        starts.chain(retries).chain(self.next_end()).min()
    }

    /// What has to be written and sent since the last call.
    pub(crate) fn take_effects(&mut self) -> Result<Effects> {
        let mut out = std::mem::take(&mut self.effects);
        for (job, stage, id, write) in std::mem::take(&mut self.dirty_ranges).into_iter().map(|((j, s, r), w)| (j, s, r, w)) {
            let live = self.jobs.get(&job).and_then(|j| j.stages.get(stage as usize)).and_then(|s| s.outstanding.get(&id));
            match (&write, live) {
                (RangeWrite::New, Some(r)) => out.ledger.push(store::range_insert(&job, stage, id, r)?),
                (RangeWrite::Changed, Some(r)) => out.ledger.push(store::range_update(&job, stage, id, r, false)?),
                (RangeWrite::Finished(r), _) => out.ledger.push(store::range_update(&job, stage, id, r, true)?),
                (RangeWrite::New | RangeWrite::Changed, None) => {}
            }
        }
        for (job, stage) in std::mem::take(&mut self.dirty_stages) {
            if let Some(entry) = self.jobs.get(&job).and_then(|j| j.stages.get(stage as usize)) {
                out.ledger.push(store::stage_update(&job, stage, entry)?);
            }
        }
        for job in std::mem::take(&mut self.dirty_jobs) {
            if let Some(entry) = self.jobs.get(&job) {
                out.ledger.push(store::job_update(&job, entry));
                if entry.state.is_final() {
                    out.finished_jobs.push((job.clone(), entry.state));
                }
            }
        }
        // Those that ended, and those that were read back for a command that came to nothing.
        self.jobs.retain(|_, entry| !entry.state.is_final());
        Ok(out)
    }

    fn mark_stage(&mut self, job: &str, stage: u32) {
        self.dirty_stages.insert((job.to_owned(), stage));
    }

    fn mark_job(&mut self, job: &str) {
        self.dirty_jobs.insert(job.to_owned());
    }
}
