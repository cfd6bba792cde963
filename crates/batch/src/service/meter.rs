//! What the leader sees of sessions and their engines, as metrics.
//!
//! Labels have few values, all known here: no session, user, worker or package has one of its own, so that a year of sessions is as many
//! series as one. What is about one session is in SQL. Only the leader counts, and so each thing is counted once however many managers
//! there are; a counter begins anew when another one leads, as it does when a process is started again.

use std::collections::BTreeMap;

use metrics::{counter, gauge, histogram};
use tidemill_base::Timestamp;

use crate::model::JobState;
use crate::protocol::{EngineCounts, EnginesBeat, Report};
use crate::reactor::{Core, Effects, JobEntry};

const LIVE: [JobState; 4] = [JobState::Waiting, JobState::Running, JobState::Paused, JobState::Cancelling];

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Meter {
    /// Sessions that are live, or have ended in this round, and their cancelled tasks that have been counted already.
    sessions: BTreeMap<String, u64>,
    /// What each worker had counted of its engines at the last look, if there was one.
    engines: Option<BTreeMap<String, EngineCounts>>,
}

fn is_session(job: &JobEntry) -> bool {
    job.stages.first().is_some_and(|s| s.session.is_some())
}

fn tasks(outcome: &'static str, count: u64) {
    if count > 0 {
        counter!("tidemill_grid_tasks_total", "outcome" => outcome).increment(count);
    }
}

impl Meter {
    /// A report of a session's range is folded.
    pub(super) fn reported(report: &Report, released: Timestamp, now: Timestamp) {
        if report.finished {
            histogram!("tidemill_grid_bundle_seconds").record(now.since(released).as_secs_f64());
        }
        tasks("returned", report.returned.iter().map(|(_, len)| len).sum());
    }

    /// What the reactor wants done, and what has become of tasks since the last time. Called before it hands over its effects, which lets
    /// go of sessions that have ended.
    pub(super) fn before(&mut self, core: &Core) {
        self.sessions.retain(|id, _| core.jobs.contains_key(id));
        for (id, job) in core.jobs.iter().filter(|(_, job)| is_session(job)) {
            let now: u64 = job.stages.iter().map(|s| s.cancelled).sum();
            // One that has been running when it is seen first was another leader's, or is brought back by a retry: what is cancelled there
            // was counted then.
            let known = self.sessions.get(id).copied();
            let counted = known.or(job.started_at.map(|_| now)).unwrap_or(0);
            tasks("cancelled", now.saturating_sub(counted));
            if known != Some(now) {
                self.sessions.insert(id.clone(), now);
            }
            if job.state.is_final() {
                counter!("tidemill_grid_sessions_ended_total", "state" => job.state.as_str()).increment(1);
            }
        }
    }

    /// What is about to be written and sent.
    pub(super) fn effects(&self, fx: &Effects) {
        for done in &fx.completions {
            tasks("succeeded", done.succeeded.iter().map(|(_, len)| len).sum());
            let skipped = done.dead.iter().filter(|d| d.class.is_none()).count() as u64;
            tasks("skipped", skipped);
            tasks("failed", done.dead.len() as u64 - skipped);
        }
        let (bundles, times) = (histogram!("tidemill_grid_bundle_tasks"), histogram!("tidemill_grid_task_run_seconds"));
        for (_, item) in fx.sends.iter().filter(|(_, item)| self.sessions.contains_key(&item.job)) {
            bundles.record(item.len as f64);
        }
        for batch in fx.columns.iter().filter(|b| self.sessions.contains_key(&*b.job)) {
            batch.columns.run_us.iter().for_each(|us| times.record(*us as f64 / 1e6));
        }
    }

    /// How many sessions there are in each state.
    pub(super) fn states(core: &Core) {
        for state in LIVE {
            let there = core.jobs.values().filter(|job| is_session(job) && job.state == state).count();
            gauge!("tidemill_grid_sessions", "state" => state.as_str()).set(there as f64);
        }
    }

    /// What workers say of their engines: how many there are now, and what has happened since they said it last.
    pub(super) fn engines(&mut self, beats: &[EnginesBeat]) {
        let (mut starting, mut warm, mut busy) = (0_u32, 0_u32, 0_u32);
        for engine in beats.iter().flat_map(|b| &b.pools).flat_map(|p| &p.engines) {
            match engine {
                e if e.id.is_empty() => starting += 1,
                e if e.in_hand > 0 => busy += 1,
                _ => warm += 1,
            }
        }
        for (state, there) in [("starting", starting), ("warm", warm), ("busy", busy)] {
            gauge!("tidemill_grid_engines", "state" => state).set(f64::from(there));
        }
        let said: BTreeMap<String, EngineCounts> = beats.iter().map(|b| (b.worker.clone(), b.counts)).collect();
        // What happened before this manager led, another has counted.
        if let Some(before) = self.engines.replace(said) {
            for beat in beats {
                let known = before.get(&beat.worker).copied().unwrap_or_default();
                // A worker that was started again under its name counts from nothing.
                let known = if beat.counts.started < known.started { EngineCounts::default() } else { known };
                happened(known, beat.counts);
            }
        }
    }
}

fn happened(before: EngineCounts, now: EngineCounts) {
    let starts = now.started.saturating_sub(before.started);
    counter!("tidemill_grid_engine_starts_total").increment(starts);
    for ((reason, now), (_, before)) in ends(now).into_iter().zip(ends(before)) {
        counter!("tidemill_grid_engine_ends_total", "reason" => reason).increment(now.saturating_sub(before));
    }
    counter!("tidemill_grid_tasks_stolen_total").increment(now.stolen.saturating_sub(before.stolen));
    let packages = [("hit", now.package_hits, before.package_hits), ("fetched", now.packages_fetched, before.packages_fetched)];
    for (outcome, now, before) in packages {
        counter!("tidemill_grid_packages_total", "outcome" => outcome).increment(now.saturating_sub(before));
    }
    counter!("tidemill_grid_package_bytes_total").increment(now.package_bytes.saturating_sub(before.package_bytes));
}

fn ends(c: EngineCounts) -> [(&'static str, u64); 6] {
    [
        ("stopped", c.stopped),
        ("crash", c.crashed),
        ("timeout", c.timed_out),
        ("memory", c.out_of_memory),
        ("start", c.not_started),
        ("cancelled", c.cancelled),
    ]
}

impl Drop for Meter {
    /// Another manager leads now, and shows what there is.
    fn drop(&mut self) {
        LIVE.iter().for_each(|state| gauge!("tidemill_grid_sessions", "state" => state.as_str()).set(0.0));
        ["starting", "warm", "busy"].iter().for_each(|state| gauge!("tidemill_grid_engines", "state" => *state).set(0.0));
    }
}
