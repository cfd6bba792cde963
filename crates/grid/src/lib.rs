//! The grid: sessions of many small tasks on warm engines.
//!
//! A **session** is a function, what is kept warm for it, and the tasks that are submitted to it while it is open. Tasks travel in ranges
//! that the batch system's engine sizes from their observed run time, leases, reports and folds: a session is a job of one stage that takes
//! submissions, so whatever that promises (nothing is lost, each result counts once, fair shares, pause and cancel at once, a manager that
//! dies) holds here without being proven a second time. `docs/decisions/0009-sessions-are-open-jobs.md` says why the crate leans on batch.
//!
//! What is the grid's own is here: [`SessionSpec`], what a user may ask for and what becomes of it, [`packages`], the files that sessions
//! pin, [`stream`], the bytes in which results go to clients, and [`archive`], where sessions go that are over.
//!
//! ```
//! use tidemill_grid::{Function, SessionSpec};
//!
//! let spec = SessionSpec { name: "overnight".into(), function: Function::Module("risk:value".into()), ..SessionSpec::default() };
//! spec.check().unwrap();
//! let job = spec.to_job(&Default::default());
//! assert!(job.is_session());
//! ```

pub mod archive;
pub mod packages;
mod record;
mod spec;
pub mod stream;
mod terms;

pub use record::{Outcome, Record, records};
pub use spec::{Function, Retry, SessionSpec, Stored};
pub use terms::{Budget, IDLE_TIMEOUT, Limit, OnAbandon, OnBudget};
