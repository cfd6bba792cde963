//! Removing what has expired: a thousand rows at a time, so that no transaction is long, and passing over what another process has at
//! hand, so that all of them may sweep.

use std::sync::Arc;
use std::time::Duration;

use tidemill_base::Result;
use tidemill_runtime::{Kind, Tasks};

use crate::error::from_pg;
use crate::link::{Link, prepared};

const EVERY: Duration = Duration::from_secs(30);
/// The most steps for one kind of thing in one sweep; what is left waits for the next.
const ROUNDS: usize = 100;
/// What one step removes.
const STEP: u64 = 1000;

const STATEMENTS: &[&str] = &[
    // Messages past their retention are dropped by whoever receives; this is for queues from which nobody does. The first in line are
    // the oldest but for those that were delayed or given back.
    "DELETE FROM tidemill_messages m USING (
       SELECT h.queue, h.id FROM tidemill_queues q CROSS JOIN LATERAL (
         SELECT queue, id, arrived_at FROM tidemill_messages WHERE queue = q.id AND due <= statement_timestamp()
         ORDER BY due, id LIMIT 1000 FOR UPDATE SKIP LOCKED) h
       WHERE h.arrived_at + q.retention_us * interval '1 microsecond' <= statement_timestamp()) old
     WHERE m.queue = old.queue AND m.id = old.id",
    "DELETE FROM tidemill_items i USING (
       SELECT tbl, partition, sort FROM tidemill_items WHERE expires <= statement_timestamp()
       ORDER BY expires LIMIT 1000 FOR UPDATE SKIP LOCKED) old
     WHERE i.tbl = old.tbl AND i.partition = old.partition AND i.sort = old.sort AND i.expires <= statement_timestamp()",
    "DELETE FROM tidemill_feed f USING (
       SELECT h.tbl, h.xid, h.version FROM tidemill_tables t CROSS JOIN LATERAL (
         SELECT tbl, xid, version, at FROM tidemill_feed WHERE tbl = t.id ORDER BY xid, version LIMIT 1000 FOR UPDATE SKIP LOCKED) h
       WHERE h.at <= statement_timestamp() - interval '25 hours') old
     WHERE f.tbl = old.tbl AND f.xid = old.xid AND f.version = old.version",
    "WITH old AS MATERIALIZED (
       SELECT blob FROM tidemill_garbage WHERE due <= statement_timestamp() ORDER BY due LIMIT 10 FOR UPDATE SKIP LOCKED),
     chunks AS (DELETE FROM tidemill_chunks c USING old WHERE c.blob = old.blob RETURNING 1),
     rows AS (DELETE FROM tidemill_garbage g USING old WHERE g.blob = old.blob RETURNING 1)
     SELECT FROM chunks",
];

/// Starts the task that sweeps.
pub(crate) fn start(link: &Arc<Link>, tasks: &Tasks) {
    let (link, shutdown) = (Arc::clone(link), tasks.shutdown().clone());
    tasks.spawn("sweep", Kind::Request, async move {
        // Managers that were started together need not sweep together.
        let pause = || EVERY.mul_f64(0.5 + link.env.random_unit());
        while shutdown.sleep(pause()).await.is_running() {
            tokio::select! {
                biased;
                () = shutdown.closing() => {}
                swept = sweep(&link) => {
                    if let Err(e) = swept {
                        tracing::warn!(error = %e.chain(), "what has expired in PostgreSQL could not be removed; it is tried again");
                    }
                }
            }
        }
        Ok(())
    });
}

/// Removes everything that has expired by now.
pub(crate) async fn sweep(link: &Link) -> Result<()> {
    for sql in STATEMENTS {
        for _ in 0..ROUNDS {
            let client = link.client().await?;
            let statement = prepared(&client, sql).await.map_err(from_pg)?;
            let removed = client.execute(&statement, &[]).await.map_err(from_pg)?;
            if removed < STEP {
                break;
            }
        }
    }
    Ok(())
}
