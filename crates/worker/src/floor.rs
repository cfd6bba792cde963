//! The floor on which tasks run: which ranges are open, which slots and other resources are free, and what runs next.
//!
//! Slots are shared fairly among the jobs that have ranges open: next comes the job with the fewest slots in use, and among equals
//! the one served longest ago. Within a job the range that came first goes first, so that ranges end one after the other and
//! those behind are the prefetch. A task that does not fit what is free may be passed over [`PATIENCE`] times; then nothing else
//! starts until it fits.

mod spare;

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidemill_base::Timestamp;
use tidemill_batch::model::Resources;
use tidemill_batch::protocol::{MAX_RANGE, RunningTask, WorkItem};
use tidemill_blocks::fleet::Offers;
use tokio::sync::Notify;

use crate::range::{OpenRange, Staged};
use crate::stage::Kind;

const PATIENCE: u32 = 16;

/// A task to run now.
#[derive(Debug)]
pub(crate) struct Assignment {
    pub(crate) range: Arc<OpenRange>,
    pub(crate) task: u64,
    /// More than one only for a stage that runs nothing.
    pub(crate) len: u64,
    pub(crate) staged: Option<Staged>,
    /// Unique on this worker.
    pub(crate) run: u64,
}

#[derive(Debug)]
struct Entry {
    range: Arc<OpenRange>,
    passed: u32,
}

#[derive(Debug)]
struct Running {
    range: Arc<OpenRange>,
    task: u64,
    len: u64,
    started_at: Timestamp,
    memory: u64,
}

#[derive(Debug, Default)]
struct JobShare {
    slots: u32,
    served: u64,
    /// Moving average of the slot time, in microseconds, of a task of each stage that has finished one here.
    means: BTreeMap<u32, f64>,
}

#[derive(Debug)]
struct State {
    free: Offers,
    ranges: Vec<Entry>,
    jobs: BTreeMap<String, JobShare>,
    running: BTreeMap<u64, Running>,
    next_run: u64,
    stopped: bool,
    tasks_done: u64,
    busy_us: u64,
    cpu_us: u64,
}

/// A slot hands engines work for about so long at once: longer than it takes to come back for more, shorter than anybody would wait for
/// it to take something else.
const PORTION_US: f64 = 200_000.0;
const MAX_PORTION: u64 = 5_000;

/// See the module.
#[derive(Debug)]
pub(crate) struct Floor {
    offers: Offers,
    state: Mutex<State>,
    changed: Condvar,
    /// Told when the first task starts on an idle floor.
    pub(crate) busy: Notify,
    /// Told when room for more ranges may have come up.
    pub(crate) room: Notify,
}

/// What is to be known about the floor from outside.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Summary {
    pub(crate) ranges: usize,
    pub(crate) free_slots: u32,
    /// Slots that unstarted tasks would take.
    pub(crate) waiting_slots: u64,
    /// Unstarted tasks.
    pub(crate) waiting: u64,
    pub(crate) tasks_done: u64,
    pub(crate) busy_us: u64,
    pub(crate) cpu_us: u64,
    /// Slot time that unstarted tasks are expected to take, by what tasks of their stages took here. See [`Floor::summary`].
    pub(crate) waiting_us: f64,
}

impl Floor {
    pub(crate) fn new(offers: Offers) -> Self {
        let state = State {
            free: offers.clone(),
            ranges: Vec::new(),
            jobs: BTreeMap::new(),
            running: BTreeMap::new(),
            next_run: 1,
            stopped: false,
            tasks_done: 0,
            busy_us: 0,
            cpu_us: 0,
        };
        Self { offers, state: Mutex::new(state), changed: Condvar::new(), busy: Notify::new(), room: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why a task that needs `wants` could never run here; `None` when it can.
    pub(crate) fn misfit(&self, wants: &Resources) -> Option<String> {
        let short = |what: &str, wants: u64, has: u64| format!("the task needs {wants} {what}, this worker offers {has}");
        if wants.cpus > self.offers.slots {
            return Some(short("slots", wants.cpus.into(), self.offers.slots.into()));
        }
        if wants.memory > self.offers.memory {
            return Some(short("bytes of memory", wants.memory, self.offers.memory));
        }
        wants.named.iter().find_map(|(name, n)| {
            let has = self.offers.named.get(name).copied().unwrap_or(0);
            (*n > has).then(|| short(&format!("of `{name}`"), *n, has))
        })
    }

    /// Lets tasks of the range be taken.
    pub(crate) fn open(&self, range: Arc<OpenRange>) {
        let mut state = self.lock();
        state.jobs.entry(range.item.job.clone()).or_default();
        state.ranges.push(Entry { range, passed: 0 });
        drop(state);
        self.changed.notify_all();
    }

    /// Forgets the range.
    pub(crate) fn close(&self, range: &Arc<OpenRange>) {
        let mut state = self.lock();
        state.ranges.retain(|e| !Arc::ptr_eq(&e.range, range));
        let job = &range.item.job;
        if !state.ranges.iter().any(|e| e.range.item.job == *job) {
            state.jobs.remove(job);
        }
        drop(state);
        self.room.notify_one();
    }

    /// There may be something to take: a task was staged.
    pub(crate) fn nudge(&self) {
        self.changed.notify_all();
    }

    /// The next task, if one is there that fits. `now` is when it starts.
    pub(crate) fn take(&self, now: impl Fn() -> Timestamp) -> Option<Assignment> {
        self.lock().take(&now, self)
    }

    /// The next task; waits for one. `None` when the floor was stopped.
    pub(crate) fn take_waiting(&self, now: impl Fn() -> Timestamp) -> Option<Assignment> {
        let mut state = self.lock();
        loop {
            if state.stopped {
                return None;
            }
            if let Some(assignment) = state.take(&now, self) {
                return Some(assignment);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The task has ended and its resources are free.
    pub(crate) fn release(&self, assignment: &Assignment, took: Duration, cpu_us: u64) {
        let wants = &assignment.range.stage.definition.spec.resources;
        let mut state = self.lock();
        state.running.remove(&assignment.run);
        state.free.slots += wants.cpus;
        state.free.memory += wants.memory;
        for (name, n) in &wants.named {
            *state.free.named.entry(name.clone()).or_default() += n;
        }
        let slot_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).saturating_mul(wants.cpus.into());
        let each = slot_us as f64 / assignment.len.max(1) as f64;
        if let Some(job) = state.jobs.get_mut(&assignment.range.item.job) {
            job.slots = job.slots.saturating_sub(wants.cpus);
            job.means.entry(assignment.range.item.stage).and_modify(|mean| *mean = *mean * 0.9 + each * 0.1).or_insert(each);
        }
        state.tasks_done += assignment.len;
        state.busy_us += slot_us;
        state.cpu_us += cpu_us;
        // Only a wide task can leave more room than its own thread fills again.
        let several = wants.cpus > 1 || !wants.named.is_empty() || wants.memory > 0 || state.ranges.iter().any(|e| e.passed > 0);
        let low = state.ranges.iter().map(|e| e.range.waiting()).take_while(|w| *w < 64).sum::<u64>() < u64::from(self.offers.slots) * 2;
        drop(state);
        if several {
            self.changed.notify_all();
        }
        if low {
            self.room.notify_one();
        }
    }

    /// Notes what a running task was seen to use.
    pub(crate) fn saw_memory(&self, run: u64, bytes: u64) {
        if let Some(running) = self.lock().running.get_mut(&run) {
            running.memory = bytes;
        }
    }

    /// Up to `max` of the tasks that run now, the oldest first.
    pub(crate) fn running(&self, max: usize) -> Vec<RunningTask> {
        let state = self.lock();
        let tasks = state.running.values().filter(|r| r.len == 1).take(max).map(|r| RunningTask {
            job: r.range.item.job.clone(),
            stage: r.range.item.stage,
            task: r.task,
            attempt: r.range.item.attempt,
            started_at: r.started_at,
            memory: r.memory,
        });
        tasks.collect()
    }

    /// A task of a stage that has finished none here is expected to take `unknown`: after many short tasks, the next stage's may be
    /// long, and whoever took many of those ahead would keep them from workers that are idle.
    pub(crate) fn summary(&self, unknown: Duration) -> Summary {
        let state = self.lock();
        let unknown = unknown.as_micros() as f64;
        let (mut waiting, mut waiting_slots, mut waiting_us) = (0, 0, 0.0);
        for entry in &state.ranges {
            let (tasks, cpus) = (entry.range.waiting(), entry.range.stage.definition.spec.resources.cpus);
            waiting += tasks;
            waiting_slots += tasks * u64::from(cpus);
            waiting_us += tasks as f64 * state.mean_us(&entry.range.item).unwrap_or(unknown * f64::from(cpus));
        }
        Summary {
            ranges: state.ranges.len(),
            free_slots: state.free.slots,
            waiting_slots,
            waiting,
            waiting_us,
            tasks_done: state.tasks_done,
            busy_us: state.busy_us,
            cpu_us: state.cpu_us,
        }
    }

    /// The tasks of the range that have been taken and have not ended: runs, each as it was taken.
    pub(crate) fn taken(&self, range: &Arc<OpenRange>) -> Vec<(u64, u64)> {
        self.lock().running.values().filter(|r| Arc::ptr_eq(&r.range, range)).map(|r| (r.task, r.len)).collect()
    }

    /// Nothing is taken any more; waiting threads return.
    pub(crate) fn stop(&self) {
        self.lock().stopped = true;
        self.changed.notify_all();
    }
}

impl State {
    fn mean_us(&self, item: &WorkItem) -> Option<f64> {
        self.jobs.get(&item.job)?.means.get(&item.stage).copied()
    }

    fn take(&mut self, now: &impl Fn() -> Timestamp, floor: &Floor) -> Option<Assignment> {
        if self.stopped {
            return None;
        }
        let at = self.choose()?;
        let range = self.ranges[at].range.clone();
        let most = match range.stage.kind {
            Kind::Noop => MAX_RANGE,
            Kind::Engine => portion(self.mean_us(&range.item)),
            _ => 1,
        };
        let (task, len, staged) = range.take(most)?;
        let wants = &range.stage.definition.spec.resources;
        self.free.slots -= wants.cpus;
        self.free.memory -= wants.memory;
        for (name, n) in &wants.named {
            if let Some(free) = self.free.named.get_mut(name) {
                *free -= n;
            }
        }
        let (run, was_idle) = (self.next_run, self.running.is_empty());
        self.next_run += 1;
        self.ranges[at].passed = 0;
        if let Some(job) = self.jobs.get_mut(&range.item.job) {
            job.slots += wants.cpus;
            job.served = run;
        }
        self.running.insert(run, Running { range: range.clone(), task, len, started_at: now(), memory: 0 });
        if was_idle {
            floor.busy.notify_one();
        }
        Some(Assignment { range, task, len, staged, run })
    }

    /// The range whose task starts next.
    fn choose(&mut self) -> Option<usize> {
        let mut order: Vec<usize> = (0..self.ranges.len()).filter(|i| self.ranges[*i].range.has_takeable()).collect();
        if order.len() > 1 {
            order.sort_by_key(|i| self.jobs.get(&self.ranges[*i].range.item.job).map_or((0, 0), |j| (j.slots, j.served)));
        }
        let mut chosen = None;
        for &i in &order {
            if self.fits(&self.ranges[i].range.stage.definition.spec.resources) {
                chosen = Some(i);
                break;
            }
            if self.ranges[i].passed >= PATIENCE {
                return None;
            }
        }
        for &i in order.iter().take_while(|i| Some(**i) != chosen).collect::<Vec<_>>() {
            self.ranges[i].passed += u32::from(chosen.is_some());
        }
        chosen
    }

    fn fits(&self, wants: &Resources) -> bool {
        wants.cpus <= self.free.slots
            && wants.memory <= self.free.memory
            && wants.named.iter().all(|(name, n)| self.free.named.get(name).is_some_and(|free| n <= free))
    }
}

/// How many tasks a slot hands to engines at once, by how long one takes.
fn portion(mean_us: Option<f64>) -> u64 {
    // Not known yet: a few, to find out, and not so many that the others have nothing to do if they are long.
    mean_us.map_or(1, |each| (PORTION_US / each.max(0.1)) as u64).clamp(1, MAX_PORTION)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inputs::Inputs;
    use crate::stage::Stage;
    use tidemill_base::RunSet;
    use tidemill_batch::model::RunSpec;
    use tidemill_batch::protocol::RangeState;

    pub(super) fn range(job: &str, len: u64, cpus: u32, memory: u64) -> Arc<OpenRange> {
        let item = WorkItem {
            job: job.into(),
            stage: 0,
            range: 0,
            start: 0,
            len,
            attempt: 1,
            released_at: Timestamp::ZERO,
            pieces: Vec::new(),
            needs: Vec::new(),
        };
        let claim =
            RangeState { epoch: 1, worker: "w".into(), lease_until: Timestamp::ZERO, seq: 0, settled: RunSet::new(), finished: false };
        let mut definition = Stage::unusable().definition;
        definition.spec.run = RunSpec::Command { argv: vec!["x".into()], shell: false };
        (definition.spec.resources.cpus, definition.spec.resources.memory) = (cpus, memory);
        let stage = Arc::new(Stage::new(definition).unwrap());
        Arc::new(OpenRange::new(item, &claim, stage, Inputs::Computed, false, Vec::new()))
    }

    pub(super) fn floor(slots: u32) -> Floor {
        Floor::new(Offers { slots, memory: 1000, named: BTreeMap::new() })
    }

    pub(super) fn take(floor: &Floor) -> Option<Assignment> {
        floor.take(|| Timestamp::ZERO)
    }

    #[test]
    fn jobs_share_slots_and_ranges_of_one_job_go_one_after_the_other() {
        let floor = floor(4);
        for (job, len) in [("a", 100), ("a", 100), ("b", 100)] {
            floor.open(range(job, len, 1, 0));
        }
        let taken: Vec<_> = std::iter::from_fn(|| take(&floor)).collect();
        let jobs: Vec<_> = taken.iter().map(|a| (a.range.item.job.as_str(), a.task)).collect();
        assert_eq!(jobs, [("a", 0), ("b", 0), ("a", 1), ("b", 1)]);
        for a in &taken[..2] {
            floor.release(a, Duration::from_secs(1), 0);
        }
        assert_eq!(take(&floor).map(|a| a.range.item.job.clone()), Some("a".into()), "served longest ago");
        assert_eq!(floor.summary(Duration::ZERO).free_slots, 1);
    }

    #[test]
    fn a_wide_task_is_passed_over_for_a_while_and_not_for_ever() {
        let floor = floor(2);
        floor.open(range("narrow", 1000, 1, 0));
        let mut running = std::collections::VecDeque::from([take(&floor).unwrap()]);
        floor.open(range("wide", 1, 2, 0));
        running.push_back(take(&floor).unwrap());
        for round in 0.. {
            assert!(round < 100, "starved");
            let done = running.pop_front().unwrap();
            floor.release(&done, Duration::from_secs(1), 0);
            if done.range.item.job == "wide" {
                break;
            }
            running.extend(take(&floor));
        }
    }

    #[test]
    fn what_waits_is_expected_to_take_what_its_own_stage_took() {
        let floor = floor(1);
        floor.open(range("short", 11, 1, 0));
        let task = take(&floor).unwrap();
        floor.release(&task, Duration::from_millis(1), 0);
        assert_eq!(floor.summary(Duration::from_secs(2)).waiting_us, 10_000.0);
        floor.open(range("long", 3, 1, 0));
        assert_eq!(floor.summary(Duration::from_secs(2)).waiting_us, 6_010_000.0, "nothing is known of it");
    }

    #[test]
    fn memory_is_counted_and_what_cannot_fit_is_named() {
        let floor = floor(4);
        floor.open(range("a", 10, 1, 600));
        let first = take(&floor).unwrap();
        assert!(take(&floor).is_none());
        floor.release(&first, Duration::ZERO, 0);
        assert!(take(&floor).is_some());
        let wants = Resources { memory: 1001, ..Resources::default() };
        assert_eq!(floor.misfit(&wants).unwrap(), "the task needs 1001 bytes of memory, this worker offers 1000");
        assert_eq!(floor.misfit(&Resources::default()), None);
    }
}
