//! What the worker says of itself.

use std::time::Duration;

use tidemill_base::Result;
use tidemill_batch::protocol::keys::{self, WORKER_TABLE};
use tidemill_batch::protocol::{EnginesBeat, Heartbeat, WorkerPhase, encode};
use tidemill_blocks::table::{Condition, Write};
use tidemill_runtime::{Stopwatch, sleep};

use super::Node;

const EXPIRES_AFTER: Duration = Duration::from_secs(60);
/// Heartbeats on a floor that keeps turning idle and busy are no closer together than this.
const CLOSEST: Duration = Duration::from_millis(250);
/// How often it is looked whether slots have something to do.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// No more running tasks than this are named.
const MAX_RUNNING: usize = 200;

/// Says so every now and then, and at once when the first task starts, when there is nothing to do any more, and when there is again.
pub(super) async fn beat(node: &Node) {
    let mut idle = 0;
    loop {
        let phase = if node.stop.phase().is_running() { WorkerPhase::Ready } else { WorkerPhase::Draining };
        if let Err(e) = say(node, phase, idle).await {
            tracing::warn!(error = %e.chain(), "heartbeat");
        }
        let said = Stopwatch::start();
        sleep(CLOSEST).await;
        let mut before = node.floor.idle_slots();
        loop {
            let changed = async { if phase == WorkerPhase::Ready { node.stop.draining().await } else { std::future::pending().await } };
            tokio::select! {
                biased;
                () = node.floor.busy.notified() => break,
                () = changed => break,
                () = sleep(LOOK_EVERY) => {}
            }
            // Between one task and the next a slot is free for a moment.
            let now = node.floor.idle_slots();
            let lasting = now.min(std::mem::replace(&mut before, now));
            if (lasting > 0) != (idle > 0) || said.elapsed() + LOOK_EVERY >= node.settings.heartbeat_every {
                idle = lasting;
                break;
            }
        }
        idle = idle.min(node.floor.idle_slots());
    }
}

/// Writes one heartbeat.
pub(super) async fn say(node: &Node, phase: WorkerPhase, idle: u32) -> Result<()> {
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
        waiting: summary.waiting,
        idle,
        tasks_done: summary.tasks_done,
        busy_us: summary.busy_us,
        cpu_us: summary.cpu_us,
        tools: node.tools.clone(),
    };
    let mut writes = vec![Write::put(keys::worker(&settings.id), encode(&beat)?, Condition::Any).expiring(now + EXPIRES_AFTER)];
    let pools = node.runner.engines();
    if !pools.is_empty() {
        let engines =
            EnginesBeat { worker: settings.id.clone(), host: settings.host.clone(), at: now, pools, counts: node.runner.engine_counts() };
        writes.push(Write::put(keys::engines(&settings.id), encode(&engines)?, Condition::Any).expiring(now + EXPIRES_AFTER));
    }
    node.blocks.table.write_many(WORKER_TABLE, writes).await
}
