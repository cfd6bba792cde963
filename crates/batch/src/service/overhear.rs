//! Reports that are written through this process reach its leader at once, without being read back. The messages that speak of them are
//! not needed then, and are dropped.
//!
//! Nothing rests on it: a leader that goes takes what it overheard along, and the next one looks at every range that is out.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tidemill_base::Result;
use tidemill_blocks::Blocks;
use tidemill_blocks::queue::{
    Browsed, Capabilities, Delivery, MessageId, NewMessage, Queue, QueueInfo, QueueSettings, QueueStats, Receipt, ReceiptOutcome, Receive,
    Redrive,
};
use tidemill_blocks::table::{Change, Cursor, FeedPage, Item, Key, Page, Range, Table, Write};

use super::lead::Leader;
use super::{Manager, Shared};
use crate::protocol::{Done, Report, decode, keys};

/// More than a leader that is behind will miss; it finds them by their messages.
const MOST: usize = 4_096;
/// Ranges of which it is remembered how far they were overheard.
const RANGES: usize = 65_536;

/// A report that has just been written.
#[derive(Debug)]
struct Written {
    job: String,
    stage: u32,
    range: u64,
    seq: u64,
    report: Bytes,
    /// The results that were written with it.
    page: Option<Bytes>,
}

/// Reports that the leader has not met, and what it need not be told of.
#[derive(Debug, Default)]
pub(super) struct Reports(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    waiting: Vec<Written>,
    /// The last report of each range that was overheard.
    heard: BTreeMap<(String, u32, u64), u64>,
}

impl Reports {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Vec<Written> {
        std::mem::take(&mut self.lock().waiting)
    }

    fn add(&self, more: Vec<Written>) {
        let mut known = self.lock();
        if known.waiting.len() + more.len() > MOST {
            return;
        }
        if known.heard.len() + more.len() > RANGES {
            known.heard.clear();
        }
        known.heard.extend(more.iter().map(|w| ((w.job.clone(), w.stage, w.range), w.seq)));
        known.waiting.extend(more);
    }

    /// Whether the leader has heard what this message would tell it. Asked once.
    fn knows(&self, message: &NewMessage) -> bool {
        let Ok(done) = decode::<Done>("completion", &message.body) else { return false };
        let range = (done.job, done.stage, done.range);
        let mut known = self.lock();
        let heard = known.heard.get(&range).is_some_and(|seq| *seq >= done.seq);
        if heard {
            known.heard.remove(&range);
        }
        heard
    }

    /// The leader has gone.
    pub(super) fn close(&self) {
        *self.lock() = Inner::default();
    }
}

impl Manager {
    /// `blocks` for workers: they are the same, and this manager hears of the reports that are written there.
    pub fn overhear(&self, blocks: Blocks) -> Blocks {
        let table = Arc::new(OverheardTable { table: Arc::clone(&blocks.table), shared: self.shared.clone() });
        let queue = Arc::new(OverheardQueue { queue: Arc::clone(&blocks.queue), shared: self.shared.clone() });
        Blocks { table, queue, ..blocks }
    }
}

#[derive(Debug)]
struct OverheardTable {
    table: Arc<dyn Table>,
    shared: Arc<Shared>,
}

fn reports(table: &str, writes: &[Write]) -> Vec<Written> {
    if table != keys::STATE_TABLE {
        return Vec::new();
    }
    let value = |w: &Write| if let Change::Put { value, .. } = &w.change { Some(value.clone()) } else { None };
    let read = |w: &Write| {
        let (job, stage, range, seq) = keys::parse_report(&w.key)?;
        let results = keys::result_page(job, stage, range, seq);
        let page = writes.iter().find(|w| w.key == results).and_then(value);
        Some(Written { job: job.to_owned(), stage, range, seq, report: value(w)?, page })
    };
    writes.iter().filter_map(read).collect()
}

#[async_trait]
impl Table for OverheardTable {
    async fn ensure(&self, table: &str) -> Result<()> {
        self.table.ensure(table).await
    }

    async fn get(&self, table: &str, key: &Key) -> Result<Option<Item>> {
        self.table.get(table, key).await
    }

    async fn get_many(&self, table: &str, keys: &[Key]) -> Result<Vec<Option<Item>>> {
        self.table.get_many(table, keys).await
    }

    async fn transact(&self, table: &str, writes: Vec<Write>) -> Result<Vec<u64>> {
        let reports = reports(table, &writes);
        let versions = self.table.transact(table, writes).await?;
        if !reports.is_empty() && self.shared.direct.is_open() {
            self.shared.overheard.add(reports);
            self.shared.nudge.notify_one();
        }
        Ok(versions)
    }

    async fn write_many(&self, table: &str, writes: Vec<Write>) -> Result<()> {
        self.table.write_many(table, writes).await
    }

    async fn range(&self, table: &str, range: Range) -> Result<Page> {
        self.table.range(table, range).await
    }

    async fn feed_end(&self, table: &str) -> Result<Cursor> {
        self.table.feed_end(table).await
    }

    async fn feed(&self, table: &str, after: &Cursor, max: usize, wait: Duration) -> Result<FeedPage> {
        self.table.feed(table, after, max, wait).await
    }
}

#[derive(Debug)]
struct OverheardQueue {
    queue: Arc<dyn Queue>,
    shared: Arc<Shared>,
}

#[async_trait]
impl Queue for OverheardQueue {
    fn capabilities(&self) -> Capabilities {
        self.queue.capabilities()
    }

    async fn ensure(&self, queue: &str, settings: QueueSettings) -> Result<()> {
        self.queue.ensure(queue, settings).await
    }

    async fn send(&self, queue: &str, messages: Vec<NewMessage>) -> Result<Vec<MessageId>> {
        if queue == keys::DONE_QUEUE && messages.iter().all(|m| self.shared.overheard.knows(m)) {
            return Ok(messages.iter().map(|_| MessageId(self.shared.env.id("h"))).collect());
        }
        self.queue.send(queue, messages).await
    }

    async fn receive(&self, queue: &str, how: Receive) -> Result<Vec<Delivery>> {
        self.queue.receive(queue, how).await
    }

    async fn ack(&self, queue: &str, receipts: &[Receipt]) -> Result<Vec<ReceiptOutcome>> {
        self.queue.ack(queue, receipts).await
    }

    async fn extend(&self, queue: &str, receipts: &[Receipt], lease: Duration) -> Result<Vec<ReceiptOutcome>> {
        self.queue.extend(queue, receipts, lease).await
    }

    async fn stats(&self, queue: &str) -> Result<QueueStats> {
        self.queue.stats(queue).await
    }

    async fn list(&self) -> Result<Vec<QueueInfo>> {
        self.queue.list().await
    }

    async fn browse(&self, queue: &str, max: usize) -> Result<Vec<Browsed>> {
        self.queue.browse(queue, max).await
    }

    async fn redrive(&self, from: &str, which: Redrive, to: Option<&str>) -> Result<u64> {
        self.queue.redrive(from, which, to).await
    }

    async fn purge(&self, queue: &str) -> Result<u64> {
        self.queue.purge(queue).await
    }
}

impl Leader<'_> {
    /// Folds the reports that this process has seen written.
    pub(super) async fn fold_overheard(&mut self) -> Result<()> {
        for w in self.shared.overheard.take() {
            match self.core.folded_seq(&w.job, w.stage, w.range) {
                Some(folded) if folded + 1 == w.seq => {
                    let report: Report = decode("report", &w.report)?;
                    self.on_report(&w.job, w.stage, w.range, w.seq, &report);
                    if let Some(page) = w.page {
                        self.pages.insert((w.job, w.stage, w.range, w.seq), page);
                    }
                }
                // One before it came by another manager.
                Some(folded) if folded < w.seq => self.fold_range(&w.job, w.stage, w.range).await?,
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::encode;

    fn written(range: u64, seq: u64) -> Written {
        Written { job: "j".into(), stage: 0, range, seq, report: Bytes::new(), page: None }
    }

    fn message(range: u64, seq: u64) -> NewMessage {
        NewMessage::now(Bytes::from(encode(&Done { job: "j".into(), stage: 0, range, seq }).unwrap()))
    }

    #[test]
    fn the_leader_is_not_told_what_it_has_overheard() {
        let reports = Reports::default();
        reports.add(vec![written(1, 1), written(2, 3)]);
        assert!(!reports.knows(&message(1, 2)), "a later report");
        assert!(reports.knows(&message(1, 1)) && reports.knows(&message(2, 2)));
        assert!(!reports.knows(&message(3, 1)), "another range");
        assert!(!reports.knows(&NewMessage::now(Bytes::from_static(b"?"))));
        assert_eq!(reports.take().len(), 2);
        reports.add(vec![written(4, 1)]);
        reports.close();
        assert!(!reports.knows(&message(4, 1)), "whoever leads next has not heard it");
    }

    #[test]
    fn a_leader_that_is_behind_is_told() {
        let reports = Reports::default();
        reports.add((0..MOST as u64).map(|n| written(n, 1)).collect());
        reports.add(vec![written(u64::MAX, 1)]);
        assert!(!reports.knows(&message(u64::MAX, 1)) && reports.knows(&message(7, 1)));
    }
}
