//! Files to the server and back: which ones, under which names, and the carrying.

mod download;
mod expand;
mod names;
mod upload;

use std::future::Future;

use tidemill_base::{Env, Error, ErrorKind, Result, RetryPolicy};
use tidemill_runtime::sleep;

pub(crate) use download::{all_results, download};
pub(crate) use expand::expand;
pub(crate) use names::{download_paths, object_names};
pub(crate) use upload::{LocalFile, upload};

/// Files carried at once.
const PARALLEL: usize = 8;

/// Whether the same request may succeed after a pause.
fn passes(error: &Error) -> bool {
    error.kind() == ErrorKind::Unavailable || (error.kind() == ErrorKind::Exhausted && error.message().contains("requests a second"))
}

/// Makes a request that may be repeated, again after a pause when the server is busy or away for a moment.
async fn persist<T, F: Future<Output = Result<T>>>(env: &Env, request: impl Fn() -> F) -> Result<T> {
    let policy = RetryPolicy { attempts: 6, ..RetryPolicy::default() };
    let mut attempt = 1;
    loop {
        match request().await {
            Err(e) if passes(&e) && policy.allows_another(attempt) => {
                sleep(policy.delay(attempt, env)).await;
                attempt += 1;
            }
            outcome => return outcome,
        }
    }
}
