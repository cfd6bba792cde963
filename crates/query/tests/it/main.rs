//! SQL from the outside: statements in, text out, over rows in memory and segments in an object store that counts.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod answers;
mod functions;
mod hostile;
mod limits;
mod names;
mod risk;
mod segments;
mod support;
