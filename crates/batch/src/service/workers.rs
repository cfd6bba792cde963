//! The workers as their heartbeats show them.

use std::collections::BTreeMap;
use std::time::Duration;

use tidemill_base::{Result, Timestamp};
use tidemill_blocks::table::{Range, Table, read_all};

use crate::protocol::{EnginesBeat, Heartbeat, WorkerPhase, decode, keys};
use crate::reactor::Capacity;

/// A worker that has said nothing for so long does not count.
pub const SILENT_AFTER: Duration = Duration::from_secs(15);

/// A worker that has said nothing for so long is not there.
const GONE_AFTER: Duration = Duration::from_secs(60);

/// Every worker that has been heard of within the last minute, by id.
pub async fn live_workers(table: &dyn Table, now: Timestamp) -> Result<Vec<Heartbeat>> {
    let items = read_all(table, keys::WORKER_TABLE, Range::all("w", 1000)).await?;
    let beats: Result<Vec<Heartbeat>> = items.iter().map(|i| decode("heartbeat", &i.value)).collect();
    Ok(beats?.into_iter().filter(|b| b.phase != WorkerPhase::Gone && now.since(b.at) < GONE_AFTER).collect())
}

/// The engines of every worker that has some and has been heard of within the last minute, by the worker's id.
pub async fn live_engines(table: &dyn Table, now: Timestamp) -> Result<Vec<EnginesBeat>> {
    let items = read_all(table, keys::WORKER_TABLE, Range::all("engines", 1000)).await?;
    let beats: Result<Vec<EnginesBeat>> = items.iter().map(|i| decode("engines", &i.value)).collect();
    Ok(beats?.into_iter().filter(|b| now.since(b.at) < GONE_AFTER).collect())
}

/// What those that take work can do, by class.
pub(super) fn capacity(workers: &[Heartbeat]) -> BTreeMap<String, Capacity> {
    let newest = workers.iter().map(|b| b.at).max().unwrap_or_default();
    let mut out: BTreeMap<String, Capacity> = BTreeMap::new();
    for w in workers.iter().filter(|w| w.phase == WorkerPhase::Ready && newest.since(w.at) < SILENT_AFTER) {
        let c = out.entry(w.class.clone()).or_default();
        c.workers += 1;
        c.slots += w.offers.slots;
    }
    out
}
