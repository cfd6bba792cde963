//! The few system calls that the standard library does not offer.
#![allow(unsafe_code, reason = "wait4, waitid, kill, prctl and fallocate have no safe form in the standard library")]

use std::io;
use std::os::fd::AsRawFd;

/// What a process and those it waited for have used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Usage {
    /// User and system time, microseconds.
    pub(super) cpu_us: u64,
    /// Largest resident set, bytes.
    pub(super) peak_memory: u64,
}

fn again_when_interrupted(mut call: impl FnMut() -> i32) -> io::Result<i32> {
    loop {
        let got = call();
        if got >= 0 {
            return Ok(got);
        }
        let e = io::Error::last_os_error();
        if e.kind() != io::ErrorKind::Interrupted {
            return Err(e);
        }
    }
}

/// Waits until the child has ended and leaves it as it is, so that its number still belongs to it.
pub(super) fn wait_ended(pid: i32) -> io::Result<()> {
    let id = pid.cast_unsigned();
    again_when_interrupted(|| {
        // SAFETY: an all-zero `siginfo_t` is valid, and `waitid` writes only to it.
        unsafe {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            libc::waitid(libc::P_PID, id, &raw mut info, libc::WEXITED | libc::WNOWAIT)
        }
    })
    .map(drop)
}

/// Takes the ended child's status and usage.
pub(super) fn reap(pid: i32) -> io::Result<(i32, Usage)> {
    let mut status = 0;
    // SAFETY: an all-zero `rusage` is valid.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    again_when_interrupted(|| {
        // SAFETY: both pointers are to live local values of the right types.
        unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) }
    })?;
    Ok((status, convert(&usage)))
}

/// What this process has used.
pub(super) fn own_usage() -> Usage {
    // SAFETY: an all-zero `rusage` is valid, and `getrusage` writes only to it.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &raw mut usage);
        usage
    };
    convert(&usage)
}

fn convert(usage: &libc::rusage) -> Usage {
    let us = |t: libc::timeval| u64::try_from(t.tv_sec).unwrap_or(0) * 1_000_000 + u64::try_from(t.tv_usec).unwrap_or(0);
    Usage { cpu_us: us(usage.ru_utime) + us(usage.ru_stime), peak_memory: u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1024 }
}

/// Sends a signal to all members of a process group (0: only looks); whether there were any.
pub(super) fn signal_group(group: i32, signal: i32) -> bool {
    // SAFETY: `kill` reads nothing but its arguments. A group below 2 would mean "everything" and is refused.
    group > 1 && unsafe { libc::kill(-group, signal) } == 0
}

/// Makes this process the parent of whatever its descendants leave without one; says whether the system does that.
pub(super) fn adopt_orphans() -> bool {
    // SAFETY: this option of `prctl` reads nothing but its arguments.
    unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0 }
}

/// Keeps descriptors that this process was started with from the processes that it starts; says whether the system does that. Its own are
/// opened so that nobody inherits them.
pub(super) fn keep_descriptors() -> bool {
    const FIRST: libc::c_uint = 3;
    // SAFETY: `close_range` reads nothing but its arguments, and with this flag closes nothing now.
    unsafe { libc::syscall(libc::SYS_close_range, FIRST, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) == 0 }
}

/// Reaps a child, if it is one and has ended. Does not wait.
pub(super) fn reap_one(pid: i32) {
    if pid > 1 {
        reap_now(pid);
    }
}

/// Reaps the children in a process group that have ended. Does not wait.
pub(super) fn reap_group(group: i32) {
    while group > 1 && reap_now(-group) {}
}

fn reap_now(whom: i32) -> bool {
    // SAFETY: `waitpid` may be given no place for the status.
    unsafe { libc::waitpid(whom, std::ptr::null_mut(), libc::WNOHANG) > 0 }
}

/// Gives the disk space of the file's first `len` bytes back. The file's size stays.
pub(super) fn forget_head(file: &std::fs::File, len: u64) -> bool {
    let Ok(len) = libc::off_t::try_from(len) else { return false };
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    // SAFETY: the descriptor is open for as long as `file` is borrowed.
    unsafe { libc::fallocate(file.as_raw_fd(), mode, 0, len) == 0 }
}

/// Takes disk space for the first `len` bytes of the file, whose size stays; false where the file system cannot do that.
pub(super) fn set_aside(file: &std::fs::File, len: u64) -> bool {
    let Ok(len) = libc::off_t::try_from(len) else { return false };
    // SAFETY: the descriptor is open for as long as `file` is borrowed.
    unsafe { libc::fallocate(file.as_raw_fd(), libc::FALLOC_FL_KEEP_SIZE, 0, len) == 0 }
}
