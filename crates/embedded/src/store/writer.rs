//! The writer thread.

use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tidemill_base::{Error, Result};

use super::errors::Refusal;
use super::group::Group;
use super::{Shared, Space};

/// Tells the caller how it went: the refusal when the group could not be committed.
pub(super) type Answer = Box<dyn FnOnce(Option<&Refusal>) + Send>;
/// Looks, writes into the group, and leaves the answer to be given after the commit.
pub(super) type Operation = Box<dyn FnOnce(&mut Group<'_>) -> Answer + Send>;

const SWEEP_EVERY: Duration = Duration::from_secs(30);

/// Ever-growing numbers. A bound is stored ahead of their use, so that none is used again after a crash.
pub(super) struct Sequence {
    next: u64,
    bound: u64,
}

impl Sequence {
    pub(super) const KEY: &'static [u8] = b"sequence";
    const STEP: u64 = 1 << 20;

    fn load(shared: &Shared) -> Result<Self> {
        let Some(stored) = shared.get(Space::Meta, Self::KEY)? else { return Ok(Self { next: 1, bound: 1 }) };
        let bound = <[u8; 8]>::try_from(&*stored).map(u64::from_be_bytes).map_err(|_| {
            Error::corrupt(format!("the sequence mark in the store in {} has {} bytes instead of 8", shared.path.display(), stored.len()))
        })?;
        Ok(Self { next: bound, bound })
    }

    /// The next number, and the new bound when one must be stored.
    pub(super) const fn take(&mut self) -> (u64, Option<u64>) {
        let number = self.next;
        self.next += 1;
        if number < self.bound {
            return (number, None);
        }
        self.bound = number + Self::STEP;
        (number, Some(self.bound))
    }

    pub(super) const fn newest(&self) -> u64 {
        self.next - 1
    }
}

/// Starts the thread. It ends when the sender is dropped and what was sent is answered.
pub(super) fn start(shared: Arc<Shared>) -> Result<(Sender<Operation>, JoinHandle<()>)> {
    let sequence = Sequence::load(&shared)?;
    shared.committed.store(sequence.newest(), Ordering::Release);
    let (sender, receiver) = channel();
    let thread = std::thread::Builder::new()
        .name("store-writer".to_owned())
        .spawn(move || run(&shared, &receiver, sequence))
        .map_err(|e| Error::from(e).context("start the store's writer thread"))?;
    Ok((sender, thread))
}

fn run(shared: &Shared, receiver: &Receiver<Operation>, mut sequence: Sequence) {
    let mut swept_at = shared.env.now();
    loop {
        let first = match receiver.recv_timeout(SWEEP_EVERY) {
            Ok(operation) => Some(operation),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let sweep_due = first.is_none() || shared.env.now().since(swept_at) >= SWEEP_EVERY;
        if sweep_due {
            swept_at = shared.env.now();
        }
        run_group(shared, receiver, &mut sequence, first, sweep_due);
    }
}

fn run_group(shared: &Shared, receiver: &Receiver<Operation>, sequence: &mut Sequence, first: Option<Operation>, sweep_due: bool) {
    let mut answers = Vec::new();
    let mut group = Group::new(shared, sequence);
    let mut next = first;
    while let Some(operation) = next {
        answers.push(operation(&mut group));
        next = if group.is_full() { None } else { receiver.try_recv().ok() };
    }
    shared.operations.fetch_add(answers.len() as u64, Ordering::Relaxed);
    if sweep_due
        && group.check_room().is_ok()
        && let Err(e) = sweep_all(&mut group)
    {
        tracing::warn!(error = %e.chain(), "tidying the store failed");
    }
    // Once a write has failed, what is in memory may be ahead of the disk: nothing is promised any more.
    if shared.refusal.get().is_none()
        && let Err(refusal) = group.commit()
    {
        tracing::error!(error = %refusal.error(), "the store stops taking writes");
        shared.refusal.get_or_init(|| refusal);
    }
    for answer in answers {
        answer(shared.refusal.get());
    }
}

/// Runs every sweeper that still exists.
pub(super) fn sweep_all(group: &mut Group<'_>) -> Result<()> {
    let sweepers = {
        let mut known = group.shared().sweepers.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|s| s.strong_count() > 0);
        known.clone()
    };
    for sweeper in sweepers.iter().filter_map(std::sync::Weak::upgrade) {
        sweeper.sweep(group)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_stored_before_the_numbers_below_it_are_used() {
        let mut sequence = Sequence { next: 1, bound: 1 };
        let (first, bound) = sequence.take();
        assert_eq!((first, bound), (1, Some(1 + Sequence::STEP)));
        assert_eq!(sequence.take(), (2, None));
        // After a crash the bound is where it goes on.
        let mut reopened = Sequence { next: 1 + Sequence::STEP, bound: 1 + Sequence::STEP };
        assert_eq!(reopened.take(), (1 + Sequence::STEP, Some(1 + 2 * Sequence::STEP)));
    }
}
