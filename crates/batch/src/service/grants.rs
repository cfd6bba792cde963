//! Gives out credentials of tasks, to the worker whose claim holds and to nobody else.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tidemill_base::{Env, Error, Result};
use tidemill_blocks::grants::{Credential, Grants, MAX_TTL, Scope, Verbs};
use tidemill_blocks::objects::Objects;
use tidemill_blocks::table::Table;

use crate::cut::StageDefinition;
use crate::protocol::{RangeState, TaskGrant, TaskGrants, decode, keys};

/// A task may wait for so long between the issue of its credential and its start.
pub const CREDENTIAL_WAIT: Duration = Duration::from_secs(600);

/// Issues credentials by the fences in the table.
#[derive(Debug, Clone)]
pub struct FencedGrants {
    grants: Arc<dyn Grants>,
    table: Arc<dyn Table>,
    objects: Objects,
    env: Env,
}

impl FencedGrants {
    /// Over these blocks.
    pub fn new(grants: Arc<dyn Grants>, table: Arc<dyn Table>, objects: Objects, env: Env) -> Self {
        Self { grants, table, objects, env }
    }

    async fn check_claim(&self, grant: &TaskGrant) -> Result<()> {
        let found = self.table.get(keys::STATE_TABLE, &keys::fence(&grant.job, grant.stage, grant.range)).await?;
        let state = found.map(|item| decode::<RangeState>("fence", &item.value)).transpose()?;
        let holds = state.is_some_and(|s| {
            let is_theirs = s.epoch == grant.epoch && s.worker == grant.worker && s.lease_until > self.env.now();
            is_theirs && !s.finished && !s.settled.contains(grant.task)
        });
        if holds {
            return Ok(());
        }
        Err(Error::denied(format!(
            "worker `{}` does not hold task {} of range {} of job {}; only who runs a task gets its credential",
            grant.worker.escape_debug(),
            grant.task,
            grant.range,
            grant.job.escape_debug()
        )))
    }
}

#[async_trait]
impl TaskGrants for FencedGrants {
    async fn issue(&self, grant: &TaskGrant) -> Result<Credential> {
        self.check_claim(grant).await?;
        let definition = StageDefinition::load(&self.objects, &grant.job, grant.stage).await?;
        if !definition.spec.credentials || grant.task >= definition.total {
            return Err(Error::denied(format!("stage `{}` has no credential for task {}", definition.spec.name, grant.task)));
        }
        let prefix = keys::task_prefix(&grant.job, grant.stage, grant.task);
        let ttl = definition.spec.timeout.map_or(MAX_TTL, |t| t.0.saturating_add(CREDENTIAL_WAIT).min(MAX_TTL));
        let scope = Scope { prefix: prefix.to_string(), verbs: Verbs::ALL };
        self.grants.issue(&format!("task/{}/{}/{}", grant.job, grant.stage, grant.task), vec![scope], ttl).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_base::{ErrorKind, HumanDuration, RunSet, Timestamp};
    use tidemill_blocks::memory::{self, MemoryGrants, MemoryTable};
    use tidemill_blocks::table::{Condition, Write};

    use crate::model::StageSpec;
    use crate::protocol::encode;

    fn spec(credentials: bool) -> StageSpec {
        let text = format!(
            "name = \"n\"\n[[stage]]\nname = \"s\"\narray = \"1-9\"\ncommand = [\"true\"]\ncredentials = {credentials}\ntimeout = \"5m\""
        );
        crate::spec::from_toml(&text, Timestamp::from_millis(0)).unwrap().stages.remove(0)
    }

    async fn grants(credentials: bool, state: Option<RangeState>) -> FencedGrants {
        let (env, objects) = (Env::system(), memory::objects());
        let table: Arc<dyn Table> = Arc::new(MemoryTable::new(env.clone()));
        table.ensure(keys::STATE_TABLE).await.unwrap();
        if let Some(state) = state {
            let write = Write::put(keys::fence("j1", 0, 3), encode(&state).unwrap(), Condition::Any);
            table.transact(keys::STATE_TABLE, vec![write]).await.unwrap();
        }
        let definition = StageDefinition { job_name: "n".into(), spec: spec(credentials), total: 9, manifest: None, upstream: None };
        definition.store(&objects, "j1", 0).await.unwrap();
        FencedGrants::new(Arc::new(MemoryGrants::new(env.clone())), table, objects, env)
    }

    fn held() -> RangeState {
        let lease_until = Env::system().now() + Duration::from_secs(30);
        RangeState { epoch: 2, worker: "w".into(), lease_until, seq: 1, settled: RunSet::from_run(0, 1), finished: false }
    }

    fn grant() -> TaskGrant {
        TaskGrant { job: "j1".into(), stage: 0, range: 3, epoch: 2, worker: "w".into(), task: 4 }
    }

    #[tokio::test]
    async fn the_holder_of_the_claim_gets_the_task_s_own_prefix_for_as_long_as_it_may_run() {
        let grants = grants(true, Some(held())).await;
        let credential = grants.issue(&grant()).await.unwrap();
        let granted = grants.grants.verify(&credential.access_key, &credential.session_token).unwrap();
        let [scope] = granted.scopes.as_slice() else { panic!("{granted:?}") };
        assert!(scope.covers("jobs/j1/tasks/0/4/x") && !scope.covers("jobs/j1/tasks/0/40/x") && !scope.covers("jobs/j1/out/0/x"));
        let left = granted.expires_at.since(Env::system().now());
        let wanted = HumanDuration(Duration::from_secs(300)).0 + CREDENTIAL_WAIT;
        assert!(left <= wanted && left > wanted - Duration::from_secs(60), "{left:?}");
    }

    #[tokio::test]
    async fn nobody_else_gets_one() {
        let change = |f: fn(&mut TaskGrant)| {
            let mut g = grant();
            f(&mut g);
            g
        };
        let wrong = [
            change(|g| g.epoch = 1),
            change(|g| g.worker = "x".into()),
            change(|g| g.range = 4),
            change(|g| g.task = 0),
            change(|g| g.task = 9),
        ];
        let held_by_w = grants(true, Some(held())).await;
        for g in &wrong {
            assert_eq!(held_by_w.issue(g).await.unwrap_err().kind(), ErrorKind::Denied, "{g:?}");
        }
        let expired = RangeState { lease_until: Timestamp::from_millis(1), ..held() };
        for (asked, state) in
            [(true, None), (true, Some(expired)), (true, Some(RangeState { finished: true, ..held() })), (false, Some(held()))]
        {
            let grants = grants(asked, state.clone()).await;
            assert_eq!(grants.issue(&grant()).await.unwrap_err().kind(), ErrorKind::Denied, "{asked} {state:?}");
        }
    }
}
