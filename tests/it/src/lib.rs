//! A harness for outside-in tests: the real `tidemill` binary in a folder of its own, with its workers, on loopback.
//!
//! Why from outside: what users rely on is a process that they start, talk to, kill and start again. Nothing in here knows a crate
//! of the product; a test knows commands, routes and files, as a user does. Whatever a test started is gone when it ends, whether it
//! passed or not, and a test that fails prints the logs of its server and workers.
//!
//! ```no_run
//! use tidemill_it::{Options, Server};
//! let server = Server::start(Options::default());
//! let done = server.cli(&["batch", "run", "--array", "1-3", "--", "true"]);
//! assert_eq!(done.code, Some(0), "{done}");
//! ```
//!
//! `TIDEMILL_BIN` names the binary to test; without it the workspace's own is built. `TIDEMILL_IT_DRIVERS=postgres` or `aws` runs the same
//! tests on the engines of the environment, with two managers and, where a test leaves that open, two workers beside the server's own.

// A harness fails by panicking, and lives in real time among real processes.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "the harness of tests that run in real time; it fails by panicking")]

mod binary;
mod call;
mod company;
mod engine;
mod http;
mod outcome;
mod patience;
mod processes;
mod python;
mod seed;
mod server;
mod skip;
mod weather;
mod worker;

pub use binary::binary;
pub use call::{Call, Running};
pub use engine::{Engine, aws_command, on_engines};
pub use http::{Answer, Http};
pub use outcome::Outcome;
pub use patience::{PATIENCE, eventually, pause, within};
pub use processes::{Process, gone_within, processes_of, with_marker};
pub use python::{checkout, python_with};
pub use seed::Dice;
pub use server::{Options, Server, free_port};
pub use skip::{is_root, program, skipped};
pub use weather::Weather;
pub use worker::Worker;
