//! The queue block on the local store.
//!
//! Bodies and leases are in the store; which message can be received is known in memory ([`index`]), so that receiving never
//! searches the store. Sends and acknowledgements are answered when they are on the disk, or with the operating system where the
//! queue's settings say that this will do. Leases are not synced: losing one in a
//! power cut is an early second delivery, which the contract allows, while killing the process loses none.

#[cfg(feature = "fuzz")]
pub mod fuzz;
mod index;
mod records;
mod recover;
mod state;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tidemill_base::{Env, Error, Result};
use tidemill_blocks::queue::{
    Browsed, Capabilities, Delivery, MAX_BATCH, MessageId, NewMessage, Queue, QueueInfo, QueueSettings, QueueStats, Receipt,
    ReceiptOutcome, Receive, Redrive, check_batch, check_lease, check_name, check_receive,
};
use tidemill_runtime::{Stopwatch, sleep};

use crate::store::{Durability, Group, Space, Store, Sweep};
use index::Ready;
use state::{Queues, Waiters};

/// Even when a timer is due this very moment a receiver sleeps so long, in case the clock stands still.
const SHORTEST_NAP: Duration = Duration::from_millis(1);

/// All queues of one data folder.
#[derive(Debug)]
pub struct EmbeddedQueue {
    store: Arc<Store>,
    env: Env,
    queues: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared(Mutex<Queues>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queues> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sweep for Shared {
    fn sweep(&self, group: &mut Group<'_>) -> Result<()> {
        let mut queues = self.lock();
        let now = group.now();
        let due: Vec<_> = queues.by_name.iter().filter(|(_, one)| one.is_due(now)).map(|(name, _)| name.clone()).collect();
        due.iter().try_for_each(|name| queues.settle(name, group))
    }
}

impl EmbeddedQueue {
    /// Reads the queues of `store`.
    pub(crate) fn open(store: Arc<Store>, env: Env) -> Result<Self> {
        let queues = Arc::new(Shared(Mutex::new(recover::recover(&store)?)));
        let sweeper: Arc<dyn Sweep> = queues.clone();
        store.add_sweeper(Arc::downgrade(&sweeper));
        Ok(Self { store, env, queues })
    }

    /// Runs `decide` on the writer thread, on the queues and the group at hand.
    async fn decide<T: Send + 'static>(
        &self,
        durability: Durability,
        decide: impl FnOnce(&mut Queues, &mut Group<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let queues = self.queues.clone();
        self.store.commit(durability, move |group| decide(&mut queues.lock(), group)).await
    }

    /// How far what is told of the queue must be before it is answered.
    fn durability(&self, queue: &str) -> Result<Durability> {
        let recoverable = self.queues.lock().get(queue)?.settings.recoverable;
        Ok(if recoverable { Durability::Buffered } else { Durability::Synced })
    }

    /// Brings the queue up to the present, so that what is read of it is exact.
    async fn settled(&self, queue: &str) -> Result<()> {
        let is_due = || self.queues.lock().get(queue).map(|one| one.is_due(self.env.now()));
        while is_due()? {
            let name = queue.to_owned();
            self.decide(Durability::Buffered, move |queues, group| queues.settle(&name, group)).await?;
        }
        Ok(())
    }

    async fn take(&self, queue: &str, how: Receive) -> Result<Vec<Delivery>> {
        let (name, env) = (queue.to_owned(), self.env.clone());
        let decide = move |queues: &mut Queues, group: &mut Group<'_>| {
            let taken = queues.take(&name, how.max, how.lease, &env, group)?;
            Ok((queues.get(&name)?.queue, taken))
        };
        let (number, taken) = self.decide(Durability::Buffered, decide).await?;
        let mut deliveries = Vec::with_capacity(taken.len());
        for message in taken {
            // A purge may have come between.
            if let Some((body, origin)) = self.body(queue, number, &message)? {
                deliveries.push(Delivery {
                    id: records::id(message.number),
                    receipt: records::receipt(message.number, message.nonce),
                    body,
                    receives: message.receives,
                    sent_at: origin.map_or(message.arrived_at, |o| o.sent_at),
                });
            }
        }
        Ok(deliveries)
    }

    fn body(&self, name: &str, queue: u32, message: &Ready) -> Result<Option<(bytes::Bytes, Option<records::Origin>)>> {
        let stored = self.store.get(Space::Messages, &records::message_key(queue, message))?;
        stored.map(records::parse_message).transpose().map_err(|e| {
            e.context(format!("message {} of queue `{name}` in {}", records::id(message.number).0, self.store.path().display()))
        })
    }

    /// What a receiver that found nothing waits on, and for how long at most; `None` when there may be something.
    fn nothing_yet(&self, queue: &str) -> Result<Option<(Arc<Waiters>, Option<Duration>)>> {
        let now = self.env.now();
        let queues = self.queues.lock();
        let one = queues.get(queue)?;
        Ok(if one.has_news(now) { None } else { Some((one.waiters.clone(), one.index.due_in(now))) })
    }
}

/// Counts a receiver as waiting for as long as it lives.
struct Waiting<'a>(&'a Waiters);

impl<'a> Waiting<'a> {
    fn new(waiters: &'a Waiters) -> Self {
        waiters.count.fetch_add(1, Ordering::SeqCst);
        Self(waiters)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl Queue for EmbeddedQueue {
    fn capabilities(&self) -> Capabilities {
        Capabilities { strict_leases: true, exact_stats: true, exact_browse: true }
    }

    async fn ensure(&self, queue: &str, settings: QueueSettings) -> Result<()> {
        check_name(queue)?;
        let name = queue.to_owned();
        self.decide(Durability::Synced, move |queues, group| queues.ensure(&name, settings, group)).await
    }

    async fn send(&self, queue: &str, messages: Vec<NewMessage>) -> Result<Vec<MessageId>> {
        check_batch(&messages)?;
        let (name, shared) = (queue.to_owned(), self.queues.clone());
        let decide = move |queues: &mut Queues, group: &mut Group<'_>| {
            let sent = queues.send(&name, &messages, group)?;
            let ids = sent.iter().map(|(message, _)| records::id(message.number)).collect();
            // Not before they are durable may anybody see them.
            group.after(move || shared.lock().publish(&name, sent));
            Ok(ids)
        };
        self.decide(self.durability(queue)?, decide).await
    }

    async fn receive(&self, queue: &str, how: Receive) -> Result<Vec<Delivery>> {
        check_receive(&how)?;
        let watch = Stopwatch::start();
        loop {
            let Some((waiters, due_in)) = self.nothing_yet(queue)? else {
                let deliveries = self.take(queue, how).await?;
                if !deliveries.is_empty() || watch.elapsed() >= how.wait {
                    return Ok(deliveries);
                }
                // Others were faster, or only dead letters were there.
                sleep(Duration::ZERO).await;
                continue;
            };
            let left = how.wait.saturating_sub(watch.elapsed());
            if left.is_zero() {
                return Ok(Vec::new());
            }
            let _waiting = Waiting::new(&waiters);
            let mut woken = std::pin::pin!(waiters.notify.notified());
            woken.as_mut().enable();
            // What came before this receiver was counted as waiting woke nobody.
            if self.nothing_yet(queue)?.is_none() {
                continue;
            }
            let nap = due_in.map_or(left, |due| left.min(due)).max(SHORTEST_NAP);
            tokio::select! {
                biased;
                () = woken => {}
                () = sleep(nap) => {}
            }
        }
    }

    async fn ack(&self, queue: &str, receipts: &[Receipt]) -> Result<Vec<ReceiptOutcome>> {
        let (name, receipts) = (queue.to_owned(), parse_receipts(receipts)?);
        self.decide(self.durability(queue)?, move |queues, group| queues.ack(&name, &receipts, group)).await
    }

    async fn extend(&self, queue: &str, receipts: &[Receipt], lease: Duration) -> Result<Vec<ReceiptOutcome>> {
        check_lease(lease)?;
        let (name, receipts) = (queue.to_owned(), parse_receipts(receipts)?);
        self.decide(Durability::Buffered, move |queues, group| queues.extend(&name, &receipts, lease, group)).await
    }

    async fn stats(&self, queue: &str) -> Result<QueueStats> {
        self.settled(queue).await?;
        Ok(self.queues.lock().get(queue)?.index.stats(self.env.now()))
    }

    async fn list(&self) -> Result<Vec<QueueInfo>> {
        let names: Vec<_> = self.queues.lock().by_name.keys().cloned().collect();
        for name in &names {
            self.settled(name).await?;
        }
        let (now, queues) = (self.env.now(), self.queues.lock());
        let info = |(name, one): (&String, &state::One)| QueueInfo {
            name: name.clone(),
            settings: one.settings.clone(),
            stats: one.index.stats(now),
        };
        Ok(queues.by_name.iter().map(info).collect())
    }

    async fn browse(&self, queue: &str, max: usize) -> Result<Vec<Browsed>> {
        self.settled(queue).await?;
        let (number, messages) = {
            let queues = self.queues.lock();
            let one = queues.get(queue)?;
            (one.queue, one.index.first(max))
        };
        let mut out = Vec::with_capacity(messages.len());
        for message in messages {
            let Some((body, origin)) = self.body(queue, number, &message)? else { continue };
            let died = origin.and_then(|o| o.died);
            out.push(Browsed {
                id: records::id(message.number),
                body,
                receives: message.receives + died.map_or(0, |(_, receives)| receives),
                sent_at: origin.map_or(message.arrived_at, |o| o.sent_at),
                died_in: died.and_then(|(queue, _)| self.queues.lock().name_of(queue).map(str::to_owned)),
            });
        }
        Ok(out)
    }

    async fn redrive(&self, from: &str, which: Redrive, to: Option<&str>) -> Result<u64> {
        self.settled(from).await?;
        if let Some(to) = to {
            self.queues.lock().get(to)?;
            if to == from {
                return Err(Error::invalid(format!("dead letters of `{from}` cannot be redriven into itself; name another queue")));
            }
        }
        let (mut moved, mut next) = (0, Some(0));
        let which = Arc::new(which);
        while let Some(at) = next {
            let (from, which, to) = (from.to_owned(), which.clone(), to.map(str::to_owned));
            let step = move |queues: &mut Queues, group: &mut Group<'_>| queues.redrive(&from, &which, at, to.as_deref(), group);
            let (some, then) = self.decide(Durability::Synced, step).await?;
            (moved, next) = (moved + some, then);
        }
        Ok(moved)
    }

    async fn purge(&self, queue: &str) -> Result<u64> {
        let last = self.store.committed();
        let mut dropped = 0;
        loop {
            let name = queue.to_owned();
            let some = self.decide(Durability::Synced, move |queues, group| queues.purge(&name, last, group)).await?;
            if some == 0 {
                return Ok(dropped);
            }
            dropped += some;
        }
    }
}

fn parse_receipts(receipts: &[Receipt]) -> Result<Vec<Option<(u64, u64)>>> {
    if receipts.len() > MAX_BATCH {
        return Err(Error::invalid(format!("{} receipts in one call; send at most {MAX_BATCH}", receipts.len())));
    }
    // What is no receipt of ours names no delivery, so it is as stale as can be.
    Ok(receipts.iter().map(records::parse_receipt).collect())
}
