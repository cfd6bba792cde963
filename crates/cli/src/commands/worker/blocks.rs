//! Where a worker's blocks come from: a manager, or the engines themselves.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tidemill_base::{Env, ErrorKind, Result};
use tidemill_batch::protocol::{TaskGrant, TaskGrants};
use tidemill_blocks::grants::Credential;
use tidemill_remote::wire::tasks::IssueCredential;
use tidemill_remote::{Remote, RemoteSettings};
use tidemill_runtime::Shutdown;
use tidemill_server::assembly::{WorkerDrivers, worker_drivers};
use tidemill_server::config::ServerConfig;
use tidemill_worker::WorkerBlocks;

/// Between two tries to reach what is not there yet.
const RETRY: Duration = Duration::from_secs(2);

/// All blocks from a manager. `None` when told to stop before it was reached.
pub(super) async fn of_manager(manager: RemoteSettings, shutdown: &Shutdown) -> Result<Option<WorkerBlocks>> {
    let Some(remote) = reach(manager, shutdown).await? else { return Ok(None) };
    let grants = Arc::new(ManagerGrants(remote.clone()));
    Ok(Some(WorkerBlocks { queue: remote.queue(), table: remote.table(), objects: remote.objects(), grants: Some(grants) }))
}

/// Queue, table and objects from the engines; credentials of tasks from the manager where one is named, since whoever issues them itself
/// has to be trusted with more. `None` when told to stop before they were reached.
pub(super) async fn of_engines(
    config: &ServerConfig,
    manager: Option<RemoteSettings>,
    env: &Env,
    shutdown: &Shutdown,
) -> Result<Option<WorkerBlocks>> {
    let own_grants = manager.is_none();
    let connect = async || worker_drivers(config, env, own_grants).await;
    let Some(found) = until_reached("the engines", shutdown, connect).await? else { return Ok(None) };
    let WorkerDrivers { queue, table, objects, mut grants } = found;
    if let Some(manager) = manager {
        let Some(remote) = reach(manager, shutdown).await? else { return Ok(None) };
        grants = Some(Arc::new(ManagerGrants(remote)));
    }
    Ok(Some(WorkerBlocks { queue, table, objects, grants }))
}

async fn reach(settings: RemoteSettings, shutdown: &Shutdown) -> Result<Option<Remote>> {
    let what = format!("the manager at {}", settings.url);
    until_reached(&what, shutdown, async || Remote::connect(settings.clone()).await).await
}

/// Tries until it works, or fails for good. `None` when told to stop meanwhile.
async fn until_reached<T>(what: &str, shutdown: &Shutdown, connect: impl AsyncFn() -> Result<T>) -> Result<Option<T>> {
    loop {
        match connect().await {
            Ok(found) => return Ok(Some(found)),
            Err(e) if e.kind() == ErrorKind::Unavailable => {
                tracing::warn!(error = %e.chain(), "{what} cannot be reached, trying again");
            }
            Err(e) => return Err(e),
        }
        if !shutdown.sleep(RETRY).await.is_running() {
            return Ok(None);
        }
    }
}

/// Tasks' credentials come from the manager.
#[derive(Debug)]
struct ManagerGrants(Remote);

#[async_trait]
impl TaskGrants for ManagerGrants {
    async fn issue(&self, grant: &TaskGrant) -> Result<Credential> {
        let TaskGrant { job, stage, range, epoch, worker, task } = grant.clone();
        self.0.task_credential(&IssueCredential { job, stage, range, epoch, worker, task }).await
    }
}
