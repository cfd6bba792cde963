//! A queue whose calls go wrong, which delivers twice, even after an acknowledgement, and in another order.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tidemill_base::{Error, Result};
use tidemill_blocks::queue::{
    Browsed, Capabilities, Delivery, MessageId, NewMessage, Queue, QueueInfo, QueueSettings, QueueStats, Receipt, ReceiptOutcome, Receive,
    Redrive,
};

use super::{Component, Fault};

#[derive(Debug)]
pub(super) struct FaultyQueue {
    pub(super) inner: Arc<dyn Queue>,
    pub(super) component: Component,
}

impl FaultyQueue {
    async fn send_reordered(&self, queue: &str, messages: Vec<NewMessage>) -> Result<Vec<MessageId>> {
        let mut order: Vec<usize> = (0..messages.len()).collect();
        self.component.faults().shuffle(&mut order);
        let shuffled = order.iter().map(|n| messages[*n].clone()).collect();
        let mut ids: Vec<_> = order.into_iter().zip(self.inner.send(queue, shuffled).await?).collect();
        ids.sort_by_key(|(n, _)| *n);
        if ids.len() < messages.len() {
            return Err(Error::internal(format!("{} ids came back for {} messages", ids.len(), messages.len())));
        }
        Ok(ids.into_iter().map(|(_, id)| id).collect())
    }

    async fn receive_oddly(&self, queue: &str, how: Receive) -> Result<Vec<Delivery>> {
        let faults = self.component.faults();
        let mut asked = how;
        if how.max > 1 && faults.strikes(Fault::Shortened, |p| p.shorten) {
            asked.max = faults.at_most(how.max);
        }
        let twice = if faults.happens(|p| p.duplicate) { faults.recall(queue) } else { None };
        let again = faults.revive(queue);
        if twice.is_some() || again.is_some() {
            // There is something to answer with, so there is nothing to wait for.
            asked.wait = Duration::ZERO;
        }
        let mut got = self.inner.receive(queue, asked).await?;
        // A message delivered anew has a new receipt; the old one is worth nothing any more.
        faults.forget(queue, |d| got.iter().any(|g| g.id == d.id));
        faults.remember(queue, &got);
        if let Some(twice) = twice
            && got.len() < how.max
            && got.iter().all(|d| d.id != twice.id)
        {
            faults.note(Fault::Duplicated);
            got.push(twice);
        }
        if let Some(again) = again {
            faults.note(Fault::Revived);
            if got.len() >= how.max {
                // What is left out comes when its lease has ended.
                got.pop();
            }
            got.push(again);
        }
        if got.len() > 1 && faults.strikes(Fault::Reordered, |p| p.reorder) {
            faults.shuffle(&mut got);
        }
        Ok(got)
    }
}

#[async_trait]
impl Queue for FaultyQueue {
    fn capabilities(&self) -> Capabilities {
        let inner = self.inner.capabilities();
        Capabilities { strict_leases: inner.strict_leases && !self.component.faults().may_duplicate(), ..inner }
    }

    async fn ensure(&self, queue: &str, settings: QueueSettings) -> Result<()> {
        self.component.call("queue.ensure", self.inner.ensure(queue, settings)).await
    }

    async fn send(&self, queue: &str, messages: Vec<NewMessage>) -> Result<Vec<MessageId>> {
        if messages.len() > 1 && self.component.faults().strikes(Fault::Reordered, |p| p.reorder) {
            return self.component.call("queue.send", self.send_reordered(queue, messages)).await;
        }
        self.component.call("queue.send", self.inner.send(queue, messages)).await
    }

    async fn receive(&self, queue: &str, how: Receive) -> Result<Vec<Delivery>> {
        self.component.call("queue.receive", self.receive_oddly(queue, how)).await
    }

    async fn ack(&self, queue: &str, receipts: &[Receipt]) -> Result<Vec<ReceiptOutcome>> {
        let acked = async {
            let outcomes = self.inner.ack(queue, receipts).await?;
            self.component.faults().acknowledged(queue, receipts);
            Ok(outcomes)
        };
        self.component.call("queue.ack", acked).await
    }

    async fn extend(&self, queue: &str, receipts: &[Receipt], lease: Duration) -> Result<Vec<ReceiptOutcome>> {
        self.component.call("queue.extend", self.inner.extend(queue, receipts, lease)).await
    }

    async fn stats(&self, queue: &str) -> Result<QueueStats> {
        self.component.call("queue.stats", self.inner.stats(queue)).await
    }

    async fn list(&self) -> Result<Vec<QueueInfo>> {
        self.component.call("queue.list", self.inner.list()).await
    }

    async fn browse(&self, queue: &str, max: usize) -> Result<Vec<Browsed>> {
        self.component.call("queue.browse", self.inner.browse(queue, max)).await
    }

    async fn redrive(&self, from: &str, which: Redrive, to: Option<&str>) -> Result<u64> {
        let redriven = async {
            let moved = self.inner.redrive(from, which, to).await?;
            self.component.faults().forget(from, |_| true);
            Ok(moved)
        };
        self.component.call("queue.redrive", redriven).await
    }

    async fn purge(&self, queue: &str) -> Result<u64> {
        let purged = async {
            let dropped = self.inner.purge(queue).await?;
            self.component.faults().forget(queue, |_| true);
            Ok(dropped)
        };
        self.component.call("queue.purge", purged).await
    }
}
