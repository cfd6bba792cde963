//! One process of a run, with its own way through the faults and its own crash.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tidemill_base::{Error, Result};
use tidemill_blocks::Blocks;
use tidemill_blocks::ledger::Ledger;
use tidemill_blocks::objects::Objects;
use tidemill_blocks::queue::Queue;
use tidemill_blocks::table::Table;
use tidemill_runtime::sleep;
use tokio::sync::watch;

use super::ledger::FaultyLedger;
use super::objects::FaultyObjects;
use super::queue::FaultyQueue;
use super::table::FaultyTable;
use super::{Fault, Faults};

/// A process whose calls go wrong; clones are the same process.
#[derive(Debug, Clone)]
pub struct Component {
    name: Arc<str>,
    faults: Faults,
    /// Calls until it crashes, when that is set.
    fuse: Arc<Mutex<Option<u64>>>,
    crashed: watch::Sender<bool>,
    frozen: Arc<AtomicBool>,
}

/// What becomes of one call.
enum Fate {
    /// It is made; its answer arrives or is lost.
    Made { lose_reply: bool },
    /// It fails before it has an effect.
    Failed(Fault),
    /// The component dies in it, before or after the effect.
    Dies { takes_effect: bool },
}

impl Component {
    pub(super) fn new(name: &str, faults: Faults) -> Self {
        Self { name: name.into(), faults, fuse: Arc::default(), crashed: watch::Sender::new(false), frozen: Arc::default() }
    }

    /// The blocks as this component sees them.
    pub fn blocks(&self, blocks: &Blocks) -> Blocks {
        Blocks {
            objects: self.objects(blocks.objects.clone()),
            queue: self.queue(blocks.queue.clone()),
            table: self.table(blocks.table.clone()),
            ledger: self.ledger(blocks.ledger.clone()),
            grants: blocks.grants.clone(),
            fleet: blocks.fleet.clone(),
        }
    }

    /// The queue as this component sees it.
    pub fn queue(&self, inner: Arc<dyn Queue>) -> Arc<dyn Queue> {
        Arc::new(FaultyQueue { inner, component: self.clone() })
    }

    /// The table as this component sees it.
    pub fn table(&self, inner: Arc<dyn Table>) -> Arc<dyn Table> {
        Arc::new(FaultyTable { inner, component: self.clone() })
    }

    /// The ledger as this component sees it.
    pub fn ledger(&self, inner: Arc<dyn Ledger>) -> Arc<dyn Ledger> {
        Arc::new(FaultyLedger { inner, component: self.clone() })
    }

    /// The objects as this component sees them.
    pub fn objects(&self, inner: Objects) -> Objects {
        Arc::new(FaultyObjects { inner, component: self.clone() })
    }

    /// It dies now: every call fails from here on, and so do those under way.
    pub fn crash(&self) {
        self.crashed.send_replace(true);
    }

    /// It dies in the call number `calls` from now (from 1): a coin decides whether that call still takes effect, its answer is
    /// never seen.
    pub fn crash_after(&self, calls: u64) {
        *self.fuse() = Some(calls.max(1));
    }

    /// It is stopped, as a machine is that swaps or is paused: no call gets out and no answer in until it is thawed. Its own clock
    /// goes on, so it wakes with leases that have ended and writes that are late.
    pub fn freeze(&self) {
        self.frozen.store(true, Ordering::SeqCst);
    }

    /// It goes on where it was frozen.
    pub fn thaw(&self) {
        self.frozen.store(false, Ordering::SeqCst);
    }

    async fn thawed(&self) {
        // Asked again and again: a watch channel wakes those who wait in an order that does not follow from the seed.
        while self.frozen.load(Ordering::SeqCst) && !self.is_crashed() {
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// It lives again, as a process started anew does.
    pub fn restart(&self) {
        *self.fuse() = None;
        self.crashed.send_replace(false);
    }

    /// Whether it is dead.
    pub fn is_crashed(&self) -> bool {
        *self.crashed.borrow()
    }

    /// Returns when it dies. Whoever runs the component races it against this, and drops what it runs.
    pub async fn crashed(&self) {
        let mut seen = self.crashed.subscribe();
        // The sender lives in `self`, so waiting cannot fail.
        drop(seen.wait_for(|dead| *dead).await);
    }

    pub(super) const fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Makes a call, or what becomes of it. `partial` takes the place of `effect` when the answer is lost.
    pub(super) async fn call_or<T>(
        &self,
        what: &str,
        effect: impl Future<Output = Result<T>>,
        partial: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        self.thawed().await;
        let answer = match self.fate() {
            Fate::Failed(fault) => Err(self.error(fault, what)),
            Fate::Made { lose_reply: false } => self.delayed(effect).await,
            Fate::Made { lose_reply: true } => match self.delayed(partial).await {
                Ok(_) => {
                    self.faults.note(Fault::LostReply);
                    Err(self.error(Fault::LostReply, what))
                }
                // It failed by itself.
                Err(e) => Err(e),
            },
            Fate::Dies { takes_effect } => {
                if takes_effect {
                    drop(partial.await);
                }
                self.crash();
                Err(self.error(Fault::Crashed, what))
            }
        };
        self.thawed().await;
        // An answer that arrives at a dead process is not seen.
        let answer = if self.is_crashed() { answer.and_then(|_| Err(self.error(Fault::Crashed, what))) } else { answer };
        self.faults.trace(|| {
            let outcome = answer.as_ref().map_or_else(|e| e.kind().as_str(), |_| "ok");
            format!("{} {what} {outcome}", self.name)
        });
        answer
    }

    /// Makes a call that is all or nothing, or what becomes of it.
    pub(super) async fn call<T>(&self, what: &str, effect: impl Future<Output = Result<T>>) -> Result<T> {
        // Either the one or the other is awaited, so one future in a cell serves both.
        let effect = Mutex::new(Some(effect));
        let once = || async {
            let effect = effect.lock().unwrap_or_else(PoisonError::into_inner).take();
            match effect {
                Some(effect) => effect.await,
                None => Err(Error::internal("a call was made twice")),
            }
        };
        self.call_or(what, once(), once()).await
    }

    fn fate(&self) -> Fate {
        if self.is_crashed() {
            self.faults.note(Fault::Crashed);
            return Fate::Failed(Fault::Crashed);
        }
        let mut fuse = self.fuse();
        if let Some(left) = fuse.as_mut() {
            *left -= 1;
            if *left == 0 {
                *fuse = None;
                self.faults.note(Fault::Crashed);
                return Fate::Dies { takes_effect: self.faults.coin() };
            }
        }
        drop(fuse);
        if self.faults.strikes(Fault::Refused, |p| p.refuse) {
            return Fate::Failed(Fault::Refused);
        }
        if self.faults.strikes(Fault::Throttled, |p| p.throttle) {
            return Fate::Failed(Fault::Throttled);
        }
        // Counted when it happens: a call that fails by itself has lost nothing.
        Fate::Made { lose_reply: self.faults.happens(|p| p.lose_reply) }
    }

    /// The call takes its time on the way there or on the way back. What is on its way arrives, even if its sender has died since.
    async fn delayed<T>(&self, effect: impl Future<Output = Result<T>>) -> Result<T> {
        if !self.faults.strikes(Fault::Delayed, |p| p.delay) {
            return effect.await;
        }
        let (before, delay) = (self.faults.coin(), self.faults.delay());
        if before {
            sleep(delay).await;
            return effect.await;
        }
        let answer = effect.await;
        sleep(delay).await;
        answer
    }

    fn error(&self, fault: Fault, what: &str) -> Error {
        Error::unavailable(format!("injected: {what} of {} {fault:?}", self.name))
    }

    fn fuse(&self) -> std::sync::MutexGuard<'_, Option<u64>> {
        self.fuse.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
