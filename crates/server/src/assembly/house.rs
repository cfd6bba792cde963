//! House-keeping: once per turn, however many managers there are.

use std::sync::Arc;
use std::time::Duration;

use tidemill_base::{Env, Result, Timestamp};
use tidemill_blocks::Blocks;
use tidemill_blocks::schedule::Schedule;
use tidemill_grid::archive::Archive;
use tidemill_runtime::Shutdown;

use crate::s3::sweep_uploads;

/// Between two sweeps, at most.
const SWEEP_EVERY: Duration = Duration::from_secs(3600);
/// The turns that managers take.
const TICKS: &str = "server/sweep-uploads";
/// The same for archives.
const RETIRE_TICKS: &str = "server/retire-archives";

/// Removes what clients of the S3 endpoint have begun and left for longer than `idle`, until draining is asked for. A sweep that fails is
/// made up for by the next.
pub(super) async fn sweep_regularly(blocks: &Blocks, env: &Env, idle: Duration, shutdown: &Shutdown) -> Result<()> {
    let every = SWEEP_EVERY.min(idle);
    let schedule = Schedule::new(Arc::clone(&blocks.ledger), env.clone());
    while shutdown.sleep(every).await.is_running() {
        let outcome = match schedule.take_tick(TICKS, turn(env.now(), every)).await {
            Ok(true) => sweep_uploads(&blocks.objects, env, idle).await,
            Ok(false) => Ok(0),
            Err(e) => Err(e),
        };
        match outcome {
            Ok(0) => {}
            Ok(n) => tracing::info!(objects = n, "removed uploads that were left unfinished"),
            Err(e) => tracing::warn!(error = %e.chain(), "cannot sweep unfinished uploads, will try again"),
        }
    }
    Ok(())
}

/// Removes archives of sessions that are older than `keep`, until draining is asked for.
pub(super) async fn retire_archives(blocks: &Blocks, env: &Env, keep: Duration, shutdown: &Shutdown) -> Result<()> {
    let every = SWEEP_EVERY.min(keep);
    let schedule = Schedule::new(Arc::clone(&blocks.ledger), env.clone());
    let archive = Archive::new(Arc::clone(&blocks.objects), "");
    while shutdown.sleep(every).await.is_running() {
        let outcome = match schedule.take_tick(RETIRE_TICKS, turn(env.now(), every)).await {
            Ok(true) => archive.retire(env.now(), keep).await,
            Ok(false) => Ok(0),
            Err(e) => Err(e),
        };
        match outcome {
            Ok(0) => {}
            Ok(n) => tracing::info!(archives = n, "removed archives whose time is over"),
            Err(e) => tracing::warn!(error = %e.chain(), "cannot remove old archives, will try again"),
        }
    }
    Ok(())
}

/// The last full turn, the same for all managers.
fn turn(now: Timestamp, every: Duration) -> Timestamp {
    let every = i64::try_from(every.as_micros()).unwrap_or(i64::MAX).max(1);
    Timestamp(now.micros() / every * every)
}

#[cfg(test)]
mod tests {
    use object_store::path::Path;
    use tidemill_blocks::objects;
    use tidemill_blocks::schedule::MIGRATIONS;
    use tidemill_blocks_test::sim::memory_blocks;

    use super::*;

    #[tokio::test]
    async fn managers_take_turns_until_they_drain() {
        let env = Env::system();
        let blocks = memory_blocks(&env).unwrap();
        blocks.ledger.migrate(MIGRATIONS).await.unwrap();
        let part = Path::from("system/multipart/b/u1/00001");
        objects::put(blocks.objects.as_ref(), &part, "x").await.unwrap();
        let shutdown = Shutdown::new();
        let idle = Duration::from_millis(50);
        let managers =
            futures::future::try_join(sweep_regularly(&blocks, &env, idle, &shutdown), sweep_regularly(&blocks, &env, idle, &shutdown));
        let gone = async {
            for round in 0..2 {
                while objects::get_opt(blocks.objects.as_ref(), &part).await.unwrap().is_some() {
                    tidemill_runtime::sleep(Duration::from_millis(10)).await;
                }
                if round == 0 {
                    objects::put(blocks.objects.as_ref(), &part, "again").await.unwrap();
                }
            }
            shutdown.drain();
        };
        let both = async { tokio::join!(managers, gone) };
        tidemill_runtime::timeout(Duration::from_secs(10), "two sweeps", both).await.unwrap().0.unwrap();
    }

    #[test]
    fn a_turn_is_the_same_for_all() {
        let every = Duration::from_secs(3600);
        let at = |seconds: i64| turn(Timestamp(seconds * 1_000_000), every);
        assert_eq!(at(7200), at(7200 + 3599));
        assert!(at(7200) < at(10_800));
    }
}
