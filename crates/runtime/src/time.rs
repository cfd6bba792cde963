//! Sleeping and measuring on tokio's clock, which a test may pause.

use std::future::Future;
use std::time::Duration;

use tidemill_base::{Clock, Error, Result, Timestamp};

/// Waits. Zero still yields once.
#[expect(clippy::disallowed_methods, reason = "this is the one place that sleeps")]
pub async fn sleep(d: Duration) {
    if d.is_zero() {
        tokio::task::yield_now().await;
    } else {
        tokio::time::sleep(d).await;
    }
}

/// The future's value, or `Unavailable` when it takes longer than `limit`; `what` names it in the message.
#[expect(clippy::disallowed_methods, reason = "this is the one place that sets timeouts")]
pub async fn timeout<T>(limit: Duration, what: &str, future: impl Future<Output = T>) -> Result<T> {
    tokio::time::timeout(limit, future).await.map_err(|_| Error::unavailable(format!("{what} took longer than {limit:?}")))
}

/// Measures a span of work.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch(tokio::time::Instant);

impl Stopwatch {
    /// Starts measuring.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the monotonic clock")]
    pub fn start() -> Self {
        Self(tokio::time::Instant::now())
    }

    /// The time since the start.
    pub fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

/// A wall clock that runs with tokio's: in a paused runtime it stands still until tasks sleep. For the simulator.
#[derive(Debug, Clone, Copy)]
pub struct TokioClock {
    epoch: Timestamp,
    started: tokio::time::Instant,
}

impl TokioClock {
    /// Shows `epoch` now.
    #[expect(clippy::disallowed_methods, reason = "anchors the simulated wall clock")]
    pub fn starting_at(epoch: Timestamp) -> Self {
        Self { epoch, started: tokio::time::Instant::now() }
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        self.epoch + self.started.elapsed()
    }
}
