//! What `tidemill check` says of an engine: what a driver needs there, whether it is there, and what to do if it is not.

use serde::{Deserialize, Serialize};

/// How something that a driver needs was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Found {
    /// It is there and can be used.
    Ready,
    /// It was missing and has been made.
    Made,
    /// It is not there.
    Missing,
    /// It may be there, but this program is not let near it.
    Denied,
    /// The engine did not answer.
    Unreachable,
}

impl Found {
    /// Whether work can begin with it.
    pub const fn is_ready(self) -> bool {
        matches!(self, Self::Ready | Self::Made)
    }
}

/// One thing that a driver needs of its engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What it is, with the engine's word for it: `DynamoDB table tidemill-batch-state`.
    pub what: String,
    /// How it was found.
    pub found: Found,
    /// What was seen, and what to do next when it is not ready; empty when there is nothing to add.
    pub note: String,
}

impl Finding {
    /// Something that is there.
    pub fn ready(what: impl Into<String>) -> Self {
        Self { what: what.into(), found: Found::Ready, note: String::new() }
    }

    /// Something in another state, and what to do about it.
    pub fn new(what: impl Into<String>, found: Found, note: impl Into<String>) -> Self {
        Self { what: what.into(), found, note: note.into() }
    }
}
