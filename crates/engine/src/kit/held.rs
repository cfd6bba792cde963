//! Results that wait to be sent together, and the thread that sees to it that none waits behind a long task.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use tidemill_base::{Error, Result};
use tidemill_runtime::Stopwatch;

use super::pipes::Output;
use crate::session::{Outcome, TaskResult};
use crate::wire::{self, FRAME_TASKS, FromEngine};

/// How often the thread looks. A result that waits behind a task is sent after twice as long at most.
const LOOK: Duration = Duration::from_millis(100);
/// After so many looks at nothing the thread sleeps until it is needed.
const PATIENCE: u32 = 10;

/// When results are sent together. See the protocol's page, *When to send*.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Flush {
    pub(super) bytes: usize,
    pub(super) time: Duration,
}

/// The way to the host, for one thread at a time.
#[derive(Debug)]
pub(super) struct Held(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    needed: Condvar,
}

#[derive(Debug)]
struct State {
    output: Output,
    buffer: BytesMut,
    flush: Flush,
    session: u32,
    outcomes: Vec<Outcome>,
    bytes: usize,
    /// Since the oldest is held.
    since: Stopwatch,
    sent: Stopwatch,
    thread: Thread,
}

#[derive(Debug, PartialEq, Eq)]
enum Thread {
    None,
    Asleep,
    Looks,
}

impl Held {
    pub(super) fn new(output: Output) -> Self {
        let state = State {
            output,
            buffer: BytesMut::new(),
            flush: Flush::default(),
            session: 0,
            outcomes: Vec::new(),
            bytes: 0,
            since: Stopwatch::start(),
            sent: Stopwatch::start(),
            thread: Thread::None,
        };
        Self(Arc::new(Shared { state: Mutex::new(state), needed: Condvar::new() }))
    }

    pub(super) fn set_flush(&self, flush: Flush) {
        self.0.lock().flush = flush;
    }

    /// Sends a message that is no result.
    pub(super) fn write(&self, message: &FromEngine) -> Result<()> {
        let mut state = self.0.lock();
        message.encode(&mut state.buffer);
        state.write()
    }

    /// Takes a result of `session` to be sent, and sends what it has if it is time or `now`; whether it has. Nothing of another
    /// session may be held.
    pub(super) fn add(&self, session: u32, outcome: Outcome, now: bool) -> Result<bool> {
        let mut state = self.0.lock();
        if state.outcomes.is_empty() {
            (state.session, state.since) = (session, Stopwatch::start());
        }
        state.bytes += length(&outcome.result);
        state.outcomes.push(outcome);
        let full = state.bytes >= state.flush.bytes || state.outcomes.len() >= FRAME_TASKS;
        if now || full || state.sent.elapsed() >= state.flush.time {
            return state.send().map(|()| true);
        }
        if state.thread != Thread::Looks {
            self.watch(&mut state)?;
        }
        Ok(false)
    }

    fn watch(&self, state: &mut State) -> Result<()> {
        if state.thread == Thread::None {
            let shared = self.0.clone();
            let started = std::thread::Builder::new().name("tidemill-results".into()).spawn(move || shared.look());
            started.map_err(|e| Error::from(e).context("start the thread that sends results"))?;
        }
        state.thread = Thread::Looks;
        self.0.needed.notify_one();
        Ok(())
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look(&self) {
        let (mut state, mut nothing) = (self.lock(), 0);
        loop {
            state = self.needed.wait_timeout(state, LOOK).unwrap_or_else(PoisonError::into_inner).0;
            if !state.outcomes.is_empty() {
                nothing = 0;
                if state.since.elapsed() >= LOOK && state.send().is_err() {
                    // The host is gone, which the engine's loop is about to see.
                    return;
                }
                continue;
            }
            nothing += 1;
            if nothing >= PATIENCE {
                (state.thread, nothing) = (Thread::Asleep, 0);
                let asleep = |state: &mut State| state.thread == Thread::Asleep;
                state = self.needed.wait_while(state, asleep).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}

impl State {
    fn send(&mut self) -> Result<()> {
        wire::results(&mut self.buffer, self.session, &self.outcomes);
        self.bytes = 0;
        self.outcomes.clear();
        self.write()
    }

    fn write(&mut self) -> Result<()> {
        self.output.write(&mut self.buffer).map_err(|e| Error::from(e).context("write to the host"))?;
        self.sent = Stopwatch::start();
        Ok(())
    }
}

fn length(result: &TaskResult) -> usize {
    match result {
        TaskResult::Value(value) => value.len(),
        TaskResult::Failed(e) => e.message.len() + e.traceback.len() + e.value.len(),
        TaskResult::Cancelled => 0,
    }
}
