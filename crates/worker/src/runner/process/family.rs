//! Everything that a task has started, also what has left the task's process group.
//!
//! A child that calls `setsid` is out of reach of a signal to the group. So the worker adopts whatever loses its parent, which makes
//! what a task leaves behind its own child, and tells whose it was by the task's folder: it stands in the child's environment, or the
//! child works in it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use tidemill_engine::processes;

use super::sys;

/// How often to look for what is left of a task, and how long between two looks. Killed processes are gone within the first few.
const LOOKS: u32 = 100;
const BETWEEN_LOOKS: Duration = Duration::from_millis(2);
/// Folders of a worker in which tasks and engines work.
const PLACES: [&str; 3] = ["slots", "staged", "engines"];

/// Ends what is left of the task with this process group and folder, and says whether there was anything. The group has been killed
/// and its leader reaped.
#[expect(clippy::disallowed_methods, reason = "a slot is a thread that blocks")]
pub(super) fn end_rest(group: i32, folder: &Path) -> bool {
    for look in 0..LOOKS {
        sys::reap_group(group);
        let strays = if orphans().is_empty() { BTreeSet::new() } else { processes::kill_of_folders(&BTreeSet::from([folder.to_owned()])) };
        if strays.is_empty() && !sys::signal_group(group, 0) {
            return look > 0;
        }
        strays.into_iter().for_each(sys::reap_one);
        std::thread::sleep(BETWEEN_LOOKS);
    }
    true
}

/// Ends what a predecessor in this scratch folder has left running.
pub(super) fn end_leftovers(scratch: &Path) {
    let Ok(scratch) = fs::canonicalize(scratch) else { return };
    let places = PLACES.iter().map(|place| scratch.join(place)).collect();
    for look in 0..LOOKS {
        let left = processes::kill_of_folders(&places);
        if left.is_empty() {
            return;
        }
        if look == 0 {
            tracing::warn!(processes = left.len(), "ending tasks and engines that outlived their worker");
        }
        std::thread::yield_now();
    }
}

/// Reaps adopted processes that have ended. A process is reaped when it is found ended for the second time, so that whoever in this
/// process has started it on purpose has had time to look first.
#[derive(Debug, Default)]
pub(super) struct Undertaker(BTreeSet<i32>);

impl Undertaker {
    pub(super) fn look(&mut self) {
        let orphans = orphans();
        if orphans.is_empty() {
            return self.0.clear();
        }
        let ended = orphans.into_iter().filter(|pid| processes::has_ended(*pid).unwrap_or(false)).collect::<BTreeSet<_>>();
        let before = std::mem::replace(&mut self.0, ended);
        before.intersection(&self.0).copied().for_each(sys::reap_one);
    }
}

/// The processes that this one has adopted: the kernel gives them to the first thread, which starts none of its own.
fn orphans() -> Vec<i32> {
    let own = std::process::id();
    let text = fs::read_to_string(format!("/proc/self/task/{own}/children")).unwrap_or_default();
    text.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}
