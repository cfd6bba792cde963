//! Conformance suites, faulty wrappers and the simulator's harness.
//!
//! One suite per block says what a driver must do; a driver signs up with a few lines in its own `tests/` folder and each
//! behaviour becomes a test of its own. A behaviour added here is run by every driver without an edit there.
//!
//! ```no_run
//! use std::sync::Arc;
//! use tidemill_blocks::{memory::MemoryQueue, queue::Queue};
//! use tidemill_blocks_test::{Harness, queue_suite};
//!
//! async fn make(h: &Harness) -> Arc<dyn Queue> {
//!     Arc::new(MemoryQueue::new(h.env().clone()))
//! }
//!
//! queue_suite!(real, make); // or `simulated`, for drivers without threads of their own
//! ```
//!
//! Two suites in one file go into a module each. [`faulty`] wraps blocks so that they misbehave as networks and processes do, from
//! a seed; [`sim`] runs a scenario on simulated time and checks that the same seed gives the same run.

pub mod faulty;
mod harness;
mod ledger_memory;
pub mod sim;
pub mod suites;

pub use harness::{Harness, run_real, run_simulated};
pub use ledger_memory::SqliteMemoryLedger;
pub use suites::{Skip, engine};
