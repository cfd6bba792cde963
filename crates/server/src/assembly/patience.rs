//! Starting while an engine stumbles: one refused or lost request must not end a server that has only just begun.

use std::time::Duration;

use tidemill_base::{Env, ErrorKind, HumanDuration, Result, RetryPolicy};
use tidemill_runtime::sleep;

/// About ten seconds in all. An engine that is away for longer ends the start with the reason; whoever supervises starts it again.
const POLICY: RetryPolicy =
    RetryPolicy { attempts: 7, base: HumanDuration(Duration::from_millis(200)), cap: HumanDuration(Duration::from_secs(4)) };

/// Does `step`, which may be done twice, and again while an engine cannot be reached.
pub(super) async fn patiently<T>(env: &Env, what: &str, step: impl AsyncFn() -> Result<T>) -> Result<T> {
    let mut tries = 0;
    loop {
        tries += 1;
        match step().await {
            Err(e) if e.kind() == ErrorKind::Unavailable && POLICY.allows_another(tries) => {
                tracing::warn!(error = %e.chain(), "{what}: trying again");
                sleep(POLICY.delay(tries, env)).await;
            }
            outcome => return outcome,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use tidemill_base::Error;
    use tidemill_blocks_test::run_simulated;

    use super::*;

    /// How often a step is tried that fails so, and what comes of it when it works at try number `good`.
    fn tried(kind: ErrorKind, good: u32) -> (u32, bool) {
        run_simulated(async |h| {
            let tries = AtomicU32::new(0);
            let step = async || {
                let n = tries.fetch_add(1, Ordering::Relaxed) + 1;
                if n >= good { Ok(()) } else { Err(Error::new(kind, "not now")) }
            };
            let outcome = patiently(h.env(), "a step", step).await;
            (tries.load(Ordering::Relaxed), outcome.is_ok())
        })
    }

    #[test]
    fn an_engine_that_stumbles_is_asked_again_and_a_refusal_is_final() {
        assert_eq!(tried(ErrorKind::Unavailable, 3), (3, true));
        assert_eq!(tried(ErrorKind::Unavailable, 100), (7, false));
        assert_eq!(tried(ErrorKind::Denied, 3), (1, false));
    }
}
