//! Processes of this machine, looked at through `/proc`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::patience::within;

/// A process, told from a later one with the same number by its start time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Process {
    /// Its number.
    pub pid: i32,
    start_ticks: u64,
}

impl Process {
    /// The process that has this number now; `None` when there is none, or it has ended and nobody has looked yet.
    pub fn of(pid: i32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name is in parentheses and may hold anything.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let ended = matches!(*fields.first()?, "Z" | "X");
        (!ended).then_some(Self { pid, start_ticks: fields.get(19)?.parse().ok()? })
    }

    /// Whether it is still the same process and lives.
    pub fn is_alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// Sends a signal to it alone, if it is still there.
    #[allow(unsafe_code, reason = "there is no safe kill(2) in the standard library")]
    pub fn signal(self, signal: i32) {
        if self.is_alive() {
            // SAFETY: kill takes two numbers and touches no memory of ours; a process that has just ended makes it fail, no more.
            unsafe { libc::kill(self.pid, signal) };
        }
    }

    /// Its arguments.
    pub fn args(self) -> Vec<String> {
        let bytes = fs::read(format!("/proc/{}/cmdline", self.pid)).unwrap_or_default();
        bytes.split(|b| *b == 0).map(|a| String::from_utf8_lossy(a).into_owned()).collect()
    }

    fn folder(self) -> Option<PathBuf> {
        fs::read_link(format!("/proc/{}/cwd", self.pid)).ok()
    }

    fn has_variable(self, variable: &str) -> bool {
        let bytes = fs::read(format!("/proc/{}/environ", self.pid)).unwrap_or_default();
        bytes.split(|b| *b == 0).any(|v| v == variable.as_bytes())
    }
}

fn all() -> Vec<Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten();
    let pids = entries.filter_map(|e| e.ok()?.file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(Process::of).collect()
}

/// Processes that work for a folder: those with a path in it among their arguments, or with it as working folder.
pub fn processes_of(folder: &Path) -> Vec<Process> {
    let text = folder.to_string_lossy().into_owned();
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    let works_for = |p: &Process| {
        let inside = |path: &str| path == text || path.starts_with(&format!("{text}/"));
        p.pid != own && (p.args().iter().any(|a| inside(a)) || p.folder().is_some_and(|f| f.starts_with(folder)))
    };
    all().into_iter().filter(works_for).collect()
}

/// Processes that were given this variable with this value: a task and everything that it started.
pub fn with_marker(name: &str, value: &str) -> Vec<Process> {
    let variable = format!("{name}={value}");
    all().into_iter().filter(|p| p.has_variable(&variable)).collect()
}

/// Waits until all of them have ended, and says how long that took.
pub fn gone_within(limit: Duration, what: &str, processes: &[Process]) -> Duration {
    within(limit, what, || processes.iter().all(|p| !p.is_alive()).then_some(())).1
}

/// Kills whatever works for the folder until nothing does: a worker that dies may leave tasks, and a manager may start a worker.
pub(crate) fn sweep(folder: &Path) {
    for _ in 0..100 {
        let left = processes_of(folder);
        if left.is_empty() {
            return;
        }
        left.into_iter().for_each(|p| p.signal(libc::SIGKILL));
        crate::pause(Duration::from_millis(20));
    }
}

/// Takes the settings that the caller's environment has for the product out of a command's.
pub(crate) fn forget_settings(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TIDEMILL_") {
            command.env_remove(name);
        }
    }
}
