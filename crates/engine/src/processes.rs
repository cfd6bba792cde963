//! Processes of this machine as `/proc` shows them: how much memory they take, who started whom, and whose folder they work in.
//!
//! A child that calls `setsid` is out of reach of a signal to the group of whoever started it. It is told by the folder that it was given:
//! that stands in its environment, or it works there.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tidemill_runtime::Stopwatch;

/// Looking through all processes costs a millisecond or two, so one look serves all engines for this long.
const FRESH: Duration = Duration::from_millis(500);
/// Variables that name a process's own folder, unless the user has given them another value.
const FOLDER_VARIABLES: [&str; 2] = ["HOME=", "TMPDIR="];

/// The last look at memory, and when it was taken.
static LOOK: Mutex<Option<(Stopwatch, BTreeMap<i32, u64>)>> = Mutex::new(None);

/// Resident bytes of one process; `None` when there is no such process.
pub fn memory_of(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
    Some(bytes(pages))
}

/// Resident bytes of a process group, at most half a second old. Memory that its members share is counted for each of them.
pub(crate) fn memory_of_group(group: i32) -> Option<u64> {
    let mut look = LOOK.lock().unwrap_or_else(PoisonError::into_inner);
    let fresh = look.as_ref().is_some_and(|(taken, _)| taken.elapsed() < FRESH);
    if !fresh {
        *look = Some((Stopwatch::start(), memory_of_groups()));
    }
    look.as_ref().and_then(|(_, groups)| groups.get(&group).copied())
}

/// Resident bytes of every process group, as they are now.
pub fn memory_of_groups() -> BTreeMap<i32, u64> {
    let mut groups = BTreeMap::new();
    for process in all().values().filter(|p| !p.ended) {
        *groups.entry(process.group).or_default() += bytes(process.pages);
    }
    groups
}

/// Kills every process that belongs to one of the folders, with all that it has started, but never this one. Returns their numbers: none,
/// when nothing is left. The folders must be written as the system does, without links.
pub fn kill_of_folders(folders: &BTreeSet<PathBuf>) -> BTreeSet<i32> {
    let own = std::process::id().cast_signed();
    let all = all();
    let belongs = |pid: i32| places(pid).iter().any(|place| folders.iter().any(|f| place.starts_with(f)));
    let roots = all.iter().filter(|(pid, p)| **pid != own && !p.ended && belongs(**pid)).map(|(pid, _)| *pid);
    let mut found = with_descendants(&all, roots.collect());
    found.remove(&own);
    for pid in found.iter().filter(|pid| **pid > 1) {
        // It has just been seen, so that its number is not somebody else's. That it has ended meanwhile is as good.
        let _gone = Pid::from_raw(*pid).map(|pid| rustix::process::kill_process(pid, Signal::KILL));
    }
    found
}

/// Whether the process has ended and waits for its parent to look; `None` when there is no such process.
pub fn has_ended(pid: i32) -> Option<bool> {
    Process::read(&PathBuf::from(format!("/proc/{pid}"))).map(|p| p.ended)
}

/// A process, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Process {
    parent: i32,
    group: i32,
    pages: u64,
    ended: bool,
}

impl Process {
    fn read(folder: &Path) -> Option<Self> {
        let text = fs::read_to_string(folder.join("stat")).ok()?;
        // The command's name, which may hold anything, ends at the last bracket.
        let mut fields = text.rsplit_once(") ")?.1.split(' ');
        let ended = matches!(fields.next()?, "Z" | "X");
        let (parent, group) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        Some(Self { parent, group, pages: fields.nth(18)?.parse().ok()?, ended })
    }
}

fn all() -> BTreeMap<i32, Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|e| Some((e.file_name().to_str()?.parse().ok()?, e.path())));
    pids.filter_map(|(pid, folder)| Some((pid, Process::read(&folder)?))).collect()
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

fn bytes(pages: u64) -> u64 {
    pages * rustix::param::page_size() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_found_with_its_parent_its_folder_and_its_memory() {
        let own = std::process::id().cast_signed();
        let (all, groups) = (all(), memory_of_groups());
        assert_eq!(all[&own].parent, std::os::unix::process::parent_id().cast_signed());
        assert!(places(own).contains(&std::env::current_dir().unwrap()));
        let (one, group) = (memory_of(own).unwrap(), all[&own].group);
        assert!(one > 100_000 && groups[&group] >= one / 2 && memory_of_group(group).is_some(), "{one} {groups:?}");
        assert_eq!((has_ended(own), has_ended(i32::MAX), memory_of(i32::MAX)), (Some(false), None, None));
    }

    #[test]
    fn descendants_are_found_to_the_last() {
        let process = |parent| Process { parent, group: 1, pages: 0, ended: false };
        let all = BTreeMap::from([
            (2, process(9)),
            (3, process(2)),
            (4, process(1)),
            (9, process(1)),
            (5, Process { ended: true, ..process(2) }),
        ]);
        assert_eq!(with_descendants(&all, BTreeSet::from([9])), BTreeSet::from([2, 3, 9]));
    }

    #[test]
    fn what_works_in_a_folder_is_killed_with_what_it_has_started_and_nobody_else() {
        let (here, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let start = |folder: &Path, script: &str| {
            std::process::Command::new("/bin/sh").args(["-c", script]).current_dir(folder).env_remove("TMPDIR").spawn().unwrap()
        };
        // It works in the folder, and has a child that has left folder and session.
        let mut inside = start(here.path(), "(cd / && exec setsid sleep 600) & wait");
        let mut outside = start(elsewhere.path(), "exec sleep 600");
        let folders = BTreeSet::from([fs::canonicalize(here.path()).unwrap()]);
        let watch = Stopwatch::start();
        let mut killed = BTreeSet::new();
        while killed.len() < 2 && watch.elapsed() < Duration::from_secs(20) {
            // The shell needs a moment to start its child.
            if all().values().filter(|p| p.parent == inside.id().cast_signed()).count() > 0 {
                killed.extend(kill_of_folders(&folders));
            }
        }
        assert!(killed.len() >= 2 && killed.contains(&inside.id().cast_signed()), "{killed:?}");
        assert!(!inside.wait().unwrap().success());
        assert_eq!(outside.try_wait().unwrap(), None, "somebody else was killed");
        outside.kill().unwrap();
        outside.wait().unwrap();
        assert!(kill_of_folders(&folders).is_empty());
    }
}
