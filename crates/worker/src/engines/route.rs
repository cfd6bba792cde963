//! Brings what a pool gives back to the slots that wait for it.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidemill_base::Result;
use tidemill_engine::{Batches, EngineRecord, Outcome};

/// Outcomes, and the engine that made them.
type Made = (Arc<str>, Vec<Outcome>);
type Expected = Sender<Made>;

/// Who waits for what: by session and first task, how many tasks, and where their outcomes go.
#[derive(Debug, Default)]
pub(super) struct Routes(Mutex<BTreeMap<(u32, u64), (u64, Expected)>>);

impl Routes {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<(u32, u64), (u64, Expected)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on outcomes of these tasks go to the receiver. The number is for [`Routes::forget`].
    pub(super) fn expect(&self, session: u32, first: u64, len: u64) -> (u64, Receiver<Made>) {
        let (sender, receiver) = channel();
        self.lock().insert((session, first), (len, sender));
        (first, receiver)
    }

    pub(super) fn forget(&self, session: u32, first: u64) {
        self.lock().remove(&(session, first));
    }

    /// Whether anybody waits for tasks of the session.
    pub(super) fn is_expected(&self, session: u32) -> bool {
        self.lock().range((session, 0)..=(session, u64::MAX)).next().is_some()
    }

    /// Whether nobody waits for anything.
    pub(super) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// Splits a batch among those who wait. What nobody waits for belongs to a range that was lost, and is let go of.
    fn hand_out(&self, session: u32, made_by: &Arc<str>, outcomes: Vec<Outcome>) {
        let routes = self.lock();
        let mut parts: BTreeMap<u64, Vec<Outcome>> = BTreeMap::new();
        for outcome in outcomes {
            let task = outcome.task;
            if let Some(((_, first), (len, _))) = routes.range((session, 0)..=(session, task)).next_back()
                && task < first + len
            {
                parts.entry(*first).or_default().push(outcome);
            }
        }
        for (first, part) in parts {
            if let Some((_, sender)) = routes.get(&(session, first)) {
                // The slot has gone with the worker if it does not listen.
                drop(sender.send((made_by.clone(), part)));
            }
        }
    }

    fn close(&self) {
        self.lock().clear();
    }
}

/// Carries batches until the pool is gone.
pub(super) async fn carry(routes: Arc<Routes>, mut batches: Batches) -> Result<()> {
    let mut last: Option<(Arc<EngineRecord>, Arc<str>)> = None;
    let unknown: Arc<str> = "".into();
    while let Some(batch) = batches.next().await {
        let made_by = match (&batch.engine, &last) {
            (Some(now), Some((then, words))) if Arc::ptr_eq(now, then) => words.clone(),
            (Some(now), _) => {
                let words: Arc<str> = words(now).into();
                last = Some((now.clone(), words.clone()));
                words
            }
            (None, _) => unknown.clone(),
        };
        if !batch.log.is_empty() {
            tracing::debug!(session = batch.session, log = batch.log, "an engine wrote");
        }
        routes.hand_out(batch.session, &made_by, batch.outcomes);
    }
    routes.close();
    Ok(())
}

/// An engine with its versions, so that what it made can be made again.
pub(super) fn words(engine: &EngineRecord) -> String {
    let hello = &engine.hello;
    let mut out = format!("{} {}", hello.kit, hello.kit_version);
    if !hello.language.is_empty() {
        out.push_str(&format!(", {}", hello.language));
    }
    for library in engine.loaded.iter().chain(&engine.packages) {
        out.push_str(&format!(", {} {}", library.name, library.version));
    }
    out
}
