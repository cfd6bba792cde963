//! The queue block over the wire.

use std::time::Duration;

use async_trait::async_trait;
use tidemill_base::Result;
use tidemill_blocks::queue::{
    Browsed, Capabilities, Delivery, MessageId, NewMessage, Queue, QueueInfo, QueueSettings, QueueStats, Receipt, ReceiptOutcome, Receive,
    Redrive, check_batch, check_name,
};

use crate::http::Http;
use crate::wire::queue as call;

/// The manager's queue.
#[derive(Debug)]
pub(crate) struct RemoteQueue {
    pub(crate) http: Http,
    pub(crate) capabilities: Capabilities,
}

#[async_trait]
impl Queue for RemoteQueue {
    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    async fn ensure(&self, queue: &str, settings: QueueSettings) -> Result<()> {
        self.http.call(&call::Ensure { queue: queue.to_owned(), settings }).await
    }

    async fn send(&self, queue: &str, messages: Vec<NewMessage>) -> Result<Vec<MessageId>> {
        // Checked here as well, so that a batch that will be refused does not travel first.
        check_name(queue)?;
        check_batch(&messages)?;
        self.http.call(&call::Send { queue: queue.to_owned(), messages }).await
    }

    async fn receive(&self, queue: &str, how: Receive) -> Result<Vec<Delivery>> {
        self.http.call(&call::Receive { queue: queue.to_owned(), how }).await
    }

    async fn ack(&self, queue: &str, receipts: &[Receipt]) -> Result<Vec<ReceiptOutcome>> {
        self.http.call(&call::Ack { queue: queue.to_owned(), receipts: receipts.to_vec() }).await
    }

    async fn extend(&self, queue: &str, receipts: &[Receipt], lease: Duration) -> Result<Vec<ReceiptOutcome>> {
        self.http.call(&call::Extend { queue: queue.to_owned(), receipts: receipts.to_vec(), lease }).await
    }

    async fn stats(&self, queue: &str) -> Result<QueueStats> {
        self.http.call(&call::Stats { queue: queue.to_owned() }).await
    }

    async fn list(&self) -> Result<Vec<QueueInfo>> {
        self.http.call(&call::List {}).await
    }

    async fn browse(&self, queue: &str, max: usize) -> Result<Vec<Browsed>> {
        self.http.call(&call::Browse { queue: queue.to_owned(), max }).await
    }

    async fn redrive(&self, from: &str, which: Redrive, to: Option<&str>) -> Result<u64> {
        self.http.call(&call::Redrive { from: from.to_owned(), which, to: to.map(str::to_owned) }).await
    }

    async fn purge(&self, queue: &str) -> Result<u64> {
        self.http.call(&call::Purge { queue: queue.to_owned() }).await
    }
}
