//! Jobs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A job to submit: `POST /batch/jobs`. A body of type `application/toml` is the job file itself.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SubmitRequest {
    /// The job in the shape of a job file; see the guide on job files.
    #[schema(value_type = Object)]
    pub job: serde_json::Value,
    /// A second submit by the same user with the same token answers with the first one's job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_token: Option<String>,
}

/// The answer to a submit.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SubmitResponse {
    /// The job.
    pub id: String,
    /// Whether an earlier submit with the same token had made it.
    pub existing: bool,
    /// Tasks in all, as far as they are known.
    pub tasks: u64,
}

/// Tasks by where they stand. They add up to `total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct TaskCounts {
    /// All of them.
    pub total: u64,
    /// Succeeded.
    pub succeeded: u64,
    /// Failed for good.
    pub failed: u64,
    /// Running now.
    pub running: u64,
    /// Not started.
    pub waiting: u64,
    /// Failed, and waiting for the next attempt.
    pub retrying: u64,
    /// Stopped or never started because the job was cancelled.
    pub cancelled: u64,
    /// Not run because the task they take their input from failed.
    pub skipped: u64,
}

/// A job in a list.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct JobSummary {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Who submitted it.
    pub user: String,
    /// The class of workers that runs it.
    pub class: String,
    /// Its priority.
    pub priority: i32,
    /// `waiting`, `running`, `paused`, `cancelling`, `succeeded`, `failed`, `cancelled`.
    pub state: String,
    /// Why, when that is not plain; else empty.
    pub reason: String,
    /// Its tasks over all stages.
    pub tasks: TaskCounts,
    /// When it was submitted.
    pub submitted_at: String,
    /// When its first task was released.
    pub started_at: Option<String>,
    /// When it ended.
    pub finished_at: Option<String>,
}

/// `GET /batch/jobs`, newest first.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct JobList {
    /// The jobs.
    pub jobs: Vec<JobSummary>,
    /// Pass as `after` for the next page; absent on the last.
    pub next: Option<String>,
}

/// `GET /batch/jobs/{id}`, and each event of `/batch/jobs/{id}/events`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct JobDetail {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Who submitted it.
    pub user: String,
    /// The class of workers that runs it.
    pub class: String,
    /// Its priority.
    pub priority: i32,
    /// See [`JobSummary::state`].
    pub state: String,
    /// Why, when that is not plain; else empty.
    pub reason: String,
    /// Its tasks over all stages.
    pub tasks: TaskCounts,
    /// Attempts settled, over all stages.
    pub attempts: u64,
    /// When it was submitted.
    pub submitted_at: String,
    /// When its first task was released.
    pub started_at: Option<String>,
    /// When it ended.
    pub finished_at: Option<String>,
    /// Jobs it waits for.
    pub after: Vec<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The cron line that submits copies of it.
    pub cron: Option<String>,
    /// The job that submitted it by its cron line.
    pub cron_parent: Option<String>,
    /// Its stages in order.
    pub stages: Vec<StageDetail>,
    /// Price of the slot time used so far, in the configured currency.
    pub cost: f64,
    /// The job as submitted, with all defaults.
    #[schema(value_type = Object)]
    pub spec: serde_json::Value,
}

/// Sums over settled attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct StageTimes {
    /// From release to start.
    pub wait_us: u64,
    /// Fetching input.
    pub stage_in_us: u64,
    /// Running.
    pub run_us: u64,
    /// Storing output.
    pub stage_out_us: u64,
    /// Slot time of failed attempts.
    pub wasted_us: u64,
    /// CPU time.
    pub cpu_us: u64,
}

/// A stage of a job.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct StageDetail {
    /// Its place, from 0.
    pub stage: u32,
    /// Its name.
    pub name: String,
    /// `blocked`, `open`, `done`.
    pub state: String,
    /// The stage that it takes its input from.
    pub from: Option<String>,
    /// Its tasks.
    pub tasks: TaskCounts,
    /// Attempts settled.
    pub attempts: u64,
    /// Of them, those that failed.
    pub failed_attempts: u64,
    /// Sums of times.
    pub times: StageTimes,
    /// Largest resident set of any attempt.
    pub peak_memory: u64,
    /// Bytes of input fetched.
    pub bytes_in: u64,
    /// Bytes of output stored.
    pub bytes_out: u64,
    /// Slot time that one task is expected to take.
    pub mean_us: f64,
    /// When its first task was released.
    pub started_at: Option<String>,
    /// When it ended.
    pub finished_at: Option<String>,
}

/// One settled or running attempt of a task.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct TaskRow {
    /// The stage, from 0.
    pub stage: u32,
    /// The task.
    pub task: u64,
    /// Which try, from 1.
    pub attempt: u32,
    /// `succeeded`, `failed`, `running`, `retrying`.
    pub state: String,
    /// Failure class: `exit`, `signal`, `out_of_memory`, `timeout`, `lost_worker`, `start`, `input`, `output`, `storage`.
    pub class: Option<String>,
    /// Exit code.
    pub exit: Option<i32>,
    /// What happened, for a failure.
    pub message: Option<String>,
    /// Who ran it.
    pub worker: String,
    /// When it was started.
    pub started_at: Option<String>,
    /// From release to start.
    pub wait_us: u64,
    /// Fetching input.
    pub stage_in_us: u64,
    /// Running.
    pub run_us: u64,
    /// Storing output.
    pub stage_out_us: u64,
    /// CPU time.
    pub cpu_us: u64,
    /// Largest resident set.
    pub peak_memory: u64,
}

/// `GET /batch/jobs/{id}/tasks`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct TaskList {
    /// The attempts.
    pub tasks: Vec<TaskRow>,
    /// Pass as `after` for the next page.
    pub next: Option<String>,
}

/// A task that failed for good.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct DeadTask {
    /// The stage, from 0.
    pub stage: u32,
    /// The task.
    pub task: u64,
}

/// `POST /batch/jobs/{id}/retry`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RetryRequest {
    /// These failed tasks; absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tasks: Option<Vec<DeadTask>>,
}

/// The answer to a retry.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RetryResponse {
    /// How many tasks are tried again.
    pub tasks: u64,
}

/// `PUT /batch/jobs/{id}/priority`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PriorityRequest {
    /// -1000 to 1000; higher goes first.
    pub priority: i32,
}

/// A file that a task left behind.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ResultFile {
    /// The stage, from 0.
    pub stage: u32,
    /// The task.
    pub task: u64,
    /// Its name, relative, with `/` between segments.
    pub name: String,
    /// How many bytes.
    pub bytes: u64,
    /// Fetch it here: a path under the base path.
    pub href: String,
}

/// `GET /batch/jobs/{id}/results`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct FileList {
    /// The files, in order of stage and task.
    pub files: Vec<ResultFile>,
    /// Pass as `after` for the next page.
    pub next: Option<String>,
}

/// `GET /batch/jobs/{id}/explain`: why a thing is as it is, and what would change that.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Explanation {
    /// What was asked about.
    pub subject: String,
    /// Its state.
    pub state: String,
    /// Reasons, the nearest first.
    pub because: Vec<String>,
    /// What would move it on.
    pub next: Vec<String>,
}

/// Quantiles of a quantity, in its unit.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, ToSchema)]
pub struct Percentiles {
    /// Half are below.
    pub p50: f64,
    /// 90 % are below.
    pub p90: f64,
    /// 99 % are below.
    pub p99: f64,
    /// The largest.
    pub max: f64,
}

/// A stage in a report.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct StageReport {
    /// Its name.
    pub name: String,
    /// Its tasks.
    pub tasks: TaskCounts,
    /// Attempts settled.
    pub attempts: u64,
    /// Queue wait, microseconds.
    pub wait_us: Percentiles,
    /// Run time, microseconds.
    pub run_us: Percentiles,
    /// Peak memory, bytes.
    pub peak_memory: Percentiles,
    /// CPU time over run time of successful attempts.
    pub cpu_efficiency: f64,
    /// Tasks settled per second of the stage's life.
    pub rate: f64,
}

/// A task that took long.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SlowTask {
    /// The stage's name.
    pub stage: String,
    /// The task.
    pub task: u64,
    /// Which try.
    pub attempt: u32,
    /// Run time.
    pub run_us: u64,
    /// Who ran it.
    pub worker: String,
}

/// Slot time lost to one cause.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct WasteRow {
    /// A failure class.
    pub cause: String,
    /// Attempts lost.
    pub attempts: u64,
    /// Slot time lost.
    pub slot_us: u64,
}

/// What it cost.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct CostReport {
    /// Price of a slot for an hour.
    pub price_per_slot_hour: f64,
    /// Slot hours used.
    pub slot_hours: f64,
    /// Price of them.
    pub total: f64,
    /// Price of failed attempts within it.
    pub wasted: f64,
}

/// `GET /batch/jobs/{id}/report`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct JobReport {
    /// The job.
    pub job: JobSummary,
    /// Its stages.
    pub stages: Vec<StageReport>,
    /// The slowest attempts.
    pub slowest: Vec<SlowTask>,
    /// Waste by cause.
    pub waste: Vec<WasteRow>,
    /// Cost.
    pub cost: CostReport,
}

/// `POST /uploads`: a fresh place to upload input to.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct UploadResponse {
    /// Put objects under this prefix: `PUT /objects/{prefix}/{name}`.
    pub prefix: String,
}

/// `GET /batch/jobs/{id}/deletion`, while a job is being deleted; 404 once it is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeletionProgress {
    /// Objects that are gone.
    pub removed: u64,
    /// Objects that there were; 0 while they have not been counted.
    pub total: u64,
}
