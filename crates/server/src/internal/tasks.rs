//! Credentials for the tasks of ranges that a worker holds.

use std::sync::Arc;

use axum::Router;
use tidemill_base::{Error, Result};
use tidemill_batch::protocol::{TaskGrant, TaskGrants};
use tidemill_blocks::grants::Credential;
use tidemill_remote::wire::tasks as wire;

use super::{Edge, call};

pub(super) fn routes(router: Router<Arc<Edge>>) -> Router<Arc<Edge>> {
    call(router, |edge, _, c: wire::IssueCredential| async move {
        let wire::IssueCredential { job, stage, range, epoch, worker, task } = c;
        usable(edge.grants.issue(&TaskGrant { job, stage, range, epoch, worker, task }).await?)
    })
}

/// `Invalid` for a credential that there is nothing to use with.
pub(crate) fn usable(credential: Credential) -> Result<Credential> {
    // One of AWS's own needs no endpoint of ours: the bucket says where.
    if credential.endpoint.is_some() || credential.bucket.is_some() {
        return Ok(credential);
    }
    Err(Error::invalid("the server has no S3 endpoint to use a credential with; start it with --s3-listen 127.0.0.1:9000"))
}
