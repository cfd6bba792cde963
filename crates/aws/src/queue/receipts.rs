//! Our receipts: SQS's handle, and when it was given.
//!
//! The time is there because SQS hides a message for 12 hours at most *from its delivery on*, and refuses an extension that would
//! go beyond; so the driver asks for what is left of them.

use std::time::Duration;

use tidemill_base::Timestamp;
use tidemill_blocks::queue::{MAX_LEASE, Receipt};

/// Clocks of the machine that received and of the one that extends may be so far apart.
const MARGIN: Duration = Duration::from_secs(5);

/// What a receipt holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Handle {
    pub(super) received_at: Timestamp,
    /// SQS's own.
    pub(super) handle: String,
}

impl Handle {
    pub(super) fn receipt(&self) -> Receipt {
        Receipt(format!("{}.{}", self.received_at.millis(), self.handle))
    }

    /// `None` for what is no receipt of this driver.
    pub(super) fn read(receipt: &Receipt) -> Option<Self> {
        let (received_at, handle) = receipt.0.split_once('.')?;
        let received_at = Timestamp::from_millis(received_at.parse().ok()?);
        Some(Self { received_at, handle: handle.to_owned() }).filter(|h| !h.handle.is_empty())
    }

    /// The seconds to hide the message for, rounded up, within SQS's limit.
    pub(super) fn seconds(&self, lease: Duration, now: Timestamp) -> i32 {
        let passed = now.since(self.received_at);
        let left = if passed + lease <= MAX_LEASE { lease } else { MAX_LEASE.saturating_sub(passed + MARGIN).min(lease) };
        seconds(left)
    }
}

/// Whole seconds, rounded up.
pub(super) fn seconds(d: Duration) -> i32 {
    i32::try_from(d.as_secs() + u64::from(d.subsec_nanos() > 0)).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn receipts_come_back() {
        let handle = Handle { received_at: Timestamp::from_millis(1_763_741_234_567), handle: "AQEB/+=.x".to_owned() };
        assert_eq!(Handle::read(&handle.receipt()), Some(handle));
        for foreign in ["", "r", "nonsense", "1", "-.x", "1.", "\u{1F30A}"] {
            assert_eq!(Handle::read(&Receipt(foreign.to_owned())), None, "{foreign}");
        }
    }

    #[test]
    fn leases_end_twelve_hours_after_the_delivery_at_most() {
        let start = Timestamp::from_millis(1_763_741_234_567);
        let handle = Handle { received_at: start, handle: "h".to_owned() };
        assert_eq!(handle.seconds(HOUR, start + HOUR), 3600);
        assert_eq!(handle.seconds(HOUR * 12, start), 12 * 3600);
        assert_eq!(handle.seconds(HOUR * 2, start + HOUR * 11), 3595);
        assert_eq!(handle.seconds(HOUR, start + HOUR * 13), 0);
        assert_eq!(seconds(Duration::from_millis(1001)), 2);
    }
}
