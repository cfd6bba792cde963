//! Workers and the overview.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::JobSummary;

/// A task that a worker is running.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct WorkerTask {
    /// The job.
    pub job: String,
    /// The stage, from 0.
    pub stage: u32,
    /// The task.
    pub task: u64,
    /// Which try.
    pub attempt: u32,
    /// Since when.
    pub started_at: String,
    /// Resident memory, bytes.
    pub memory: u64,
}

/// A worker.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Worker {
    /// Its id.
    pub id: String,
    /// The class of work it takes.
    pub class: String,
    /// The machine it is on.
    pub host: String,
    /// Its version.
    pub version: String,
    /// `ready`, `draining`, `silent`.
    pub state: String,
    /// Slots it offers.
    pub slots: u32,
    /// Memory it offers, bytes.
    pub memory: u64,
    /// Named resources it offers.
    pub named: BTreeMap<String, u64>,
    /// Since when it lives.
    pub started_at: String,
    /// When it was last heard of.
    pub heard_at: String,
    /// Slots in use: tasks that it names in `running`, and engines that run one of those that travel together.
    #[serde(default)]
    pub busy: u32,
    /// What it is running, as far as it names it.
    pub running: Vec<WorkerTask>,
    /// Tasks settled since it started.
    pub tasks_done: u64,
    /// Slot time used since it started.
    pub busy_us: u64,
    /// CPU time used since it started.
    pub cpu_us: u64,
    /// Container engines and the like that it found.
    pub tools: Vec<String>,
}

/// `GET /fleet/workers`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct WorkerList {
    /// The workers.
    pub workers: Vec<Worker>,
}

/// A point on a group's scaling chart.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ScalePoint {
    /// When.
    pub at: String,
    /// Members there were.
    pub members: u32,
    /// The size it should have had.
    pub desired: u32,
    /// Tasks waiting or running for it.
    pub backlog: u64,
}

/// A group of workers.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Group {
    /// Its name; also the class of work.
    pub name: String,
    /// Never fewer.
    pub min: u32,
    /// Never more.
    pub max: u32,
    /// The size it should have.
    pub desired: u32,
    /// Members there are.
    pub members: u32,
    /// Why the desired size is what it is.
    pub reason: String,
    /// The last hour.
    pub history: Vec<ScalePoint>,
}

/// `GET /fleet/groups`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct GroupList {
    /// The groups.
    pub groups: Vec<Group>,
}

/// `GET /overview`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Overview {
    /// The server's version.
    pub version: String,
    /// Since when it runs.
    pub started_at: String,
    /// Jobs by state.
    pub jobs: BTreeMap<String, u64>,
    /// Tasks waiting over all live jobs.
    pub tasks_waiting: u64,
    /// Tasks running.
    pub tasks_running: u64,
    /// Workers.
    pub workers: u32,
    /// Their slots.
    pub slots: u32,
    /// Slots in use.
    pub slots_busy: u32,
    /// Tasks that failed for good in live and recent jobs.
    pub dead: u64,
    /// The newest jobs.
    pub recent: Vec<JobSummary>,
}
