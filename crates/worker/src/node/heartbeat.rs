//! What the worker says of itself.

use std::time::Duration;

use tidemill_base::Result;
use tidemill_batch::protocol::keys::{self, WORKER_TABLE};
use tidemill_batch::protocol::{Heartbeat, WorkerPhase, encode};
use tidemill_blocks::table::{Condition, Write};
use tidemill_runtime::sleep;

use super::Node;

const EXPIRES_AFTER: Duration = Duration::from_secs(60);
/// Heartbeats on a floor that keeps turning idle and busy are no closer together than this.
const CLOSEST: Duration = Duration::from_millis(250);
/// No more running tasks than this are named.
const MAX_RUNNING: usize = 200;

/// Says so every now and then, and at once when the first task starts.
pub(super) async fn beat(node: &Node) {
    loop {
        let phase = if node.stop.phase().is_running() { WorkerPhase::Ready } else { WorkerPhase::Draining };
        if let Err(e) = say(node, phase).await {
            tracing::warn!(error = %e.chain(), "heartbeat");
        }
        sleep(CLOSEST).await;
        let changed = async { if phase == WorkerPhase::Ready { node.stop.draining().await } else { std::future::pending().await } };
        tokio::select! {
            biased;
            () = node.floor.busy.notified() => {}
            () = changed => {}
            () = sleep(node.settings.heartbeat_every.saturating_sub(CLOSEST)) => {}
        }
    }
}

/// Writes one heartbeat.
pub(super) async fn say(node: &Node, phase: WorkerPhase) -> Result<()> {
    let (settings, summary, now) = (&node.settings, node.floor.summary(node.settings.prefetch), node.env.now());
    let beat = Heartbeat {
        worker: settings.id.clone(),
        class: settings.class.clone(),
        host: settings.host.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        offers: settings.offers.clone(),
        started_at: node.started_at,
        at: now,
        phase,
        running: node.floor.running(MAX_RUNNING),
        ranges: u32::try_from(node.held().len()).unwrap_or(u32::MAX),
        tasks_done: summary.tasks_done,
        busy_us: summary.busy_us,
        cpu_us: summary.cpu_us,
        tools: node.tools.clone(),
    };
    let write = Write::put(keys::worker(&settings.id), encode(&beat)?, Condition::Any).expiring(now + EXPIRES_AFTER);
    node.blocks.table.write_many(WORKER_TABLE, vec![write]).await
}
