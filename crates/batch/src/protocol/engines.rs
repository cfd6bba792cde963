//! What a worker says of its engines, as often as it beats.
//!
//! It is apart from the heartbeat because managers read all heartbeats on their way to everything, and engines are asked for only when
//! somebody looks at a session.

use serde::{Deserialize, Serialize};
use tidemill_base::Timestamp;

/// An item of the worker table; it expires with the heartbeat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnginesBeat {
    /// The worker's id.
    pub worker: String,
    /// The machine it is on.
    pub host: String,
    /// When this was written.
    pub at: Timestamp,
    /// Its pools.
    pub pools: Vec<PoolBeat>,
    /// What has happened since the worker started.
    pub counts: EngineCounts,
}

/// What a worker has counted of its engines since it started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineCounts {
    /// Engines that were ready.
    pub started: u64,
    /// Engines that ended as they were asked to.
    pub stopped: u64,
    /// Engines that ended by themselves or by a signal.
    pub crashed: u64,
    /// Engines that were killed because a task ran too long, or because they did not answer.
    pub timed_out: u64,
    /// Engines that were killed because they took too much memory.
    pub out_of_memory: u64,
    /// Engines that were never ready.
    pub not_started: u64,
    /// Engines that were killed because a cancelled task did not end.
    pub cancelled: u64,
    /// Tasks taken from an engine that was stuck, for its neighbours.
    pub stolen: u64,
    /// Packages that were on disk when an engine needed them.
    pub package_hits: u64,
    /// Packages that had to be fetched first.
    pub packages_fetched: u64,
    /// Their bytes.
    pub package_bytes: u64,
}

/// Engines of one kind that share their sessions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolBeat {
    /// What sessions call this kind of engine.
    pub kind: String,
    /// Sessions whose tasks may run here.
    pub jobs: Vec<String>,
    /// What engines say of themselves and of what they have loaded, each text once.
    pub versions: Vec<String>,
    /// The engines.
    pub engines: Vec<EngineBeat>,
}

/// One engine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineBeat {
    /// What the worker calls it; empty while it is being started.
    pub id: String,
    /// Its process; 0 while it is being started.
    pub pid: u32,
    /// Resident memory, bytes.
    pub memory: u64,
    /// What it runs now: the session, as a place in the pool's `jobs`, and the task.
    pub running: Option<(u32, u64)>,
    /// Tasks that it has in hand, that one included.
    pub in_hand: u64,
    /// Tasks that it has finished, of all sessions.
    pub finished: u64,
    /// Engines that it has replaced.
    pub replaced: u64,
    /// How the last one of those ended, if it did not just stop.
    pub last_loss: Option<String>,
    /// What it said of itself at its start, as a place in the pool's `versions`.
    pub version: Option<u32>,
    /// Sessions whose state it holds and what it has loaded for each, as places in the pool's `jobs` and `versions`.
    pub warm: Vec<(u32, u32)>,
}
