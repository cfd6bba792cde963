//! Where everything of a job lies in queues, tables and objects.

use bytes::Bytes;
use object_store::path::Path;
use tidemill_blocks::table::{Key, sort_u64, unsort_u64};

/// The table that holds fences, reports and output pages.
pub const STATE_TABLE: &str = "batch-state";
/// The table of workers' heartbeats.
pub const WORKER_TABLE: &str = "batch-workers";
/// The table whose feed tells workers of cancelled and paused jobs and of drains.
pub const CONTROL_TABLE: &str = "batch-control";
/// The queue on which workers say that there are reports.
pub const DONE_QUEUE: &str = "batch.done";
/// The queue of tasks that failed for good.
pub const DEAD_QUEUE: &str = "batch.dead";

/// The queue from which workers of a class take ranges.
pub fn work_queue(class: &str) -> String {
    format!("batch.work.{class}")
}

/// Where ranges go that were delivered too often.
pub fn work_dead_queue(class: &str) -> String {
    format!("batch.lost.{class}")
}

/// The fence of a range.
pub fn fence(job: &str, stage: u32, range: u64) -> Key {
    Key::new(format!("r/{job}/{stage}"), sort_u64(range))
}

/// The partition of all fences of a stage.
pub fn fence_partition(job: &str, stage: u32) -> String {
    format!("r/{job}/{stage}")
}

/// One report of a range.
pub fn report(job: &str, stage: u32, range: u64, seq: u64) -> Key {
    Key::new(report_partition(job, stage, range), sort_u64(seq))
}

/// The partition of all reports of a range.
pub fn report_partition(job: &str, stage: u32, range: u64) -> String {
    format!("p/{job}/{stage}/{range}")
}

/// Job, stage, range and number of the report under this key, if it is one's.
pub fn parse_report(key: &Key) -> Option<(&str, u32, u64, u64)> {
    let (rest, range) = key.partition.strip_prefix("p/")?.rsplit_once('/')?;
    let (job, stage) = rest.rsplit_once('/')?;
    Some((job, stage.parse().ok()?, range.parse().ok()?, unsort_u64(&key.sort)?))
}

/// The output page of one report: sorted by the first task on it.
pub fn output_page(job: &str, stage: u32, first_task: u64, range: u64, seq: u64) -> Key {
    let mut sort = Vec::with_capacity(24);
    for n in [first_task, range, seq] {
        sort.extend_from_slice(&n.to_be_bytes());
    }
    Key::new(output_partition(job, stage), Bytes::from(sort))
}

/// The partition of all output pages of a stage.
pub fn output_partition(job: &str, stage: u32) -> String {
    format!("o/{job}/{stage}")
}

/// The results of one report of an engine's stage.
pub fn result_page(job: &str, stage: u32, range: u64, seq: u64) -> Key {
    let mut sort = Vec::with_capacity(16);
    sort.extend_from_slice(&range.to_be_bytes());
    sort.extend_from_slice(&seq.to_be_bytes());
    Key::new(result_partition(job, stage), Bytes::from(sort))
}

/// The partition of all pages of results of a stage.
pub fn result_partition(job: &str, stage: u32) -> String {
    format!("e/{job}/{stage}")
}

/// The object that holds the results of one report when they are too large for the page.
pub fn result_object(job: &str, stage: u32, range: u64, epoch: u64, seq: u64) -> Path {
    Path::from_iter(["jobs", job, "out", &stage.to_string(), &format!("{range}-{epoch}"), &format!("results-{seq}")])
}

/// Whether an object was named by [`result_object`].
pub fn holds_results(path: &Path) -> bool {
    path.filename().is_some_and(|name| name.starts_with("results-"))
}

/// A submission that is too large for the ledger.
pub fn submission(job: &str, id: &str) -> Path {
    Path::from_iter(["jobs", job, "in", id])
}

/// What a worker last said of itself.
pub fn worker(id: &str) -> Key {
    Key::new("w", Bytes::copy_from_slice(id.as_bytes()))
}

/// What a worker last said of its engines.
pub fn engines(worker: &str) -> Key {
    Key::new("engines", Bytes::copy_from_slice(worker.as_bytes()))
}

/// What is asked of the workers on a job.
pub fn control_job(job: &str) -> Key {
    Key::new("job", Bytes::copy_from_slice(job.as_bytes()))
}

/// Which tasks of a session workers are to let go of.
pub fn control_tasks(job: &str) -> Key {
    Key::new("tasks", Bytes::copy_from_slice(job.as_bytes()))
}

/// Who leads: in the control table too, so that a manager that does not lead any more cannot ask anything of workers.
pub fn control_leader() -> Key {
    Key::new("leader", Bytes::new())
}

/// What is asked of one worker.
pub fn control_worker(id: &str) -> Key {
    Key::new("worker", Bytes::copy_from_slice(id.as_bytes()))
}

/// The wish that one worker hand back what it will not start soon.
pub fn control_hand_back(id: &str) -> Key {
    Key::new("hand-back", Bytes::copy_from_slice(id.as_bytes()))
}

/// Everything of a job lies under this prefix.
pub fn job_prefix(job: &str) -> Path {
    Path::from_iter(["jobs", job])
}

/// The stage's definition, JSON of [`crate::model::StageSpec`].
pub fn stage_definition(job: &str, stage: u32) -> Path {
    Path::from_iter(["jobs", job, "definition", &format!("{stage}.json")])
}

/// One chunk of a stage's manifest.
pub fn manifest_chunk(job: &str, stage: u32, chunk: u64) -> Path {
    Path::from_iter(["jobs", job, "manifest", &stage.to_string(), &format!("{chunk:010}")])
}

/// The folder of one claim's outputs: `.../<range>-<epoch>`. Files of a task lie in it under `<task>/<name>`.
pub fn attempt_folder(job: &str, stage: u32, range: u64, epoch: u64) -> Path {
    Path::from_iter(["jobs", job, "out", &stage.to_string(), &format!("{range}-{epoch}")])
}

/// The pack that one report's small outputs and logs are in.
pub fn pack(job: &str, stage: u32, range: u64, epoch: u64, seq: u64) -> Path {
    Path::from_iter(["jobs", job, "out", &stage.to_string(), &format!("{range}-{epoch}"), &format!("pack-{seq}")])
}

/// The end of what a running task has written to `stream` (`stdout`, `stderr`), while it runs.
pub fn live_log(job: &str, stage: u32, task: u64, stream: &str) -> Path {
    Path::from_iter(["jobs", job, "live", &stage.to_string(), &task.to_string(), stream])
}

/// The folder that belongs to one task of a stage over all its attempts; what its credential reaches.
pub fn task_prefix(job: &str, stage: u32, task: u64) -> Path {
    Path::from_iter(["jobs", job, "tasks", &stage.to_string(), &task.to_string()])
}

/// A segment of task statistics, Parquet.
pub fn segment(job: &str, id: &str) -> Path {
    Path::from_iter(["jobs", job, "stats", &format!("{id}.parquet")])
}
