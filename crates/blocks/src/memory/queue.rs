//! The queue's meaning, in memory.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tidemill_base::{Env, Error, Result, Timestamp};
use tidemill_runtime::{Stopwatch, sleep};
use tokio::sync::Notify;

use crate::queue::{
    Browsed, Capabilities, Delivery, MessageId, NewMessage, Queue, QueueInfo, QueueSettings, QueueStats, Receipt, ReceiptOutcome, Receive,
    Redrive, check_batch, check_lease, check_name, check_receive,
};

/// Queues in memory. Messages are received in the order in which they became ready.
#[derive(Debug)]
pub struct MemoryQueue {
    env: Env,
    queues: Mutex<Queues>,
    /// Something became ready, or may have.
    changed: Notify,
}

#[derive(Debug, Default)]
struct Queues {
    by_name: BTreeMap<String, State>,
    /// Numbers messages and deliveries, over all queues.
    last: u64,
}

#[derive(Debug, Default)]
struct State {
    settings: QueueSettings,
    /// In order of arrival.
    messages: BTreeMap<u64, Message>,
}

#[derive(Debug, Clone)]
struct Message {
    id: MessageId,
    body: Bytes,
    sent_at: Timestamp,
    arrived_at: Timestamp,
    /// Ready from here on: when the delay or the lease ends.
    ready_at: Timestamp,
    /// Deliveries in this queue.
    receives: u32,
    /// The newest delivery; the only one whose receipt is good.
    receipt: Option<Receipt>,
    /// Where it died, and after how many deliveries.
    died: Option<(String, u32)>,
}

impl Message {
    fn in_flight(&self, now: Timestamp) -> bool {
        self.receipt.is_some() && self.ready_at > now
    }

    /// As it arrives in another queue: ready, and with no delivery made.
    fn moved(self, now: Timestamp, died: Option<(String, u32)>) -> Self {
        Self { arrived_at: now, ready_at: now, receives: 0, receipt: None, died, ..self }
    }
}

impl Queues {
    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    fn get(&mut self, name: &str) -> Result<&mut State> {
        check_name(name)?;
        self.by_name.get_mut(name).ok_or_else(|| Error::not_found(format!("queue `{name}` does not exist; make it with ensure")))
    }

    /// Drops what is too old and buries what has been delivered too often, in every queue.
    fn settle(&mut self, now: Timestamp) {
        let mut dead = Vec::new();
        for (name, state) in &mut self.by_name {
            let retention = state.settings.retention;
            state.messages.retain(|_, m| m.arrived_at + retention > now);
            let (Some(most), Some(grave)) = (state.settings.max_receives, &state.settings.dead_letter) else { continue };
            let ended: Vec<u64> = state.messages.iter().filter(|(_, m)| m.ready_at <= now && m.receives >= most).map(|(n, _)| *n).collect();
            for n in ended {
                if let Some(m) = state.messages.remove(&n) {
                    let died = Some((name.clone(), m.receives));
                    dead.push((grave.clone(), m.moved(now, died)));
                }
            }
        }
        for (grave, message) in dead {
            let n = self.next();
            if let Some(state) = self.by_name.get_mut(&grave) {
                state.messages.insert(n, message);
            }
        }
    }

    /// The next moment at which a message of any queue becomes ready, or dead and thereby ready in another queue.
    fn next_ready(&self, now: Timestamp) -> Option<Timestamp> {
        self.by_name.values().flat_map(|s| s.messages.values()).map(|m| m.ready_at).filter(|at| *at > now).min()
    }

    fn take(&mut self, name: &str, how: &Receive, now: Timestamp) -> Result<Vec<Delivery>> {
        self.settle(now);
        let mut ready: Vec<(Timestamp, u64)> =
            self.get(name)?.messages.iter().filter(|(_, m)| m.ready_at <= now).map(|(n, m)| (m.ready_at, *n)).collect();
        ready.sort_unstable();
        let mut out = Vec::new();
        for (_, n) in ready.into_iter().take(how.max) {
            let receipt = Receipt(format!("r{}", self.next()));
            let Some(m) = self.get(name)?.messages.get_mut(&n) else { continue };
            m.ready_at = now + how.lease;
            m.receives += 1;
            m.receipt = Some(receipt.clone());
            out.push(Delivery { id: m.id.clone(), receipt, body: m.body.clone(), receives: m.receives, sent_at: m.sent_at });
        }
        Ok(out)
    }
}

impl State {
    fn stats(&self, now: Timestamp) -> QueueStats {
        let mut stats = QueueStats::default();
        for m in self.messages.values() {
            if m.ready_at <= now {
                stats.ready += 1;
            } else if m.in_flight(now) {
                stats.in_flight += 1;
            } else {
                stats.delayed += 1;
            }
        }
        stats.oldest_age = self.messages.values().map(|m| now.since(m.sent_at)).max();
        stats
    }

    /// The number of the message whose newest delivery is `receipt`.
    fn find(&self, receipt: &Receipt) -> Option<u64> {
        self.messages.iter().find(|(_, m)| m.receipt.as_ref() == Some(receipt)).map(|(n, _)| *n)
    }
}

impl MemoryQueue {
    /// No queues yet.
    pub fn new(env: Env) -> Self {
        Self { env, queues: Mutex::default(), changed: Notify::new() }
    }

    /// The queues as they are at this moment.
    fn lock(&self) -> (MutexGuard<'_, Queues>, Timestamp) {
        let now = self.env.now();
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        queues.settle(now);
        (queues, now)
    }
}

fn check_settings(queue: &str, settings: &QueueSettings) -> Result<()> {
    if settings.max_receives == Some(0) {
        return Err(Error::invalid(format!("queue `{queue}` cannot have max_receives 0; take at least 1, or none for no limit")));
    }
    if settings.dead_letter.as_deref() == Some(queue) {
        return Err(Error::invalid(format!("queue `{queue}` cannot be its own dead-letter queue; name another")));
    }
    Ok(())
}

fn check_receipts(receipts: &[Receipt]) -> Result<()> {
    use crate::queue::MAX_BATCH;
    if receipts.len() <= MAX_BATCH {
        Ok(())
    } else {
        Err(Error::invalid(format!("{} receipts in one call; send at most {MAX_BATCH}", receipts.len())))
    }
}

#[async_trait]
impl Queue for MemoryQueue {
    fn capabilities(&self) -> Capabilities {
        Capabilities { strict_leases: true, exact_stats: true, exact_browse: true }
    }

    async fn ensure(&self, queue: &str, settings: QueueSettings) -> Result<()> {
        check_name(queue)?;
        check_settings(queue, &settings)?;
        let (mut queues, _) = self.lock();
        if let Some(grave) = &settings.dead_letter {
            queues.get(grave).map_err(|e| e.context(format!("dead-letter queue of `{queue}`")))?;
        }
        queues.by_name.entry(queue.to_owned()).or_default().settings = settings;
        drop(queues);
        self.changed.notify_waiters();
        Ok(())
    }

    async fn send(&self, queue: &str, messages: Vec<NewMessage>) -> Result<Vec<MessageId>> {
        check_batch(&messages)?;
        let (mut queues, now) = self.lock();
        queues.get(queue)?;
        let mut ids = Vec::with_capacity(messages.len());
        for m in messages {
            let n = queues.next();
            let id = MessageId(format!("m{n}"));
            ids.push(id.clone());
            let message = Message {
                id,
                body: m.body,
                sent_at: now,
                arrived_at: now,
                ready_at: now + m.delay,
                receives: 0,
                receipt: None,
                died: None,
            };
            queues.get(queue)?.messages.insert(n, message);
        }
        drop(queues);
        self.changed.notify_waiters();
        Ok(ids)
    }

    async fn receive(&self, queue: &str, how: Receive) -> Result<Vec<Delivery>> {
        check_receive(&how)?;
        let waited = Stopwatch::start();
        loop {
            // Listens before it looks, so that nothing sent in between is slept through.
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            let pause = {
                let (mut queues, now) = self.lock();
                let got = queues.take(queue, &how, now)?;
                let left = how.wait.saturating_sub(waited.elapsed());
                if !got.is_empty() || left.is_zero() {
                    return Ok(got);
                }
                queues.next_ready(now).map_or(left, |at| at.since(now).min(left))
            };
            tokio::select! {
                biased;
                () = changed => {}
                () = sleep(pause) => {}
            }
        }
    }

    async fn ack(&self, queue: &str, receipts: &[Receipt]) -> Result<Vec<ReceiptOutcome>> {
        check_receipts(receipts)?;
        let (mut queues, _) = self.lock();
        let state = queues.get(queue)?;
        let ack = |r: &Receipt| match state.find(r).and_then(|n| state.messages.remove(&n)) {
            Some(_) => ReceiptOutcome::Done,
            None => ReceiptOutcome::Stale,
        };
        Ok(receipts.iter().map(ack).collect())
    }

    async fn extend(&self, queue: &str, receipts: &[Receipt], lease: Duration) -> Result<Vec<ReceiptOutcome>> {
        check_receipts(receipts)?;
        check_lease(lease)?;
        let (mut queues, now) = self.lock();
        let state = queues.get(queue)?;
        let extend = |r: &Receipt| match state.find(r).and_then(|n| state.messages.get_mut(&n)) {
            Some(m) => {
                m.ready_at = now + lease;
                ReceiptOutcome::Done
            }
            None => ReceiptOutcome::Stale,
        };
        let outcomes = receipts.iter().map(extend).collect();
        drop(queues);
        self.changed.notify_waiters();
        Ok(outcomes)
    }

    async fn stats(&self, queue: &str) -> Result<QueueStats> {
        let (mut queues, now) = self.lock();
        queues.get(queue).map(|state| state.stats(now))
    }

    async fn list(&self) -> Result<Vec<QueueInfo>> {
        let (queues, now) = self.lock();
        let info = |(name, s): (&String, &State)| QueueInfo { name: name.clone(), settings: s.settings.clone(), stats: s.stats(now) };
        Ok(queues.by_name.iter().map(info).collect())
    }

    async fn browse(&self, queue: &str, max: usize) -> Result<Vec<Browsed>> {
        let (mut queues, _) = self.lock();
        let browsed = |m: &Message| Browsed {
            id: m.id.clone(),
            body: m.body.clone(),
            receives: m.receives + m.died.as_ref().map_or(0, |(_, receives)| *receives),
            sent_at: m.sent_at,
            died_in: m.died.as_ref().map(|(queue, _)| queue.clone()),
        };
        Ok(queues.get(queue)?.messages.values().take(max).map(browsed).collect())
    }

    async fn redrive(&self, from: &str, which: Redrive, to: Option<&str>) -> Result<u64> {
        let (mut queues, now) = self.lock();
        if let Some(to) = to {
            queues.get(to)?;
        }
        // A message that somebody looks at under a lease stays: it must not be delivered to a second receiver meanwhile.
        let asked = |m: &Message| match &which {
            Redrive::All => !m.in_flight(now),
            Redrive::Only(ids) => ids.contains(&m.id) && !m.in_flight(now),
        };
        let chosen: Vec<u64> = queues.get(from)?.messages.iter().filter(|(_, m)| asked(m)).map(|(n, _)| *n).collect();
        let mut moved = 0;
        for n in chosen {
            let source = queues.get(from)?;
            let target = to.map(str::to_owned).or_else(|| source.messages.get(&n)?.died.as_ref().map(|(queue, _)| queue.clone()));
            // What was sent here and did not die anywhere has no way back.
            let Some(target) = target else { continue };
            if let Some(message) = source.messages.remove(&n) {
                let n = queues.next();
                queues.get(&target)?.messages.insert(n, message.moved(now, None));
                moved += 1;
            }
        }
        drop(queues);
        self.changed.notify_waiters();
        Ok(moved)
    }

    async fn purge(&self, queue: &str) -> Result<u64> {
        let (mut queues, _) = self.lock();
        let messages = std::mem::take(&mut queues.get(queue)?.messages);
        Ok(messages.len().try_into().unwrap_or(u64::MAX))
    }
}
