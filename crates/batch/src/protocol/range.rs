//! The fence of a range, and the decision whether one may claim it.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidemill_base::{RunSet, Timestamp};

/// What the table holds of a range once somebody has claimed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangeState {
    /// Grows at every claim. Reports of an older epoch are refused.
    pub epoch: u64,
    /// Who holds it.
    pub worker: String,
    /// The holder is taken to be lost after this.
    pub lease_until: Timestamp,
    /// The last report's sequence number; 0 before the first.
    pub seq: u64,
    /// Tasks that reports have settled: succeeded, failed, cancelled or handed back.
    pub settled: RunSet,
    /// Nothing of it is left to do.
    pub finished: bool,
}

/// What to do about a delivered range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// Write this state (if the fence is still as it was read) and go to work.
    Take(RangeState),
    /// It is finished: tell the manager again and acknowledge.
    AlreadyFinished,
    /// Another worker is at it: let the message rest for so long.
    HeldByOther(Duration),
}

/// Decides on a claim. `current` is the fence as read, `None` if there is none.
pub fn claim(current: Option<&RangeState>, worker: &str, now: Timestamp, lease: Duration) -> Claim {
    let fresh = |epoch, seq, settled| {
        Claim::Take(RangeState { epoch, worker: worker.to_owned(), lease_until: now + lease, seq, settled, finished: false })
    };
    match current {
        None => fresh(1, 0, RunSet::new()),
        Some(s) if s.finished => Claim::AlreadyFinished,
        Some(s) if s.lease_until > now && s.worker != worker => Claim::HeldByOther(s.lease_until.since(now)),
        Some(s) => fresh(s.epoch + 1, s.seq, s.settled.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(30);

    #[test]
    fn a_running_claim_is_left_alone_and_a_dead_one_is_taken_with_the_next_epoch() {
        let now = Timestamp::from_millis(1000);
        let Claim::Take(mut first) = claim(None, "a", now, LEASE) else { panic!("nobody held it") };
        assert_eq!((first.epoch, first.seq), (1, 0));
        first.settled.insert_run(0, 3);
        first.seq = 2;
        assert_eq!(claim(Some(&first), "b", now, LEASE), Claim::HeldByOther(LEASE));
        let Claim::Take(second) = claim(Some(&first), "b", now + LEASE, LEASE) else { panic!("the lease has ended") };
        assert_eq!((second.epoch, second.seq, second.settled.len()), (2, 2, 3));
        first.finished = true;
        assert_eq!(claim(Some(&first), "b", now + LEASE, LEASE), Claim::AlreadyFinished);
    }
}
