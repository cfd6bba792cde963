//! The batch system: commands and containers over thousands of inputs, in chained stages, on a fleet that grows and shrinks.
//!
//! * [`model`] is what it is about: jobs, stages, tasks, outcomes, statistics.
//! * [`protocol`] is what manager and workers say to each other through the blocks; it explains the life of a range.
//! * `spec` turns what a user wrote into a checked [`model::JobSpec`]; `cut` turns inputs into tasks.
//! * `reactor` decides: plain synchronous code over state, told of events and the time, answering with effects.
//! * `service` carries: it reads blocks, feeds the reactor, and applies the effects in an order that survives a crash.
//!
//! The unit of ownership is a range of tasks, not a task (`docs/decisions/0002-ranges.md`): ten million waiting tasks are a few runs of
//! numbers, and calls, fsyncs and cloud cost are paid per range, while attempts, failures, logs and statistics stay per task.

pub mod cut;
pub mod explain;
pub mod fleet;
pub mod model;
pub mod protocol;
pub mod reactor;
pub mod service;
pub mod spec;
pub mod store;
mod unpack;
