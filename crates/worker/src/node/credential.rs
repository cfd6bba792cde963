//! A credential of its own for each task that asks for one.

use tidemill_base::{Error, ErrorKind};
use tidemill_batch::model::FailureClass;
use tidemill_batch::protocol::{TaskGrant, keys};
use tidemill_batch::service::CREDENTIAL_WAIT;
use tidemill_blocks::grants::Credential;
use tidemill_runtime::sleep;

use super::Node;
use crate::range::{Kill, OpenRange, TaskCredential, failure};
use crate::work::Failure;

impl Node {
    /// The variables with the task's credential. Asked for again while whoever gives them out cannot be reached.
    pub(super) async fn credential(&self, range: &OpenRange, task: u64) -> Result<TaskCredential, Failure> {
        let Some(grants) = &self.blocks.grants else {
            let what = "the stage asks for credentials and this worker has nobody who issues them; start it where grants are set up";
            return Err(failure(FailureClass::Start, &Error::invalid(what)));
        };
        let (job, worker) = (range.item.job.clone(), self.settings.id.clone());
        let grant = TaskGrant { job, stage: range.item.stage, range: range.item.range, epoch: range.epoch, worker, task };
        let mut tries = 0;
        loop {
            match grants.issue(&grant).await {
                Ok(credential) => {
                    let start_until = self.env.now() + CREDENTIAL_WAIT;
                    return Ok(TaskCredential { env: variables(&grant, credential, &self.settings.region), start_until });
                }
                Err(e) if e.kind() == ErrorKind::Unavailable && range.kill() == Kill::No => {
                    tries += 1;
                    tracing::warn!(error = %e.chain(), "cannot get a task's credential, trying again");
                    sleep(self.settings.retry.delay(tries, &self.env)).await;
                }
                Err(e) => return Err(failure(FailureClass::Start, &e.context("get the task's credential"))),
            }
        }
    }
}

fn variables(grant: &TaskGrant, credential: Credential, region: &str) -> Vec<(std::ffi::OsString, std::ffi::OsString)> {
    let prefix = keys::task_prefix(&grant.job, grant.stage, grant.task);
    let prefix = match &credential.bucket {
        Some(bucket) => format!("s3://{bucket}/{prefix}"),
        None => format!("s3://{prefix}"),
    };
    let mut env = vec![
        ("AWS_ACCESS_KEY_ID".into(), credential.access_key.into()),
        ("AWS_SECRET_ACCESS_KEY".into(), credential.secret_key.into()),
        ("AWS_SESSION_TOKEN".into(), credential.session_token.into()),
        ("AWS_REGION".into(), region.into()),
        ("AWS_DEFAULT_REGION".into(), region.into()),
        ("TIDEMILL_PREFIX".into(), prefix.into()),
    ];
    env.extend(credential.endpoint.map(|e| ("AWS_ENDPOINT_URL".into(), e.into())));
    env
}
