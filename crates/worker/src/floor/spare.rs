//! What this worker can spare: tasks that it would not start soon, for others who have nothing to do.

use std::sync::Arc;
use std::time::Duration;

use tidemill_base::Timestamp;

use super::{Floor, Running, State};
use crate::range::OpenRange;

/// A slot counts as stuck when its task has run for at least so long, ...
const STUCK_AFTER: Duration = Duration::from_secs(1);
/// ... and so many times as long as tasks of its stage have taken here.
const STUCK_TIMES: f64 = 4.0;
/// So much work is kept for every slot that gets on: the way to another worker takes about as long.
const KEPT: Duration = Duration::from_millis(300);

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Spare {
    /// Open ranges and how many of its unstarted tasks each keeps.
    pub(crate) keep: Vec<(Arc<OpenRange>, u64)>,
    /// What runs in slots that are stuck: the range and the first task.
    pub(crate) stuck: Vec<(Arc<OpenRange>, u64)>,
}

impl Floor {
    /// Slots that are free and have nothing to take.
    pub(crate) fn idle_slots(&self) -> u32 {
        let state = self.lock();
        if state.stopped || state.ranges.iter().any(|e| e.range.has_takeable()) { 0 } else { state.free.slots }
    }

    /// Whether every slot is stuck in a task that takes much longer than others of its stage, so that nobody knows when the next one starts.
    pub(crate) fn is_stuck(&self, now: Timestamp) -> bool {
        let state = self.lock();
        state.free.slots == 0 && state.running.values().all(|r| state.is_stuck(r, now))
    }

    /// What to keep when others have `idle` slots for what is handed back; a task of a stage that has finished none here is expected to take
    /// `unknown`. The ranges that came first keep theirs first.
    pub(crate) fn spare(&self, idle: u32, unknown: Duration, now: Timestamp) -> Spare {
        let state = self.lock();
        let unknown = unknown.as_micros() as f64;
        let stuck = state.running.values().filter(|r| state.is_stuck(r, now));
        let mut spare = Spare { keep: Vec::new(), stuck: stuck.map(|r| (r.range.clone(), r.task)).collect() };
        let stuck_slots: u32 = spare.stuck.iter().map(|(range, _)| range.stage.definition.spec.resources.cpus).sum();
        let moving = f64::from(self.offers.slots.saturating_sub(stuck_slots));
        let each_us = |range: &OpenRange| {
            let cpus = f64::from(range.stage.definition.spec.resources.cpus);
            state.mean_us(&range.item).unwrap_or(unknown * cpus).max(0.1)
        };
        let all_us: f64 = state.ranges.iter().map(|e| e.range.waiting() as f64 * each_us(&e.range)).sum();
        // Those that get on and those that are idle come to the end of it together.
        let part = if moving > 0.0 { moving / (moving + f64::from(idle)) } else { 0.0 };
        let mut keep_us = (all_us * part).max(KEPT.as_micros() as f64 * moving);
        for entry in &state.ranges {
            let (waiting, each) = (entry.range.waiting(), each_us(&entry.range));
            let keep = waiting.min((keep_us / each) as u64);
            keep_us -= keep as f64 * each;
            if keep < waiting {
                spare.keep.push((entry.range.clone(), keep));
            }
        }
        spare
    }
}

impl State {
    fn is_stuck(&self, running: &Running, now: Timestamp) -> bool {
        let ran = now.since(running.started_at);
        let expected = self.mean_us(&running.range.item).unwrap_or(0.0) * running.len as f64;
        ran >= STUCK_AFTER && ran.as_micros() as f64 >= expected * STUCK_TIMES
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{floor, range, take};
    use super::*;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millis(ms)
    }

    /// A floor of two slots on which tasks of 100 ms have run, with `len` more.
    fn busy(len: u64) -> (Floor, Vec<super::super::Assignment>) {
        let floor = floor(2);
        floor.open(range("a", len + 3, 1, 0));
        let first = take(&floor).unwrap();
        floor.release(&first, Duration::from_millis(100), 0);
        let running = vec![take(&floor).unwrap(), take(&floor).unwrap()];
        (floor, running)
    }

    fn kept(spare: &Spare) -> Vec<u64> {
        spare.keep.iter().map(|(_, keep)| *keep).collect()
    }

    #[test]
    fn slots_that_get_on_share_with_the_idle_ones_and_keep_the_next_moments() {
        let (floor, _running) = busy(60);
        assert_eq!((kept(&floor.spare(2, Duration::ZERO, at(50))), floor.is_stuck(at(50))), (vec![30], false));
        assert_eq!(kept(&floor.spare(6, Duration::ZERO, at(50))), [15]);
        let (floor, _running) = busy(9);
        assert_eq!(kept(&floor.spare(100, Duration::ZERO, at(50))), [6], "300 ms for each slot");
        let (floor, _running) = busy(5);
        assert!(floor.spare(100, Duration::ZERO, at(50)).keep.is_empty());
    }

    #[test]
    fn slots_that_are_stuck_keep_nothing() {
        let (floor, running) = busy(60);
        assert!(!floor.is_stuck(at(900)));
        let spare = floor.spare(1, Duration::ZERO, at(1_100));
        assert_eq!((kept(&spare), spare.stuck.len(), floor.is_stuck(at(1_100))), (vec![0], 2, true));
        // One of them gets on after all.
        floor.release(&running[0], Duration::from_millis(100), 0);
        assert!(!floor.is_stuck(at(1_100)));
        let spare = floor.spare(1, Duration::ZERO, at(1_100));
        assert_eq!((kept(&spare), spare.stuck.len()), (vec![30], 1));
        assert_eq!(spare.stuck[0].1, running[1].task);
    }

    #[test]
    fn a_long_task_that_takes_as_long_as_others_did_is_not_stuck_and_one_that_waits_for_it_is_spared() {
        let floor = floor(1);
        floor.open(range("a", 3, 1, 0));
        let first = take(&floor).unwrap();
        floor.release(&first, Duration::from_secs(60), 0);
        let _second = take(&floor).unwrap();
        assert!(!floor.is_stuck(at(100_000)) && floor.is_stuck(at(300_000)));
        assert_eq!(kept(&floor.spare(1, Duration::ZERO, at(5_000))), [0]);
    }

    #[test]
    fn free_slots_are_idle_when_there_is_nothing_to_take() {
        let floor = floor(2);
        assert_eq!(floor.idle_slots(), 2);
        floor.open(range("a", 2, 1, 0));
        assert_eq!(floor.idle_slots(), 0);
        let first = take(&floor).unwrap();
        let second = take(&floor).unwrap();
        assert_eq!(floor.idle_slots(), 0);
        floor.release(&second, Duration::ZERO, 0);
        assert_eq!(floor.idle_slots(), 1);
        floor.release(&first, Duration::ZERO, 0);
        floor.stop();
        assert_eq!(floor.idle_slots(), 0);
    }
}
