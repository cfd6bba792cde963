//! Engines: warm, persistent processes that run tasks, and everything around them.
//!
//! An engine is a child process that speaks a small protocol of frames over its standard input and output ([`wire`]). It boots once,
//! opens sessions (a function, and the state that it keeps warm: curves, a portfolio), and then runs tasks, many to a frame. Why
//! processes: what users bring is Python and old C++, which crashes, hangs, leaks and prints. A process can be killed, confined and
//! replaced; and with many tasks to a frame the pipe costs a fraction of a microsecond each.
//!
//! There are three levels. [`Engine`] is one process with its limits; it says what it has answered and how it has ended. [`Pool`] is several
//! that share one list of tasks: portions sized from observed run times, dead engines replaced, the task that killed them found, every
//! task settled exactly once. [`kit`] is the other end, for engines in Rust; the kits for Python and C++ are in `python/tidemill/engine` and
//! `examples/engine-cpp`, and `docs/reference/engine-protocol.md` is enough to write one for another language.
//!
//! ```no_run
//! # async fn example() -> tidemill_base::Result<()> {
//! use tidemill_base::Env;
//! use tidemill_engine::{EngineSpec, Function, Pool, PoolSettings, Session, Task, TaskResult};
//! use tidemill_runtime::{Shutdown, Tasks};
//!
//! let mut spec = EngineSpec::python("python3", "/var/lib/tidemill/engines");
//! spec.args.extend(["--load", "QuantLib"].map(Into::into));
//! spec.limits.memory = Some(4 << 30);
//! let tasks = Tasks::new("worker", Shutdown::new());
//! let (pool, mut batches) = Pool::start(spec, PoolSettings::new(2), Env::system(), &tasks)?;
//!
//! let session = pool.open(Session::new(Function::Module("pricing:value".into())));
//! let payload: &[u8] = b"..."; // what `pickle.dumps(((trade,), {}))` gives
//! pool.submit(session, (0..1000).map(|id| Task::new(id, payload)).collect()).await?;
//! let mut left = 1000;
//! while left > 0 {
//!     let Some(batch) = batches.next().await else { break };
//!     left -= batch.outcomes.len();
//!     for outcome in batch.outcomes {
//!         match outcome.result {
//!             TaskResult::Value(value) => println!("{}: {} bytes in {} us", outcome.task, value.len(), outcome.run_us),
//!             TaskResult::Failed(e) => println!("{}: {}: {}", outcome.task, e.class, e.message),
//!             TaskResult::Cancelled => println!("{}: cancelled", outcome.task),
//!         }
//!     }
//! }
//! # Ok(())
//! # }
//! ```

mod confine;
mod engine;
mod flight;
pub mod kit;
mod log;
mod loss;
mod pool;
pub mod processes;
mod session;
mod spec;
mod tally;
mod user;
pub mod wire;

pub use engine::{Engine, Event};
pub use loss::{Cause, Loss};
pub use pool::{Batch, Batches, EngineRecord, EngineStatus, Pool, PoolSettings, PoolStatus};
pub use session::{Format, Function, Outcome, Session, SetUp, Task, TaskError, TaskResult, class};
pub use spec::{EngineSpec, Identity, Limits, Package};
pub use tally::{ENDS, Tally};
pub use user::User;
