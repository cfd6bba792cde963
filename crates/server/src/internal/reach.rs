//! How far workers reach: a stolen worker's token opens what the fleet works on and nothing else.

use tidemill_base::{Error, Result};
use tidemill_batch::service::OpenInputs;

use crate::auth::{Principal, Role};

/// What a worker writes below a job's folder.
const WRITTEN_IN_JOBS: [&str; 2] = ["out", "live"];
/// Where large messages are put by whoever sends them.
const PAYLOADS: &str = "system/payloads";

/// Files that sessions pin and engines read.
const PACKAGES: &str = "packages";

/// What a token of the role `worker` may touch. Administrators reach everything.
#[derive(Debug, Clone)]
pub struct WorkerReach {
    /// Queues whose name begins with one of these.
    pub queues: Vec<String>,
    /// Tables whose name begins with one of these.
    pub tables: Vec<String>,
    /// What jobs under way name as their input may be read; `None`: jobs' own folders alone.
    pub inputs: Option<OpenInputs>,
}

impl Default for WorkerReach {
    /// What the batch system's workers need, without inputs from elsewhere.
    fn default() -> Self {
        Self { queues: vec!["batch.".to_owned()], tables: vec!["batch-".to_owned()], inputs: None }
    }
}

impl WorkerReach {
    /// `Denied` unless `who` may use the queue.
    pub(super) fn queue(&self, who: &Principal, name: &str) -> Result<()> {
        let reached = self.queues.iter().any(|p| name.starts_with(p.as_str()));
        allow(who, reached, || format!("the queue `{}`", name.escape_debug()))
    }

    /// `Denied` unless `who` may use the table.
    pub(super) fn table(&self, who: &Principal, name: &str) -> Result<()> {
        let reached = self.tables.iter().any(|p| name.starts_with(p.as_str()));
        allow(who, reached, || format!("the table `{}`", name.escape_debug()))
    }

    /// `Denied` unless `who` may read the object of this path.
    pub(super) async fn read(&self, who: &Principal, path: &str) -> Result<()> {
        if self.list(who, path).is_ok() || under(path, PACKAGES) {
            return Ok(());
        }
        let named = match &self.inputs {
            Some(inputs) => inputs.hold(path).await?,
            None => false,
        };
        allow(who, named, || format!("reading the object `{}`, which no job under way names as an input,", path.escape_debug()))
    }

    /// `Denied` unless `who` may list the folder of this path: those of jobs.
    pub(super) fn list(&self, who: &Principal, path: &str) -> Result<()> {
        allow(who, under(path, "jobs") || under(path, PAYLOADS), || format!("the folder `{}`", path.escape_debug()))
    }

    /// `Denied` unless `who` may write or remove the object of this path: outputs and live logs of jobs.
    pub(super) fn write(&self, who: &Principal, path: &str) -> Result<()> {
        let mut segments = path.split('/');
        let in_job = segments.next() == Some("jobs") && segments.next().is_some_and(|job| !job.is_empty());
        let output = in_job && segments.next().is_some_and(|s| WRITTEN_IN_JOBS.contains(&s)) && segments.next().is_some();
        allow(who, output || under(path, PAYLOADS), || format!("writing the object `{}`", path.escape_debug()))
    }
}

fn under(path: &str, folder: &str) -> bool {
    path == folder || path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
}

/// `Denied` for workers: what changes a queue rather than using it is the manager's business.
pub(super) fn managers_only(who: &Principal, what: &str) -> Result<()> {
    allow(who, false, || what.to_owned())
}

fn allow(who: &Principal, reached: bool, what: impl Fn() -> String) -> Result<()> {
    if reached || who.role == Role::Admin { Ok(()) } else { Err(Error::denied(format!("{} is beyond a worker's reach", what()))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn prefixes_hold_by_segment_and_administrators_reach_all() {
        let who = |role| Principal { user: "w".into(), role, scopes: vec!["*".into()], token_id: "k1".into() };
        let (reach, worker, admin) = (WorkerReach::default(), who(Role::Worker), who(Role::Admin));
        reach.queue(&worker, "batch.work.default").unwrap();
        reach.table(&worker, "batch-state").unwrap();
        reach.read(&worker, "jobs/j1/out/0/1-1/0/a").await.unwrap();
        reach.read(&worker, "packages/calendars/1.json").await.unwrap();
        assert!(reach.write(&worker, "packages/calendars/1.json").is_err() && reach.list(&worker, "packages").is_err());
        for beyond in ["", "jobsx/a", "secrets/jobs/a", "system/tls", "uploads/u1/a", "data/x", "system/multipart/b/u/1"] {
            assert!(reach.read(&worker, beyond).await.is_err() && reach.list(&worker, beyond).is_err(), "{beyond}");
            assert!(reach.write(&worker, beyond).is_err(), "{beyond}");
            reach.read(&admin, beyond).await.unwrap();
            reach.write(&admin, beyond).unwrap();
        }
        assert!(reach.queue(&worker, "mail").is_err() && reach.table(&worker, "files").is_err());
    }

    #[test]
    fn of_a_job_a_worker_writes_outputs_and_live_logs_alone() {
        let worker = Principal { user: "w".into(), role: Role::Worker, scopes: vec!["*".into()], token_id: "k1".into() };
        let reach = WorkerReach::default();
        for path in ["jobs/j1/out/0/1-1/pack-1", "jobs/j1/live/0/7/stdout", "system/payloads/p1"] {
            reach.write(&worker, path).unwrap();
        }
        for path in
            ["jobs/j1/definition/0.json", "jobs/j1/stats/s.parquet", "jobs/j1/tasks/0/0/x", "jobs/j1/out", "jobs/j1", "jobs//out/x", "jobs"]
        {
            assert!(reach.write(&worker, path).is_err(), "{path}");
        }
    }
}
