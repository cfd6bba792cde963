//! Work for those who have none: whoever holds tasks that it has not started is asked to hand some back while others are idle.
//!
//! Ranges are sized so that this is seldom of use: towards the end of a job, when a worker comes that was not there when ranges were given
//! out, and when tasks differ so much that a worker is stuck in long ones with short ones behind them. What is handed back is released again
//! like any other task. The worker decides what that is, since it alone knows how far it is; nothing that runs is touched.

use std::collections::BTreeMap;
use std::time::Duration;

use tidemill_base::Timestamp;
use tidemill_blocks::fleet::Offers;

use super::workers::SILENT_AFTER;
use crate::protocol::{HandBack, Heartbeat, WorkerPhase};

/// A worker is not asked again before what it was asked for can have been heard of.
const AGAIN_AFTER: Duration = Duration::from_millis(900);

/// Different offers of idle workers that are told of; fleets are of few kinds of machines.
const OFFERS: usize = 8;

/// Whom to ask, and who has been asked.
#[derive(Debug, Default)]
pub(super) struct HandBacks {
    asked: BTreeMap<String, Timestamp>,
}

impl HandBacks {
    /// Whom to ask now, by what workers have last said of themselves: in each class those who hold most, no more of them than there are
    /// idle slots, each for its part of those.
    pub(super) fn wanted(&mut self, workers: &[Heartbeat], now: Timestamp) -> Vec<(String, HandBack)> {
        self.asked.retain(|_, at| now.since(*at) < AGAIN_AFTER);
        let mut classes: BTreeMap<&str, Vec<&Heartbeat>> = BTreeMap::new();
        for w in workers.iter().filter(|w| w.phase == WorkerPhase::Ready && now.since(w.at) < SILENT_AFTER) {
            classes.entry(&w.class).or_default().push(w);
        }
        let mut out = Vec::new();
        for members in classes.values() {
            let takers = || members.iter().filter(|w| w.waiting == 0 && w.idle > 0);
            let idle: u32 = takers().map(|w| w.idle).sum();
            let mut offers: Vec<Offers> = Vec::new();
            for w in takers() {
                if offers.len() < OFFERS && !offers.contains(&w.offers) {
                    offers.push(w.offers.clone());
                }
            }
            let mut holders: Vec<&Heartbeat> = members.iter().copied().filter(|w| w.waiting > 0).collect();
            // What was asked of others a moment ago is on its way to those who are idle.
            if holders.iter().any(|w| self.asked.contains_key(&w.worker)) {
                continue;
            }
            holders.sort_by(|a, b| b.waiting.cmp(&a.waiting).then_with(|| a.worker.cmp(&b.worker)));
            holders.truncate(idle as usize);
            let all: u64 = holders.iter().map(|w| w.waiting).sum();
            for w in holders {
                let part = (u64::from(idle) * w.waiting).div_ceil(all.max(1));
                let idle = u32::try_from(part).unwrap_or(u32::MAX);
                self.asked.insert(w.worker.clone(), now);
                out.push((w.worker.clone(), HandBack { idle, offers: offers.clone(), at: now }));
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(id: &str, waiting: u64, idle: u32) -> Heartbeat {
        Heartbeat {
            worker: id.into(),
            class: "default".into(),
            host: String::new(),
            version: String::new(),
            offers: Offers { slots: 2, memory: 1 << 30, named: BTreeMap::new() },
            started_at: Timestamp::ZERO,
            at: Timestamp::from_millis(10_000),
            phase: WorkerPhase::Ready,
            running: Vec::new(),
            ranges: 1,
            waiting,
            idle,
            tasks_done: 0,
            busy_us: 0,
            cpu_us: 0,
            tools: Vec::new(),
        }
    }

    fn asked(hand_backs: &mut HandBacks, workers: &[Heartbeat], at_ms: i64) -> Vec<(String, u32)> {
        let wanted = hand_backs.wanted(workers, Timestamp::from_millis(at_ms));
        wanted.into_iter().map(|(worker, back)| (worker, back.idle)).collect()
    }

    #[test]
    fn those_who_hold_most_are_asked_for_their_part_and_not_again_at_once() {
        let mut back = HandBacks::default();
        let workers = [worker("a", 10, 0), worker("b", 0, 2), worker("c", 30, 0), worker("d", 5, 0)];
        assert_eq!(asked(&mut back, &workers, 10_100), [("c".to_owned(), 2), ("a".to_owned(), 1)]);
        assert_eq!(asked(&mut back, &workers, 10_600), []);
        let wanted = back.wanted(&workers, Timestamp::from_millis(11_100));
        assert_eq!((wanted.len(), &wanted[1].1.offers), (2, &vec![workers[1].offers.clone()]));
    }

    #[test]
    fn nobody_is_asked_while_nobody_is_idle_or_for_those_who_cannot_take_it() {
        let busy = [worker("a", 10, 0), worker("b", 3, 0)];
        assert_eq!(asked(&mut HandBacks::default(), &busy, 10_100), []);
        // Its idle slots are of no use to what it holds itself, and nobody else is idle.
        let wide = [worker("a", 10, 1)];
        assert_eq!(asked(&mut HandBacks::default(), &wide, 10_100), []);
        let idle = worker("b", 0, 2);
        let cannot = [
            Heartbeat { phase: WorkerPhase::Draining, ..idle.clone() },
            Heartbeat { class: "gpu".into(), ..idle.clone() },
            Heartbeat { at: Timestamp::ZERO, ..idle },
        ];
        for idle in cannot {
            assert_eq!(asked(&mut HandBacks::default(), &[worker("a", 10, 0), idle], 16_000), []);
        }
    }
}
