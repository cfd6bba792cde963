//! Processes of this machine: which one it is, whether it lives, how it is told to end.

use std::fs;

use serde::{Deserialize, Serialize};

/// The variable that names the member to its own process. It also finds a process again whose number was not written down.
pub(super) const MEMBER_VARIABLE: &str = "TIDEMILL_FLEET_MEMBER";

/// A process, told from a later one with the same number by its start time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Process {
    pub(super) pid: u32,
    /// Clock ticks from the machine's start to the process's, as in `/proc/PID/stat`. Zero where there is no such file: then
    /// only children of our own can be told.
    pub(super) start_ticks: u64,
}

impl Process {
    /// A member on another machine, which a script watches. It is never signalled from here.
    pub(super) const ELSEWHERE: Self = Self { pid: 0, start_ticks: 0 };

    /// The process that now has this number.
    pub(super) fn of(pid: u32) -> Self {
        Self { pid, start_ticks: read_stat(pid).map_or(0, |s| s.start_ticks) }
    }

    /// Whether it is still there. A zombie is not: it has ended, whether or not its parent has looked.
    pub(super) fn is_alive(self) -> bool {
        read_stat(self.pid).is_some_and(|s| s.start_ticks == self.start_ticks && !matches!(s.state, 'Z' | 'X'))
    }

    /// Whether it has ended and its parent has not looked yet. Until then its number is not given to another.
    pub(super) fn is_zombie(self) -> bool {
        read_stat(self.pid).is_some_and(|s| s.start_ticks == self.start_ticks && s.state == 'Z')
    }

    /// Asks it to finish.
    pub(super) fn terminate(self) {
        signal::send(i64::from(self.pid), libc::SIGTERM);
    }

    /// Ends it at once, with whatever runs in its process group.
    pub(super) fn kill(self) {
        signal::send(-i64::from(self.pid), libc::SIGKILL);
    }
}

/// Names the present run of the machine; process numbers and start times mean nothing in another. Empty where it is unknown.
pub(super) fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|s| s.trim().to_owned()).unwrap_or_default()
}

/// The process that was started as `member`: the oldest one that carries its name, since its children carry it as well.
pub(super) fn find_member(member: &str) -> Option<Process> {
    let wanted = format!("{MEMBER_VARIABLE}={member}");
    let carries = |pid: u32| {
        let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environ.split(|b| *b == 0).any(|var| var == wanted.as_bytes())
    };
    let numbers = fs::read_dir("/proc").ok()?.filter_map(|e| e.ok()?.file_name().to_str()?.parse::<u32>().ok());
    numbers.filter(|pid| carries(*pid)).map(Process::of).filter(|p| p.is_alive()).min_by_key(|p| (p.start_ticks, p.pid))
}

struct Stat {
    state: char,
    start_ticks: u64,
}

fn read_stat(pid: u32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// See proc_pid_stat(5). The second field, the name in brackets, may itself hold blanks and brackets.
fn parse_stat(text: &str) -> Option<Stat> {
    let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let start_ticks = fields.nth(18)?.parse().ok()?;
    Some(Stat { state, start_ticks })
}

mod signal {
    #![allow(unsafe_code, reason = "the standard library sends no signal but SIGKILL, and only to children")]

    /// Sends `signal` to the process `to`, or to the process group `-to`. That it is gone already is no error.
    pub(super) fn send(to: i64, signal: libc::c_int) {
        // 0, 1, -1 would reach our own group, the init process, or everything.
        let Ok(to) = libc::pid_t::try_from(to) else { return };
        if to.abs() <= 1 {
            return;
        }
        // SAFETY: kill(2) takes two integers and touches no memory of ours.
        let sent = unsafe { libc::kill(to, signal) };
        if sent != 0 {
            let e = std::io::Error::last_os_error();
            if e.raw_os_error() != Some(libc::ESRCH) {
                tracing::warn!(to, signal, error = %e, "a signal to a worker was not delivered");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_stat_line_whose_name_holds_blanks_and_brackets() {
        let line = "42 (a ) Z (b) S 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 1000 10 18446744073709551615";
        let stat = parse_stat(line).unwrap();
        assert_eq!((stat.state, stat.start_ticks), ('S', 987_654));
        assert!(parse_stat("42 (short) S 1").is_none());
    }

    #[test]
    fn a_process_with_our_number_and_another_start_is_not_it() {
        let me = Process::of(std::process::id());
        assert!(me.is_alive());
        assert!(!Process { start_ticks: me.start_ticks + 1, ..me }.is_alive());
    }
}
