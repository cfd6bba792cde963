//! Sessions in the simulation: tasks that come in submissions and need each other's results, and what people ask meanwhile.

mod check;
mod people;
mod plan;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tidemill_batch::service::Delivered;

pub(crate) use check::check;
pub(crate) use people::{Client, Reader};
pub use plan::{SessionPlan, Step};

/// What was told of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Word {
    /// Its result.
    Result(Bytes),
    /// It failed for good, or was not run since a result that it needs is missing.
    None,
    /// It was cancelled.
    Cancelled,
}

/// A delivery, task by task.
pub(crate) type Words = Vec<(u64, Word)>;

/// What is known outside of the system of a session, by those who use it.
#[derive(Debug, Default)]
pub(crate) struct Story {
    pub(crate) id: String,
    /// What each task was given, and what it needs.
    pub(crate) tasks: Vec<(Bytes, Vec<u64>)>,
    /// Runs of tasks that were cancelled, what runs included, and the last delivery when that was answered.
    pub(crate) cancelled: Vec<(u64, u64, u64)>,
    /// What readers have seen, by the number of the delivery.
    pub(crate) read: BTreeMap<u64, Words>,
    /// What readers were told ahead of its delivery.
    pub(crate) early: Words,
}

/// Shared by those who take part in a session.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shared(Arc<Mutex<Story>>);

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Story> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a delivery says.
pub(crate) fn words(d: &Delivered) -> tidemill_base::Result<Words> {
    let mut out = Words::new();
    if let Some(page) = &d.page {
        let counted = |task: u64| d.succeeded.iter().any(|(start, len)| task >= *start && task - start < *len);
        let results = page.split(&d.body)?.into_iter().zip(&page.ok);
        out.extend(results.filter(|((task, _), ok)| **ok == 1 && counted(*task)).map(|((task, bytes), _)| (task, Word::Result(bytes))));
    }
    let found = out.len() as u64;
    let said: u64 = d.succeeded.iter().map(|(_, len)| len).sum();
    if found != said {
        return Err(tidemill_base::Error::internal(format!("delivery {} says {said} results and has {found}", d.n)));
    }
    out.extend(d.dead.iter().map(|dead| (dead.task, Word::None)));
    let cancelled = d.cancelled.iter().flat_map(|c| &c.tasks).flat_map(|(start, len)| *start..start + len);
    out.extend(cancelled.map(|task| (task, Word::Cancelled)));
    Ok(out)
}
