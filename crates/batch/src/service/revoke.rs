//! Takes ranges away from the queue: those of cancelled jobs that nobody works on, and those that came back too often.

use std::time::Duration;

use tidemill_base::{ErrorKind, Result, RunSet};
use tidemill_blocks::queue::{NewMessage, Receive};
use tidemill_blocks::table::{Condition, Write};

use super::Shared;
use super::lead::Leader;
use crate::model::JobState;
use crate::protocol::{FENCE_KEPT, RangeState, WorkItem, decode, encode, keys};

/// Ends the ranges of cancelled jobs that no live worker holds.
pub(super) async fn cancelled(leader: &mut Leader<'_>) -> Result<()> {
    let mut ranges = Vec::new();
    for (id, job) in leader.core.jobs.iter().filter(|(_, j)| j.state == JobState::Cancelling) {
        for (stage, s) in (0_u32..).zip(&job.stages) {
            ranges.extend(s.outstanding.keys().map(|r| (id.clone(), stage, *r)));
        }
    }
    for (job, stage, range) in ranges {
        if take_over(leader.shared, &job, stage, range).await? {
            leader.fold_range(&job, stage, range).await?;
            let now = leader.shared.env.now();
            leader.core.on_range_revoked(&job, stage, range, false, now);
        }
    }
    Ok(())
}

/// Ends the ranges of sessions of which nothing is wanted any more, that no live worker holds.
pub(super) async fn unwanted(leader: &mut Leader<'_>) -> Result<()> {
    for (job, stage, range) in leader.core.unwanted_ranges() {
        if take_over(leader.shared, &job, stage, range).await? {
            leader.fold_range(&job, stage, range).await?;
            let now = leader.shared.env.now();
            leader.core.on_range_revoked(&job, stage, range, false, now);
        }
    }
    Ok(())
}

/// Takes apart the ranges that were delivered too often without being finished.
pub(super) async fn lost(leader: &mut Leader<'_>) -> Result<()> {
    for class in leader.shared.known_classes() {
        let queue = keys::work_dead_queue(&class);
        let deliveries = leader.shared.blocks.queue.receive(&queue, Receive::up_to(50, Duration::from_secs(30))).await?;
        for d in deliveries {
            match decode::<WorkItem>("work item", &d.body) {
                Ok(item) => lost_range(leader, &class, &item).await?,
                Err(e) => tracing::error!(error = %e.chain(), "dropped a work item that does not decode"),
            }
            leader.to_acknowledge.push((queue.clone(), d.receipt));
        }
    }
    Ok(())
}

async fn lost_range(leader: &mut Leader<'_>, class: &str, item: &WorkItem) -> Result<()> {
    let (job, stage, range) = (item.job.as_str(), item.stage, item.range);
    if leader.core.folded_seq(job, stage, range).is_none() {
        return Ok(());
    }
    if take_over(leader.shared, job, stage, range).await? {
        tracing::warn!(job, stage, range, "a range was delivered too often without being finished, taking it apart");
        leader.fold_range(job, stage, range).await?;
        let now = leader.shared.env.now();
        leader.core.on_range_revoked(job, stage, range, true, now);
    } else {
        // Somebody works on it, so it needs a message that comes back should that worker be lost as well.
        let message = NewMessage::after(encode(item)?, Duration::from_secs(30));
        leader.shared.blocks.queue.send(&keys::work_queue(class), vec![message]).await?;
    }
    Ok(())
}

/// Finishes a range's fence in the manager's name, unless a live worker holds it. Whether it is finished now.
async fn take_over(shared: &Shared, job: &str, stage: u32, range: u64) -> Result<bool> {
    let key = keys::fence(job, stage, range);
    let now = shared.env.now();
    let current = shared.blocks.table.get(keys::STATE_TABLE, &key).await?;
    let fence = |epoch, seq, settled| RangeState { epoch, worker: "manager".to_owned(), lease_until: now, seq, settled, finished: true };
    let (state, condition) = match &current {
        None => (fence(1, 0, RunSet::new()), Condition::Absent),
        Some(item) => {
            let held: RangeState = decode("fence", &item.value)?;
            if held.finished {
                return Ok(true);
            }
            if held.lease_until > now {
                return Ok(false);
            }
            (fence(held.epoch + 1, held.seq, held.settled), Condition::Version(item.version))
        }
    };
    match shared
        .blocks
        .table
        .transact(keys::STATE_TABLE, vec![Write::put(key, encode(&state)?, condition).expiring(now + FENCE_KEPT)])
        .await
    {
        Ok(_) => Ok(true),
        Err(e) if e.kind() == ErrorKind::Conflict => Ok(false),
        Err(e) => Err(e),
    }
}
