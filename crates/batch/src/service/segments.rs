//! Moves statistics from memory into segments. Until a segment is in the ledger the reports in the table stand for its rows.

use std::collections::BTreeMap;

use tidemill_base::Result;
use tidemill_blocks::table::{Condition, Write};
use tidemill_blocks::{objects, schedule};

use super::{LEASE, Shared};
use crate::protocol::keys;
use crate::reactor::LiveBatch;
use crate::store;

/// Writes the segments that are due; with `all`, every row there is.
pub(super) async fn flush(shared: &Shared, fence: u64, all: bool) -> Result<()> {
    let (rows, age) = (shared.settings.segment_rows, shared.settings.segment_age);
    loop {
        let now = shared.env.now();
        // An ended job's rows wait a moment as well: the next job of a burst may end right behind it.
        let ended_age = age / 15;
        let due = shared.live.due(|j| all || j.rows >= rows || now.since(j.since) >= age || (j.ended && now.since(j.since) >= ended_age));
        let Some((job, batches, finished)) = due else { return Ok(()) };
        write_segment(shared, fence, &job, &batches, &finished).await?;
    }
}

async fn write_segment(shared: &Shared, fence: u64, job: &str, batches: &[LiveBatch], finished: &[(u32, u64)]) -> Result<()> {
    let now = shared.env.now();
    let rows: usize = batches.iter().map(|b| b.columns.len()).sum();
    let mut ledger = vec![schedule::fenced(LEASE, &shared.holder, fence)];
    let mut flushed: BTreeMap<(u32, u64), u64> = BTreeMap::new();
    for b in batches {
        let seq = flushed.entry((b.stage, b.range)).or_default();
        *seq = (*seq).max(b.seq);
    }
    if rows > 0 {
        let bytes = shared.sink.encode(batches.to_vec()).await?;
        let path = keys::segment(job, &shared.env.id("s"));
        let size = bytes.len() as u64;
        objects::put(shared.blocks.objects.as_ref(), &path, bytes).await?;
        ledger.push(store::segment_insert(job, path.as_ref(), rows as u64, size, now));
    }
    ledger.extend(flushed.iter().map(|((stage, range), seq)| store::range_flushed(job, *stage, *range, *seq)));
    ledger.extend(finished.iter().map(|(stage, range)| store::range_delete(job, *stage, *range)));
    {
        let _moving = shared.live.begin_move().await;
        shared.blocks.ledger.transact(ledger).await?;
        shared.live.moved(job, batches.len(), finished.len(), now);
    }
    // Reports left behind by an error here are found again by nobody and cost only space.
    let deletes = batches.iter().map(|b| Write::delete(keys::report(job, b.stage, b.range, b.seq), Condition::Any)).collect();
    if let Err(e) = shared.blocks.table.write_many(keys::STATE_TABLE, deletes).await {
        tracing::debug!(job, error = %e.chain(), "reports not cleared away");
    }
    Ok(())
}
