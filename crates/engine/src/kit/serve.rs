//! The engine's loop: read, run, send.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use tidemill_base::{Error, Result};
use tidemill_runtime::Stopwatch;

use super::held::{Flush, Held};
use super::pipes::Input;
use super::{Call, Handler, Kit, Opening};
use crate::session::{Outcome, TaskError, TaskResult, class};
use crate::wire::{self, FRAME_BYTES, Frames, FromEngine, FromHost, Open, RunColumns, Start};

/// What a frame of results needs beside the payloads, and for the text of errors.
const FRAME_ROOM: usize = 8 << 20;

/// A message that waits, and what has been cancelled of it since it came.
#[derive(Debug)]
struct Waiting {
    message: FromHost,
    cancelled: BTreeSet<u64>,
}

pub(super) struct Server {
    kit: Kit,
    input: Input,
    held: Held,
    frames: Frames,
    waiting: VecDeque<Waiting>,
    ended: bool,
    start: Start,
    sessions: BTreeMap<u32, Box<dyn Handler>>,
}

impl Server {
    pub(super) fn new(kit: Kit, input: Input, held: Held) -> Self {
        let start = Start {
            oldest: wire::PROTOCOL,
            newest: wire::PROTOCOL,
            frame_bytes: FRAME_BYTES,
            flush_bytes: 0,
            flush_us: 0,
            engine: String::new(),
            scratch: String::new(),
            packages: Vec::new(),
        };
        Self {
            kit,
            input,
            held,
            frames: Frames::new(FRAME_BYTES),
            waiting: VecDeque::new(),
            ended: false,
            start,
            sessions: BTreeMap::new(),
        }
    }

    pub(super) fn serve(mut self) -> Result<()> {
        while let Some(next) = self.next()? {
            match next.message {
                FromHost::Start(start) => self.start(start)?,
                FromHost::Open(open) => self.open(&open)?,
                FromHost::Close(session) => drop(self.sessions.remove(&session)),
                FromHost::Run(run) => self.run(run, next.cancelled)?,
                // Both are answered when they are read.
                FromHost::Cancel(..) | FromHost::Ping(_) => {}
            }
        }
        Ok(())
    }

    /// The next message; waits for it. `None` when the host has closed the input.
    fn next(&mut self) -> Result<Option<Waiting>> {
        loop {
            if let Some(next) = self.waiting.pop_front() {
                return Ok(Some(next));
            }
            if self.ended {
                return Ok(None);
            }
            self.read(None)?;
        }
    }

    /// Reads once, and takes in what is whole. `running`: the tasks that run now, and what is cancelled of them.
    fn read(&mut self, mut running: Option<(u32, &mut BTreeSet<u64>)>) -> Result<()> {
        self.ended = self.input.read(self.frames.buffer()).map_err(|e| Error::from(e).context("read from the host"))? == 0;
        while let Some(frame) = self.frames.next_frame()? {
            match FromHost::decode(frame)? {
                FromHost::Ping(number) => self.held.write(&FromEngine::Pong(number))?,
                FromHost::Cancel(session, tasks) => {
                    if let Some((now, cancelled)) = &mut running
                        && *now == session
                    {
                        cancelled.extend(&tasks);
                    }
                    for waiting in &mut self.waiting {
                        if matches!(&waiting.message, FromHost::Run(run) if run.session == session) {
                            waiting.cancelled.extend(&tasks);
                        }
                    }
                }
                message => self.waiting.push_back(Waiting { message, cancelled: BTreeSet::new() }),
            }
        }
        Ok(())
    }

    fn start(&mut self, start: Start) -> Result<()> {
        if !(start.oldest..=start.newest).contains(&wire::PROTOCOL) {
            return Err(Error::invalid(format!(
                "the host speaks versions {} to {} of the protocol, this engine {}; build it with the host's kit",
                start.oldest,
                start.newest,
                wire::PROTOCOL
            )));
        }
        self.frames.set_longest(start.frame_bytes);
        self.held.set_flush(Flush { bytes: start.flush_bytes as usize, time: Duration::from_micros(start.flush_us.into()) });
        self.start = start;
        let hello = wire::Hello {
            protocol: wire::PROTOCOL,
            pid: std::process::id(),
            kit: "tidemill-rust".to_owned(),
            kit_version: env!("CARGO_PKG_VERSION").to_owned(),
            language: format!("rust, {} {}", self.kit.name, self.kit.version),
            loaded: self.kit.loaded.clone(),
        };
        self.held.write(&FromEngine::Hello(hello))
    }

    fn open(&mut self, open: &Open) -> Result<()> {
        let watch = Stopwatch::start();
        let opening = Opening { session: &open.session, start: &self.start };
        let made = catch_unwind(AssertUnwindSafe(|| self.kit.open(&opening))).unwrap_or_else(|panic| Err(panicked(panic.as_ref())));
        let answer = match made {
            Ok(handler) => {
                self.sessions.insert(open.number, handler);
                FromEngine::Opened(wire::Opened { session: open.number, took_us: micros(watch.elapsed()), loaded: Vec::new() })
            }
            Err(error) => FromEngine::Refused(wire::Refusal { session: open.number, error }),
        };
        self.held.write(&answer)
    }

    fn run(&mut self, run: RunColumns, mut cancelled: BTreeSet<u64>) -> Result<()> {
        let Some(mut handler) = self.sessions.remove(&run.session) else {
            return Err(Error::invalid(format!("the host runs tasks in session {}, which is not open", run.session)));
        };
        let most =
            (self.start.frame_bytes as usize).saturating_sub(self.start.flush_bytes as usize).saturating_sub(FRAME_ROOM).max(1 << 15);
        let last = run.tasks.len().saturating_sub(1);
        for (i, task) in run.tasks.into_iter().enumerate() {
            let watch = Stopwatch::start();
            let result = if cancelled.contains(&task.id) {
                TaskResult::Cancelled
            } else {
                let call = Call { task: task.id, payload: &task.payload, dependencies: &task.dependencies };
                result(handler.as_mut(), call, most)
            };
            let run_us = if result == TaskResult::Cancelled { 0 } else { micros(watch.elapsed()) };
            let sent = self.held.add(run.session, Outcome { task: task.id, run_us, result }, i == last || run.step)?;
            while sent && !self.ended && self.input.is_readable().map_err(|e| Error::from(e).context("look at the input"))? {
                self.read(Some((run.session, &mut cancelled)))?;
            }
        }
        self.sessions.insert(run.session, handler);
        Ok(())
    }
}

fn result(handler: &mut dyn Handler, call: Call<'_>, most: usize) -> TaskResult {
    let ended = catch_unwind(AssertUnwindSafe(|| handler.run(call))).unwrap_or_else(|panic| Err(panicked(panic.as_ref())));
    match ended {
        Ok(value) if value.len() <= most => TaskResult::Value(value.into()),
        Ok(value) => {
            let message =
                format!("the result has {} bytes, at most {most} are allowed; put it into an object and return its key", value.len());
            TaskResult::Failed(Box::new(TaskError::new(class::TOO_LARGE, message)))
        }
        Err(e) => TaskResult::Failed(Box::new(e)),
    }
}

fn panicked(panic: &(dyn Any + Send)) -> TaskError {
    let said = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    TaskError::new("panic", said.unwrap_or("the function panicked"))
}

fn micros(d: Duration) -> u64 {
    u64::try_from(d.as_micros()).unwrap_or(u64::MAX)
}
