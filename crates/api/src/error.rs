//! Errors on the wire.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Every answer that is not a success has this body.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ErrorEnvelope {
    /// The error.
    pub error: ErrorBody,
}

/// What went wrong.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// What the caller should do: `invalid`, `not_found`, `conflict`, `denied`, `exhausted`, `unavailable`, `corrupt`, `internal`.
    pub kind: String,
    /// What happened, naming the input and the reason.
    pub message: String,
    /// The next step, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Names the request in the server's log.
    #[serde(default)]
    pub request_id: String,
}
