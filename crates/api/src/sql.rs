//! SQL over HTTP.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `POST /sql`. The answer's shape follows the `Accept` header: `application/json` (default), `text/csv`, `text/plain` (a table).
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SqlRequest {
    /// One query.
    pub sql: String,
}

/// A column of the answer.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SqlColumn {
    /// Its name.
    pub name: String,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
}

/// The answer as JSON.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SqlResponse {
    /// The columns.
    pub columns: Vec<SqlColumn>,
    /// The rows, each an object by column name.
    #[schema(value_type = Vec<Object>)]
    pub rows: Vec<serde_json::Map<String, serde_json::Value>>,
}
