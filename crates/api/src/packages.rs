//! Packages of files that engines get.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A version to publish: `POST /grid/packages`. Send it, then the files that are said to be missing, then this again.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PackageManifest {
    /// Letters, digits, `-`, `_` and `.`.
    pub name: String,
    /// Likewise; `+` too. A version never changes.
    pub version: String,
    /// Its files.
    pub files: Vec<PackageFile>,
    /// The engine that it holds, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<PackageEngine>,
}

/// A file of a package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PackageFile {
    /// Below the package's folder.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// Of its content, 64 lower-case hexadecimal digits.
    pub sha256: String,
    /// Whether it is a program.
    #[serde(default)]
    pub executable: bool,
}

/// An engine in a package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PackageEngine {
    /// The path of its program among the files.
    pub program: String,
    /// Its arguments; `{package}` in them becomes the package's folder.
    #[serde(default)]
    pub args: Vec<String>,
}

/// What became of it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct PublishPackageResponse {
    /// Whether the version is there now.
    pub published: bool,
    /// Whether it was there before, with the same content.
    pub existing: bool,
    /// The digest of the manifest: what sessions pin.
    pub digest: String,
    /// The files that have to be sent first, by SHA-256: `PUT /grid/packages/blobs/{sha256}`.
    pub missing: Vec<String>,
}

/// A version of a package.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct PackageSummary {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What sessions pin.
    pub digest: String,
    /// How many files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Whether it holds an engine.
    pub engine: bool,
    /// When it was published, RFC 3339.
    pub published_at: String,
    /// By whom.
    pub published_by: String,
}

/// Versions, by name and then by age.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct PackageList {
    /// The versions.
    pub packages: Vec<PackageSummary>,
}

/// A version with its files. The bytes of one are at `GET /objects/packages/blobs/{sha256}`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct PackageDetail {
    /// What it is.
    #[serde(flatten)]
    pub summary: PackageSummary,
    /// Its files, in order of their paths.
    pub contents: Vec<PackageFile>,
    /// The program of its engine, if it holds one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<PackageEngine>,
}

/// Tasks to make from data: `POST /grid/sessions/{id}/tasks-from`. The same call again makes nothing twice.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TasksFromRequest {
    /// Names of objects, with `*`, `?` and `**`: CSV with a header line, Parquet, Arrow, by how they end. Taken in order of their names.
    pub objects: Vec<String>,
    /// Or a database that the server's configuration names in `[[grid.source]]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// What is asked of it: one statement that reads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// Rows that a task gets; the last one gets what is left.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// Or a column: a task gets all rows with one value of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group_by: Option<String>,
    /// The columns that tasks get; all when left out.
    pub columns: Vec<String>,
    /// Makes it another call than one that is otherwise the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_token: Option<String>,
}

/// The tasks that were made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TasksFromResponse {
    /// Runs of tasks: the first and how many. One run when nobody else submitted meanwhile.
    pub runs: Vec<(u64, u64)>,
    /// How many tasks in all.
    pub count: u64,
    /// How many of them an earlier call had made.
    pub existing: u64,
}
