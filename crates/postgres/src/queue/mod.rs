//! The queue block: one table of messages for all queues.
//!
//! A delay and a lease are both a time before which a message is not due, so there is one index of what is due and a receive takes
//! its head, passing over rows that another receiver has at hand (`SKIP LOCKED`). Burying the dead and dropping the old happen in
//! that same statement. The database's clock decides what is due: the clocks of several managers differ.

mod answers;
mod receipts;
mod statements;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tidemill_base::{Error, Result};
use tidemill_blocks::queue::{
    Browsed, Capabilities, Delivery, MAX_BATCH, MessageId, NewMessage, Queue, QueueInfo, QueueSettings, QueueStats, Receipt,
    ReceiptOutcome, Receive, Redrive, check_batch, check_lease, check_name, check_receive,
};
use tidemill_runtime::{Stopwatch, sleep};
use tokio_postgres::Row;

use crate::Shared;
use crate::bell::{POLL, Topic};
use crate::error::from_pg;
use crate::link::{Block, Params};
use crate::names::Names;
use crate::time::Time;
use answers::{Taken, add, info, stats};
use statements as sql;

/// Even when something is due this very moment a receiver that found nothing sleeps so long: somebody else has it at hand.
const SHORTEST_NAP: Duration = Duration::from_millis(5);
/// Messages that one statement of a purge drops.
const STEP: i64 = 10_000;

/// All queues of one schema.
#[derive(Debug)]
pub(crate) struct PostgresQueue {
    shared: Arc<Shared>,
    names: Names,
}

impl PostgresQueue {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, names: Names::default() }
    }

    async fn id(&self, queue: &str) -> Result<i32> {
        check_name(queue)?;
        let id = self.names.find(&self.shared.link, Block::Queue, sql::FIND, queue).await?;
        id.ok_or_else(|| Error::not_found(format!("queue `{queue}` does not exist; make it with ensure")))
    }

    async fn write(&self, sql: &str, params: Params<'_>) -> Result<Vec<Row>> {
        self.shared.link.write(Block::Queue, sql, params).await
    }

    async fn read(&self, sql: &str, params: Params<'_>) -> Result<Vec<Row>> {
        self.shared.link.read(Block::Queue, sql, params).await
    }

    async fn take(&self, id: i32, how: Receive) -> Result<Taken> {
        let (max, lease) = (i64::try_from(how.max).unwrap_or(i64::MAX), micros(how.lease));
        let rows = self.write(sql::RECEIVE, &[&id, &max, &lease]).await?;
        let mut taken = Taken { deliveries: Vec::with_capacity(rows.len()), moved: false, buried: None, due_in: None };
        for row in &rows {
            add(&mut taken, row).map_err(from_pg)?;
        }
        if let Some((dead, count)) = taken.buried {
            self.shared.bell.ring(Topic::Queue(dead), count);
        }
        Ok(taken)
    }

    /// Moves messages and tells those who wait where they go.
    async fn move_to(&self, rows: &[Row]) -> Result<u64> {
        let mut moved = 0;
        for row in rows {
            let (queue, count): (i32, i64) = (row.try_get(0).map_err(from_pg)?, row.try_get(1).map_err(from_pg)?);
            self.shared.bell.ring(Topic::Queue(queue), usize::try_from(count).unwrap_or_default());
            moved += u64::try_from(count).unwrap_or_default();
        }
        Ok(moved)
    }
}

fn micros(d: Duration) -> i64 {
    i64::try_from(d.as_micros()).unwrap_or(i64::MAX)
}

#[async_trait]
impl Queue for PostgresQueue {
    fn capabilities(&self) -> Capabilities {
        Capabilities { strict_leases: true, exact_stats: true, exact_browse: true }
    }

    async fn ensure(&self, queue: &str, settings: QueueSettings) -> Result<()> {
        check_name(queue)?;
        if settings.max_receives == Some(0) {
            return Err(Error::invalid(format!("queue `{queue}` cannot have max_receives 0; take at least 1, or none for no limit")));
        }
        let dead = match &settings.dead_letter {
            Some(dead) if dead == queue => {
                return Err(Error::invalid(format!("queue `{queue}` cannot be its own dead-letter queue; name another")));
            }
            Some(dead) => Some(self.id(dead).await.map_err(|e| e.context(format!("dead-letter queue of `{queue}`")))?),
            None => None,
        };
        let max_receives = settings.max_receives.map(i64::from);
        self.write(sql::ENSURE, &[&queue, &max_receives, &dead, &micros(settings.retention)]).await.map(drop)
    }

    async fn send(&self, queue: &str, messages: Vec<NewMessage>) -> Result<Vec<MessageId>> {
        check_batch(&messages)?;
        let id = self.id(queue).await?;
        if messages.is_empty() {
            return Ok(Vec::new());
        }
        let (bodies, delays): (Vec<&[u8]>, Vec<i64>) = messages.iter().map(|m| (&m.body[..], micros(m.delay))).unzip();
        let rows = self.write(sql::SEND, &[&id, &bodies, &delays]).await?;
        // A message with a short delay is rung for too: those who wait have to know how long they may sleep.
        self.shared.bell.ring(Topic::Queue(id), messages.iter().filter(|m| m.delay < POLL).count());
        rows.iter().map(|row| row.try_get(0).map(receipts::id).map_err(from_pg)).collect()
    }

    async fn receive(&self, queue: &str, how: Receive) -> Result<Vec<Delivery>> {
        check_receive(&how)?;
        let watch = Stopwatch::start();
        let id = self.id(queue).await?;
        let waiters = self.shared.bell.waiters(Topic::Queue(id));
        let waiting = waiters.enter();
        loop {
            // Listening begins before looking, so that nothing falls in between.
            let mut woken = pin!(waiting.notified());
            woken.as_mut().enable();
            let taken = self.take(id, how).await?;
            let left = how.wait.saturating_sub(watch.elapsed());
            if !taken.deliveries.is_empty() {
                if taken.deliveries.len() == how.max {
                    // There may be more, and whoever sent it rang for as many as could be counted then.
                    self.shared.bell.ring_here(Topic::Queue(id), 1);
                }
                return Ok(taken.deliveries);
            }
            if taken.moved {
                continue;
            }
            if left.is_zero() {
                return Ok(Vec::new());
            }
            let nap = left.min(POLL).min(taken.due_in.unwrap_or(POLL).max(SHORTEST_NAP));
            tokio::select! {
                biased;
                () = woken => {}
                () = sleep(nap) => {}
            }
        }
    }

    async fn ack(&self, queue: &str, receipts: &[Receipt]) -> Result<Vec<ReceiptOutcome>> {
        let (id, known) = (self.id(queue).await?, receipts::parse(receipts)?);
        if known.is_empty() {
            return Ok(vec![ReceiptOutcome::Stale; receipts.len()]);
        }
        let (ids, deliveries) = receipts::columns(&known);
        let rows = self.write(sql::ACK, &[&id, &ids, &deliveries]).await?;
        let mut gone = receipts::done(&rows)?;
        // What is named twice has been removed once.
        Ok(receipts.iter().map(|r| receipts::outcome(receipts::parse_one(r).is_some_and(|key| gone.remove(&key)))).collect())
    }

    async fn extend(&self, queue: &str, receipts: &[Receipt], lease: Duration) -> Result<Vec<ReceiptOutcome>> {
        check_lease(lease)?;
        let (id, known) = (self.id(queue).await?, receipts::parse(receipts)?);
        if known.is_empty() {
            return Ok(vec![ReceiptOutcome::Stale; receipts.len()]);
        }
        let (ids, deliveries) = receipts::columns(&known);
        let rows = self.write(sql::EXTEND, &[&id, &ids, &deliveries, &micros(lease)]).await?;
        if lease < POLL {
            self.shared.bell.ring(Topic::Queue(id), rows.len());
        }
        let extended = receipts::done(&rows)?;
        Ok(receipts.iter().map(|r| receipts::outcome(receipts::parse_one(r).is_some_and(|key| extended.contains(&key)))).collect())
    }

    async fn stats(&self, queue: &str) -> Result<QueueStats> {
        let id = self.id(queue).await?;
        let rows = self.read(sql::STATS, &[&id]).await?;
        stats(rows.first().ok_or_else(|| Error::internal("counting a queue gave no answer"))?, 0)
    }

    async fn list(&self) -> Result<Vec<QueueInfo>> {
        self.read(sql::LIST, &[]).await?.iter().map(info).collect()
    }

    async fn browse(&self, queue: &str, max: usize) -> Result<Vec<Browsed>> {
        let id = self.id(queue).await?;
        let rows = self.read(sql::BROWSE, &[&id, &i64::try_from(max).unwrap_or(i64::MAX)]).await?;
        let browsed = |row: &Row| -> Result<_, tokio_postgres::Error> {
            Ok(Browsed {
                id: receipts::id(row.try_get(0)?),
                body: Bytes::copy_from_slice(row.try_get(1)?),
                receives: u32::try_from(row.try_get::<_, i64>(2)?).unwrap_or(u32::MAX),
                sent_at: row.try_get::<_, Time>(3)?.0,
                died_in: row.try_get(4)?,
            })
        };
        rows.iter().map(|row| browsed(row).map_err(from_pg)).collect()
    }

    async fn redrive(&self, from: &str, which: Redrive, to: Option<&str>) -> Result<u64> {
        let id = self.id(from).await?;
        let target = match to {
            Some(to) if to == from => {
                return Err(Error::invalid(format!("dead letters of `{from}` cannot be redriven into itself; name another queue")));
            }
            Some(to) => Some(self.id(to).await?),
            None => None,
        };
        let Redrive::Only(ids) = which else {
            let mut moved = 0;
            loop {
                let rows = self.write(sql::REDRIVE_ALL, &[&id, &target, &STEP]).await?;
                let some = self.move_to(&rows).await?;
                moved += some;
                if some < STEP as u64 {
                    return Ok(moved);
                }
            }
        };
        let ids: Vec<i64> = ids.iter().filter_map(receipts::parse_id).collect();
        self.move_to(&self.write(sql::REDRIVE_CHOSEN, &[&id, &target, &ids]).await?).await
    }

    async fn purge(&self, queue: &str) -> Result<u64> {
        let id = self.id(queue).await?;
        let rows = self.read(sql::LAST, &[]).await?;
        let last: i64 = rows.first().map_or(Ok(0), |row| row.try_get(0)).map_err(from_pg)?;
        let mut dropped = 0;
        loop {
            let some = self.write(sql::PURGE, &[&id, &last, &STEP]).await?.len() as u64;
            dropped += some;
            if some < STEP as u64 {
                return Ok(dropped);
            }
        }
    }
}

/// Checks the number of receipts in one call.
fn check_receipts(receipts: &[Receipt]) -> Result<()> {
    if receipts.len() <= MAX_BATCH {
        return Ok(());
    }
    Err(Error::invalid(format!("{} receipts in one call; send at most {MAX_BATCH}", receipts.len())))
}
