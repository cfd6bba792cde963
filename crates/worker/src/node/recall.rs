//! Tasks of a session that nobody wants any more: what has not begun is let go of, and what was settled already is stopped.

use std::sync::{Arc, PoisonError};

use tidemill_batch::protocol::{Recall, decode, keys};
use tidemill_blocks::table::FeedEntry;

use super::{Node, REMEMBERED_JOBS};
use crate::range::OpenRange;

/// What the manager has said of the tasks of a session, and the version of the item that it said it with.
#[derive(Debug, Clone, Default)]
pub(super) struct Recalled {
    pub(super) recall: Arc<Recall>,
    pub(super) version: u64,
}

impl Node {
    /// Whether the entry speaks of tasks to let go of; if so that is done.
    pub(super) fn on_recall(&self, entry: &FeedEntry) -> bool {
        let Some(job) = std::str::from_utf8(&entry.key.sort).ok().filter(|job| entry.key == keys::control_tasks(job)) else { return false };
        let recall = match entry.value.as_ref().map(|v| decode::<Recall>("recalled tasks", v)) {
            None => Recall::default(),
            Some(Ok(recall)) => recall,
            Some(Err(e)) => {
                tracing::error!(error = %e.chain(), "passed over tasks to let go of that do not decode");
                return true;
            }
        };
        let said = Recalled { recall: Arc::new(recall), version: entry.version };
        {
            let mut recalls = self.recalls.lock().unwrap_or_else(PoisonError::into_inner);
            recalls.insert(job.to_owned(), said.clone());
            // Identifiers begin with the time, so the first is the oldest.
            while recalls.len() > REMEMBERED_JOBS {
                recalls.pop_first();
            }
        }
        for range in self.open_ranges().iter().filter(|r| r.item.job == job) {
            self.let_tasks_go(range, &said.recall);
        }
        true
    }

    /// Whether there are tasks of the job to let go of, by what was heard last.
    pub(super) fn has_recalled(&self, job: &str) -> bool {
        self.recalls.lock().unwrap_or_else(PoisonError::into_inner).get(job).is_some_and(|said| !said.recall.is_empty())
    }

    /// What a claim has read, or what was said since, whichever is later, is done.
    pub(super) fn obey_recall(&self, range: &Arc<OpenRange>, read: Recalled) {
        let heard = self.recalls.lock().unwrap_or_else(PoisonError::into_inner).get(&range.item.job).cloned();
        let said = heard.filter(|heard| heard.version > read.version).unwrap_or(read);
        self.let_tasks_go(range, &said.recall);
    }

    fn let_tasks_go(&self, range: &Arc<OpenRange>, recall: &Recall) {
        if recall.is_empty() {
            return;
        }
        let within = |runs: &[(u64, u64)]| {
            let (from, until) = (range.item.start, range.item.start + range.item.len);
            let clipped = runs.iter().map(|(start, len)| ((*start).max(from), start.saturating_add(*len).min(until)));
            clipped.filter(|(start, end)| start < end).map(|(start, end)| (start, end - start)).collect::<Vec<_>>()
        };
        let (unless_begun, at_once) = (within(&recall.unless_begun), within(&recall.at_once));
        range.recall(&unless_begun, &at_once);
        // A slot has handed some to an engine that has not begun them.
        for (first, len) in self.floor.taken(range) {
            if unless_begun.iter().any(|(start, n)| *start < first + len && first < start + n) {
                range.ask_back(first);
            }
        }
        self.runner.recall(range);
    }
}
