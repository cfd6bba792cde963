//! What has become of engines, counted over pools and for as long as the program lives.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::loss::Cause;

/// How engines end, as [`Tally::ended`] counts them.
pub const ENDS: [&str; 6] = ["stopped", "crash", "timeout", "memory", "start", "cancelled"];

/// Counts. Clones count together, and pools that are given clones do.
#[derive(Debug, Clone, Default)]
pub struct Tally(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    started: AtomicU64,
    ended: [AtomicU64; ENDS.len()],
    stolen: AtomicU64,
}

/// Tallies are equal when they count together.
impl PartialEq for Tally {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Tally {
    pub(crate) fn on_started(&self) {
        self.0.started.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn on_ended(&self, cause: &Cause) {
        let place = match cause {
            Cause::Stopped => 0,
            Cause::Exit(_) | Cause::Signal(_) | Cause::Closed | Cause::Violation(_) => 1,
            Cause::Task(_) | Cause::Open(_) | Cause::Ping(_) => 2,
            Cause::Memory { .. } => 3,
            Cause::Start(_) | Cause::Boot(_) => 4,
            Cause::Cancelled => 5,
        };
        self.0.ended[place].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn on_stolen(&self, tasks: usize) {
        self.0.stolen.fetch_add(tasks as u64, Ordering::Relaxed);
    }

    /// Engines that have said HELLO.
    pub fn started(&self) -> u64 {
        self.0.started.load(Ordering::Relaxed)
    }

    /// Engines that have ended, or were never ready, by [`ENDS`].
    pub fn ended(&self) -> [u64; ENDS.len()] {
        std::array::from_fn(|place| self.0.ended[place].load(Ordering::Relaxed))
    }

    /// Tasks that were taken from an engine that was stuck in another one, for its neighbours.
    pub fn stolen(&self) -> u64 {
        self.0.stolen.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_count_together_and_ends_go_by_their_cause() {
        let (one, other) = (Tally::default(), Tally::default());
        let clone = one.clone();
        clone.on_started();
        clone.on_stolen(3);
        for cause in [Cause::Stopped, Cause::Signal(9), Cause::Exit(1), Cause::Memory { seen: 2, limit: 1 }] {
            clone.on_ended(&cause);
        }
        assert_eq!((one.started(), one.stolen(), one.ended()), (1, 3, [1, 2, 0, 1, 0, 0]));
        assert!(one == clone && one != other);
        // A cause and the class of its error agree, where the task is to blame.
        for cause in [Cause::Exit(3), Cause::Memory { seen: 2, limit: 1 }, Cause::Start(String::new())] {
            let tally = Tally::default();
            tally.on_ended(&cause);
            let at = tally.ended().iter().position(|n| *n == 1).unwrap();
            assert_eq!(ENDS[at], cause.class());
        }
    }
}
