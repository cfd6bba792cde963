//! Engines as real processes: the small one of the examples, one that breaks the protocol, and those of the kits for Python and C++.
#![allow(clippy::unwrap_used, reason = "a test that fails may panic anywhere")]

mod cpp;
mod host;
mod pool;
mod program;
mod python;
mod rogue;
mod support;
