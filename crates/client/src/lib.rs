//! Rust client over the public HTTP interface.
