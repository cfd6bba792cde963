//! One of many: leadership and ticks that happen once however many managers run. Both are rows in the ledger.
//!
//! A lease is measured on the managers' wall clocks, so a manager whose clock runs ahead may take a lease early, and one that was
//! paused may believe in a lease that has ended. What only the leader may write therefore goes into one transaction with
//! [`fenced`], which fails when somebody else has led since.

use std::sync::Arc;
use std::time::Duration;

use tidemill_base::{Env, ErrorKind, Result, Timestamp};

use crate::ledger::{Ledger, Migration, Statement};

/// The tables this needs.
pub const MIGRATIONS: &[Migration] = &[Migration {
    name: "schedule-001-leases",
    sql: "CREATE TABLE schedule_leases (name TEXT PRIMARY KEY, holder TEXT NOT NULL, fence BIGINT NOT NULL, until_us BIGINT NOT NULL);
          CREATE TABLE schedule_ticks (name TEXT PRIMARY KEY, last_us BIGINT NOT NULL)",
}];

/// A statement that lets its transaction go on only while `holder` leads `name` under `fence`, and keeps another from taking the
/// lease until that transaction has ended. `Conflict` otherwise.
pub fn fenced(name: &str, holder: &str, fence: u64) -> Statement {
    // An update and not a select, since it is the row's write lock that holds the next leader back.
    let sql = "UPDATE schedule_leases SET fence = fence WHERE name = $1 AND holder = $2 AND fence = $3";
    Statement::new(sql, vec![name.into(), holder.into(), fence.into()]).expecting(1)
}

/// Leases and ticks over a ledger.
#[derive(Debug, Clone)]
pub struct Schedule {
    ledger: Arc<dyn Ledger>,
    env: Env,
}

impl Schedule {
    /// Over `ledger`, which must have [`MIGRATIONS`] applied.
    pub fn new(ledger: Arc<dyn Ledger>, env: Env) -> Self {
        Self { ledger, env }
    }

    /// Takes or renews the lease `name` for `holder`, a name that no other process uses, for `ttl` from the moment of the call.
    /// Returns its fence, a number that grows whenever the holder changes, or `None` while somebody else holds it.
    pub async fn lead(&self, name: &str, holder: &str, ttl: Duration) -> Result<Option<u64>> {
        let now = self.env.now();
        self.ledger
            .transact(vec![Statement::new(
                "INSERT INTO schedule_leases (name, holder, fence, until_us) VALUES ($1, $2, 1, $3)
                 ON CONFLICT (name) DO UPDATE SET
                   fence = schedule_leases.fence + CASE WHEN schedule_leases.holder = excluded.holder THEN 0 ELSE 1 END,
                   holder = excluded.holder, until_us = excluded.until_us
                 WHERE schedule_leases.holder = excluded.holder OR schedule_leases.until_us < $4",
                vec![name.into(), holder.into(), (now + ttl).into(), now.into()],
            )])
            .await?;
        let rows = self.ledger.query("SELECT holder, fence FROM schedule_leases WHERE name = $1", vec![name.into()]).await?;
        match rows.first() {
            Some(row) if row.text(0)? == holder => row.uint(1).map(Some),
            _ => Ok(None),
        }
    }

    /// Gives the lease up, so that another need not wait for its end.
    pub async fn resign(&self, name: &str, holder: &str) -> Result<()> {
        let sql = "UPDATE schedule_leases SET until_us = 0 WHERE name = $1 AND holder = $2";
        self.ledger.transact(vec![Statement::new(sql, vec![name.into(), holder.into()])]).await.map(drop)
    }

    /// Ends the lease of whoever holds it. Only where no second process can be on the ledger: then its holder has been killed, and
    /// waiting for the lease to end would be a stall.
    pub async fn evict(&self, name: &str) -> Result<()> {
        let sql = "UPDATE schedule_leases SET until_us = 0 WHERE name = $1";
        self.ledger.transact(vec![Statement::new(sql, vec![name.into()])]).await.map(drop)
    }

    /// The last tick of `name` that anybody has taken.
    pub async fn last_tick(&self, name: &str) -> Result<Option<Timestamp>> {
        let rows = self.ledger.query("SELECT last_us FROM schedule_ticks WHERE name = $1", vec![name.into()]).await?;
        rows.first().map(|r| r.int(0).map(Timestamp)).transpose()
    }

    /// Whether the tick at `at` of `name` is ours to act on: true for just one caller, and only if `at` is later than every tick
    /// taken before.
    pub async fn take_tick(&self, name: &str, at: Timestamp) -> Result<bool> {
        let sql = "INSERT INTO schedule_ticks (name, last_us) VALUES ($1, $2)
                   ON CONFLICT (name) DO UPDATE SET last_us = excluded.last_us WHERE schedule_ticks.last_us < excluded.last_us";
        match self.ledger.transact(vec![Statement::new(sql, vec![name.into(), at.into()]).expecting(1)]).await {
            Ok(_) => Ok(true),
            Err(e) if e.kind() == ErrorKind::Conflict => Ok(false),
            Err(e) => Err(e),
        }
    }
}
