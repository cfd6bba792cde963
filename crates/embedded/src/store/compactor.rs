//! Giving back the space of what was removed.
//!
//! The engine merges its tables by their size. Messages come and go in the order of their keys, so what is removed and the note
//! that it is removed meet late: a queue that is empty could hold gigabytes. Here a space is merged as a whole when removals make up
//! a third of its entries, which costs no more than what was written since the last time.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use fjall::AbstractTree;
use tidemill_base::{Error, Result};

use super::{Shared, spaces};

const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Fewer removals than this are not worth the work.
const FEWEST_REMOVALS: u64 = 100_000;

/// The thread that does it, for as long as this lives.
#[derive(Debug)]
pub(super) struct Compactor {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Compactor {
    pub(super) fn start(shared: Arc<Shared>) -> Result<Self> {
        let (stop, stopped) = channel::<()>();
        let thread = std::thread::Builder::new()
            .name("store-compactor".to_owned())
            .spawn(move || {
                while stopped.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
                    compact_where_due(&shared);
                }
            })
            .map_err(|e| Error::from(e).context("start the store's compactor thread"))?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Compactor {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != std::thread::current().id()
        {
            // A panic there has been reported by the panic hook.
            drop(thread.join());
        }
    }
}

fn compact_where_due(shared: &Shared) {
    for space in spaces::all() {
        let keyspace = shared.spaces.of(space);
        let (removals, entries) = (keyspace.tree.tombstone_count(), keyspace.approximate_len() as u64);
        if !is_due(removals, entries) {
            continue;
        }
        match keyspace.major_compact() {
            Ok(()) => tracing::debug!(space = space.name(), removals, entries, "merged the store's tables"),
            Err(e) => tracing::warn!(space = space.name(), error = %e, "merging the store's tables failed"),
        }
    }
}

const fn is_due(removals: u64, entries: u64) -> bool {
    removals >= FEWEST_REMOVALS && removals.saturating_mul(3) >= entries
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_space_is_merged_when_it_pays() {
        assert!(!is_due(FEWEST_REMOVALS - 1, 0));
        assert!(!is_due(FEWEST_REMOVALS, 4 * FEWEST_REMOVALS));
        assert!(is_due(FEWEST_REMOVALS, 2 * FEWEST_REMOVALS));
    }
}
