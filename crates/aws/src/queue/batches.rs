//! Calls on many messages, ten at a time, several in flight. SQS answers a batch entry by entry; those that failed on SQS's side go
//! again.

use std::time::Duration;

use aws_sdk_sqs::types::{
    BatchResultErrorEntry, ChangeMessageVisibilityBatchRequestEntry, DeleteMessageBatchRequestEntry, SendMessageBatchRequestEntry,
};
use futures::{StreamExt, stream};
use tidemill_base::{Error, Result};
use tidemill_blocks::queue::ReceiptOutcome;

use super::SqsQueue;
use super::receipts::Handle;
use crate::error::error;

/// SQS's limit for entries of one batch.
pub(super) const BATCH: usize = 10;
/// SQS's limit for the bodies of one batch, and for one body, since August 2025.
const BATCH_BYTES: usize = 1024 * 1024;
/// Requests in flight for one call.
pub(super) const IN_FLIGHT: usize = 8;

/// A body to send, and SQS's delay for it in seconds.
#[derive(Debug, Clone)]
pub(super) struct Sealed {
    pub(super) body: String,
    pub(super) delay: i32,
}

/// What became of a batch's entries, by place: those refused on our side, and those to send again.
#[derive(Debug, Default)]
struct Failed {
    ours: Vec<(usize, String)>,
    theirs: Vec<(usize, String)>,
}

impl Failed {
    fn read(entries: Vec<BatchResultErrorEntry>) -> Self {
        let mut failed = Self::default();
        for e in entries {
            let Ok(place) = e.id.parse::<usize>() else { continue };
            let said = format!("{} ({})", e.message.as_deref().unwrap_or("no more is said"), e.code);
            // What SQS calls the sender's fault would fail again, except for throttling, which it calls so too.
            let list = if e.sender_fault && !crate::calls::is_throttling(&e.code) { &mut failed.ours } else { &mut failed.theirs };
            list.push((place, said));
        }
        failed
    }
}

/// Cuts into batches by number and by bytes.
fn cut(bodies: &[Sealed]) -> Vec<&[Sealed]> {
    let (mut out, mut start, mut bytes) = (Vec::new(), 0, 0);
    for (at, sealed) in bodies.iter().enumerate() {
        if at > start && (at - start == BATCH || bytes + sealed.body.len() > BATCH_BYTES) {
            out.push(&bodies[start..at]);
            (start, bytes) = (at, 0);
        }
        bytes += sealed.body.len();
    }
    if start < bodies.len() {
        out.push(&bodies[start..]);
    }
    out
}

/// Entries of one kind, ten at most.
#[derive(Debug, Clone, Copy)]
enum Batch<'b> {
    Send(&'b [Sealed]),
    Delete(&'b [Handle]),
    /// Each handle's lease is its own, since SQS counts 12 hours from the delivery on.
    Lease(&'b [Handle], Duration),
}

impl Batch<'_> {
    const fn len(&self) -> usize {
        match self {
            Self::Send(bodies) => bodies.len(),
            Self::Delete(handles) | Self::Lease(handles, _) => handles.len(),
        }
    }

    const fn doing(&self) -> &'static str {
        match self {
            Self::Send(_) => "send to",
            Self::Delete(_) => "acknowledge in",
            Self::Lease(..) => "extend leases in",
        }
    }
}

/// Sends everything, or answers an error; then some may have been sent.
pub(super) async fn send(q: &SqsQueue, queue: &str, bodies: &[Sealed]) -> Result<()> {
    let refused = run(q, queue, cut(bodies).into_iter().map(Batch::Send).collect()).await?;
    match refused.into_iter().flatten().next() {
        None => Ok(()),
        Some(said) => Err(Error::invalid(format!("send to queue `{queue}`: SQS refuses a message: {said}"))),
    }
}

/// Deletes by handle.
pub(super) async fn delete(q: &SqsQueue, queue: &str, handles: &[Handle]) -> Result<Vec<ReceiptOutcome>> {
    let refused = run(q, queue, handles.chunks(BATCH).map(Batch::Delete).collect()).await?;
    Ok(refused.iter().map(|said| outcome(said.is_some())).collect())
}

/// Sets how long messages stay hidden from now on.
pub(super) async fn lease(q: &SqsQueue, queue: &str, handles: &[Handle], lease: Duration) -> Result<Vec<ReceiptOutcome>> {
    let refused = run(q, queue, handles.chunks(BATCH).map(|b| Batch::Lease(b, lease)).collect()).await?;
    Ok(refused.iter().map(|said| outcome(said.is_some())).collect())
}

/// A handle that SQS refuses is stale.
const fn outcome(refused: bool) -> ReceiptOutcome {
    if refused { ReceiptOutcome::Stale } else { ReceiptOutcome::Done }
}

/// Carries out batches, several at once. What SQS says to the entries that it refuses, in order.
async fn run(q: &SqsQueue, queue: &str, batches: Vec<Batch<'_>>) -> Result<Vec<Option<String>>> {
    let url = q.url(queue).await?;
    let mut refused = Vec::new();
    let asked: Vec<_> = batches.into_iter().map(|batch| repeat(q, queue, &url, batch)).collect();
    let mut answers = stream::iter(asked).buffered(IN_FLIGHT);
    while let Some(answer) = answers.next().await {
        refused.extend(answer?);
    }
    Ok(refused)
}

/// Sends a batch, and those entries again that SQS failed.
async fn repeat(q: &SqsQueue, queue: &str, url: &str, batch: Batch<'_>) -> Result<Vec<Option<String>>> {
    let count = batch.len();
    let mut refused = vec![None; count];
    let mut left: Vec<usize> = (0..count).collect();
    let mut attempt = 0;
    loop {
        let failed = Failed::read(call(q, queue, url, batch, &left).await?);
        for (place, said) in failed.ours {
            if let Some(slot) = refused.get_mut(place) {
                *slot = Some(said);
            }
        }
        let Some((_, said)) = failed.theirs.first() else { return Ok(refused) };
        attempt += 1;
        if !q.inner.pause(attempt).await {
            let (doing, failed) = (batch.doing(), failed.theirs.len());
            return Err(Error::unavailable(format!("{doing} queue `{queue}`: {failed} of {count} entries fail again and again: {said}")));
        }
        left = failed.theirs.into_iter().map(|(place, _)| place).filter(|place| *place < count).collect();
    }
}

/// One request with the entries at `places`; those that failed.
async fn call(q: &SqsQueue, queue: &str, url: &str, batch: Batch<'_>, places: &[usize]) -> Result<Vec<BatchResultErrorEntry>> {
    let failed = |e| q.named(queue, e);
    let doing = format!("{} queue `{queue}`", batch.doing());
    match batch {
        Batch::Send(bodies) => {
            let entries = places.iter().map(|&at| {
                let entry = SendMessageBatchRequestEntry::builder().id(at.to_string()).message_body(&bodies[at].body);
                entry.set_delay_seconds(Some(bodies[at].delay).filter(|d| *d > 0)).build().map_err(incomplete)
            });
            let asked = q.inner.sqs.send_message_batch().queue_url(url).set_entries(Some(entries.collect::<Result<_>>()?));
            asked.send().await.map(|done| done.failed).map_err(|e| failed(error(doing, e)))
        }
        Batch::Delete(handles) => {
            let entries = places.iter().map(|&at| {
                let entry = DeleteMessageBatchRequestEntry::builder().id(at.to_string());
                entry.receipt_handle(&handles[at].handle).build().map_err(incomplete)
            });
            let asked = q.inner.sqs.delete_message_batch().queue_url(url).set_entries(Some(entries.collect::<Result<_>>()?));
            asked.send().await.map(|done| done.failed).map_err(|e| failed(error(doing, e)))
        }
        Batch::Lease(handles, lease) => {
            let now = q.inner.env.now();
            let entries = places.iter().map(|&at| {
                let entry = ChangeMessageVisibilityBatchRequestEntry::builder().id(at.to_string());
                let entry = entry.receipt_handle(&handles[at].handle).visibility_timeout(handles[at].seconds(lease, now));
                entry.build().map_err(incomplete)
            });
            let asked = q.inner.sqs.change_message_visibility_batch().queue_url(url).set_entries(Some(entries.collect::<Result<_>>()?));
            asked.send().await.map(|done| done.failed).map_err(|e| failed(error(doing, e)))
        }
    }
}

fn incomplete(e: aws_sdk_sqs::error::BuildError) -> Error {
    Error::internal("an entry of a batch lacks a field").with_source(e)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(bytes: usize) -> Sealed {
        Sealed { body: "x".repeat(bytes), delay: 0 }
    }

    #[test]
    fn batches_keep_to_number_and_size() {
        let sizes = |bodies: &[Sealed]| cut(bodies).iter().map(|b| b.len()).collect::<Vec<_>>();
        assert_eq!(sizes(&[]), [0; 0]);
        assert_eq!(sizes(&vec![sealed(5); 25]), [10, 10, 5]);
        assert_eq!(sizes(&vec![sealed(350_000); 5]), [2, 2, 1]);
        assert_eq!(sizes(&[sealed(BATCH_BYTES), sealed(1), sealed(BATCH_BYTES - 1)]), [1, 2]);
    }

    #[test]
    fn failures_are_told_apart() {
        let entry = |id: &str, code: &str, ours| BatchResultErrorEntry::builder().id(id).code(code).sender_fault(ours).build().unwrap();
        let failed = Failed::read(vec![
            entry("0", "ReceiptHandleIsInvalid", true),
            entry("3", "InternalError", false),
            entry("4", "Throttled", true),
        ]);
        assert_eq!(failed.ours.iter().map(|(p, _)| *p).collect::<Vec<_>>(), [0]);
        assert_eq!(failed.theirs.iter().map(|(p, _)| *p).collect::<Vec<_>>(), [3, 4]);
    }
}
