//! Releases ranges into the work queues: by priority, then by fair share between users, then in turn between
//! the sessions of a user, and only as fast as the fleet takes them.

use std::collections::{BTreeMap, BTreeSet};

use tidemill_base::Timestamp;

use super::{Capacity, Core, Lane, Outstanding, Party, RangeWrite};
use crate::model::{FailureClass, JobState, StageState};
use crate::protocol::{MAX_RANGE, WorkItem};

/// A stage from which something can be released, with what decides whose turn it is.
#[derive(Debug, Clone)]
struct Candidate {
    priority: i32,
    lane: Lane,
    submitted_at: Timestamp,
    job: String,
    stage: u32,
}

impl Core {
    /// Releases from every class as much as its budget allows.
    pub(super) fn release(&mut self, now: Timestamp) {
        let classes: BTreeSet<String> = self.jobs.values().filter(|j| j.state == JobState::Running).map(|j| j.class.clone()).collect();
        for class in classes {
            let capacity = self.capacity.get(&class).copied().unwrap_or_default();
            self.release_class(&class, capacity, now);
        }
    }

    fn release_class(&mut self, class: &str, capacity: Capacity, now: Timestamp) {
        let slots = f64::from(capacity.slots.max(1));
        let (mut busy_us, mut tasks, mut ranges) = self.released_of(class);
        let lead_us = self.settings.lead.as_micros() as f64 * slots;
        let tasks_ahead = u64::from(2 * capacity.slots.max(1) + capacity.workers);
        let ranges_ahead = 2 * capacity.slots.max(1) as usize + 4 * capacity.workers.max(1) as usize;
        // Work for `lead`, however many tasks that is; and at least the next task for every slot, however long it takes.
        let has_room = |busy_us: f64, tasks: u64, ranges: usize| (busy_us < lead_us || tasks < tasks_ahead) && ranges < ranges_ahead;
        if !has_room(busy_us, tasks, ranges) {
            return;
        }
        let mut candidates = self.candidates(class);
        while has_room(busy_us, tasks, ranges) {
            let Some(at) = self.whose_turn(&candidates) else { return };
            let c = candidates[at].clone();
            let Some((len, us)) = self.release_one(&c, capacity, now) else {
                candidates.swap_remove(at);
                continue;
            };
            busy_us += us;
            tasks += len;
            ranges += 1;
            let party = c.lane.0.clone();
            let weight = self.settings.weights.get(&party.1).copied().unwrap_or(1.0).max(0.001);
            *self.shares.entry(party).or_default() += us / weight;
            *self.lanes.entry(c.lane).or_default() += us;
        }
    }

    fn candidates(&mut self, class: &str) -> Vec<Candidate> {
        let mut out = Vec::new();
        for (id, job) in &self.jobs {
            if job.class != class || job.state != JobState::Running {
                continue;
            }
            for (stage, s) in (0_u32..).zip(&job.stages) {
                if s.state == StageState::Open && !s.pending.is_empty() {
                    out.push(Candidate {
                        priority: job.priority,
                        lane: ((class.to_owned(), job.user.clone()), s.session.is_some().then(|| id.clone())),
                        submitted_at: job.submitted_at,
                        job: id.clone(),
                        stage,
                    });
                }
            }
        }
        // A user who comes back after a pause starts level with the others instead of with all the time in the world.
        let known = out.iter().filter_map(|c| self.shares.get(&c.lane.0)).copied().fold(f64::INFINITY, f64::min);
        let floor = if known.is_finite() { known } else { 0.0 };
        let parties: BTreeSet<&Party> = out.iter().map(|c| &c.lane.0).collect();
        self.shares.retain(|party, _| party.0 != class || parties.contains(party));
        for c in &out {
            self.shares.entry(c.lane.0.clone()).or_insert(floor);
        }
        self.level_lanes(class, &out);
        out
    }

    /// Forgets the lanes that nothing can be released from. One that is new, or comes back, starts level with the others of its user.
    fn level_lanes(&mut self, class: &str, candidates: &[Candidate]) {
        let waiting: BTreeSet<&Lane> = candidates.iter().map(|c| &c.lane).collect();
        self.lanes.retain(|lane, _| lane.0.0 != class || waiting.contains(lane));
        let mut floors: BTreeMap<Party, f64> = BTreeMap::new();
        for ((party, _), had) in &self.lanes {
            floors.entry(party.clone()).and_modify(|floor| *floor = floor.min(*had)).or_insert(*had);
        }
        for c in candidates {
            self.lanes.entry(c.lane.clone()).or_insert_with(|| floors.get(&c.lane.0).copied().unwrap_or(0.0));
        }
    }

    /// The candidate whose turn it is: highest priority, then the user who had least, then that user's session that had least, then the
    /// oldest job, then its latest stage, so that what was begun is finished first.
    fn whose_turn(&self, candidates: &[Candidate]) -> Option<usize> {
        let had = |c: &Candidate| self.shares.get(&c.lane.0).copied().unwrap_or(0.0);
        let lane_had = |c: &Candidate| self.lanes.get(&c.lane).copied().unwrap_or(0.0);
        let order = |a: &Candidate, b: &Candidate| {
            let by_share = had(a).total_cmp(&had(b)).then_with(|| lane_had(a).total_cmp(&lane_had(b)));
            let by_age = a.submitted_at.cmp(&b.submitted_at).then_with(|| a.job.cmp(&b.job)).then_with(|| b.stage.cmp(&a.stage));
            b.priority.cmp(&a.priority).then(by_share).then(by_age)
        };
        (0..candidates.len()).min_by(|&a, &b| order(&candidates[a], &candidates[b]))
    }

    /// What is released of a class and not finished: expected slot time, tasks, ranges.
    fn released_of(&self, class: &str) -> (f64, u64, usize) {
        let mut sum = (0.0, 0, 0);
        for job in self.jobs.values().filter(|j| j.class == class) {
            for s in &job.stages {
                let tasks = s.outstanding_tasks();
                sum.0 += tasks as f64 * s.expected_us();
                sum.1 += tasks;
                sum.2 += s.outstanding.len();
            }
        }
        sum
    }

    /// Releases one range. Returns its length and expected slot time.
    fn release_one(&mut self, c: &Candidate, capacity: Capacity, now: Timestamp) -> Option<(u64, f64)> {
        let target_us = self.settings.target_range.as_micros() as f64;
        let job = self.jobs.get_mut(&c.job)?;
        let cpus = f64::from(job.spec.stages[c.stage as usize].resources.cpus.max(1));
        let s = &mut job.stages[c.stage as usize];
        let each_us = s.expected_us() * cpus;
        let len = range_len(s.pending.len(), each_us, s.sums.attempts, capacity, target_us);
        let len = match (&s.session, s.pending.runs().next()) {
            (Some(session), Some((start, _))) => session.longest(start, len),
            _ => len,
        };
        let (start, len) = s.pending.take_first(len)?;
        self.send_range(&c.job, c.stage, start, len, 1, now);
        Some((len, len as f64 * each_us))
    }

    /// Sends tasks whose pause has passed on their next attempt. Neighbours of the same attempt go together, unless one of them may
    /// have killed its worker.
    pub(super) fn release_due_retries(&mut self, now: Timestamp) {
        let mut ranges: Vec<(String, u32, u64, u64, u32)> = Vec::new();
        for (id, job) in self.jobs.iter_mut().filter(|(_, j)| j.state == JobState::Running) {
            for (stage, s) in (0_u32..).zip(&mut job.stages) {
                for (&task, e) in s.exceptions.iter_mut().filter(|(_, e)| e.due.is_some_and(|due| due <= now)) {
                    e.due = None;
                    let alone = e.class == FailureClass::LostWorker;
                    match ranges.last_mut() {
                        Some((j, st, start, len, attempt))
                            if !alone
                                && j == id
                                && *st == stage
                                && *start + *len == task
                                && *attempt == e.attempts + 1
                                && *len < MAX_RETRY_RANGE =>
                        {
                            *len += 1;
                        }
                        _ => ranges.push((id.clone(), stage, task, 1, e.attempts + 1)),
                    }
                }
            }
        }
        for (job, stage, start, len, attempt) in ranges {
            self.send_range(&job, stage, start, len, attempt, now);
        }
    }

    fn send_range(&mut self, id: &str, stage: u32, start: u64, len: u64, attempt: u32, now: Timestamp) {
        let Some(job) = self.jobs.get_mut(id) else { return };
        let Some(s) = job.stages.get_mut(stage as usize) else { return };
        let range = s.next_range;
        s.next_range += 1;
        s.started_at.get_or_insert(now);
        let settled = tidemill_base::RunSet::new();
        s.outstanding.insert(range, Outstanding { start, len, attempt, released_at: now, folded_seq: 0, settled });
        let needs = s.session.as_ref().map(|session| session.needs_of(start, len)).unwrap_or_default();
        let item = WorkItem { job: id.to_owned(), stage, range, start, len, attempt, released_at: now, pieces: Vec::new(), needs };
        self.effects.sends.push((job.class.clone(), item));
        self.dirty_ranges.insert((id.to_owned(), stage, range), RangeWrite::New);
        self.mark_stage(id, stage);
    }
}

/// Neighbouring retries travel in ranges no longer than this: what failed once may well take long.
const MAX_RETRY_RANGE: u64 = 100;

/// How many tasks the next range gets: enough to keep a worker busy for the target time, but never so many that the rest of the
/// fleet runs dry (guided self-scheduling, Polychronopoulos and Kuck 1987), and growing only as experience does.
pub(super) fn range_len(pending: u64, each_us: f64, attempts: u64, capacity: Capacity, target_us: f64) -> u64 {
    let workers = u64::from(capacity.workers.max(1));
    let slots_each = u64::from(capacity.slots.max(1)).div_ceil(workers);
    let by_time = (target_us * slots_each as f64 / each_us.max(0.1)) as u64;
    let by_experience = slots_each.max(16 * attempts);
    let at_least = (by_time / 20).max(1);
    let guided = pending.div_ceil(2 * workers).max(at_least);
    by_time.min(by_experience).min(guided).clamp(1, MAX_RANGE)
}
