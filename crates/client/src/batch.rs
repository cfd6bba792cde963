//! Jobs.

use bytes::Bytes;
use reqwest::Method;
use reqwest::header::CONTENT_TYPE;
use serde_json::{Value, json};
use tidemill_api::{
    DeletionProgress, Explanation, FileList, JobDetail, JobList, JobReport, PriorityRequest, RetryRequest, RetryResponse, SubmitRequest,
    SubmitResponse, TaskList,
};
use tidemill_base::{ErrorKind, Result};

use crate::Client;
use crate::http::segment;

/// Which jobs to list.
#[derive(Debug, Clone, Default)]
pub struct JobFilter {
    /// In this state only.
    pub state: Option<String>,
    /// Of this user only.
    pub user: Option<String>,
    /// From here on: `next` of the page before.
    pub after: Option<String>,
    /// No more than this.
    pub limit: Option<u32>,
}

/// Which tasks to list.
#[derive(Debug, Clone, Default)]
pub struct TaskFilter {
    /// Of this stage only, from 0.
    pub stage: Option<u32>,
    /// `running`, `failed`, `succeeded`, `retrying` or `all`.
    pub state: Option<String>,
    /// From here on: `next` of the page before.
    pub after: Option<String>,
    /// No more than this.
    pub limit: Option<u32>,
}

/// Which log to read.
#[derive(Debug, Clone, Default)]
pub struct LogQuery {
    /// The stage, from 0.
    pub stage: u32,
    /// The task.
    pub task: u64,
    /// `stdout`, `stderr` or `both`; absent: both.
    pub stream: Option<String>,
    /// Which try, from 1; absent: the last.
    pub attempt: Option<u32>,
}

/// A log as it is now.
#[derive(Debug, Clone)]
pub struct LogChunk {
    /// Its bytes, which need not be text.
    pub bytes: Bytes,
    /// Whether the task is still running, so that there may be more.
    pub live: bool,
}

fn job_path(id: &str, rest: &str) -> String {
    format!("/batch/jobs/{}{rest}", segment(id))
}

pub(crate) fn pairs<const N: usize>(given: [(&'static str, Option<String>); N]) -> Vec<(&'static str, String)> {
    given.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
}

impl Client {
    /// Submits a job in the shape of a job file. A second submit by the same user with the same token answers with the first's job.
    pub async fn submit(&self, job: Value, client_token: Option<String>) -> Result<SubmitResponse> {
        self.post("/batch/jobs", &SubmitRequest { job, client_token }).await
    }

    /// Submits a job file.
    pub async fn submit_toml(&self, text: String, client_token: Option<String>) -> Result<SubmitResponse> {
        let query = pairs([("client_token", client_token)]);
        let request = self.request(Method::POST, "/batch/jobs").query(&query).header(CONTENT_TYPE, "application/toml");
        self.json(request.body(text)).await
    }

    /// Jobs, newest first.
    pub async fn jobs(&self, filter: &JobFilter) -> Result<JobList> {
        let f = filter.clone();
        let query = pairs([("state", f.state), ("user", f.user), ("after", f.after), ("limit", f.limit.map(|n| n.to_string()))]);
        self.get("/batch/jobs", &query).await
    }

    /// One job.
    pub async fn job(&self, id: &str) -> Result<JobDetail> {
        self.get(&job_path(id, ""), &[]).await
    }

    /// Releases no more tasks; those that run go on.
    pub async fn pause(&self, id: &str) -> Result<()> {
        self.tell(self.request(Method::POST, &job_path(id, "/pause"))).await
    }

    /// Goes on after a pause.
    pub async fn resume(&self, id: &str) -> Result<()> {
        self.tell(self.request(Method::POST, &job_path(id, "/resume"))).await
    }

    /// Ends it; what runs is stopped.
    pub async fn cancel(&self, id: &str) -> Result<()> {
        self.tell(self.request(Method::POST, &job_path(id, "/cancel"))).await
    }

    /// Deletes a job that has ended, with all that is left of it. It is under way when this returns.
    pub async fn delete_job(&self, id: &str) -> Result<()> {
        self.tell(self.request(Method::DELETE, &job_path(id, ""))).await
    }

    /// How far the deletion of a job has come; `None` once it is gone.
    pub async fn deletion(&self, id: &str) -> Result<Option<DeletionProgress>> {
        match self.get(&job_path(id, "/deletion"), &[]).await {
            Ok(progress) => Ok(Some(progress)),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Sets the priority, -1000 to 1000.
    pub async fn set_priority(&self, id: &str, priority: i32) -> Result<()> {
        self.tell(self.request(Method::PUT, &job_path(id, "/priority")).json(&PriorityRequest { priority })).await
    }

    /// Tries failed tasks again: those named, or all.
    pub async fn retry(&self, id: &str, request: &RetryRequest) -> Result<RetryResponse> {
        self.post(&job_path(id, "/retry"), request).await
    }

    /// Attempts, a page at a time.
    pub async fn tasks(&self, id: &str, filter: &TaskFilter) -> Result<TaskList> {
        let f = filter.clone();
        let (stage, limit) = (f.stage.map(|n| n.to_string()), f.limit.map(|n| n.to_string()));
        let query = pairs([("stage", stage), ("state", f.state), ("after", f.after), ("limit", limit)]);
        self.get(&job_path(id, "/tasks"), &query).await
    }

    /// Result files, a page at a time. `stage`: a stage's number or `all`; absent: the last that keeps outputs.
    pub async fn results(&self, id: &str, stage: Option<&str>, after: Option<&str>) -> Result<FileList> {
        let query = pairs([("stage", stage.map(str::to_owned)), ("after", after.map(str::to_owned))]);
        self.get(&job_path(id, "/results"), &query).await
    }

    /// A task's log as it is now.
    pub async fn logs(&self, id: &str, query: &LogQuery) -> Result<LogChunk> {
        let path = job_path(id, &format!("/logs/{}/{}", query.stage, query.task));
        let given = pairs([("stream", query.stream.clone()), ("attempt", query.attempt.map(|n| n.to_string()))]);
        let response = self.send(self.request(Method::GET, &path).query(&given)).await?;
        let live = response.headers().get("x-tidemill-live").is_some_and(|v| v.as_bytes() == b"true");
        let bytes = response.bytes().await.map_err(|e| self.broken(e))?;
        Ok(LogChunk { bytes, live })
    }

    /// Why the job, or one of its tasks, is as it is.
    pub async fn explain(&self, id: &str, stage: Option<u32>, task: Option<u64>) -> Result<Explanation> {
        let query = pairs([("stage", stage.map(|n| n.to_string())), ("task", task.map(|n| n.to_string()))]);
        self.get(&job_path(id, "/explain"), &query).await
    }

    /// Times, waste and cost.
    pub async fn report(&self, id: &str) -> Result<JobReport> {
        self.get(&job_path(id, "/report"), &[]).await
    }

    /// Who the token belongs to, as `{"user", "role", ...}`.
    pub async fn session(&self) -> Result<Value> {
        self.get("/session", &[]).await
    }

    /// Asks the group to do without a worker once its tasks are done.
    pub async fn drain_worker(&self, id: &str) -> Result<()> {
        let path = format!("/fleet/workers/{}/drain", segment(id));
        self.tell(self.request(Method::POST, &path).json(&json!({}))).await
    }
}
