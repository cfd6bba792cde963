//! The token that local workers reach the manager with.

use std::path::Path;

use tidemill_base::{Error, ErrorKind, Result};

use crate::auth::{Auth, Role, write_private};

/// In the data folder, readable by its owner alone.
pub(super) const WORKER_TOKEN_FILE: &str = "worker-token";
const WORKERS: &str = "workers";

/// Makes the token unless the one in the file is good. It reaches what workers need and nothing else.
pub(super) async fn ensure_worker_token(auth: &Auth, data: &Path) -> Result<()> {
    let path = data.join(WORKER_TOKEN_FILE);
    match std::fs::read_to_string(&path) {
        Ok(text) if auth.authenticate(text.trim()).await.is_ok_and(|p| p.role == Role::Worker) => return Ok(()),
        Ok(_) => tracing::warn!(file = %path.display(), "the token there is not valid any more, writing a new one"),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(Error::from(e).context(format!("read {}", path.display()))),
    }
    match auth.create_user(WORKERS, Role::Worker).await {
        Err(e) if e.kind() != ErrorKind::Conflict => return Err(e),
        _ => {}
    }
    let (_, token) = auth.create_token(WORKERS, Role::Worker, &[], None).await?;
    write_private(&path, &token).map_err(|e| Error::from(e).context(format!("write {}", path.display())))
}
