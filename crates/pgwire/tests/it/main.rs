//! The endpoint over an engine of its own, asked by a real driver and by bytes written by hand.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod catalog;
mod hostile;
mod limits;
mod session;
mod states;
mod support;
