//! One test a target; `README.md` says which parser each covers. `cargo xtask fuzz --target NAME --minutes N` runs one for longer.
#![allow(clippy::unwrap_used, reason = "a target says by panicking that a promise is broken")]

mod access;
mod cutting;
mod engines;
mod grid;
mod jobs;
mod pgwire;
mod s3;
mod sql;
mod storage;
mod text;
mod values;

use tidemill_base::{Error, ErrorKind};
use tidemill_fuzz::shape;

/// The text of an input.
fn text(input: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(input)
}

/// The shape of a refusal. What comes from outside may be wrong in any way, but that is never a mistake of the program itself, and
/// the words say what it is about.
#[track_caller]
fn refused(e: &Error) -> u64 {
    assert!(e.kind() != ErrorKind::Internal, "an internal error: {}", e.chain());
    assert!(!e.message().is_empty(), "an error without words");
    shape(e)
}

/// Runs what is async to its end, on this thread, where memory is counted.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    }
    RUNTIME.with(|runtime| runtime.block_on(future))
}
