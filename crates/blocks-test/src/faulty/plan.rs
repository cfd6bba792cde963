//! What goes wrong how often, and what has gone wrong.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidemill_blocks::queue::{Delivery, Receipt};

use super::Component;
use crate::sim::Trace;

/// A way of going wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// The call failed before it had an effect.
    Refused,
    /// The engine asked for less: an error before the call, too.
    Throttled,
    /// The call took effect, wholly or as far as its promise allows, and the answer was an error.
    LostReply,
    /// The call, or its answer, took its time.
    Delayed,
    /// A message was delivered to a second receiver under a running lease.
    Duplicated,
    /// A message was delivered again although it had been acknowledged, as SQS may when a server missed the deletion.
    Revived,
    /// Messages came or went in another order.
    Reordered,
    /// An answer held less than it could have: a shorter page, fewer messages.
    Shortened,
    /// A call of a component that has crashed, the one it crashed in included.
    Crashed,
}

/// The probabilities, each from 0 to 1 and for each call by itself.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FaultPlan {
    /// Everything drawn follows from it.
    pub seed: u64,
    /// Of [`Fault::Refused`].
    pub refuse: f64,
    /// Of [`Fault::Throttled`].
    pub throttle: f64,
    /// Of [`Fault::LostReply`].
    pub lose_reply: f64,
    /// Of [`Fault::Delayed`].
    pub delay: f64,
    /// No delay is longer.
    pub longest_delay: Duration,
    /// Of [`Fault::Duplicated`], for each receive.
    pub duplicate: f64,
    /// Of [`Fault::Revived`], for each message that is acknowledged.
    pub revive: f64,
    /// Of [`Fault::Reordered`], for each send and receive.
    pub reorder: f64,
    /// Of [`Fault::Shortened`], for each receive, range and feed.
    pub shorten: f64,
}

impl FaultPlan {
    /// Nothing goes wrong.
    pub const fn calm(seed: u64) -> Self {
        Self {
            seed,
            refuse: 0.0,
            throttle: 0.0,
            lose_reply: 0.0,
            delay: 0.0,
            longest_delay: Duration::from_secs(1),
            duplicate: 0.0,
            revive: 0.0,
            reorder: 0.0,
            shorten: 0.0,
        }
    }

    /// Everything goes wrong now and then; work still gets done.
    pub const fn rough(seed: u64) -> Self {
        Self {
            refuse: 0.02,
            throttle: 0.02,
            lose_reply: 0.02,
            delay: 0.2,
            longest_delay: Duration::from_secs(2),
            duplicate: 0.05,
            revive: 0.05,
            reorder: 0.3,
            shorten: 0.2,
            ..Self::calm(seed)
        }
    }
}

/// The misfortune of one run; clones share it.
#[derive(Debug, Clone)]
pub struct Faults(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    plan: FaultPlan,
    rng: fastrand::Rng,
    counts: BTreeMap<Fault, u64>,
    trace: Option<Trace>,
    /// Deliveries that a second receiver may get too, by queue.
    delivered: BTreeMap<String, Vec<Delivery>>,
    /// Deliveries that were acknowledged and come once more all the same, by queue.
    undead: BTreeMap<String, Vec<Delivery>>,
}

/// Deliveries remembered per queue.
const REMEMBERED: usize = 64;

impl Faults {
    /// According to `plan`.
    pub fn new(plan: FaultPlan) -> Self {
        Self::build(plan, None)
    }

    /// The same, and every call with its outcome goes into `trace`.
    pub fn traced(plan: FaultPlan, trace: Trace) -> Self {
        Self::build(plan, Some(trace))
    }

    fn build(plan: FaultPlan, trace: Option<Trace>) -> Self {
        let rng = fastrand::Rng::with_seed(plan.seed);
        Self(Arc::new(Mutex::new(State { plan, rng, counts: BTreeMap::new(), trace, delivered: BTreeMap::new(), undead: BTreeMap::new() })))
    }

    /// A process of the run. Two components of one name are two processes.
    pub fn component(&self, name: &str) -> Component {
        Component::new(name, self.clone())
    }

    /// From now on nothing goes wrong any more, except for components that have crashed.
    pub fn calm(&self) {
        let mut state = self.lock();
        state.plan = FaultPlan::calm(state.plan.seed);
        state.undead.clear();
    }

    /// How often `fault` has happened.
    pub fn count(&self, fault: Fault) -> u64 {
        self.lock().counts.get(&fault).copied().unwrap_or(0)
    }

    /// Everything that has happened.
    pub fn counts(&self) -> BTreeMap<Fault, u64> {
        self.lock().counts.clone()
    }

    pub(super) fn note(&self, fault: Fault) {
        *self.lock().counts.entry(fault).or_default() += 1;
    }

    pub(super) fn trace(&self, line: impl FnOnce() -> String) {
        let trace = self.lock().trace.clone();
        if let Some(trace) = trace {
            trace.note(&line());
        }
    }

    /// Whether something of probability `chance` happens now.
    pub(super) fn happens(&self, chance: impl FnOnce(&FaultPlan) -> f64) -> bool {
        let mut state = self.lock();
        let chance = chance(&state.plan);
        chance > 0.0 && state.rng.f64() < chance
    }

    /// The same, counted when it happens.
    pub(super) fn strikes(&self, fault: Fault, chance: impl FnOnce(&FaultPlan) -> f64) -> bool {
        let strikes = self.happens(chance);
        if strikes {
            self.note(fault);
        }
        strikes
    }

    pub(super) fn may_duplicate(&self) -> bool {
        let plan = self.lock().plan;
        plan.duplicate > 0.0 || plan.revive > 0.0
    }

    pub(super) fn coin(&self) -> bool {
        self.lock().rng.bool()
    }

    pub(super) fn delay(&self) -> Duration {
        let mut state = self.lock();
        let share = state.rng.f64();
        state.plan.longest_delay.mul_f64(share)
    }

    /// A number in `1..=most`, for a `most` of at least 1.
    pub(super) fn at_most(&self, most: usize) -> usize {
        self.lock().rng.usize(1..=most.max(1))
    }

    pub(super) fn shuffle<T>(&self, items: &mut [T]) {
        self.lock().rng.shuffle(items);
    }

    pub(super) fn remember(&self, queue: &str, deliveries: &[Delivery]) {
        let mut state = self.lock();
        let remembered = state.delivered.entry(queue.to_owned()).or_default();
        remembered.extend_from_slice(deliveries);
        let surplus = remembered.len().saturating_sub(REMEMBERED);
        remembered.drain(..surplus);
    }

    /// Forgets the deliveries of which `gone` is true.
    pub(super) fn forget(&self, queue: &str, gone: impl Fn(&Delivery) -> bool) {
        if let Some(remembered) = self.lock().delivered.get_mut(queue) {
            remembered.retain(|d| !gone(d));
        }
    }

    /// Forgets the deliveries that were acknowledged, except for those that come again.
    pub(super) fn acknowledged(&self, queue: &str, receipts: &[Receipt]) {
        let mut state = self.lock();
        let State { plan, rng, delivered, undead, .. } = &mut *state;
        let gone = delivered.get_mut(queue).into_iter().flat_map(|all| all.extract_if(.., |d| receipts.contains(&d.receipt)));
        let back: Vec<Delivery> = gone.filter(|_| plan.revive > 0.0 && rng.f64() < plan.revive).collect();
        undead.entry(queue.to_owned()).or_default().extend(back);
    }

    /// A delivery that was acknowledged and comes again: half of the times that somebody asks, if there is one.
    pub(super) fn revive(&self, queue: &str) -> Option<Delivery> {
        let mut state = self.lock();
        let State { undead, rng, .. } = &mut *state;
        let waiting = undead.get_mut(queue).filter(|d| !d.is_empty())?;
        rng.bool().then(|| waiting.remove(0))
    }

    /// One of the deliveries that have been made and not been acknowledged.
    pub(super) fn recall(&self, queue: &str) -> Option<Delivery> {
        let mut state = self.lock();
        let State { delivered, rng, .. } = &mut *state;
        let remembered = delivered.get(queue).filter(|d| !d.is_empty())?;
        Some(remembered[rng.usize(..remembered.len())].clone())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
