//! How the program lives: supervised tasks, shutdown in two stages, layered configuration, logs and metrics.
//!
//! Nothing is spawned bare. A [`Tasks`] belongs to a component; a task has a name and a [`Kind`] that says what its failure means
//! and what a shutdown does to it. Sleeping, timeouts and stop-watches go through here as well, on tokio's clock, which the
//! simulator pauses and moves by itself.
//!
//! Shutdown has two stages, with a reason: first the work drains (leases are given back, logs are flushed, waiting callers get
//! their answers), then the edges close. A task waits for [`Shutdown::draining`] or [`Shutdown::closing`].
//!
//! ```no_run
//! # async fn example() {
//! use std::time::Duration;
//! use tidemill_runtime::{Kind, Shutdown, Tasks};
//!
//! let shutdown = Shutdown::new();
//! let tasks = Tasks::new("example", shutdown.clone());
//! let stop = shutdown.clone();
//! tasks.spawn("ticker", Kind::Essential, async move {
//!     while stop.sleep(Duration::from_secs(1)).await.is_running() {}
//!     Ok(())
//! });
//! shutdown.drain();
//! shutdown.close();
//! tasks.join(Duration::from_secs(10)).await;
//! # }
//! ```

mod config;
mod logs;
mod shutdown;
mod tasks;
mod time;

pub use config::{Layers, Origin};
pub use logs::{LogFormat, init_logs};
pub use shutdown::{Phase, Shutdown};
pub use tasks::{Kind, Tasks};
pub use time::{Stopwatch, TokioClock, sleep, timeout};
