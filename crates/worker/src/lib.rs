//! The worker: a node that leases ranges of tasks, runs them in its slots, and reports what became of them.
//!
//! Why ranges: one lease, one claim and one report pay for thousands of tasks, while attempts, outputs, logs and statistics stay per
//! task (see [`tidemill_batch::protocol`] for the life of a range). Why threads: starting a short process takes a third of a
//! millisecond, so a slot is a thread that takes its next task from a shared state without waking anything asynchronous; only
//! reports, transfers and leases are.
//!
//! The parts, in the order in which a task meets them: the node receives and claims a range and looks up its inputs; the floor
//! chooses what runs next and counts resources; a runner takes tasks from the floor, runs them and settles them in the range's
//! state; the carrier of the range reports what is settled, under the fence of its claim.
//!
//! ```no_run
//! # async fn example(blocks: tidemill_worker::WorkerBlocks) -> tidemill_base::Result<()> {
//! use tidemill_base::Env;
//! use tidemill_blocks::fleet::Offers;
//! use tidemill_runtime::{Shutdown, Tasks};
//! use tidemill_worker::{Runners, WorkerNode, WorkerSettings};
//!
//! let offers = Offers { slots: 2, memory: 4 << 30, named: Default::default() };
//! let settings = WorkerSettings::new("w1", "default", "/var/lib/tidemill/worker", offers);
//! let shutdown = Shutdown::new();
//! let tasks = Tasks::new("worker", shutdown.clone());
//! WorkerNode::new(settings, blocks, &Runners::processes(), Env::system(), tasks)?.run().await
//! # }
//! ```

mod engines;
mod floor;
mod inputs;
mod node;
mod payloads;
mod range;
mod results;
mod runner;
mod settings;
mod stage;
mod staging;
mod work;

pub use engines::EnginePrograms;
pub use node::WorkerNode;
pub use runner::{Draw, Runners, SimOutcome, simulated_result};
pub use settings::{WorkerBlocks, WorkerSettings};
pub use tidemill_engine::User as EngineUser;
