//! Lost replies and an unreachable manager.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tidemill_base::{Error, Result};
use tidemill_batch::protocol::keys::{self, STATE_TABLE};
use tidemill_blocks::table::{Cursor, FeedPage, Item, Key, Page, Range, Table, Write};
use tidemill_runtime::sleep;

use super::rig::{Rig, command, takes};
use crate::WorkerBlocks;

/// Loses the reply of every other transaction after it happened, and every fourth before; or is not there at all.
#[derive(Debug)]
struct Lossy {
    inner: Arc<dyn Table>,
    calls: AtomicU32,
    away: std::sync::atomic::AtomicBool,
}

impl Lossy {
    fn check(&self) -> Result<()> {
        if self.away.load(Ordering::SeqCst) { Err(Error::unavailable("the manager is away")) } else { Ok(()) }
    }
}

#[async_trait]
impl Table for Lossy {
    async fn ensure(&self, table: &str) -> Result<()> {
        self.inner.ensure(table).await
    }
    async fn get(&self, table: &str, key: &Key) -> Result<Option<Item>> {
        self.check()?;
        self.inner.get(table, key).await
    }
    async fn get_many(&self, table: &str, keys: &[Key]) -> Result<Vec<Option<Item>>> {
        self.check()?;
        self.inner.get_many(table, keys).await
    }
    async fn transact(&self, table: &str, writes: Vec<Write>) -> Result<Vec<u64>> {
        self.check()?;
        let call = self.calls.fetch_add(1, Ordering::SeqCst);
        if table == STATE_TABLE && call % 4 == 3 {
            return Err(Error::unavailable("the request was lost"));
        }
        let done = self.inner.transact(table, writes).await;
        if table == STATE_TABLE && call.is_multiple_of(2) { done.and(Err(Error::unavailable("the reply was lost"))) } else { done }
    }
    async fn write_many(&self, table: &str, writes: Vec<Write>) -> Result<()> {
        self.check()?;
        self.inner.write_many(table, writes).await
    }
    async fn range(&self, table: &str, range: Range) -> Result<Page> {
        self.check()?;
        self.inner.range(table, range).await
    }
    async fn feed_end(&self, table: &str) -> Result<Cursor> {
        self.check()?;
        self.inner.feed_end(table).await
    }
    async fn feed(&self, table: &str, after: &Cursor, max: usize, wait: Duration) -> Result<FeedPage> {
        self.check()?;
        self.inner.feed(table, after, max, wait).await
    }
}

fn lossy(rig: &Rig) -> (Arc<Lossy>, WorkerBlocks) {
    let table = Arc::new(Lossy { inner: rig.blocks.table.clone(), calls: AtomicU32::new(0), away: false.into() });
    (table.clone(), WorkerBlocks { table, ..rig.blocks.clone() })
}

#[tokio::test(start_paused = true)]
async fn lost_replies_count_nothing_twice_and_lose_nothing() {
    let rig = Rig::paused().await;
    rig.stage(0, command(&["x"])).await;
    let (_, blocks) = lossy(&rig);
    let mut ranges = Vec::new();
    for i in 0..5 {
        ranges.push(rig.release(0, i * 40, 40).await);
    }
    let started = rig.start_with(rig.settings("w"), &takes(Duration::from_millis(300)), blocks);
    for (i, range) in (0..).zip(ranges) {
        let folded = rig.finished(0, range).await;
        assert_eq!(folded.succeeded, (i * 40..i * 40 + 40).collect::<Vec<_>>());
        assert!(folded.reports.iter().all(|r| r.epoch == folded.reports[0].epoch), "the claim was kept");
    }
    started.end().await;
}

#[tokio::test(start_paused = true)]
async fn work_goes_on_while_the_manager_is_away_and_is_reported_when_it_is_back() {
    let rig = Rig::paused().await;
    rig.stage(0, command(&["x"])).await;
    let (table, blocks) = lossy(&rig);
    let range = rig.release(0, 0, 60).await;
    let started = rig.start_with(rig.settings("w"), &takes(Duration::from_secs(2)), blocks);
    sleep(Duration::from_secs(5)).await;
    table.away.store(true, Ordering::SeqCst);
    sleep(Duration::from_secs(300)).await;
    let before = rig.fold(0, range).await.succeeded.len();
    assert!(before < 10, "{before}");
    table.away.store(false, Ordering::SeqCst);
    sleep(Duration::from_secs(8)).await;
    let folded = rig.fold(0, range).await;
    assert_eq!((folded.succeeded.len(), folded.finished), (60, true), "all 60 were done meanwhile");
    assert!(folded.reports.iter().all(|r| r.epoch == folded.reports[0].epoch), "the claim was kept");
    sleep(Duration::from_secs(60)).await;
    assert_eq!(rig.blocks.queue.stats(&keys::work_queue("c")).await.unwrap().in_flight, 0);
    started.end().await;
}
