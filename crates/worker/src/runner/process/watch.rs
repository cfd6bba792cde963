//! The watcher: one thread that looks at all slots five times a second, for timeouts, memory and growing logs, and that turns a
//! SIGTERM into a SIGKILL when its grace is over.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use object_store::path::Path;
use tidemill_batch::protocol::keys;
use tidemill_engine::processes;
use tidemill_runtime::Stopwatch;
use tokio::sync::mpsc::UnboundedSender;

use super::family::Undertaker;
use super::folder::{LogFile, SlotFolder};
use super::slot::{Shared, SlotCell};
use super::{container, sys};
use crate::floor::{Assignment, Floor};
use crate::range::{Kill, OpenRange};

const TICK: Duration = Duration::from_millis(200);
/// Tasks that have run for so long are looked at more closely: their whole process group, and their logs.
const LONG: Duration = Duration::from_secs(1);
const LIVE_LOG_BYTES: u64 = 64 << 10;
/// The streams in the order of [`Current::logs`].
const STREAMS: [&str; 2] = ["stdout", "stderr"];
const LIVE_LOG_PAUSE_MAX: Duration = Duration::from_secs(5);

/// Something to do about the live log of a running task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LiveLog {
    Put(Path, Bytes),
    Remove(Path),
}

/// Takes what is to be done about live logs.
pub(crate) type LiveLogs = UnboundedSender<LiveLog>;

/// Who or what ended a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EndedBy {
    Itself,
    Timeout(Duration),
    /// It had so many bytes.
    Memory(u64),
    /// See [`OpenRange::kill`].
    Kill,
}

#[derive(Debug)]
pub(super) struct Live {
    next: Duration,
    pause: Duration,
    seen: [u64; 2],
    pub(super) written: bool,
}

/// The process in a slot.
#[derive(Debug)]
pub(super) struct Current {
    run: u64,
    task: u64,
    range: Arc<OpenRange>,
    pid: i32,
    watch: Stopwatch,
    timeout: Option<Duration>,
    memory: u64,
    pub(super) ended_by: EndedBy,
    term_sent: Option<Duration>,
    killed: Option<Duration>,
    pub(super) peak_memory: u64,
    pub(super) live: Live,
    logs: [LogFile; 2],
    container: Option<(PathBuf, String)>,
}

impl Current {
    pub(super) fn new(a: &Assignment, pid: i32, watch: Stopwatch, folder: &SlotFolder, container: Option<(PathBuf, String)>) -> Self {
        let spec = &a.range.stage.definition.spec;
        Self {
            run: a.run,
            task: a.task,
            range: a.range.clone(),
            pid,
            watch,
            timeout: spec.timeout.map(|t| t.0),
            // A container's limit is kept by its engine, which alone sees what runs in it.
            memory: if container.is_some() { 0 } else { spec.resources.memory },
            ended_by: EndedBy::Itself,
            term_sent: None,
            killed: None,
            peak_memory: 0,
            live: Live { next: LONG, pause: LONG, seen: [0; 2], written: false },
            logs: [folder.stdout.clone(), folder.stderr.clone()],
            container,
        }
    }

    fn end(&mut self, by: EndedBy) {
        if self.ended_by == EndedBy::Itself {
            self.ended_by = by;
        }
        if self.term_sent.is_none() {
            self.term_sent = Some(self.watch.elapsed());
            sys::signal_group(self.pid, libc::SIGTERM);
        }
    }

    fn kill_now(&mut self) {
        if self.killed.is_some() {
            return;
        }
        self.killed = Some(self.watch.elapsed());
        match self.container.take() {
            // Its client ends when it has. Killed before, it would leave the container to write into a folder that is being removed.
            Some((engine, name)) => container::kill(engine, name),
            None => drop(sys::signal_group(self.pid, libc::SIGKILL)),
        }
    }

    /// Does what is due, and says when to look again.
    fn look(&mut self, grace: Duration, groups: &BTreeMap<i32, u64>) -> Duration {
        let ran = self.watch.elapsed();
        if let Some(limit) = self.timeout
            && ran >= limit
        {
            self.end(EndedBy::Timeout(limit));
        }
        let seen = groups.get(&self.pid).copied().or_else(|| processes::memory_of(self.pid)).unwrap_or(0);
        self.peak_memory = self.peak_memory.max(seen);
        if self.memory > 0 && seen > self.memory {
            self.end(EndedBy::Memory(seen));
            self.kill_now();
        }
        if self.killed.is_some_and(|at| ran >= at + container::KILL_PATIENCE) {
            sys::signal_group(self.pid, libc::SIGKILL);
        }
        let mut next = ran + TICK;
        if let Some(sent) = self.term_sent {
            if ran >= sent + grace {
                self.kill_now();
            } else {
                next = next.min(sent + grace);
            }
        } else if let Some(limit) = self.timeout {
            next = next.min(limit);
        }
        next.saturating_sub(ran)
    }

    /// The ends of the streams that have grown, if their time has come. Each stream has an object of its own: joined, what is new in
    /// one would stand in the middle of what was read before.
    fn live_logs(&mut self) -> Vec<(&'static str, Bytes)> {
        let ran = self.watch.elapsed();
        if ran < self.live.next {
            return Vec::new();
        }
        self.live.next = ran + self.live.pause;
        let mut grown = Vec::new();
        for ((stream, log), seen) in STREAMS.into_iter().zip(&self.logs).zip(&mut self.live.seen) {
            let len = log.len().unwrap_or(0);
            if len > *seen {
                *seen = len;
                grown.push((stream, log.tail(LIVE_LOG_BYTES).map(|(bytes, _)| bytes).unwrap_or_default()));
            }
        }
        if !grown.is_empty() {
            self.live.pause = (self.live.pause + LONG).min(LIVE_LOG_PAUSE_MAX);
            self.live.written = true;
        }
        grown
    }

    /// Gives disk space back when a log has grown far beyond what will be kept of it.
    fn trim_logs(&self, keep: u64) {
        let stdout_is_output = self.range.stage.definition.spec.output.stdout;
        for log in self.logs.iter().skip(usize::from(stdout_is_output)) {
            let len = log.len().unwrap_or(0);
            if len > keep.saturating_mul(4) {
                sys::forget_head(&log.file, (len - keep) / 4096 * 4096);
            }
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Watch {
    grace: Duration,
    live: LiveLogs,
    // Whether somebody wants a look at once; the flag, and whether to stop.
    asked: Mutex<(bool, bool)>,
    changed: Condvar,
}

impl Watch {
    pub(super) fn new(grace: Duration, live: LiveLogs) -> Self {
        Self { grace, live, asked: Mutex::default(), changed: Condvar::new() }
    }

    fn ask(&self, stop: bool) {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        *asked = (true, asked.1 || stop);
        self.changed.notify_all();
    }

    pub(super) fn stop(&self) {
        self.ask(true);
    }

    /// A task was started in the slot. If its range was killed in the meantime, it goes at once.
    pub(super) fn started(&self, cell: &SlotCell, a: &Assignment) {
        if a.range.kill() != Kill::No
            && let Some(current) = cell.lock().as_mut()
        {
            current.end(EndedBy::Kill);
            self.ask(false);
        }
        if a.range.stage.definition.spec.timeout.is_some_and(|t| t.0 < TICK * 2) {
            self.ask(false);
        }
    }

    /// Kills what runs of the range.
    pub(super) fn kill(&self, cells: &[Arc<SlotCell>], range: &Arc<OpenRange>) {
        for cell in cells {
            if let Some(current) = cell.lock().as_mut()
                && Arc::ptr_eq(&current.range, range)
            {
                current.end(EndedBy::Kill);
            }
        }
        self.ask(false);
    }

    /// The task has ended, and its log is elsewhere.
    pub(super) fn remove_live(&self, range: &OpenRange, task: u64) {
        // Nobody listens any more when the worker is going.
        for stream in STREAMS {
            drop(self.live.send(LiveLog::Remove(live_path(range, task, stream))));
        }
    }

    /// Watches until it is stopped.
    pub(super) fn run(&self, shared: &Shared, cells: &[Arc<SlotCell>]) {
        let (mut round, mut undertaker) = (0_u32, Undertaker::default());
        loop {
            let pause = self.look_at_all(shared, cells, round);
            undertaker.look();
            round = round.wrapping_add(1);
            let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
            let (mut asked, _) = self.changed.wait_timeout_while(asked, pause, |(now, _)| !*now).unwrap_or_else(PoisonError::into_inner);
            if asked.1 {
                return;
            }
            asked.0 = false;
        }
    }

    fn look_at_all(&self, shared: &Shared, cells: &[Arc<SlotCell>], round: u32) -> Duration {
        let (mut limited, mut long) = (false, false);
        for cell in cells {
            if let Some(current) = cell.lock().as_ref() {
                limited |= current.memory > 0;
                long |= current.watch.elapsed() > LONG;
            }
        }
        // Looking through all processes costs a millisecond or two, so tasks without a limit are looked at once a second.
        let groups = if limited || long && round.is_multiple_of(5) { processes::memory_of_groups() } else { BTreeMap::new() };
        let mut pause = TICK;
        for cell in cells {
            let mut cell = cell.lock();
            let Some(current) = cell.as_mut() else { continue };
            pause = pause.min(current.look(self.grace, &groups));
            let grown = current.live_logs();
            if !grown.is_empty() {
                current.trim_logs(shared.log_bytes);
            }
            for (stream, tail) in grown {
                drop(self.live.send(LiveLog::Put(live_path(&current.range, current.task, stream), tail)));
            }
            note_memory(&shared.floor, current);
        }
        pause.max(Duration::from_millis(1))
    }
}

fn note_memory(floor: &Floor, current: &Current) {
    if current.watch.elapsed() > LONG {
        floor.saw_memory(current.run, current.peak_memory);
    }
}

fn live_path(range: &OpenRange, task: u64, stream: &str) -> Path {
    keys::live_log(&range.item.job, range.item.stage, task, stream)
}

/// Counts how often the kernel has killed for want of memory.
#[derive(Debug)]
pub(super) struct OomCounter(u64);

impl OomCounter {
    pub(super) fn now() -> Self {
        Self(Self::read())
    }

    /// Whether it did since the last time.
    pub(super) fn has_grown(&mut self) -> bool {
        let before = std::mem::replace(&mut self.0, Self::read());
        self.0 > before
    }

    fn read() -> u64 {
        let text = File::open("/proc/vmstat").and_then(std::io::read_to_string).unwrap_or_default();
        text.lines().find_map(|l| l.strip_prefix("oom_kill ")?.parse().ok()).unwrap_or(0)
    }
}
