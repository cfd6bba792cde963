//! Versions that grow at every write of a key, chosen by the client, with no request spent on them.
//!
//! A version is a hybrid clock's reading: microseconds since 1970 in the upper 54 bits, and in the lower ten a number that this
//! client drew when it started. A client's readings grow strictly, and a client that sees a version ahead of its clock moves its
//! clock there. Why this is enough:
//!
//! - *Over an item that is there* a write has the condition that the stored version is smaller. Of two clients with skewed clocks
//!   the slower one's condition fails; DynamoDB answers with the stored item, and the write goes again with a version above
//!   that one. So versions of an item that is there grow whatever the clocks say. The second request is paid only under skew.
//! - *After a removal* nothing is there to compare with. The client that removed the item has seen its version (`DeleteItem`
//!   answers with the old item, and a conditional removal knows it) and goes on above it. Another client that has seen nothing of
//!   it may store the key anew with a smaller version, if its clock lags by more than the time since; machines that keep time
//!   are milliseconds apart. What matters then is that no version comes *again*, or a `Condition::Version` of before would hold
//!   for the new item. For that two clients would have to hit the same microsecond and share the ten drawn bits.
//! - *A clock that is far ahead* would drag all others with it for ever. So a client follows by a minute at most; over an item
//!   from further ahead it writes that item's version plus one, and its own clock stays.
//! - `BatchWriteItem` takes no conditions, so `write_many` over an item that a client with a faster clock has just written may
//!   lower its version; it is still one that was never used.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use tidemill_base::{Env, Timestamp};

/// Bits that tell clients apart.
const CLIENT_BITS: u32 = 10;
/// How far ahead of its own clock a client follows another's.
const FOLLOWED: Duration = Duration::from_secs(60);

/// Gives this client's versions.
#[derive(Debug)]
pub(crate) struct Versions {
    env: Env,
    client: u64,
    last: Mutex<u64>,
}

fn reading(at: Timestamp) -> u64 {
    at.micros().unsigned_abs() << CLIENT_BITS
}

impl Versions {
    pub(crate) fn new(env: Env) -> Self {
        let client = env.random_below(1 << CLIENT_BITS);
        Self { env, client, last: Mutex::new(0) }
    }

    /// A version greater than all that this client gave or saw, and greater than `seen`.
    pub(crate) fn next(&self, seen: u64) -> u64 {
        self.saw(seen);
        let now = reading(self.env.now()) | self.client;
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        *last = now.max((*last | ((1 << CLIENT_BITS) - 1)) + 1 + self.client);
        (*last).max(seen + 1)
    }

    /// Notes a version that came from the table.
    pub(crate) fn saw(&self, version: u64) {
        if version <= reading(self.env.now() + FOLLOWED) {
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            *last = (*last).max(version);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_millis(1_700_000_000_000);

    #[test]
    fn versions_grow_while_the_clock_stands() {
        let versions = Versions::new(Env::manual(START, 1).0);
        let mut last = 0;
        for _ in 0..1000 {
            let next = versions.next(0);
            assert!(next > last && next & 1023 == versions.client);
            last = next;
        }
    }

    #[test]
    fn a_slow_clock_follows_what_it_sees() {
        let slow = Versions::new(Env::manual(START, 1).0);
        let fast = Versions::new(Env::manual(START + Duration::from_secs(10), 2).0);
        let ahead = fast.next(0);
        assert!(slow.next(0) < ahead);
        slow.saw(ahead);
        assert!(slow.next(0) > ahead);
    }

    #[test]
    fn a_clock_from_the_future_is_outbid_and_not_followed() {
        let versions = Versions::new(Env::manual(START, 1).0);
        let future = reading(START + Duration::from_secs(3600 * 24 * 365));
        assert_eq!(versions.next(future), future + 1);
        assert!(versions.next(0) < reading(START + Duration::from_secs(1)));
    }

    #[test]
    fn versions_fit_a_signed_number_for_two_centuries() {
        assert!(i64::try_from(reading(Timestamp::from_millis(7_000_000_000_000))).is_ok());
    }
}
