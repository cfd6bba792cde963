//! The keeper of one engine: starts it, carries what the state decides, and starts another when it has ended.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tidemill_base::Result;
use tidemill_runtime::{Stopwatch, sleep};

use super::state::Action;
use super::{Batch, EngineRecord, EngineStatus, Shared};
use crate::engine::{Engine, Event};
use crate::loss::{Cause, Loss};
use crate::wire::Library;

/// How often an engine is looked at that has nothing to say.
const TICK: Duration = Duration::from_millis(50);

/// Keeps an engine in the slot until the pool stops.
pub(super) async fn keep(shared: Arc<Shared>, at: usize) -> Result<()> {
    // Engines in a row that have ended without finishing a task.
    let mut barren: u32 = 0;
    while !shared.is_stopping() {
        // The first may have met a task that ends engines, and the next one is needed to find out.
        if barren > 1 {
            pause(&shared, at, Duration::from_millis(100) * 2_u32.pow(barren.min(8) - 2)).await;
        }
        let spec = shared.spec();
        let id = shared.env.id("engine-");
        match Engine::start(&spec, &id).await {
            Ok(engine) => {
                shared.settings.tally.on_started();
                shared.with(|state| state.on_ready(at, shared.now()));
                let mut kept = Kept::new(&shared, at, engine);
                let loss = kept.serve().await;
                shared.settings.tally.on_ended(&loss.cause);
                let (_, finished) = shared.state().load(at);
                barren = if finished > 0 || loss.cause == Cause::Stopped { 0 } else { barren + 1 };
                kept.on_lost(&loss).await;
            }
            Err(loss) => {
                tracing::warn!(engine = id, error = %loss, "an engine was not started");
                shared.settings.tally.on_ended(&loss.cause);
                note(&shared, at, |s| s.last_loss = Some(loss.to_string()));
                let (wait, settled) = shared.with(|state| state.on_failed_start(at, &loss));
                for (session, outcomes) in settled {
                    shared.send_unrun(session, outcomes).await;
                }
                pause(&shared, at, wait).await;
            }
        }
    }
    Ok(())
}

/// Waits, but no longer than until the pool ends.
async fn pause(shared: &Shared, at: usize, wait: Duration) {
    let watch = Stopwatch::start();
    while !shared.is_stopping() && watch.elapsed() < wait {
        tokio::select! {
            () = sleep(wait.saturating_sub(watch.elapsed())) => {}
            () = shared.bells[at].notified() => {}
        }
    }
}

fn note(shared: &Shared, at: usize, what: impl FnOnce(&mut EngineStatus)) {
    let mut status = shared.status.lock().unwrap_or_else(PoisonError::into_inner);
    what(&mut status[at]);
}

struct Kept<'a> {
    shared: &'a Shared,
    at: usize,
    engine: Engine,
    record: Arc<EngineRecord>,
    records: BTreeMap<u32, Arc<EngineRecord>>,
    /// Resident memory when the first session was open.
    first_resident: Option<u64>,
    checked: Stopwatch,
    wants_replacing: bool,
}

impl<'a> Kept<'a> {
    fn new(shared: &'a Shared, at: usize, engine: Engine) -> Self {
        let packages = engine.packages().iter().map(|p| Library { name: p.name.clone(), version: p.version.clone() }).collect();
        let record = EngineRecord { id: engine.id().to_owned(), hello: engine.hello_said().clone(), loaded: Vec::new(), packages };
        let record = Arc::new(record);
        let (id, pid, said) = (record.id.clone(), record.hello.pid, record.clone());
        note(shared, at, |s| (s.id, s.pid, s.record) = (id, pid, Some(said)));
        let checked = Stopwatch::start();
        Self { shared, at, engine, record, records: BTreeMap::new(), first_resident: None, checked, wants_replacing: false }
    }

    /// Until the engine has ended.
    async fn serve(&mut self) -> Loss {
        let mut stopping: Option<Stopwatch> = None;
        loop {
            if !self.shared.is_stopping() {
                self.tell();
            } else if stopping.get_or_insert_with(Stopwatch::start).elapsed() < self.shared.settings.stop_grace {
                self.engine.stop();
            } else {
                self.engine.kill(Cause::Cancelled);
            }
            let event = tokio::select! {
                biased;
                event = self.engine.event() => Some(event),
                () = self.shared.bells[self.at].notified() => None,
                () = sleep(TICK) => None,
            };
            match event {
                Some(Event::Lost(loss)) => return loss,
                Some(event) => self.on(event).await,
                None => {}
            }
            self.look();
        }
    }

    /// Tells the engine what the state has for it.
    fn tell(&mut self) {
        let (at, now) = (self.at, self.shared.now());
        for action in self.shared.with(|state| state.next(at, now)) {
            match action {
                Action::Open(number, session) => self.engine.open(number, &session),
                Action::Close(session) => {
                    self.records.remove(&session);
                    note(self.shared, self.at, |s| drop(s.sessions.remove(&session)));
                    self.engine.close(session);
                }
                Action::Run { session, step, tasks } => self.engine.run(session, step, &tasks),
                Action::Cancel { session, tasks } => self.engine.cancel(session, &tasks),
                Action::Recycle => self.engine.stop(),
                Action::Kill(cause) => self.engine.kill(cause),
            }
        }
    }

    async fn on(&mut self, event: Event) {
        let (at, now) = (self.at, self.shared.now());
        match event {
            Event::Opened { session, loaded, took_us } => {
                tracing::debug!(engine = self.record.id, session, took_us, "session opened");
                let record = Arc::new(EngineRecord { loaded, ..(*self.record).clone() });
                note(self.shared, at, |s| drop(s.sessions.insert(session, record.clone())));
                self.records.insert(session, record);
                self.shared.with(|state| state.on_opened(at, session, now));
            }
            Event::Refused { session, error } => {
                let settled = self.shared.with(|state| state.on_refused(at, session, error, now));
                for (session, outcomes) in settled {
                    self.send(session, outcomes).await;
                }
            }
            Event::Results { session, outcomes } => {
                let settled = self.shared.with(|state| state.on_results(at, session, outcomes, now));
                self.send(session, settled).await;
            }
            Event::Lost(_) => {}
        }
    }

    async fn send(&mut self, session: u32, outcomes: Vec<crate::Outcome>) {
        if !outcomes.is_empty() {
            let engine = Some(self.records.get(&session).unwrap_or(&self.record).clone());
            let (log, resident) = (self.engine.take_log(), self.engine.resident());
            self.shared.send(Batch { session, outcomes, engine, log, resident }).await;
        }
    }

    /// Looks whether the engine has grown too much, or is not what it should be any more.
    fn look(&mut self) {
        let resident = self.engine.resident();
        if self.checked.elapsed() < self.shared.settings.version_check.min(Duration::from_secs(1)) || self.wants_replacing {
            return;
        }
        note(self.shared, self.at, |s| s.resident = resident);
        let settings = &self.shared.settings;
        if self.first_resident.is_none() && !self.records.is_empty() && resident > 0 {
            self.first_resident = Some(resident);
        }
        let grown = settings.recycle_growth.zip(self.first_resident).is_some_and(|(growth, first)| resident as f64 > first as f64 * growth)
            || settings.recycle_memory.is_some_and(|most| resident > most);
        let outdated = self.checked.elapsed() >= settings.version_check && {
            self.checked = Stopwatch::start();
            // A spec that cannot be looked at now is no reason to give up an engine that works.
            self.shared.spec().identity().is_ok_and(|wanted| wanted != **self.engine.identity())
        };
        if grown || outdated {
            let reason = if grown { "its memory has grown" } else { "what it was started from has changed" };
            tracing::info!(engine = self.record.id, resident, reason, "an engine will be replaced");
            self.wants_replacing = true;
            self.shared.with(|state| state.replace(self.at));
        }
    }

    async fn on_lost(&mut self, loss: &Loss) {
        let at = self.at;
        if loss.cause != Cause::Stopped {
            tracing::warn!(engine = self.record.id, in_hand = loss.unfinished.len(), error = %loss, "an engine has ended");
        }
        note(self.shared, at, |s| {
            let last_loss = if loss.cause == Cause::Stopped { s.last_loss.take() } else { Some(loss.to_string()) };
            *s = EngineStatus { replaced: s.replaced + 1, last_loss, ..EngineStatus::default() };
        });
        for (session, outcomes) in self.shared.with(|state| state.on_lost(at, loss)) {
            self.send(session, outcomes).await;
        }
    }
}
