//! The messages of the protocol, version 3: <https://www.postgresql.org/docs/current/protocol-message-formats.html>.
//!
//! What comes in is untrusted: every length is checked before anything is taken, and nothing here can panic on any bytes.

mod read;
mod write;

pub(crate) use read::{Bind, Frontend, Malformed, Opening, Target, frame, message, opening};
pub(crate) use write::{Field, Reply, Transaction};
