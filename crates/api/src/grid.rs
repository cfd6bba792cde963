//! Sessions of the grid. Their tasks go in and their results come out as bytes; `docs/reference/grid-streams.md` has the layouts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::TaskCounts;

/// A session to open: `POST /grid/sessions`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OpenSessionRequest {
    /// What it is: `name`, `engine`, `function` (`{"module": "m:f"}`, `{"name": "f"}` or `"packed"`), `setup_function`, `input`, `output`,
    /// `class`, `priority`, `timeout`, `memory`, `retry`, `env`, `parameters`, `packages`, `labels`, `idle_timeout`, `keep_alive`, `on_abandon`,
    /// `budget`.
    #[schema(value_type = Object)]
    pub session: serde_json::Value,
    /// The packed function, base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    /// The packed function that makes what is kept warm, base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub setup_function: Option<String>,
    /// The data that it is made from, base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub setup: Option<String>,
    /// Or the object that holds that data; it is copied, so that changing it later changes nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub setup_object: Option<String>,
    /// A second call by the same user with the same token answers with the first one's session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_token: Option<String>,
}

/// The session that was opened.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct OpenSessionResponse {
    /// Its id.
    pub id: String,
    /// Whether an earlier call with the same token had opened it.
    pub existing: bool,
}

/// Tasks that were taken in.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SubmitTasksResponse {
    /// The number of the first.
    pub first: u64,
    /// How many.
    pub count: u64,
    /// Whether an earlier call with the same token had brought them.
    pub existing: bool,
}

/// Some tasks of a session that follow one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TaskRange {
    /// The number of the first.
    pub first: u64,
    /// How many.
    #[serde(default = "one")]
    pub count: u64,
}

const fn one() -> u64 {
    1
}

/// Tasks to give up: `POST /grid/sessions/{id}/tasks/cancel`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CancelTasksRequest {
    /// Which.
    pub tasks: Vec<TaskRange>,
    /// Those as well that run: they are stopped.
    #[serde(default)]
    pub running: bool,
}

/// What became of tasks that were given up, however often that was asked.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
pub struct CancelTasksResponse {
    /// They are cancelled; no result of them is delivered from now on.
    pub cancelled: u64,
    /// They are with workers, which let go of them unless they have begun them.
    pub asked: u64,
    /// They had ended before.
    pub ended: u64,
}

/// A session.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SessionDetail {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Who opened it.
    pub user: String,
    /// The kind of engine.
    pub engine: String,
    /// What it calls.
    pub function: String,
    /// The class of workers.
    pub class: String,
    /// Higher goes first.
    pub priority: i32,
    /// `waiting`, `running`, `paused`, `cancelling`, `succeeded`, `failed`, `cancelled`.
    pub state: String,
    /// Why, when that is not plain.
    pub reason: String,
    /// Whether it takes tasks.
    pub open: bool,
    /// Its tasks by where they stand.
    pub tasks: TaskCounts,
    /// Tasks in the bundle that was released last and is still out; 0 when none is.
    #[serde(default)]
    pub bundle: u64,
    /// Engines that hold its state now.
    #[serde(default)]
    pub engines: u32,
    /// Attempts in all.
    pub attempts: u64,
    /// Deliveries so far: the number to ask for what comes after.
    pub deliveries: u64,
    /// Time in functions, seconds over all tasks.
    pub run_seconds: f64,
    /// What one task is expected to take, seconds.
    pub mean_seconds: f64,
    /// What the slot time has cost.
    pub cost: f64,
    /// For people and for searching.
    pub labels: BTreeMap<String, String>,
    /// When it was opened, RFC 3339.
    pub opened_at: String,
    /// When its first task was released.
    pub started_at: Option<String>,
    /// When it ended.
    pub finished_at: Option<String>,
}

/// Sessions, newest first.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SessionList {
    /// The sessions.
    pub sessions: Vec<SessionDetail>,
    /// Ask again with `after` set to this for older ones.
    pub next: Option<String>,
}

/// How a session went: `GET /grid/sessions/{id}/progress`. Its time is cut into equal steps, and `succeeded` and `failed` say how many tasks
/// ended in each.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SessionProgress {
    /// When the first step begins: at the first release, or later when there have been very many deliveries since.
    pub from: String,
    /// How long a step is.
    pub step_us: u64,
    /// Tasks that had ended before the first step.
    pub before: u64,
    /// Tasks that succeeded in each step.
    pub succeeded: Vec<u64>,
    /// Tasks that failed for good in each.
    pub failed: Vec<u64>,
}

/// Why tasks failed for good, in groups: `GET /grid/sessions/{id}/failures`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SessionFailures {
    /// Failed tasks that were looked at.
    pub tasks: u64,
    /// There are more than those.
    pub more: bool,
    /// The groups, the largest first.
    pub groups: Vec<FailureGroup>,
}

/// Tasks that failed alike: of one class, with messages that differ in nothing but numbers.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct FailureGroup {
    /// The class of the failure.
    pub class: String,
    /// The message of one of them.
    pub message: String,
    /// How many tasks.
    pub tasks: u64,
    /// Some of those tasks.
    pub examples: Vec<u64>,
    /// Who ran one of them.
    pub worker: String,
    /// When the last of them failed.
    pub last_at: String,
}

/// Why one task failed for good, as its engine tells it: `GET /grid/sessions/{id}/tasks/{task}/failure`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct TaskFailureDetail {
    /// The task.
    pub task: u64,
    /// The error's class in the engine's language, or one of the grid's.
    pub kind: String,
    /// What is said of it.
    pub message: String,
    /// Where it happened, if the engine can say; the last it wrote, if it has crashed.
    pub traceback: String,
    /// Which try it was; 0 when it was not run.
    pub attempt: u32,
    /// How long it ran.
    pub run_us: u64,
    /// The engine with its versions.
    pub made_by: String,
}

/// Engines that run a session's tasks: `GET /grid/sessions/{id}/engines`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SessionEngines {
    /// The engines, by worker.
    pub engines: Vec<SessionEngine>,
}

/// An engine, as its worker's last heartbeat has it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SessionEngine {
    /// The worker.
    pub worker: String,
    /// The machine.
    pub host: String,
    /// What the worker calls it; empty while it is being started.
    pub id: String,
    /// Its process.
    pub pid: u32,
    /// `starting`, `cold` when it has not opened the session yet, `warm` when it holds the session's state.
    pub state: String,
    /// What it said of itself and of what it has loaded for the session.
    pub versions: String,
    /// Resident memory, bytes.
    pub memory: u64,
    /// The task of the session that it runs.
    pub running: Option<u64>,
    /// Tasks in its hands, of all sessions, that one included.
    pub in_hand: u64,
    /// Tasks that it has finished, of all sessions.
    pub finished: u64,
    /// Engines that it has replaced.
    pub replaced: u64,
    /// How the last of those ended, if it did not just stop.
    pub last_loss: Option<String>,
    /// When this was so.
    pub heard_at: String,
}
