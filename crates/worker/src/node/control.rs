//! What the manager asks: cancel, pause, drain.

use std::sync::PoisonError;
use std::time::Duration;

use tidemill_base::Result;
use tidemill_batch::protocol::keys::{self, CONTROL_TABLE};
use tidemill_batch::protocol::{Control, HandBack, decode};
use tidemill_blocks::table::{Cursor, FeedEntry};
use tidemill_runtime::sleep;

use super::{Node, REMEMBERED_JOBS, Said};
use crate::range::OpenRange;

const LONG_POLL: Duration = Duration::from_secs(20);
const PAGE: usize = 500;

/// Follows the control table for as long as it is polled.
pub(super) async fn follow(node: &Node) {
    let (mut cursor, mut failures) = (None, 0);
    loop {
        match next(node, &mut cursor).await {
            Ok(entries) => {
                failures = 0;
                entries.iter().for_each(|entry| on_entry(node, entry));
            }
            Err(e) => {
                failures += 1;
                tracing::warn!(error = %e.chain(), "cannot follow the manager's wishes, trying again");
                sleep(node.settings.retry.delay(failures, &node.env)).await;
            }
        }
    }
}

async fn next(node: &Node, cursor: &mut Option<Cursor>) -> Result<Vec<FeedEntry>> {
    let table = &node.blocks.table;
    let Some(after) = cursor else {
        // First the end of the feed, then what stands: nothing is missed in between. Jobs are asked for when they are claimed.
        let end = table.feed_end(CONTROL_TABLE).await?;
        let own = table.get(CONTROL_TABLE, &keys::control_worker(&node.settings.id)).await?;
        *cursor = Some(end);
        return Ok(own.into_iter().map(|i| FeedEntry { key: i.key, value: Some(i.value), version: i.version }).collect());
    };
    let page = table.feed(CONTROL_TABLE, after, PAGE, LONG_POLL).await?;
    *cursor = Some(page.next);
    Ok(page.entries)
}

fn on_entry(node: &Node, entry: &FeedEntry) {
    if entry.key == keys::control_hand_back(&node.settings.id) {
        match entry.value.as_ref().map(|v| decode::<HandBack>("wish to hand back", v)) {
            None => {}
            Some(Ok(back)) => node.hand_back(&back),
            Some(Err(e)) => tracing::error!(error = %e.chain(), "passed over a wish that does not decode"),
        }
        return;
    }
    if node.on_recall(entry) {
        return;
    }
    let of_job = std::str::from_utf8(&entry.key.sort).ok().filter(|job| entry.key == keys::control_job(job));
    let of_worker = entry.key == keys::control_worker(&node.settings.id);
    if of_job.is_none() && !of_worker {
        return;
    }
    let control = match entry.value.as_ref().map(|v| decode::<Control>("control", v)) {
        None => Control::Run,
        Some(Ok(control)) => control,
        Some(Err(e)) => return tracing::error!(error = %e.chain(), "passed over a wish that does not decode"),
    };
    let Some(job) = of_job else {
        if control == Control::Drain {
            node.stop.drain();
        }
        return;
    };
    {
        let mut controls = node.controls.lock().unwrap_or_else(PoisonError::into_inner);
        controls.insert(job.to_owned(), Said { control, version: entry.version });
        // Identifiers begin with the time, so the first is the oldest.
        while controls.len() > REMEMBERED_JOBS {
            controls.pop_first();
        }
    }
    for range in node.open_ranges().iter().filter(|r| r.item.job == job) {
        node.obey(range, control);
    }
}

impl Node {
    /// Hands back what would not be started soon: others have nothing to do.
    fn hand_back(&self, back: &HandBack) {
        let spare = self.floor.spare(back.idle, self.settings.prefetch, self.env.now());
        let can_run = |range: &OpenRange| back.offers.iter().any(|offers| range.stage.definition.spec.resources.fit(offers));
        let mut handed = 0;
        for (range, keep) in spare.keep.iter().filter(|(range, _)| can_run(range)) {
            let before = range.waiting();
            range.hand_back(*keep);
            handed += before.saturating_sub(range.waiting());
        }
        // Behind a long task in an engine there are others that a slot has handed to it.
        for (range, first) in spare.stuck.iter().filter(|(range, _)| can_run(range)) {
            range.ask_back(*first);
        }
        if handed > 0 {
            tracing::debug!(worker = self.settings.id, handed, idle = back.idle, "handed tasks back to others");
            // Whoever asks again at once would get them again.
            self.stand_aside();
        }
    }
}
