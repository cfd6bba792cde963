//! How far workers reach: a stolen worker's token opens what the fleet works on and nothing else.

use tidemill_base::{Error, Result};

use crate::auth::{Principal, Role};

/// What a token of the role `worker` may touch. Administrators reach everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerReach {
    /// Queues whose name begins with one of these.
    pub queues: Vec<String>,
    /// Tables whose name begins with one of these.
    pub tables: Vec<String>,
    /// Objects that are these or lie under them, by whole segments. The empty prefix is every object.
    pub objects: Vec<String>,
}

impl Default for WorkerReach {
    /// What the batch system's workers need.
    fn default() -> Self {
        let owned = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
        Self { queues: owned(&["batch."]), tables: owned(&["batch-"]), objects: owned(&["jobs", "uploads", "system/payloads"]) }
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

    /// `Denied` unless `who` may use the object, or list the folder, of this path.
    pub(super) fn object(&self, who: &Principal, path: &str) -> Result<()> {
        let under = |prefix: &str| prefix.is_empty() || path == prefix || path.strip_prefix(prefix).is_some_and(|r| r.starts_with('/'));
        let reached = self.objects.iter().any(|p| under(p.trim_end_matches('/')));
        allow(who, reached, || format!("the object `{}`", path.escape_debug()))
    }
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

    #[test]
    fn prefixes_hold_by_segment_and_administrators_reach_all() {
        let who = |role| Principal { user: "w".into(), role, scopes: vec!["*".into()], token_id: "k1".into() };
        let (reach, worker, admin) = (WorkerReach::default(), who(Role::Worker), who(Role::Admin));
        reach.queue(&worker, "batch.work.default").unwrap();
        reach.table(&worker, "batch-state").unwrap();
        reach.object(&worker, "jobs/j1/out").unwrap();
        for beyond in ["", "jobsx/a", "secrets/jobs/a", "system/tls"] {
            assert!(reach.object(&worker, beyond).is_err(), "{beyond}");
            reach.object(&admin, beyond).unwrap();
        }
        assert!(reach.queue(&worker, "mail").is_err() && reach.table(&worker, "files").is_err());
    }
}
