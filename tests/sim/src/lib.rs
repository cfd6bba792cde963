//! Seeded simulation of the batch system: managers and workers as they are in production, on simulated time, over blocks that lose
//! replies, deliver twice, delay, throttle and crash.
//!
//! [`World`] starts and kills the processes of a run, [`Plan`] is what a seed makes of it, and [`check`] holds the invariants against
//! what is in the blocks when all is done. A failing seed prints the line that runs it again.

mod audit;
mod check;
mod doors;
mod people;
mod plan;
mod sessions;
mod sink;
mod world;

pub use check::check;
pub use plan::{JobPlan, Plan, Wish};
pub use sessions::{SessionPlan, Step};
pub use sink::RowSink;
pub use world::{End, World, scenario};
