//! What everything in Tidemill stands on: identifiers, the clock, seeded randomness, the error type, sizes and durations as
//! people write them, the retry policy and the set of runs. No I/O, no async, no locks held across calls.
//!
//! Why it is a crate: whoever asks for the time, a random number or a fresh id asks an [`Env`], and a test or the simulator
//! hands in an `Env` of its own. Nothing else in the workspace may call the system clock or the system's randomness; the
//! `disallowed-methods` list in `clippy.toml` keeps it so.
//!
//! ```
//! use tidemill_base::{ByteSize, Env, RetryPolicy, RunSet};
//!
//! let env = Env::system();
//! let id = env.id("j");
//! assert!(id.starts_with('j'));
//!
//! let mut done = RunSet::new();
//! done.insert_run(0, 10);
//! done.insert_run(10, 5);
//! assert_eq!(done.runs().collect::<Vec<_>>(), vec![(0, 15)]);
//!
//! assert_eq!("256KiB".parse::<ByteSize>().unwrap().bytes(), 256 * 1024);
//! let wait = RetryPolicy::default().delay(1, &env);
//! assert!(wait.as_millis() > 0);
//! ```

mod clock;
mod env;
mod error;
mod human;
mod retry;
mod runset;

pub use clock::{Clock, ManualClock, SystemClock, Timestamp};
pub use env::{Env, SecretBytes};
pub use error::{Error, ErrorKind, Result};
pub use human::{ByteSize, HumanDuration, parse_duration};
pub use retry::RetryPolicy;
pub use runset::RunSet;
