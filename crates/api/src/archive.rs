//! Results of sessions as files, and sessions in cold storage.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Results to be written as files: `POST /grid/sessions/{id}/collect`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CollectRequest {
    /// The folder of objects that they go to, such as `data/out/`.
    pub to: String,
    /// `parquet` (also when it is empty), `arrow`, `csv` or `jsonl`.
    pub format: String,
    /// A statement whose rows are written in its own order; without it, all results in the order of their tasks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sql: Option<String>,
}

/// One of the files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CollectedFile {
    /// The object.
    pub path: String,
    /// Its rows.
    pub rows: u64,
    /// Its length.
    pub bytes: u64,
    /// Its hash, SHA-256 in hex.
    pub sha256: String,
}

/// What was written; the manifest beside the files says the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Collected {
    /// The session.
    pub session: String,
    /// The statement whose rows these are.
    pub sql: String,
    /// How they are written.
    pub format: String,
    /// Rows in all.
    pub rows: u64,
    /// The files, in the order of their rows.
    pub files: Vec<CollectedFile>,
    /// The object that holds this.
    pub manifest: String,
}

/// A session to be archived: `POST /grid/sessions/{id}/archive`.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ArchiveRequest {
    /// Deletes the session when its archive is there and has been read back.
    pub delete: bool,
}

/// An archived session.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ArchiveDetail {
    /// Its id.
    pub session: String,
    /// `archived`, `restoring`, `restored`.
    pub state: String,
    /// Tasks that were submitted.
    pub tasks: u64,
    /// Tasks that ended, with results and without.
    pub records: u64,
    /// Objects of the archive.
    pub parts: u64,
    /// Their length together.
    pub bytes: u64,
    /// When it was archived, RFC 3339.
    pub archived_at: String,
    /// When its results can be read, if it is being restored or is.
    pub due_at: Option<String>,
    /// Until when.
    pub readable_until: Option<String>,
    /// The session as it was shown.
    #[schema(value_type = Object)]
    pub facts: serde_json::Value,
}
