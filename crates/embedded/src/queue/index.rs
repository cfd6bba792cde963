//! Which messages of a queue can be received, in memory.
//!
//! A message that was never delivered costs sixteen bytes here. Its body stays in the store, and nothing here is asked of the store
//! again, so that the traces of acknowledged messages never slow a receiver down.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use tidemill_base::Timestamp;
use tidemill_blocks::queue::QueueStats;

/// A message that can be received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ready {
    /// Its number, which grows with the time of sending.
    pub(super) number: u64,
    /// When it came into this queue.
    pub(super) arrived_at: Timestamp,
    /// How often it was delivered.
    pub(super) receives: u32,
    /// Of the last delivery; zero when there was none.
    pub(super) nonce: u64,
    /// Whether the store holds a lease or a delay of it.
    pub(super) recorded: bool,
}

impl Ready {
    /// A message that was never delivered nor delayed.
    pub(super) const fn fresh(number: u64, arrived_at: Timestamp) -> Self {
        Self { number, arrived_at, receives: 0, nonce: 0, recorded: false }
    }
}

/// A message that waits for a time: under lease when it has been delivered, else delayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Parked {
    pub(super) arrived_at: Timestamp,
    pub(super) receives: u32,
    pub(super) nonce: u64,
    pub(super) until: Timestamp,
}

impl Parked {
    const fn ready(self, number: u64) -> Ready {
        Ready { number, arrived_at: self.arrived_at, receives: self.receives, nonce: self.nonce, recorded: true }
    }
}

/// The messages of one queue.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// Never delivered, ascending by number.
    fresh: VecDeque<(u64, Timestamp)>,
    /// Can be received, but did not come in order: given back, expired, redriven, or delayed before.
    again: BTreeMap<u64, Ready>,
    parked: BTreeMap<u64, Parked>,
    /// When parked messages become ready.
    timers: BTreeSet<(Timestamp, u64)>,
    delayed: u64,
}

impl Index {
    /// Adds a message that can be received now.
    pub(super) fn add(&mut self, message: Ready) {
        let in_order = self.fresh.back().is_none_or(|(last, _)| *last < message.number);
        if in_order && !message.recorded {
            self.fresh.push_back((message.number, message.arrived_at));
        } else {
            self.again.insert(message.number, message);
        }
    }

    /// Adds a message that waits.
    pub(super) fn park(&mut self, number: u64, parked: Parked) {
        self.delayed += u64::from(parked.nonce == 0);
        self.timers.insert((parked.until, number));
        self.parked.insert(number, parked);
    }

    /// The oldest message that can be received, taken out.
    pub(super) fn take(&mut self) -> Option<Ready> {
        let again = self.again.first_key_value().map(|(n, _)| *n);
        match (self.fresh.front(), again) {
            (Some((fresh, _)), Some(again)) if again < *fresh => self.again.pop_first().map(|(_, m)| m),
            (Some(_), _) => self.fresh.pop_front().map(|(number, arrived_at)| Ready::fresh(number, arrived_at)),
            (None, _) => self.again.pop_first().map(|(_, m)| m),
        }
    }

    /// The message of the delivery `nonce`, unless it has been delivered anew or is gone.
    pub(super) fn delivered(&self, number: u64, nonce: u64) -> Option<Ready> {
        let message = self.parked.get(&number).map(|p| p.ready(number)).or_else(|| self.again.get(&number).copied());
        message.filter(|m| nonce != 0 && m.nonce == nonce)
    }

    /// The message, wherever it is.
    pub(super) fn find(&self, number: u64) -> Option<Ready> {
        let held = self.parked.get(&number).map(|p| p.ready(number)).or_else(|| self.again.get(&number).copied());
        held.or_else(|| {
            let at = self.fresh.binary_search_by_key(&number, |(n, _)| *n).ok()?;
            self.fresh.get(at).map(|(number, arrived_at)| Ready::fresh(*number, *arrived_at))
        })
    }

    /// Takes a message out, wherever it is.
    pub(super) fn remove(&mut self, number: u64) -> Option<Ready> {
        if let Some(parked) = self.parked.remove(&number) {
            self.timers.remove(&(parked.until, number));
            self.delayed -= u64::from(parked.nonce == 0);
            return Some(parked.ready(number));
        }
        if let Some(message) = self.again.remove(&number) {
            return Some(message);
        }
        let at = self.fresh.binary_search_by_key(&number, |(n, _)| *n).ok()?;
        self.fresh.remove(at).map(|(number, arrived_at)| Ready::fresh(number, arrived_at))
    }

    /// Takes out one message whose time has come.
    pub(super) fn take_due(&mut self, now: Timestamp) -> Option<Ready> {
        let (until, number) = self.timers.first().copied()?;
        if until > now { None } else { self.remove(number) }
    }

    /// When the next waiting message becomes ready.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// The oldest message that can be received.
    pub(super) fn oldest_ready(&self) -> Option<(u64, Timestamp)> {
        let again = self.again.first_key_value().map(|(n, m)| (*n, m.arrived_at));
        [self.fresh.front().copied(), again].into_iter().flatten().min()
    }

    /// Whether anything can be received now.
    pub(super) fn has_ready(&self) -> bool {
        !self.fresh.is_empty() || !self.again.is_empty()
    }

    fn oldest(&self) -> Option<(u64, Timestamp)> {
        let parked = self.parked.first_key_value().map(|(n, p)| (*n, p.arrived_at));
        [self.oldest_ready(), parked].into_iter().flatten().min()
    }

    /// No message has a lower number than this.
    pub(super) fn lowest(&self) -> Option<u64> {
        self.oldest().map(|(number, _)| number)
    }

    /// The counts as they are at `now`.
    pub(super) fn stats(&self, now: Timestamp) -> QueueStats {
        QueueStats {
            ready: (self.fresh.len() + self.again.len()) as u64,
            delayed: self.delayed,
            in_flight: self.parked.len() as u64 - self.delayed,
            oldest_age: self.oldest().map(|(_, arrived_at)| now.since(arrived_at)),
        }
    }

    /// Up to `max` messages in the order of sending, held ones included.
    pub(super) fn first(&self, max: usize) -> Vec<Ready> {
        let fresh = self.fresh.iter().take(max).map(|(number, arrived_at)| Ready::fresh(*number, *arrived_at));
        let again = self.again.values().take(max).copied();
        let parked = self.parked.iter().take(max).map(|(number, p)| p.ready(*number));
        let mut all: Vec<_> = fresh.chain(again).chain(parked).collect();
        all.sort_unstable_by_key(|m| m.number);
        all.truncate(max);
        all
    }

    /// Up to `max` numbers from `from` on of messages that nobody holds, ascending.
    pub(super) fn unheld(&self, from: u64, max: usize) -> Vec<u64> {
        let start = self.fresh.partition_point(|(n, _)| *n < from);
        let fresh = self.fresh.range(start..).take(max).map(|(n, _)| *n);
        let again = self.again.range(from..).take(max).map(|(n, _)| *n);
        let delayed = self.parked.range(from..).filter(|(_, p)| p.nonce == 0).take(max).map(|(n, _)| *n);
        let mut all: Vec<_> = fresh.chain(again).chain(delayed).collect();
        all.sort_unstable();
        all.truncate(max);
        all
    }

    /// Whether somebody holds the message.
    pub(super) fn is_held(&self, number: u64) -> bool {
        self.parked.get(&number).is_some_and(|p| p.nonce != 0)
    }

    /// How long from `now` until the next waiting message is ready.
    pub(super) fn due_in(&self, now: Timestamp) -> Option<Duration> {
        self.next_due().map(|at| at.since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fresh(number: u64) -> Ready {
        Ready::fresh(number, Timestamp(i64::try_from(number).unwrap()))
    }

    #[test]
    fn the_oldest_comes_first_wherever_it_waits() {
        let mut index = Index::default();
        for n in [1, 3, 4] {
            index.add(fresh(n));
        }
        index.add(Ready { receives: 1, nonce: 9, recorded: true, ..fresh(2) });
        assert_eq!(std::iter::from_fn(|| index.take()).map(|m| m.number).collect::<Vec<_>>(), [1, 2, 3, 4]);
    }

    #[test]
    fn counts_follow_every_move() {
        let mut index = Index::default();
        index.add(fresh(1));
        index.park(2, Parked { arrived_at: Timestamp(2), receives: 0, nonce: 0, until: Timestamp(50) });
        index.park(3, Parked { arrived_at: Timestamp(3), receives: 1, nonce: 7, until: Timestamp(60) });
        let stats = index.stats(Timestamp(11));
        assert_eq!((stats.ready, stats.delayed, stats.in_flight), (1, 1, 1));
        assert_eq!(stats.oldest_age, Some(Duration::from_micros(10)));
        assert!(index.take_due(Timestamp(49)).is_none());
        assert_eq!(index.take_due(Timestamp(50)).map(|m| m.number), Some(2));
        assert_eq!(index.remove(3).map(|m| m.nonce), Some(7));
        assert_eq!(index.remove(1).map(|m| m.number), Some(1));
        assert!(index.next_due().is_none());
        assert_eq!(index.stats(Timestamp(11)), QueueStats::default());
    }
}
