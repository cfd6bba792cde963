//! Everything that a task has started, also what has left the task's process group.
//!
//! A child that calls `setsid` is out of reach of a signal to the group. So the worker adopts whatever loses its parent, which makes
//! what a task leaves behind its own child, and tells whose it was by the task's folder: it stands in the child's environment, or the
//! child works in it.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::sys;

/// How often to look for what is left of a task, and how long between two looks. Killed processes are gone within the first few.
const LOOKS: u32 = 100;
const BETWEEN_LOOKS: Duration = Duration::from_millis(2);
/// Variables that name the task's folder, unless the user has given them another value.
const FOLDER_VARIABLES: [&str; 2] = ["HOME=", "TMPDIR="];

/// A process, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Process {
    parent: i32,
    /// It has ended and waits for its parent to look.
    ended: bool,
}

/// Ends what is left of the task with this process group and folder, and says whether there was anything. The group has been killed
/// and its leader reaped.
#[expect(clippy::disallowed_methods, reason = "a slot is a thread that blocks")]
pub(super) fn end_rest(group: i32, folder: &Path) -> bool {
    for look in 0..LOOKS {
        sys::reap_group(group);
        let strays = if orphans().is_empty() { BTreeSet::new() } else { end_all(&BTreeSet::from([folder.to_owned()])) };
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
    let places = BTreeSet::from([scratch.join("slots"), scratch.join("staged")]);
    for look in 0..LOOKS {
        let left = end_all(&places);
        if left.is_empty() {
            return;
        }
        if look == 0 {
            tracing::warn!(processes = left.len(), "ending tasks that outlived their worker");
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
        let ended = orphans.into_iter().filter(|pid| process(*pid).is_some_and(|p| p.ended)).collect::<BTreeSet<_>>();
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

/// Kills every process that belongs to one of the folders, with all that it has started, and returns their numbers.
fn end_all(folders: &BTreeSet<PathBuf>) -> BTreeSet<i32> {
    let own = std::process::id().cast_signed();
    let all = all();
    let belongs = |pid: i32| places(pid).iter().any(|place| folders.iter().any(|f| place.starts_with(f)));
    let roots = all.iter().filter(|(pid, p)| **pid != own && !p.ended && belongs(**pid)).map(|(pid, _)| *pid);
    let found = with_descendants(&all, roots.collect());
    found.iter().copied().for_each(sys::kill);
    found
}

fn with_descendants(all: &BTreeMap<i32, Process>, mut found: BTreeSet<i32>) -> BTreeSet<i32> {
    loop {
        let more = all.iter().filter(|(pid, p)| !p.ended && found.contains(&p.parent) && !found.contains(pid));
        let more: Vec<i32> = more.map(|(pid, _)| *pid).collect();
        if more.is_empty() {
            return found;
        }
        found.extend(more);
    }
}

/// Where a process works and what it takes for its home.
fn places(pid: i32) -> Vec<PathBuf> {
    let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let given = environ.split(|b| *b == 0).filter_map(|v| FOLDER_VARIABLES.iter().find_map(|name| v.strip_prefix(name.as_bytes())));
    let given = given.map(|folder| PathBuf::from(OsStr::from_bytes(folder)));
    given.chain(fs::read_link(format!("/proc/{pid}/cwd"))).collect()
}

fn all() -> BTreeMap<i32, Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|e| e.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| Some((pid, process(pid)?))).collect()
}

fn process(pid: i32) -> Option<Process> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command's name, which may hold anything, ends at the last bracket.
    let mut fields = text.rsplit_once(") ")?.1.split(' ');
    let ended = matches!(fields.next()?, "Z" | "X");
    Some(Process { parent: fields.next()?.parse().ok()?, ended })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_found_with_its_parent_and_its_folder() {
        let own = std::process::id().cast_signed();
        let all = all();
        assert_eq!(all[&own].parent, std::os::unix::process::parent_id().cast_signed());
        assert!(places(own).contains(&std::env::current_dir().unwrap()));
    }

    #[test]
    fn descendants_are_found_to_the_last() {
        let process = |parent| Process { parent, ended: false };
        let all = BTreeMap::from([
            (2, process(9)),
            (3, process(2)),
            (4, process(1)),
            (9, process(1)),
            (5, Process { ended: true, ..process(2) }),
        ]);
        assert_eq!(with_descendants(&all, BTreeSet::from([9])), BTreeSet::from([2, 3, 9]));
    }
}
