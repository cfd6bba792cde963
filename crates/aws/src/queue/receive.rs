//! Receiving, and sending anew what surfaces before it is due.

use std::time::Duration;

use aws_sdk_sqs::types::{Message, MessageSystemAttributeName as System};
use futures::{StreamExt, stream};
use tidemill_base::{Result, Timestamp};
use tidemill_blocks::queue::{Delivery, MessageId, ReceiptOutcome, Receive};
use tidemill_runtime::Stopwatch;

use super::SqsQueue;
use super::batches::{self, BATCH, IN_FLIGHT};
use super::envelope::Envelope;
use super::receipts::{Handle, seconds};
use crate::error::error;

/// A message as received.
#[derive(Debug, Clone)]
pub(super) struct Received {
    pub(super) envelope: Envelope,
    pub(super) handle: Handle,
    pub(super) receives: u32,
}

impl Received {
    fn delivery(self) -> Delivery {
        Delivery {
            id: MessageId(self.envelope.id),
            receipt: self.handle.receipt(),
            body: self.envelope.body,
            receives: self.receives,
            sent_at: self.envelope.sent_at,
        }
    }
}

/// See [`tidemill_blocks::queue::Queue::receive`].
pub(super) async fn receive(q: &SqsQueue, queue: &str, how: Receive) -> Result<Vec<Delivery>> {
    let waited = Stopwatch::start();
    loop {
        let left = how.wait.saturating_sub(waited.elapsed());
        let got = poll(q, queue, how.max, how.lease, left).await?;
        let now = q.inner.env.now();
        let (early, due): (Vec<_>, Vec<_>) = got.into_iter().partition(|m| m.envelope.due.is_some_and(|due| due > now));
        if !early.is_empty()
            && let Err(e) = send_anew(q, queue, &early, now).await
        {
            // What is due and under lease already must not be lost on the way; the early ones surface again when theirs ends.
            if due.is_empty() {
                return Err(e);
            }
            tracing::warn!(queue, error = %e.chain(), "delayed messages surface again later; they could not be sent anew");
        }
        if !due.is_empty() || how.wait <= waited.elapsed() {
            note_age(q, queue, &due);
            return Ok(due.into_iter().map(Received::delivery).collect());
        }
    }
}

/// Receives up to `max` messages: one long poll, and when that brought all it can, short ones beside each other.
pub(super) async fn poll(q: &SqsQueue, queue: &str, max: usize, lease: Duration, wait: Duration) -> Result<Vec<Received>> {
    let url = q.url(queue).await?;
    let mut got = ask(q, queue, &url, max.min(BATCH), lease, wait).await?;
    let mut full = got.len() == BATCH;
    while full && got.len() < max {
        let missing = max - got.len();
        let calls = missing.div_ceil(BATCH).min(IN_FLIGHT);
        let counts = (0..calls).map(|n| BATCH.min(missing - n * BATCH));
        let asked: Vec<_> = counts.map(|count| ask(q, queue, &url, count, lease, Duration::ZERO)).collect();
        let mut answers = stream::iter(asked).buffer_unordered(IN_FLIGHT);
        let mut brought = 0;
        while let Some(answer) = answers.next().await {
            match answer {
                Ok(more) => {
                    brought += more.len();
                    got.extend(more);
                }
                // What the others brought is under lease already; it must not be lost on the way.
                Err(e) => tracing::debug!(queue, error = %e.chain(), "one of several polls failed"),
            }
        }
        full = brought == missing.min(calls * BATCH);
    }
    Ok(got)
}

async fn ask(q: &SqsQueue, queue: &str, url: &str, max: usize, lease: Duration, wait: Duration) -> Result<Vec<Received>> {
    let asked = q.inner.sqs.receive_message().queue_url(url).max_number_of_messages(i32::try_from(max).unwrap_or(1));
    let asked = asked.visibility_timeout(seconds(lease)).wait_time_seconds(seconds(wait));
    let asked = asked.message_system_attribute_names(System::ApproximateReceiveCount).message_system_attribute_names(System::SentTimestamp);
    let now = q.inner.env.now();
    let got = asked.send().await.map_err(|e| q.named(queue, error(format!("receive from queue `{queue}`"), e)))?;
    let received_at = q.inner.env.now().max(now);
    Ok(got.messages.unwrap_or_default().into_iter().filter_map(|m| received(queue, m, received_at)).collect())
}

fn received(queue: &str, message: Message, received_at: Timestamp) -> Option<Received> {
    let attribute = |name: &System| message.attributes.as_ref()?.get(name)?.parse::<i64>().ok();
    let receives = attribute(&System::ApproximateReceiveCount).and_then(|n| u32::try_from(n).ok()).unwrap_or(1);
    let sent_at = attribute(&System::SentTimestamp).map_or(received_at, Timestamp::from_millis);
    let body = message.body.unwrap_or_default();
    // What others put into the queue (an event of S3, say) is delivered as it is.
    let envelope = Envelope::open(&body).unwrap_or_else(|| Envelope {
        id: message.message_id.unwrap_or_default(),
        sent_at,
        due: None,
        queue: queue.to_owned(),
        body: body.into(),
    });
    Some(Received { envelope, handle: Handle { received_at, handle: message.receipt_handle? }, receives })
}

/// Sends copies with what is left of their delay, then removes the originals. A crash in between leaves both; they have one id.
async fn send_anew(q: &SqsQueue, queue: &str, early: &[Received], now: Timestamp) -> Result<()> {
    let bodies: Vec<_> = early.iter().map(|m| SqsQueue::sealed(&m.envelope, now)).collect();
    batches::send(q, queue, &bodies).await?;
    let handles: Vec<Handle> = early.iter().map(|m| m.handle.clone()).collect();
    let outcomes = batches::delete(q, queue, &handles).await?;
    if outcomes.contains(&ReceiptOutcome::Stale) {
        tracing::debug!(queue, "a delayed message was taken by somebody else while it was sent anew; it may come twice");
    }
    Ok(())
}

/// Keeps the estimate of the oldest message's age; see the module `queue`.
fn note_age(q: &SqsQueue, queue: &str, got: &[Received]) {
    if let Some(oldest) = got.iter().map(|m| m.envelope.sent_at).min()
        && let Some(known) = q.known().get_mut(queue)
    {
        known.oldest = Some(oldest);
    }
}
