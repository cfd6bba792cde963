//! Shutdown in two stages: drain, then close.

use std::time::Duration;

use tokio::sync::watch;

use crate::sleep;

/// How far the shutdown has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Ordinary life.
    Running,
    /// Take nothing new; finish or give back what there is.
    Draining,
    /// Let go of everything now.
    Closing,
}

impl Phase {
    /// Whether nothing has been asked to stop.
    pub fn is_running(self) -> bool {
        self == Self::Running
    }
}

/// A handle on one shutdown; clones share it.
#[derive(Debug, Clone)]
pub struct Shutdown(watch::Sender<Phase>);

impl Default for Shutdown {
    fn default() -> Self {
        Self::new()
    }
}

impl Shutdown {
    /// Running.
    pub fn new() -> Self {
        Self(watch::Sender::new(Phase::Running))
    }

    /// Asks for the first stage. Later stages are not taken back.
    pub fn drain(&self) {
        self.advance(Phase::Draining);
    }

    /// Asks for the second stage.
    pub fn close(&self) {
        self.advance(Phase::Closing);
    }

    fn advance(&self, to: Phase) {
        self.0.send_if_modified(|p| {
            let further = to > *p;
            if further {
                *p = to;
            }
            further
        });
    }

    /// The present stage.
    pub fn phase(&self) -> Phase {
        *self.0.borrow()
    }

    /// Returns when draining or closing has been asked for.
    pub async fn draining(&self) {
        self.reached(Phase::Draining).await;
    }

    /// Returns when closing has been asked for.
    pub async fn closing(&self) {
        self.reached(Phase::Closing).await;
    }

    async fn reached(&self, at_least: Phase) {
        let mut rx = self.0.subscribe();
        // The sender lives in `self`, so waiting cannot fail.
        drop(rx.wait_for(|p| *p >= at_least).await);
    }

    /// Sleeps, but no longer than until draining is asked for. Returns the stage found then.
    pub async fn sleep(&self, d: Duration) -> Phase {
        tokio::select! {
            biased;
            () = self.draining() => {}
            () = sleep(d) => {}
        }
        self.phase()
    }
}
