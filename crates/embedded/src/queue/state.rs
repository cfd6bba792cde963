//! What happens to messages: plain decisions on the queues in memory and the group that makes them durable.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tidemill_base::{Env, Error, Result, Timestamp};
use tidemill_blocks::queue::{NewMessage, QueueSettings, ReceiptOutcome, Redrive, check_name};
use tokio::sync::Notify;

use super::index::{Index, Parked, Ready};
use super::records::{self, Origin};
use crate::store::{Group, Space};

/// A low mark is stored once in so many removals.
const MARK_EVERY: u32 = 8192;
/// The most messages that one step of a long job (redrive, purge, retention) touches.
pub(super) const STEP: usize = 1000;

/// Receivers that wait for a queue.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    pub(super) notify: Notify,
    pub(super) count: AtomicUsize,
}

impl Waiters {
    /// Wakes one receiver for each of `messages`.
    pub(super) fn wake(&self, messages: usize) {
        for _ in 0..messages.min(self.count.load(Ordering::SeqCst)) {
            self.notify.notify_one();
        }
    }
}

/// One queue.
#[derive(Debug)]
pub(super) struct One {
    pub(super) queue: u32,
    pub(super) settings: QueueSettings,
    pub(super) index: Index,
    pub(super) waiters: Arc<Waiters>,
    removed_since_mark: u32,
}

impl One {
    pub(super) fn new(queue: u32, settings: QueueSettings) -> Self {
        Self { queue, settings, index: Index::default(), waiters: Arc::default(), removed_since_mark: 0 }
    }

    /// Whether a receive could change anything.
    pub(super) fn has_news(&self, now: Timestamp) -> bool {
        self.index.has_ready() || self.is_due(now)
    }

    /// Whether [`Queues::settle`] has something to do.
    pub(super) fn is_due(&self, now: Timestamp) -> bool {
        let too_old = self.index.oldest_ready().is_some_and(|(_, arrived_at)| now.since(arrived_at) >= self.settings.retention);
        self.index.next_due().is_some_and(|at| at <= now) || too_old
    }

    fn is_spent(&self, message: &Ready) -> bool {
        self.settings.dead_letter.is_some() && self.settings.max_receives.is_some_and(|max| message.receives >= max)
    }

    /// Removes the message from the store.
    fn forget(&mut self, message: &Ready, group: &mut Group<'_>) {
        group.remove_seen(Space::Messages, records::message_key(self.queue, message));
        if message.recorded {
            group.remove(Space::Leases, records::from_number(self.queue, message.number));
        }
        self.removed_since_mark += 1;
        if self.removed_since_mark >= MARK_EVERY {
            self.removed_since_mark = 0;
            if let Some(low) = self.index.lowest() {
                group.put(Space::Meta, records::low_key(self.queue), low.to_be_bytes());
            }
        }
    }

    /// Takes in a message from another queue. It gets a number, and so an id, of its own here: numbers grow with the time of
    /// arrival, which is what the low mark relies on.
    fn adopt(&mut self, body: &[u8], origin: Origin, group: &mut Group<'_>) {
        let message = Ready::fresh(group.next_sequence(), group.now());
        group.put_seen(Space::Messages, records::message_key(self.queue, &message), records::message(body, Some(origin)));
        self.index.add(message);
        let waiters = self.waiters.clone();
        group.after(move || waiters.wake(1));
    }

    fn park(&mut self, number: u64, parked: Parked, group: &mut Group<'_>) {
        group.put(Space::Leases, records::from_number(self.queue, number), records::lease(&parked));
        self.index.park(number, parked);
    }
}

/// All queues by name.
#[derive(Debug, Default)]
pub(super) struct Queues {
    pub(super) by_name: BTreeMap<String, One>,
}

impl Queues {
    pub(super) fn get(&self, name: &str) -> Result<&One> {
        self.by_name.get(name).ok_or_else(|| unknown(name))
    }

    fn get_mut(&mut self, name: &str) -> Result<&mut One> {
        self.by_name.get_mut(name).ok_or_else(|| unknown(name))
    }

    /// The name that stands behind the number of a queue.
    pub(super) fn name_of(&self, queue: u32) -> Option<&str> {
        self.by_name.iter().find(|(_, one)| one.queue == queue).map(|(name, _)| name.as_str())
    }

    pub(super) fn ensure(&mut self, name: &str, settings: QueueSettings, group: &mut Group<'_>) -> Result<()> {
        if settings.max_receives == Some(0) {
            return Err(Error::invalid(format!("queue `{name}` cannot have max_receives 0; take at least 1, or none for no limit")));
        }
        if let Some(dead) = &settings.dead_letter {
            if dead == name {
                return Err(Error::invalid(format!("queue `{name}` cannot be its own dead-letter queue; name another")));
            }
            self.get(dead).map_err(|e| e.context(format!("dead-letter queue of `{name}`")))?;
        }
        if self.by_name.get(name).is_some_and(|one| one.settings == settings) {
            return Ok(());
        }
        let next = self.by_name.values().map(|one| one.queue + 1).max().unwrap_or(1);
        let queue = self.by_name.get(name).map_or(next, |one| one.queue);
        let record = records::QueueRecord { queue, settings: settings.clone() };
        let stored = postcard::to_allocvec(&record).map_err(|e| Error::internal("encode a queue's settings").with_source(e))?;
        group.put(Space::Queues, name, stored);
        match self.by_name.get_mut(name) {
            Some(one) => one.settings = settings,
            None => drop(self.by_name.insert(name.to_owned(), One::new(queue, settings))),
        }
        Ok(())
    }

    /// Writes the messages and returns them with the time until which each is delayed.
    pub(super) fn send(&mut self, name: &str, messages: &[NewMessage], group: &mut Group<'_>) -> Result<Vec<(Ready, Option<Timestamp>)>> {
        let one = self.get_mut(name)?;
        let now = group.now();
        let mut sent = Vec::with_capacity(messages.len());
        for new in messages {
            let message = Ready::fresh(group.next_sequence(), now);
            group.put(Space::Messages, records::message_key(one.queue, &message), records::message(&new.body, None));
            let until = (!new.delay.is_zero()).then(|| now + new.delay);
            if let Some(until) = until {
                let parked = Parked { arrived_at: now, receives: 0, nonce: 0, until };
                group.put(Space::Leases, records::from_number(one.queue, message.number), records::lease(&parked));
            }
            sent.push((message, until));
        }
        Ok(sent)
    }

    /// Lets messages that are durable be received.
    pub(super) fn publish(&mut self, name: &str, sent: Vec<(Ready, Option<Timestamp>)>) {
        let Some(one) = self.by_name.get_mut(name) else { return };
        let count = sent.len();
        for (message, until) in sent {
            match until {
                Some(until) => one.index.park(message.number, Parked { arrived_at: message.arrived_at, receives: 0, nonce: 0, until }),
                None => one.index.add(message),
            }
        }
        one.waiters.wake(count);
    }

    /// Ends leases and delays whose time has come, sends spent messages to the dead-letter queue, and drops those past retention.
    /// It does so many at a time: the queue may be due again at once.
    pub(super) fn settle(&mut self, name: &str, group: &mut Group<'_>) -> Result<()> {
        let now = group.now();
        let one = self.get_mut(name)?;
        let mut spent = Vec::new();
        while spent.len() < STEP
            && let Some(message) = one.index.take_due(now)
        {
            if one.is_spent(&message) { spent.push(message) } else { one.index.add(message) }
        }
        for _ in 0..STEP {
            let Some((number, arrived_at)) = one.index.oldest_ready() else { break };
            if now.since(arrived_at) < one.settings.retention {
                break;
            }
            if let Some(message) = one.index.remove(number) {
                one.forget(&message, group);
            }
        }
        spent.into_iter().try_for_each(|message| self.bury(name, message, group))
    }

    /// Moves a message that is in no index any more to the dead-letter queue.
    fn bury(&mut self, name: &str, message: Ready, group: &mut Group<'_>) -> Result<()> {
        let one = self.get_mut(name)?;
        let (queue, dead) = (one.queue, one.settings.dead_letter.clone());
        let key = records::message_key(queue, &message);
        // Without a body the message has been lost to damage, which receiving reports; there is nothing to bury.
        let Some(stored) = group.get(Space::Messages, &key)? else { return Ok(()) };
        let (body, origin) = records::parse_message(stored)?;
        one.forget(&message, group);
        let origin = Origin { sent_at: origin.map_or(message.arrived_at, |o| o.sent_at), died: Some((queue, message.receives)) };
        let Some(dead) = dead.and_then(|d| self.by_name.get_mut(&d)) else {
            return Err(Error::internal(format!("queue `{name}` has lost its dead-letter queue")));
        };
        dead.adopt(&body, origin, group);
        Ok(())
    }

    /// Leases up to `max` messages.
    pub(super) fn take(&mut self, name: &str, max: usize, lease: Duration, env: &Env, group: &mut Group<'_>) -> Result<Vec<Ready>> {
        self.settle(name, group)?;
        let until = group.now() + lease;
        let mut taken = Vec::new();
        while taken.len() < max {
            let one = self.get_mut(name)?;
            let Some(message) = one.index.take() else { break };
            if one.is_spent(&message) {
                self.bury(name, message, group)?;
                continue;
            }
            let nonce = env.random_u64().max(1);
            let parked = Parked { arrived_at: message.arrived_at, receives: message.receives + 1, nonce, until };
            one.park(message.number, parked, group);
            taken.push(Ready { receives: parked.receives, nonce, recorded: true, ..message });
        }
        let one = self.get_mut(name)?;
        if one.index.has_ready() {
            one.waiters.wake(1);
        }
        Ok(taken)
    }

    /// Removes what was delivered.
    pub(super) fn ack(&mut self, name: &str, receipts: &[Option<(u64, u64)>], group: &mut Group<'_>) -> Result<Vec<ReceiptOutcome>> {
        let one = self.get_mut(name)?;
        let mut ack = |receipt: &Option<(u64, u64)>| {
            let (number, nonce) = (*receipt)?;
            one.index.delivered(number, nonce)?;
            let message = one.index.remove(number)?;
            one.forget(&message, group);
            Some(ReceiptOutcome::Done)
        };
        Ok(receipts.iter().map(|r| ack(r).unwrap_or(ReceiptOutcome::Stale)).collect())
    }

    /// Sets the ends of leases anew.
    pub(super) fn extend(
        &mut self,
        name: &str,
        receipts: &[Option<(u64, u64)>],
        lease: Duration,
        group: &mut Group<'_>,
    ) -> Result<Vec<ReceiptOutcome>> {
        let until = group.now() + lease;
        let one = self.get_mut(name)?;
        let mut extend = |receipt: &Option<(u64, u64)>| {
            let (number, nonce) = (*receipt)?;
            one.index.delivered(number, nonce)?;
            let m = one.index.remove(number)?;
            one.park(number, Parked { arrived_at: m.arrived_at, receives: m.receives, nonce, until }, group);
            Some(ReceiptOutcome::Done)
        };
        let outcomes = receipts.iter().map(|r| extend(r).unwrap_or(ReceiptOutcome::Stale)).collect();
        if lease.is_zero() {
            self.settle(name, group)?;
            let one = self.get_mut(name)?;
            let waiters = one.waiters.clone();
            let count = receipts.len();
            group.after(move || waiters.wake(count));
        }
        Ok(outcomes)
    }

    /// One step of redriving dead letters from number `from` on. Returns how many moved and where to go on.
    pub(super) fn redrive(
        &mut self,
        name: &str,
        which: &Redrive,
        from: u64,
        to: Option<&str>,
        group: &mut Group<'_>,
    ) -> Result<(u64, Option<u64>)> {
        let one = self.get(name)?;
        let numbers = match which {
            Redrive::All => one.index.unheld(from, STEP),
            Redrive::Only(ids) => {
                let mut known: Vec<_> = ids.iter().filter_map(records::parse_id).filter(|n| *n >= from && !one.index.is_held(*n)).collect();
                known.sort_unstable();
                known.dedup();
                known.truncate(STEP);
                known
            }
        };
        let next = if numbers.len() < STEP { None } else { numbers.last().map(|n| n + 1) };
        let mut moved = 0;
        for number in numbers {
            moved += u64::from(self.revive(name, number, to, group)?);
        }
        Ok((moved, next))
    }

    fn revive(&mut self, name: &str, number: u64, to: Option<&str>, group: &mut Group<'_>) -> Result<bool> {
        let one = self.get_mut(name)?;
        let Some(message) = one.index.find(number) else { return Ok(false) };
        let stored = group.get(Space::Messages, &records::message_key(one.queue, &message))?;
        let Some((body, origin)) = stored.map(records::parse_message).transpose()? else { return Ok(false) };
        let home = origin.and_then(|o| o.died).and_then(|(queue, _)| self.name_of(queue)).map(str::to_owned);
        let Some(target) = to.map(str::to_owned).or(home) else {
            // It did not die anywhere, so there is nowhere to send it back to.
            return Ok(false);
        };
        let one = self.get_mut(name)?;
        one.index.remove(number);
        one.forget(&message, group);
        let origin = Origin { sent_at: origin.map_or(message.arrived_at, |o| o.sent_at), died: None };
        self.get_mut(&target)?.adopt(&body, origin, group);
        Ok(true)
    }

    /// One step of dropping every message numbered `below` or less. Returns how many it dropped; zero when done.
    pub(super) fn purge(&mut self, name: &str, below: u64, group: &mut Group<'_>) -> Result<u64> {
        let one = self.get_mut(name)?;
        let mut dropped = 0;
        for message in one.index.first(STEP) {
            if message.number <= below && one.index.remove(message.number).is_some() {
                one.forget(&message, group);
                dropped += 1;
            }
        }
        Ok(dropped)
    }
}

fn unknown(name: &str) -> Error {
    let absent = || Error::not_found(format!("queue `{name}` does not exist; make it with ensure"));
    check_name(name).err().unwrap_or_else(absent)
}
