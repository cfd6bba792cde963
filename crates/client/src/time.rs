//! Waiting. The client stands on `base` and `api` alone, so that programs of others need not take the runtime with it.

use std::future::Future;
use std::time::Duration;

#[expect(clippy::disallowed_methods, reason = "the client does without tidemill-runtime; the simulator does not run it")]
pub(crate) async fn sleep(d: Duration) {
    tokio::time::sleep(d).await;
}

/// `None` when it takes longer.
#[expect(clippy::disallowed_methods, reason = "the client does without tidemill-runtime; the simulator does not run it")]
pub(crate) async fn within<T>(limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(limit, future).await.ok()
}
