//! Objects, grants and fleet against stand-ins of AWS: what the blocks' suites ask, and what these drivers promise beyond them.
//!
//! ministack checks signatures, policies and session tokens; moto is a second implementation, for what ministack lacks and so that a
//! driver does not fit the quirks of one alone. What a stand-in is known to do otherwise than AWS is written where its test is skipped.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers included")]

mod fleet;
mod grants;
mod objects;
mod processes;
mod scripted;
mod support;
