//! The queue's calls.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tidemill_base::Result;
use tidemill_blocks::queue::{Delivery, Receive, check_receive};
use tidemill_remote::wire::queue as wire;
use tidemill_runtime::Stopwatch;

use super::reach::managers_only;
use super::{Edge, call};

/// A wait is cut into slices of this length, and nothing is cut off within one: a receive that is dropped halfway may have leased
/// messages that then reach nobody until their lease ends.
const SLICE: Duration = Duration::from_secs(1);

pub(super) fn routes(router: Router<Arc<Edge>>) -> Router<Arc<Edge>> {
    let router = call(router, |edge, who, c: wire::Send| async move {
        edge.reach.queue(&who, &c.queue)?;
        edge.blocks.queue.send(&c.queue, c.messages).await
    });
    let router = call(router, |edge, who, c: wire::Receive| async move {
        edge.reach.queue(&who, &c.queue)?;
        receive(&edge, &c.queue, c.how).await
    });
    let router = call(router, |edge, who, c: wire::Ack| async move {
        edge.reach.queue(&who, &c.queue)?;
        edge.blocks.queue.ack(&c.queue, &c.receipts).await
    });
    let router = call(router, |edge, who, c: wire::Extend| async move {
        edge.reach.queue(&who, &c.queue)?;
        edge.blocks.queue.extend(&c.queue, &c.receipts, c.lease).await
    });
    let router = call(router, |edge, who, c: wire::Stats| async move {
        edge.reach.queue(&who, &c.queue)?;
        edge.blocks.queue.stats(&c.queue).await
    });
    manage(router)
}

/// What workers may not do.
fn manage(router: Router<Arc<Edge>>) -> Router<Arc<Edge>> {
    let router = call(router, |edge, who, c: wire::Ensure| async move {
        managers_only(&who, "setting up queues")?;
        edge.blocks.queue.ensure(&c.queue, c.settings).await
    });
    let router = call(router, |edge, who, _: wire::List| async move {
        managers_only(&who, "the list of queues")?;
        edge.blocks.queue.list().await
    });
    let router = call(router, |edge, who, c: wire::Browse| async move {
        managers_only(&who, "looking into queues")?;
        edge.blocks.queue.browse(&c.queue, c.max).await
    });
    let router = call(router, |edge, who, c: wire::Redrive| async move {
        managers_only(&who, "redriving dead letters")?;
        edge.blocks.queue.redrive(&c.from, c.which, c.to.as_deref()).await
    });
    call(router, |edge, who, c: wire::Purge| async move {
        managers_only(&who, "emptying queues")?;
        edge.blocks.queue.purge(&c.queue).await
    })
}

/// Receives, waiting in slices so that draining ends the wait within one.
async fn receive(edge: &Edge, queue: &str, how: Receive) -> Result<Vec<Delivery>> {
    check_receive(&how)?;
    let clock = Stopwatch::start();
    loop {
        let left = how.wait.saturating_sub(clock.elapsed());
        let slice = if edge.shutdown.phase().is_running() { left.min(SLICE) } else { Duration::ZERO };
        let got = edge.blocks.queue.receive(queue, how.waiting(slice)).await?;
        if !got.is_empty() || slice == left || slice.is_zero() {
            return Ok(got);
        }
    }
}
