//! In-memory drivers: the executable meaning of each trait. Nothing survives the process.
//!
//! Each is one mutex around plain maps, with the rules written out as simply as they can be; where a durable driver and these
//! disagree, one of them is wrong and the conformance suite says which. Time comes from the [`Env`](tidemill_base::Env) and waiting
//! goes through tokio's clock, so they run in a paused runtime as well. The ledger has no driver here, since its meaning is SQL's:
//! `tidemill-blocks-test` has one on SQLite in memory.

mod fleet;
mod grants;
mod queue;
mod table;

use std::sync::Arc;

pub use fleet::{FleetHooks, MemoryFleet};
pub use grants::MemoryGrants;
pub use queue::MemoryQueue;
pub use table::MemoryTable;

/// A store of objects in memory.
pub fn objects() -> crate::objects::Objects {
    Arc::new(object_store::memory::InMemory::new())
}
