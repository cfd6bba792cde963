//! One engine: a child process, the three pipes to it, and the watch over it.
//!
//! [`Engine::open`], [`Engine::run`] and the like only put frames into a buffer; [`Engine::event`] carries bytes both ways at once, so that
//! neither side ever waits for the other to read, and returns what the engine has said or how it has ended. All state is in the engine
//! and none in the future, which may be dropped and made anew at any time.

use std::io;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use futures::FutureExt;
use rustix::process::{Pid, Signal};
use tidemill_runtime::{Stopwatch, sleep};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout};

use crate::confine;
use crate::flight::{Answer, Doing, Flight};
use crate::log::Log;
use crate::loss::{Cause, Loss};
use crate::processes;
use crate::session::{Outcome, Session, Task, TaskError};
use crate::spec::{EngineSpec, Identity, Package};
use crate::wire::{self, Frames, FromEngine, Hello, Library, order};

/// How often memory is looked at.
const TICK: Duration = Duration::from_millis(200);
/// What is left in the pipe of an engine that has ended is read for at most this long: a child of it may hold the other end.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What [`Engine::event`] has to say.
#[derive(Debug)]
pub enum Event {
    /// A session can run tasks.
    Opened {
        /// Its number.
        session: u32,
        /// Microseconds that opening took.
        took_us: u64,
        /// What has been loaded since boot.
        loaded: Vec<Library>,
    },
    /// A session could not be opened.
    Refused {
        /// Its number.
        session: u32,
        /// Why.
        error: TaskError,
    },
    /// Results, in the order in which the tasks were given.
    Results {
        /// The session of all of them.
        session: u32,
        /// One for each task.
        outcomes: Vec<Outcome>,
    },
    /// The engine is no more. Nothing comes after this.
    Lost(Loss),
}

/// What it means when a limit of time is over.
type Over = fn(Duration) -> Cause;
type Limited = (Duration, Over);

#[derive(Debug)]
enum Phase {
    Running,
    /// Its input is closed, or will be when all is written.
    Stopping(Stopwatch),
    /// It has been killed, or has ended; what it said before is still read.
    Ending(Option<Cause>, Stopwatch),
    Gone(Loss),
}

/// See the module.
#[derive(Debug)]
pub struct Engine {
    id: String,
    identity: Arc<Identity>,
    spec: EngineSpec,
    hello: Hello,
    folder: PathBuf,
    child: Child,
    group: Option<Pid>,
    exit: Option<Option<ExitStatus>>,
    stdin: Option<ChildStdin>,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    frames: Frames,
    output: BytesMut,
    errors: BytesMut,
    flight: Flight,
    log: Log,
    phase: Phase,
    /// When the engine last gave an answer, or was given something to do.
    progress: Stopwatch,
    looked: Stopwatch,
    resident: u64,
    pings: u64,
}

impl Engine {
    /// Starts an engine and waits until it has booted.
    pub async fn start(spec: &EngineSpec, id: &str) -> Result<Self, Loss> {
        let mut engine = Self::spawn(spec, id).map_err(|why| Loss {
            cause: Cause::Start(why.chain()),
            unfinished: Vec::new(),
            opening: None,
            log: String::new(),
        })?;
        let packages = spec.packages.clone();
        let start = wire::Start {
            oldest: wire::PROTOCOL,
            newest: wire::PROTOCOL,
            frame_bytes: spec.limits.frame_bytes,
            flush_bytes: spec.limits.flush_bytes,
            flush_us: u32::try_from(spec.limits.flush.as_micros()).unwrap_or(u32::MAX),
            engine: id.to_owned(),
            scratch: engine.folder.to_string_lossy().into_owned(),
            packages,
        };
        order::start(&mut engine.output, &start);
        engine.hello().await?;
        Ok(engine)
    }

    fn spawn(spec: &EngineSpec, id: &str) -> tidemill_base::Result<Self> {
        spec.limits.check()?;
        let identity = spec.identity()?;
        let folder = confine::make_folder(spec, id)?;
        let mut command = confine::command(spec, &identity.program);
        command.args(&spec.args).env_clear();
        command.env("PATH", spec.path()).env("LANG", "C.UTF-8").env("HOME", &folder).env("TMPDIR", &folder);
        // There are as many engines as processors, so libraries that would start threads of their own only get in each other's way.
        command.env("OMP_NUM_THREADS", "1");
        command.envs(&spec.env).current_dir(&folder).process_group(0).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        if let Some(user) = spec.user {
            command.uid(user.uid).gid(user.gid);
        }
        let failed = |e: io::Error| {
            confine::remove(&folder);
            tidemill_base::Error::from(e).context(format!("start the engine `{}`", identity.program.display()))
        };
        let mut child = command.spawn().map_err(failed)?;
        let group = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let engine = Self {
            id: id.to_owned(),
            identity: Arc::new(identity),
            spec: spec.clone(),
            hello: Hello {
                protocol: 0,
                pid: 0,
                kit: String::new(),
                kit_version: String::new(),
                language: String::new(),
                loaded: Vec::new(),
            },
            folder,
            child,
            group,
            exit: None,
            stdin,
            stdout,
            stderr,
            frames: Frames::new(spec.limits.frame_bytes),
            output: BytesMut::new(),
            errors: BytesMut::new(),
            flight: Flight::default(),
            log: Log::default(),
            phase: Phase::Running,
            progress: Stopwatch::start(),
            looked: Stopwatch::start(),
            resident: 0,
            pings: 0,
        };
        // It does nothing before it has read START, so the limits are there in time.
        confine::limit(&engine.spec, engine.group)?;
        confine::widen(engine.stdin.as_ref(), engine.stdout.as_ref());
        Ok(engine)
    }

    /// Waits for HELLO.
    async fn hello(&mut self) -> Result<(), Loss> {
        loop {
            match self.frames.next_frame() {
                Ok(Some(frame)) => match FromEngine::decode(frame) {
                    Ok(FromEngine::Hello(hello)) if hello.protocol == wire::PROTOCOL => {
                        self.hello = hello;
                        self.progress = Stopwatch::start();
                        return Ok(());
                    }
                    Ok(FromEngine::Hello(hello)) => self.violation(format!(
                        "it speaks version {} of the protocol and was asked for {}; update the kit it is built with",
                        hello.protocol,
                        wire::PROTOCOL
                    )),
                    Ok(_) => self.violation("its first frame is not HELLO".to_owned()),
                    Err(e) => self.violation(e.to_string()),
                },
                Ok(None) => {}
                Err(e) => self.violation(format!("{e}; something else writes to its stdout")),
            }
            if matches!(self.phase, Phase::Running) && self.progress.elapsed() >= self.spec.limits.boot {
                self.kill(Cause::Boot(self.spec.limits.boot));
            }
            if let Some(loss) = self.ended() {
                return Err(loss);
            }
            let patience = self.spec.limits.boot.saturating_sub(self.progress.elapsed()).min(TICK);
            self.carry(patience).await;
        }
    }

    fn violation(&mut self, what: String) {
        self.kill(Cause::Violation(what));
        // What comes after cannot be understood.
        self.frames = Frames::new(self.spec.limits.frame_bytes);
        self.stdout = None;
    }

    /// What the host calls it.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What it was started from.
    pub fn identity(&self) -> &Arc<Identity> {
        &self.identity
    }

    /// What it has said of itself.
    pub fn hello_said(&self) -> &Hello {
        &self.hello
    }

    /// Its packages of static data.
    pub fn packages(&self) -> &[Package] {
        &self.spec.packages
    }

    /// Resident memory of it and its children when it was last looked at, bytes.
    pub fn resident(&self) -> u64 {
        self.resident
    }

    /// Bytes that wait to be written.
    pub fn backlog(&self) -> usize {
        self.output.len()
    }

    /// What it has written to its standard error since this was last asked, at most 64 KiB.
    pub fn take_log(&mut self) -> String {
        self.log.take()
    }

    fn begins(&mut self) {
        if matches!(self.flight.doing(), Doing::Nothing | Doing::Ping) {
            self.progress = Stopwatch::start();
        }
    }

    /// Opens a session under a number of the caller's. [`Event::Opened`] or [`Event::Refused`] answers.
    pub fn open(&mut self, number: u32, session: &Arc<Session>) {
        self.begins();
        order::open(&mut self.output, &wire::Open { number, session: session.clone() });
        self.flight.open(number, session.clone());
    }

    /// Closes a session; the engine forgets its state. It must have no tasks in flight.
    pub fn close(&mut self, session: u32) {
        order::close(&mut self.output, session);
        self.flight.close(session);
    }

    /// Gives tasks to an open session. With `step`, each result is sent before the next task is started.
    pub fn run(&mut self, session: u32, step: bool, tasks: &[Task]) {
        let mut rest = tasks;
        while !rest.is_empty() {
            // What one frame holds; a single task may be as long as a frame.
            let most = self.spec.limits.frame_bytes as usize / 2;
            let mut bytes = 0;
            let fits = |task: &&Task| {
                bytes += task.len();
                bytes <= most
            };
            let count = rest.iter().take(wire::FRAME_TASKS).take_while(fits).count().max(1);
            let (now, later) = rest.split_at(count);
            self.begins();
            order::run(&mut self.output, session, step, now);
            self.flight.run(session, now);
            rest = later;
        }
    }

    /// Asks not to start these tasks. Each is answered all the same: as cancelled, or with its result if it was faster.
    pub fn cancel(&mut self, session: u32, tasks: &[u64]) {
        for tasks in tasks.chunks(wire::FRAME_TASKS) {
            order::cancel(&mut self.output, session, tasks);
            self.flight.cancel(session, tasks);
        }
    }

    /// Lets the engine finish what it has and end. [`Event::Lost`] with [`Cause::Stopped`] follows.
    pub fn stop(&mut self) {
        if matches!(self.phase, Phase::Running) {
            self.phase = Phase::Stopping(Stopwatch::start());
        }
    }

    /// Kills the engine and all of its process group. [`Event::Lost`] follows when what it has said before is read.
    pub fn kill(&mut self, cause: Cause) {
        if matches!(self.phase, Phase::Running | Phase::Stopping(_)) {
            self.phase = Phase::Ending(Some(cause), Stopwatch::start());
        }
        self.kill_group();
    }

    fn kill_group(&self) {
        if let Some(group) = self.group {
            // That nobody is left is as good.
            let _nobody = rustix::process::kill_process_group(group, Signal::KILL);
        }
    }

    /// What the engine says next, or how it has ended.
    pub async fn event(&mut self) -> Event {
        loop {
            match self.frames.next_frame() {
                Ok(None) => {}
                Ok(Some(frame)) => match self.understand(frame) {
                    Ok(Some(event)) => return event,
                    Ok(None) => continue,
                    Err(what) => self.violation(what),
                },
                Err(e) => self.violation(e.to_string()),
            }
            if let Some(loss) = self.ended() {
                return Event::Lost(loss);
            }
            if let Some(cause) = self.overdue() {
                // It may have answered while this process had no time to look.
                if !self.read_now() {
                    self.kill(cause);
                }
                continue;
            }
            let patience = self.patience();
            self.carry(patience).await;
        }
    }

    fn understand(&mut self, frame: wire::Frame) -> Result<Option<Event>, String> {
        let said = FromEngine::decode(frame).map_err(|e| e.to_string())?;
        let answer = self.flight.on(said)?;
        self.progress = Stopwatch::start();
        Ok(match answer {
            Answer::Opened { session, took_us, loaded } => Some(Event::Opened { session, took_us, loaded }),
            Answer::Refused { session, error } => Some(Event::Refused { session, error }),
            Answer::Results { session, outcomes } => Some(Event::Results { session, outcomes }),
            Answer::Pong => None,
        })
    }

    /// The limit for what the engine does now, and what it means when it is over.
    fn limit(&self) -> Option<Limited> {
        match (&self.phase, self.flight.doing()) {
            (Phase::Running | Phase::Stopping(_), Doing::Opening) => Some((self.spec.limits.open, Cause::Open)),
            (Phase::Running | Phase::Stopping(_), Doing::Task(limit)) => limit.or(self.spec.limits.task).map(|l| (l, Cause::Task as Over)),
            (Phase::Running, Doing::Ping) => Some((self.spec.limits.ping, Cause::Ping)),
            _ => None,
        }
    }

    /// Why the engine has to be killed now, if it has to.
    fn overdue(&mut self) -> Option<Cause> {
        if let Some((limit, cause)) = self.limit()
            && self.progress.elapsed() >= limit + self.untold()
        {
            return Some(cause(limit));
        }
        match &self.phase {
            Phase::Running => {}
            Phase::Stopping(since) => {
                let late = self.flight.doing() == Doing::Nothing && since.elapsed().min(self.progress.elapsed()) >= self.spec.limits.exit;
                return late.then_some(Cause::Stopped);
            }
            Phase::Ending(..) | Phase::Gone(_) => return None,
        }
        if self.looked.elapsed() >= TICK {
            self.looked = Stopwatch::start();
            self.resident = self.look_at_memory();
            if let Some(limit) = self.spec.limits.memory
                && self.resident > limit
            {
                return Some(Cause::Memory { seen: self.resident, limit });
            }
        }
        if self.flight.doing() == Doing::Nothing && self.progress.elapsed() >= self.spec.limits.ping_every {
            self.pings += 1;
            order::ping(&mut self.output, self.pings);
            self.flight.ping(self.pings);
            self.progress = Stopwatch::start();
        }
        None
    }

    /// For so long it may have run other tasks since its last word, and not said so yet.
    fn untold(&self) -> Duration {
        if matches!(self.flight.doing(), Doing::Task(_)) { self.spec.limits.flush } else { Duration::ZERO }
    }

    fn look_at_memory(&self) -> u64 {
        let Some(group) = self.group.map(Pid::as_raw_nonzero) else { return 0 };
        let alone = processes::memory_of(group.get()).unwrap_or(0);
        if self.spec.limits.memory.is_none() { alone } else { processes::memory_of_group(group.get()).unwrap_or(0).max(alone) }
    }

    fn patience(&self) -> Duration {
        let left = self.limit().map_or(TICK, |(limit, _)| (limit + self.untold()).saturating_sub(self.progress.elapsed()));
        left.clamp(Duration::from_millis(1), TICK)
    }

    /// Reads what is there without waiting; whether there was anything.
    fn read_now(&mut self) -> bool {
        let Some(stdout) = &mut self.stdout else { return false };
        stdout.read_buf(self.frames.buffer()).now_or_never().is_some_and(|read| read.is_ok_and(|n| n > 0))
    }

    /// Carries bytes in whichever direction they can go, for at most `patience`.
    async fn carry(&mut self, patience: Duration) {
        let wants_to_write = !self.output.is_empty() && self.stdin.is_some();
        if !wants_to_write && matches!(self.phase, Phase::Stopping(_)) {
            self.stdin = None;
        }
        tokio::select! {
            biased;
            read = read(&mut self.stdout, self.frames.buffer()) => {
                if read.is_none() {
                    self.on_end_of_output();
                }
            }
            written = write(&mut self.stdin, &self.output), if wants_to_write => match written {
                Ok(n) => {
                    self.output.advance(n);
                }
                Err(_) => {
                    // It will be seen to have ended.
                    self.stdin = None;
                    self.output.clear();
                }
            },
            read = read(&mut self.stderr, &mut self.errors) => self.on_errors(read),
            status = self.child.wait(), if self.exit.is_none() => self.on_exit(status.ok()),
            () = sleep(patience) => {}
        }
    }

    fn on_errors(&mut self, read: Option<usize>) {
        self.log.push(&self.errors);
        self.errors.clear();
        if read.is_none() {
            self.stderr = None;
        }
    }

    fn on_end_of_output(&mut self) {
        self.stdout = None;
        self.on_end();
    }

    fn on_exit(&mut self, status: Option<ExitStatus>) {
        self.exit = Some(status);
        // Whatever it has left behind in its group goes with it.
        self.kill_group();
        self.on_end();
    }

    fn on_end(&mut self) {
        match self.phase {
            Phase::Running => self.phase = Phase::Ending(None, Stopwatch::start()),
            Phase::Stopping(_) => self.phase = Phase::Ending(Some(Cause::Stopped), Stopwatch::start()),
            Phase::Ending(..) | Phase::Gone(_) => {}
        }
    }

    /// The loss, when the engine has ended and everything that it has said is read.
    fn ended(&mut self) -> Option<Loss> {
        let (cause, since) = match &self.phase {
            Phase::Ending(cause, since) => (cause.clone(), since.elapsed()),
            Phase::Gone(loss) => return Some(loss.clone()),
            Phase::Running | Phase::Stopping(_) => return None,
        };
        if since >= LAST_WORDS {
            // It has closed its output and lives on.
            self.kill_group();
        }
        let read = self.stdout.is_none() || since >= LAST_WORDS;
        if !read || self.exit.is_none() && since < LAST_WORDS * 2 {
            return None;
        }
        while let Some(stderr) = &mut self.stderr {
            let Some(Ok(n @ 1..)) = stderr.read_buf(&mut self.errors).now_or_never() else { break };
            self.on_errors(Some(n));
        }
        let (unfinished, opening) = self.flight.lost();
        let cause = match cause {
            // Stopped with tasks in hand: it has ended, and not as it was asked to.
            Some(Cause::Stopped) if unfinished.is_empty() => Cause::Stopped,
            Some(Cause::Stopped) | None => Cause::of_exit(self.exit.flatten()),
            Some(cause) => cause,
        };
        let loss = Loss { cause, unfinished, opening, log: self.log.tail() };
        self.phase = Phase::Gone(loss.clone());
        Some(loss)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if self.exit.is_none() {
            self.kill_group();
        }
        confine::end_strays(&self.folder);
        confine::remove(&self.folder);
    }
}

/// Bytes read; `None` at the end. Waits forever when there is nothing to read from.
async fn read(from: &mut Option<impl AsyncReadExt + Unpin>, to: &mut BytesMut) -> Option<usize> {
    match from {
        Some(from) => {
            if to.capacity() == to.len() {
                to.reserve(8 << 10);
            }
            from.read_buf(to).await.ok().filter(|n| *n > 0)
        }
        None => std::future::pending().await,
    }
}

async fn write(to: &mut Option<ChildStdin>, bytes: &BytesMut) -> io::Result<usize> {
    match to {
        Some(to) => to.write(bytes).await,
        None => std::future::pending().await,
    }
}
