//! Rust client over the public HTTP interface: a method for each route, streams for what is long, and one error type.
//!
//! Why it is a crate: the command line, tests from outside and other Rust programs reach a server by the same calls, and none of
//! them sees how a request is made. It knows the wire types of `tidemill-api` and nothing of the server's insides.
//!
//! A server that cannot be reached is `Unavailable`. What the server answered keeps its kind and message; its next step, where it
//! gave one, is found with [`hint`].
//!
//! ```no_run
//! # async fn example() -> tidemill_base::Result<()> {
//! use tidemill_client::{Client, Discovery};
//!
//! let client: Client = Discovery::from_env().find(None)?.connect()?;
//! let job = serde_json::json!({"name": "hello", "stage": [{"array": "1-10", "command": ["echo", "{index}"]}]});
//! let submitted = client.submit(job, None).await?;
//! println!("{}", client.job(&submitted.id).await?.state);
//! # Ok(()) }
//! ```

mod archive;
mod auth;
mod batch;
mod discover;
mod error;
mod events;
mod follow;
mod frames;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod grid;
mod http;
mod objects;
mod packages;
mod service;
mod sse;
mod time;

pub use auth::{CreatedToken, NewToken, Token, User};
pub use batch::{JobFilter, LogChunk, LogQuery, TaskFilter};
pub use discover::{Discovery, Found, ServerFile};
pub use error::hint;
pub use events::{JobEvent, JobEvents, is_final};
pub use follow::{ResultEvent, Results};
pub use frames::TaskOutcome;
pub use grid::{MAX_SUBMISSION_TASKS, SessionFilter, submission};
pub use http::Client;
pub use objects::Progress;
