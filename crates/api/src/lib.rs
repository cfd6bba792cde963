//! Versioned wire types of the public HTTP interface, and nothing else: no logic, no I/O.
//!
//! The server converts its own types into these and the client reads them back, so what lies inside may be renamed without a user
//! noticing. The OpenAPI document is generated from here. All times are RFC 3339 text in UTC, all spans microseconds as numbers
//! (`_us`), all sizes bytes.
//!
//! ```
//! let job: tidemill_api::TaskCounts = serde_json::from_str(r#"{"total":3,"succeeded":1,"failed":0,"running":2,"waiting":0,"retrying":0,"cancelled":0,"skipped":0}"#).unwrap();
//! assert_eq!(job.total, 3);
//! ```

mod archive;
mod batch;
mod credentials;
mod error;
mod fleet;
mod grid;
mod packages;
mod queues;
mod sql;

pub use archive::{ArchiveDetail, ArchiveRequest, CollectRequest, Collected, CollectedFile};
pub use batch::{
    CostReport, DeadTask, DeletionProgress, Explanation, FileList, JobDetail, JobList, JobReport, JobSummary, Percentiles, PriorityRequest,
    ResultFile, RetryRequest, RetryResponse, SlowTask, StageDetail, StageReport, StageTimes, SubmitRequest, SubmitResponse, TaskCounts,
    TaskList, TaskRow, UploadResponse, WasteRow,
};
pub use credentials::{CredentialRequest, CredentialResponse};
pub use error::{ErrorBody, ErrorEnvelope};
pub use fleet::{Group, GroupList, Overview, ScalePoint, Worker, WorkerList, WorkerTask};
pub use grid::{
    CancelTasksRequest, CancelTasksResponse, FailureGroup, OpenSessionRequest, OpenSessionResponse, SessionDetail, SessionEngine,
    SessionEngines, SessionFailures, SessionList, SessionProgress, SubmitTasksResponse, TaskFailureDetail, TaskRange,
};
pub use packages::{
    PackageDetail, PackageEngine, PackageFile, PackageList, PackageManifest, PackageSummary, PublishPackageResponse, TasksFromRequest,
    TasksFromResponse,
};
pub use queues::{DeadLetter, DeadLetterList, Queue, QueueList, RedriveRequest, RedriveResponse};
pub use sql::{SqlColumn, SqlRequest, SqlResponse};

/// The base path of this version.
pub const BASE: &str = "/api/v1";
