//! Credentials of tasks: a worker that holds a range asks for one for a task of it, just before that starts.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tidemill_base::Result;
use tidemill_blocks::grants::Credential;

/// A task, and the claim under which its worker asks for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskGrant {
    /// The job.
    pub job: String,
    /// The stage's number.
    pub stage: u32,
    /// The range that the task is in.
    pub range: u64,
    /// The epoch of the worker's claim.
    pub epoch: u64,
    /// The worker that holds the claim.
    pub worker: String,
    /// The task.
    pub task: u64,
}

/// Whoever gives out credentials for tasks.
#[async_trait]
pub trait TaskGrants: Send + Sync + std::fmt::Debug {
    /// A credential that reaches [`super::keys::task_prefix`] and nothing else. `Denied` when the claim does not hold, or the stage did
    /// not ask for credentials.
    async fn issue(&self, grant: &TaskGrant) -> Result<Credential>;
}
