//! One slot: a thread that takes a task, runs it to its end, settles it and takes the next. Nothing of it is asynchronous, since a
//! hop through a scheduler costs as much as a tenth of starting a short process.

use std::fs::File;
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidemill_base::{Env, Error};
use tidemill_batch::model::{FailureClass, TaskStat};
use tidemill_runtime::Stopwatch;

use super::container::Noted;
use super::family;
use super::folder::{LogFile, SlotFolder, remove_all};
use super::outputs::{Collected, collect};
use super::plan::{Out, Plan, Programs, plan, start_failure};
use super::sys::{self, Usage};
use super::watch::{Current, EndedBy, OomCounter, Watch};
use crate::engines::Engines;
use crate::floor::{Assignment, Floor};
use crate::range::{Part, Unstored, Upload, failure};
use crate::stage::Kind;
use crate::work::{Failure, PendingFile, PendingOutput, Verdict};

/// Logs up to this many bytes are packed with others, larger ones have an object of their own.
const PACKED_LOG: u64 = 64 << 10;

/// What the slot runs now, for the watcher and for whoever kills.
#[derive(Debug, Default)]
pub(super) struct SlotCell(Mutex<Option<Current>>);

impl SlotCell {
    pub(super) fn lock(&self) -> MutexGuard<'_, Option<Current>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What all slots share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) engines: Engines,
    pub(super) floor: Arc<Floor>,
    pub(super) env: Env,
    pub(super) watch: Watch,
    pub(super) uploads: PathBuf,
    /// Where running containers are noted.
    pub(super) containers: PathBuf,
    pub(super) inline_bytes: u64,
    pub(super) log_bytes: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Slot {
    shared: Arc<Shared>,
    cell: Arc<SlotCell>,
    folder: SlotFolder,
    programs: Programs,
    null: File,
    oom: OomCounter,
}

/// How a process ended.
#[derive(Debug)]
struct Ended {
    status: ExitStatus,
    usage: Usage,
    by: EndedBy,
    /// What it started may still hold its files.
    leftovers: bool,
    live: bool,
}

impl Slot {
    pub(super) fn new(shared: Arc<Shared>, cell: Arc<SlotCell>, base: PathBuf) -> io::Result<Self> {
        let (folder, null) = (SlotFolder::new(base)?, File::open("/dev/null")?);
        Ok(Self { shared, cell, folder, programs: Programs::new(), null, oom: OomCounter::now() })
    }

    /// Takes tasks until the floor is stopped.
    pub(super) fn work(&mut self) {
        let shared = self.shared.clone();
        while let Some(mut assignment) = shared.floor.take_waiting(|| shared.env.now()) {
            let (took, cpu_us) = self.run(&mut assignment);
            shared.floor.release(&assignment, took, cpu_us);
        }
    }

    fn run(&mut self, a: &mut Assignment) -> (Duration, u64) {
        let range = a.range.clone();
        let started = self.shared.env.now().micros();
        if range.stage.kind == Kind::Noop {
            range.settle_run(a.task, a.len, |task| range.stat(task, started));
            return (Duration::ZERO, 0);
        }
        if range.stage.kind == Kind::Engine {
            return (self.shared.engines.run(&range, a.task, a.len), 0);
        }
        let watch = Stopwatch::start();
        let mut stat = range.stat(a.task, started);
        let own_folder = a.staged.as_ref().map(|s| {
            (stat.stage_in_us, stat.bytes_in) = (s.took_us, s.bytes);
            s.folder.clone()
        });
        let folder = own_folder.clone().unwrap_or_else(|| self.folder.task().to_owned());
        let attempt = plan(a, &folder, &mut self.programs).and_then(|plan| {
            let program = plan.program.clone();
            let out = plan.out.clone();
            let ended = self.execute(a, plan, &folder, watch).map_err(|e| start_failure(&program, &e))?;
            Ok((ended, out))
        });
        stat.run_us = micros(watch.elapsed());
        match attempt {
            Err(failure) => {
                self.finish(a, stat, Verdict::Failed(failure), Collected::default(), own_folder);
            }
            Ok((ended, out)) => {
                (stat.cpu_us, stat.peak_memory) = (ended.usage.cpu_us, ended.usage.peak_memory);
                self.conclude(a, stat, &ended, out.as_ref(), &folder, own_folder);
            }
        }
        (watch.elapsed(), stat.cpu_us)
    }

    /// Starts the process and waits for its end, and for the end of all that it left behind.
    fn execute(&self, a: &Assignment, mut plan: Plan, folder: &Path, watch: Stopwatch) -> io::Result<Ended> {
        let handle = |f: &File| f.try_clone().map(Stdio::from);
        plan.command.stdin(handle(&self.null)?).stdout(handle(&self.folder.stdout.file)?).stderr(handle(&self.folder.stderr.file)?);
        let noted = plan.container.as_ref().map(|(engine, name)| Noted::new(&self.shared.containers, engine, name)).transpose()?;
        let child = plan.command.process_group(0).spawn()?;
        let pid = child.id().cast_signed();
        *self.cell.lock() = Some(Current::new(a, pid, watch, &self.folder, plan.container));
        self.shared.watch.started(&self.cell, a);
        sys::wait_ended(pid)?;
        // The zombie keeps its number until it is reaped, so that nobody else's group can be hit here or by the watcher.
        sys::signal_group(pid, libc::SIGKILL);
        let current = self.cell.lock().take();
        let (status, mut usage) = sys::reap(pid)?;
        drop(noted);
        let leftovers = family::end_rest(pid, folder);
        let (by, seen, live) = current.map_or((EndedBy::Itself, 0, false), |c| (c.ended_by, c.peak_memory, c.live.written));
        // A child that was started without copying this process's memory begins its account with our own peak. What does not exceed
        // that says nothing of the child, so what the watcher has seen must do.
        if usage.peak_memory <= sys::own_usage().peak_memory {
            usage.peak_memory = seen;
        }
        Ok(Ended { status: ExitStatus::from_raw(status), usage, by, leftovers, live })
    }

    fn conclude(&mut self, a: &Assignment, stat: TaskStat, ended: &Ended, out: Option<&Out>, folder: &Path, own: Option<PathBuf>) {
        let range = &a.range;
        let mut verdict = self.verdict(a, ended);
        let mut collected = Collected::default();
        if verdict == Verdict::Succeeded
            && let Some(out) = out
        {
            match collect(range, a.task, out, folder, self.shared.inline_bytes) {
                Ok(found) => collected = found,
                Err(failure) => verdict = Verdict::Failed(failure),
            }
        }
        let keep_logs = match &verdict {
            Verdict::Succeeded => range.stage.definition.spec.keep.logs,
            Verdict::Failed(_) => true,
            Verdict::Returned | Verdict::Cancelled => false,
        };
        let output_name = match out {
            Some(Out::Stdout(name)) if verdict == Verdict::Succeeded => Some(name.as_str()),
            _ => None,
        };
        let logs = self
            .take_log(a, &mut collected, Part::Stdout, keep_logs, output_name, ended.leftovers)
            .and_then(|()| self.take_log(a, &mut collected, Part::Stderr, keep_logs, None, ended.leftovers));
        if let Err(e) = logs
            && verdict == Verdict::Succeeded
        {
            let e = Error::from(e).context(format!("keep the log in `{}`", self.shared.uploads.display()));
            verdict = Verdict::Failed(failure(FailureClass::Storage, &e));
        }
        if ended.live {
            self.shared.watch.remove_live(range, a.task);
        }
        self.finish(a, stat, verdict, collected, own);
    }

    fn verdict(&mut self, a: &Assignment, ended: &Ended) -> Verdict {
        let spec = &a.range.stage.definition.spec;
        let (exit, signal) = (ended.status.code(), ended.status.signal());
        let failed = |class, message: String| Verdict::Failed(Failure { class, exit, signal, message });
        match (ended.by, exit, signal) {
            (EndedBy::Kill, ..) => a.range.kill().verdict().unwrap_or(Verdict::Returned),
            (EndedBy::Timeout(limit), ..) => {
                failed(FailureClass::Timeout, format!("ran longer than its timeout of {limit:?} and was killed"))
            }
            (EndedBy::Memory(seen), ..) => failed(
                FailureClass::OutOfMemory,
                format!("took {seen} bytes of memory and was killed, its limit is {}; ask for more in `resources`", spec.resources.memory),
            ),
            (EndedBy::Itself, Some(code), _) if spec.success.exit_codes.contains(&code) => Verdict::Succeeded,
            (EndedBy::Itself, Some(code), _) => self.exit_failure(a, code, &failed),
            (EndedBy::Itself, None, signal) => {
                let signal = signal.unwrap_or(0);
                if signal == libc::SIGKILL && self.oom.has_grown() {
                    return failed(FailureClass::OutOfMemory, "was killed because the machine had no memory left".to_owned());
                }
                failed(FailureClass::Signal, format!("was ended by signal {signal}{}", self.last_words()))
            }
        }
    }

    fn exit_failure(&self, a: &Assignment, code: i32, failed: &dyn Fn(FailureClass, String) -> Verdict) -> Verdict {
        let words = self.last_words();
        if let Kind::Container(_) = a.range.stage.kind {
            match code {
                125..=127 => return failed(FailureClass::Start, format!("the container was not started{words}")),
                137 if a.range.stage.definition.spec.resources.memory > 0 => {
                    return failed(
                        FailureClass::OutOfMemory,
                        format!("the container was killed, most likely over its memory limit{words}"),
                    );
                }
                _ => {}
            }
        }
        failed(FailureClass::Exit, format!("ended with exit code {code}{words}"))
    }

    /// The last line of standard error, for the message of a failure.
    fn last_words(&self) -> String {
        let Ok((tail, _)) = self.folder.stderr.tail(2000) else { return String::new() };
        let text = String::from_utf8_lossy(&tail);
        let last = text.lines().rev().map(str::trim).find(|l| !l.is_empty()).unwrap_or_default();
        if last.is_empty() { String::new() } else { format!(": {}", last.chars().take(400).collect::<String>()) }
    }

    /// Moves what a log file holds to where it is kept, and leaves it empty. With `as_output` it is the task's output, whole.
    fn take_log(
        &mut self,
        a: &Assignment,
        to: &mut Collected,
        part: Part,
        keep: bool,
        as_output: Option<&str>,
        leftovers: bool,
    ) -> io::Result<()> {
        let (inline, most) = match as_output {
            Some(_) => (self.shared.inline_bytes, u64::MAX),
            None => (PACKED_LOG, self.shared.log_bytes),
        };
        let moved = self.shared.uploads.join(format!("{}-{}", a.run, if part == Part::Stdout { "stdout" } else { "stderr" }));
        let log = self.log(part);
        let len = log.len()?;
        let name = as_output.unwrap_or(if part == Part::Stdout { "stdout" } else { "stderr" }).to_owned();
        let place = if as_output.is_some() { Part::File } else { part };
        if as_output.is_none() && (len == 0 || !keep) {
            return if leftovers {
                log.replace(None)
            } else if len > 0 {
                log.clear()
            } else {
                Ok(())
            };
        }
        if len.min(most) <= inline {
            let (bytes, _) = log.tail(most)?;
            let file = Some(PendingFile::Small { name, bytes });
            match place {
                Part::File => to.output.files.extend(file),
                Part::Stdout => to.output.stdout = file,
                Part::Stderr => to.output.stderr = file,
            }
            return if leftovers { log.replace(None) } else { log.clear() };
        }
        log.replace(Some(&moved))?;
        let offset = len.saturating_sub(most);
        // A task's own files cannot be called so, since they lie in segments of their own under their names.
        let target = a.range.file_path(a.task, &if place == Part::File { name.clone() } else { format!(".{name}.log") });
        to.uploads.push(Upload { part: place, name, source: moved, offset, len: len - offset, target });
        Ok(())
    }

    fn log(&mut self, part: Part) -> &mut LogFile {
        if part == Part::Stderr { &mut self.folder.stderr } else { &mut self.folder.stdout }
    }

    /// Settles the task, or leaves it to be settled when its large files are stored.
    fn finish(&mut self, a: &Assignment, mut stat: TaskStat, verdict: Verdict, collected: Collected, own: Option<PathBuf>) {
        let Collected { output, uploads } = collected;
        stat.bytes_out = total(&output) + uploads.iter().map(|u| u.len).sum::<u64>();
        if uploads.is_empty() {
            match own {
                Some(folder) => remove_all(&folder),
                None => self.note(self.shared.uploads.clone().as_path(), |me| me.folder.clean()),
            }
            return a.range.settle(stat, verdict, output);
        }
        let mut leftovers = Vec::new();
        match own {
            Some(folder) => leftovers.push(folder),
            None => match self.folder.abandon() {
                Ok(old) => leftovers.push(old),
                Err(e) => tracing::error!(error = %e, "could not make a fresh task folder"),
            },
        }
        leftovers.extend(uploads.iter().filter(|u| u.source.starts_with(&self.shared.uploads)).map(|u| u.source.clone()));
        a.range.leave_unstored(Unstored { stat, verdict, output, uploads, leftovers });
    }

    fn note(&mut self, place: &Path, what: impl FnOnce(&mut Self) -> io::Result<()>) {
        if let Err(e) = what(self) {
            tracing::error!(folder = %place.display(), error = %e, "could not clean a slot's folder");
        }
    }
}

fn total(output: &PendingOutput) -> u64 {
    output.files.iter().chain(&output.stdout).chain(&output.stderr).map(PendingFile::len).sum()
}

fn micros(d: Duration) -> u64 {
    u64::try_from(d.as_micros()).unwrap_or(u64::MAX)
}
