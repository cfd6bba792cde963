//! Blocks that misbehave as networks, engines and processes do, from a seed.
//!
//! A [`Faults`] is one source of misfortune for a whole run. Each process of the run (a manager, a worker) is a [`Component`] of it
//! and sees the blocks through wrappers of its own, so that it can crash without the others:
//!
//! ```no_run
//! # async fn example(blocks: tidemill_blocks::Blocks) -> tidemill_base::Result<()> {
//! use tidemill_blocks_test::faulty::{Fault, FaultPlan, Faults};
//!
//! let faults = Faults::new(FaultPlan::rough(42));
//! let manager = faults.component("manager");
//! let seen_by_manager = manager.blocks(&blocks);
//! manager.crash_after(17); // dies at its 17th call from now, after or before it took effect
//! // ... run the system ...
//! faults.calm(); // from here on everything works, so everything has to come to its end
//! assert!(faults.count(Fault::LostReply) > 0);
//! # Ok(()) }
//! ```
//!
//! Whatever is injected is something that the blocks' promises allow: a system that fails under it is wrong. Grants and fleets are
//! passed through as they are.

mod component;
mod ledger;
mod objects;
mod plan;
mod queue;
mod table;

pub use component::Component;
pub use plan::{Fault, FaultPlan, Faults};
