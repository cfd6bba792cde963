//! Receiving ranges: as many as keep the slots busy, and no more.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures::future::{Fuse, FusedFuture, FutureExt};
use futures::stream::{FuturesUnordered, StreamExt};
use tidemill_base::Result;
use tidemill_batch::protocol::keys;
use tidemill_blocks::queue::{Delivery, Receive};
use tidemill_runtime::sleep;

use super::{Node, carry};

const LONG_POLL: Duration = Duration::from_secs(20);
/// The most messages taken with one call.
const MAX_AT_ONCE: u64 = 10;
/// How often it is asked anew whether more is wanted, besides when a task ends.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// How long a receive that is under way may take when a drain begins.
const LAST_RECEIVE: Duration = Duration::from_millis(500);

pub(super) type Carriers = FuturesUnordered<futures::future::BoxFuture<'static, ()>>;

/// Receives and carries until the node is to drain.
pub(super) async fn run(node: &Arc<Node>, carriers: &mut Carriers) {
    let mut receive = Box::pin(Fuse::terminated());
    let mut failures = 0;
    loop {
        if receive.is_terminated() {
            let want = wanted(node);
            if want > 0 {
                receive.set(receive_some(node.clone(), want, failures).fuse());
            }
        }
        tokio::select! {
            biased;
            () = node.stop.draining() => break,
            Some(()) = carriers.next(), if !carriers.is_empty() => {}
            got = &mut receive, if !receive.is_terminated() => match got {
                Ok(deliveries) => {
                    failures = 0;
                    carriers.extend(deliveries.into_iter().map(|d| carry::carry(node.clone(), d).boxed()));
                }
                Err(e) => {
                    failures += 1;
                    tracing::warn!(error = %e.chain(), "could not receive work, trying again");
                }
            },
            () = node.floor.room.notified(), if receive.is_terminated() => {}
            () = sleep(LOOK_AGAIN), if receive.is_terminated() => {}
        }
    }
    if receive.is_terminated() {
        return;
    }
    tokio::select! {
        biased;
        got = &mut receive => give_back(node, got.unwrap_or_default()).await,
        () = sleep(LAST_RECEIVE) => {}
    }
}

async fn receive_some(node: Arc<Node>, max: usize, failures: u32) -> Result<Vec<Delivery>> {
    if failures > 0 {
        sleep(node.settings.retry.delay(failures, &node.env)).await;
    }
    let how = Receive::up_to(max, node.settings.lease).waiting(LONG_POLL);
    node.blocks.queue.receive(&keys::work_queue(&node.settings.class), how).await
}

async fn give_back(node: &Node, deliveries: Vec<Delivery>) {
    let receipts: Vec<_> = deliveries.into_iter().map(|d| d.receipt).collect();
    if !receipts.is_empty()
        && let Err(e) = node.blocks.queue.extend(&keys::work_queue(&node.settings.class), &receipts, Duration::ZERO).await
    {
        tracing::warn!(error = %e.chain(), "could not give received work back, it returns when its lease ends");
    }
}

/// How many more ranges to ask for.
fn wanted(node: &Node) -> usize {
    let now = node.env.now();
    if now < *node.aside_until.lock().unwrap_or_else(PoisonError::into_inner) {
        return 0;
    }
    // What came now would wait behind tasks of which nobody knows how long they take.
    if node.floor.is_stuck(now) {
        return 0;
    }
    let prefetch = node.settings.prefetch;
    let summary = node.floor.summary(prefetch);
    let held = node.held().len();
    let room = node.settings.max_ranges.saturating_sub(held);
    // A range that is still being claimed will bring one task at least.
    let claiming = held.saturating_sub(summary.ranges) as u64;
    let waiting = summary.waiting_slots + claiming;
    let free = u64::from(summary.free_slots);
    let slots = u64::from(node.settings.offers.slots.max(1));
    let prefetch_us = prefetch.as_micros() as f64;
    let ahead_us = (summary.waiting_us + claiming as f64 * prefetch_us) / slots as f64;
    let want = if waiting < free {
        free - waiting
    } else if ahead_us < prefetch_us {
        // The manager makes ranges of some seconds, once it knows how long their tasks take; until then they are of few tasks, and
        // how long those take is not known here either.
        slots
    } else {
        0
    };
    room.min(usize::try_from(want.min(MAX_AT_ONCE)).unwrap_or(0))
}
