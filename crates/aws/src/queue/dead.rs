//! Looking at messages, moving dead letters, dropping everything.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tidemill_base::{ErrorKind, Result};
use tidemill_blocks::queue::{Browsed, MessageId, Redrive};
use tidemill_runtime::sleep;

use super::batches;
use super::envelope::Envelope;
use super::receipts::Handle;
use super::receive::{Received, poll};
use super::{SqsQueue, settings};
use crate::error::error;

/// How long messages are hidden while somebody looks at them, should the driver not come to give them back.
const LOOK: Duration = Duration::from_secs(30);
/// How long they are hidden while they are moved. What is not moved is given back at the end.
const MOVE: Duration = Duration::from_secs(300);
/// Messages taken at a time.
const TAKE: usize = 100;
/// A poll that waits asks all of SQS's machines, one that does not only some.
const WAIT: Duration = Duration::from_secs(1);
/// So many messages are dropped one by one.
const DRAINED: u64 = 1000;
/// SQS goes on dropping messages for so long after it has answered, those included that are sent meanwhile.
const PURGING: Duration = Duration::from_secs(60);

/// See [`tidemill_blocks::queue::Queue::browse`]; nothing in a queue whose messages die of deliveries.
pub(super) async fn browse(q: &SqsQueue, queue: &str, max: usize) -> Result<Vec<Browsed>> {
    let found = q.attributes(queue).await?;
    if settings::redrive(&found).is_some() || settings::stats(&found).ready == 0 {
        return Ok(Vec::new());
    }
    let mut seen: BTreeMap<String, Received> = BTreeMap::new();
    let mut handles = Vec::new();
    while seen.len() < max {
        let got = poll(q, queue, (max - seen.len()).min(TAKE), LOOK, WAIT).await?;
        let before = seen.len();
        for m in got {
            handles.push(m.handle.clone());
            seen.insert(m.envelope.id.clone(), m);
        }
        if seen.len() == before {
            break;
        }
    }
    batches::lease(q, queue, &handles, Duration::ZERO).await?;
    let mut out: Vec<Browsed> = seen.into_values().map(|m| browsed(queue, m)).collect();
    out.sort_by(|a, b| (a.sent_at, &a.id).cmp(&(b.sent_at, &b.id)));
    Ok(out)
}

fn browsed(queue: &str, m: Received) -> Browsed {
    Browsed {
        died_in: died_in(queue, &m.envelope),
        id: MessageId(m.envelope.id),
        body: m.envelope.body,
        // This look is not one of them.
        receives: m.receives.saturating_sub(1),
        sent_at: m.envelope.sent_at,
    }
}

/// The queue that a message was sent to, if that is another.
fn died_in(queue: &str, envelope: &Envelope) -> Option<String> {
    (envelope.queue != queue).then(|| envelope.queue.clone())
}

/// See [`tidemill_blocks::queue::Queue::redrive`]. Copies are sent before the originals are deleted.
pub(super) async fn redrive(q: &SqsQueue, from: &str, which: &Redrive, to: Option<&str>) -> Result<u64> {
    q.url(from).await?;
    if let Some(to) = to {
        q.url(to).await?;
    }
    let mut wanted: Option<BTreeSet<&str>> = match which {
        Redrive::All => None,
        Redrive::Only(ids) => Some(ids.iter().map(|id| id.0.as_str()).collect()),
    };
    let (mut moved, mut kept, mut seen) = (0, Vec::new(), BTreeSet::new());
    let ended = loop {
        if wanted.as_ref().is_some_and(BTreeSet::is_empty) {
            break Ok(());
        }
        let got = match poll(q, from, TAKE, MOVE, WAIT).await {
            Ok(got) => got,
            Err(e) => break Err(e),
        };
        let fresh: Vec<Received> = got.into_iter().filter(|m| seen.insert(m.envelope.id.clone())).collect();
        if fresh.is_empty() {
            break Ok(());
        }
        let (chosen, rest): (Vec<_>, Vec<_>) =
            fresh.into_iter().partition(|m| wanted.as_ref().is_none_or(|w| w.contains(m.envelope.id.as_str())));
        kept.extend(handles(&rest));
        if let Some(wanted) = &mut wanted {
            for m in &chosen {
                wanted.remove(m.envelope.id.as_str());
            }
        }
        match move_to(q, from, chosen, to, &mut kept).await {
            Ok(n) => moved += n,
            Err(e) => break Err(e),
        }
    };
    // Those left behind would come back by themselves, only later.
    let given_back = batches::lease(q, from, &kept, Duration::ZERO).await;
    ended.and(given_back.map(|_| moved))
}

fn handles(messages: &[Received]) -> Vec<Handle> {
    messages.iter().map(|m| m.handle.clone()).collect()
}

/// Moves messages, each to `to` or where it died. What died nowhere, or in a queue that is gone, is added to `kept`.
async fn move_to(q: &SqsQueue, from: &str, chosen: Vec<Received>, to: Option<&str>, kept: &mut Vec<Handle>) -> Result<u64> {
    let mut by_target: BTreeMap<String, Vec<Received>> = BTreeMap::new();
    for m in chosen {
        match to.map(str::to_owned).or_else(|| died_in(from, &m.envelope)) {
            Some(target) => by_target.entry(target).or_default().push(m),
            None => kept.push(m.handle),
        }
    }
    let mut moved = 0;
    for (target, messages) in by_target {
        match q.url(&target).await {
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::NotFound && to.is_none() => {
                tracing::warn!(from, target, "dead letters stay where they are: the queue they died in is gone");
                kept.extend(handles(&messages));
                continue;
            }
            Err(e) => return Err(e),
        }
        let now = q.inner.env.now();
        let copies = messages.iter().map(|m| Envelope { queue: target.clone(), due: None, ..m.envelope.clone() });
        let copies: Vec<_> = copies.map(|e| SqsQueue::sealed(&e, now)).collect();
        batches::send(q, &target, &copies).await?;
        batches::delete(q, from, &handles(&messages)).await?;
        moved += messages.len() as u64;
    }
    Ok(moved)
}

/// See [`tidemill_blocks::queue::Queue::purge`]. A few messages that all can be received are dropped one by one, which spares the
/// minute for which SQS's own purge reaches out to later messages; what SQS has not counted yet may stay then. Otherwise the answer
/// is what SQS counted before, which is approximate.
pub(super) async fn purge(q: &SqsQueue, queue: &str) -> Result<u64> {
    let found = q.attributes(queue).await?;
    let stats = settings::stats(&found);
    let counted = stats.ready + stats.delayed + stats.in_flight;
    // Receiving would bury some where messages die of it.
    if counted <= DRAINED && stats.ready == counted && settings::redrive(&found).is_none() {
        return drain(q, queue).await;
    }
    let url = q.url(queue).await?;
    match q.inner.sqs.purge_queue().queue_url(url).send().await.map_err(|e| q.named(queue, error(format!("purge queue `{queue}`"), e))) {
        Ok(_) => {
            // What is sent now might be dropped with the rest. Compatible services have no such minute.
            if q.inner.settings.endpoint.is_none() {
                sleep(PURGING).await;
            }
            Ok(counted)
        }
        // SQS purges once in a minute. What can be received is dropped one by one instead.
        Err(e) if e.message().contains("PurgeQueueInProgress") => drain(q, queue).await,
        Err(e) => Err(e),
    }
}

async fn drain(q: &SqsQueue, queue: &str) -> Result<u64> {
    let mut dropped = 0;
    loop {
        let got = poll(q, queue, TAKE, LOOK, WAIT).await?;
        if got.is_empty() {
            return Ok(dropped);
        }
        batches::delete(q, queue, &handles(&got)).await?;
        dropped += got.len() as u64;
    }
}
