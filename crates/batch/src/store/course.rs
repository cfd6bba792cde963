//! How a session went: what ended when, how large its ranges are, and why a task has no result.

use tidemill_base::{Result, Timestamp};
use tidemill_blocks::ledger::{Ledger, Row};

use crate::protocol::decode;
use crate::reactor::DeadResult;

/// Tasks that were folded together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// When.
    pub at: Timestamp,
    /// How many succeeded.
    pub succeeded: u64,
    /// How many failed for good, or were not run since a result that they need is missing.
    pub failed: u64,
}

/// What ended when, oldest first: the last `most` deliveries of a session.
pub async fn ended(ledger: &dyn Ledger, job: &str, most: u64) -> Result<Vec<Ended>> {
    let sql = "SELECT at_us, succeeded, dead FROM batch_completions WHERE job = $1 ORDER BY n DESC LIMIT $2";
    let rows = ledger.query(sql, vec![job.into(), most.into()]).await?;
    rows.iter().rev().map(one).collect()
}

fn one(r: &Row) -> Result<Ended> {
    let succeeded: Vec<(u64, u64)> = decode("succeeded tasks", r.blob(1)?)?;
    let dead: Vec<DeadResult> = decode("failed tasks", r.blob(2)?)?;
    Ok(Ended { at: r.time(0)?, succeeded: succeeded.iter().map(|(_, len)| len).sum(), failed: dead.len() as u64 })
}

/// How many tasks the newest range holds that is out for a session; 0 when none is.
pub async fn newest_range(ledger: &dyn Ledger, job: &str) -> Result<u64> {
    let sql = "SELECT len FROM batch_ranges WHERE job = $1 ORDER BY stage DESC, range_id DESC LIMIT 1";
    ledger.query(sql, vec![job.into()]).await?.first().map_or(Ok(0), |r| r.uint(0))
}

/// The number of the last delivery before `before` that has failures in it, with the tasks that failed.
pub async fn failures_before(ledger: &dyn Ledger, job: &str, before: u64) -> Result<Option<(u64, Vec<DeadResult>)>> {
    // An empty list is one byte long.
    let sql = "SELECT n, dead FROM batch_completions WHERE job = $1 AND n < $2 AND length(dead) > 1 ORDER BY n DESC LIMIT 1";
    let rows = ledger.query(sql, vec![job.into(), before.into()]).await?;
    rows.first().map(|r| Ok((r.uint(0)?, decode("failed tasks", r.blob(1)?)?))).transpose()
}
