//! What an engine's answers mean.

use std::time::Duration;

use super::{InHand, Phase, Queued, Settled, State};
use crate::session::{Outcome, TaskError, TaskResult};

/// The weight of what was observed before, when something new is.
const MEMORY: f64 = 0.7;

impl State {
    /// An engine has booted in the slot.
    pub(crate) fn on_ready(&mut self, at: usize, now: Duration) {
        self.failed_starts = 0;
        self.slots[at] = super::Slot { phase: Phase::Ready, progress: now, ..super::Slot::default() };
    }

    pub(crate) fn on_opened(&mut self, at: usize, session: u32, now: Duration) {
        self.uses += 1;
        let slot = &mut self.slots[at];
        slot.opening = None;
        slot.progress = now;
        slot.sessions.insert(session, self.uses);
        if let Some(state) = self.sessions.get_mut(&session) {
            state.open_losses = 0;
        }
    }

    /// The session cannot be opened, now or ever: all its tasks fail with the reason.
    pub(crate) fn on_refused(&mut self, at: usize, session: u32, error: TaskError, now: Duration) -> Vec<Settled> {
        let slot = &mut self.slots[at];
        slot.opening = None;
        slot.progress = now;
        vec![(session, self.fail_waiting(session, &error, true))]
    }

    /// Fails what waits in a session; for good, if nothing can come of it later either.
    pub(super) fn fail_waiting(&mut self, session: u32, error: &TaskError, for_good: bool) -> Vec<Outcome> {
        let Some(state) = self.sessions.get_mut(&session) else { return Vec::new() };
        let mut tasks: Vec<Queued> = state.culprits.drain(..).collect();
        tasks.extend(state.suspects.drain(..).map(|(_, q)| q));
        tasks.extend(state.waiting.drain(..));
        state.strikes.clear();
        if for_good {
            state.error = Some(error.clone());
        }
        let failed = |q: Queued| Outcome { task: q.task.id, run_us: 0, result: TaskResult::Failed(Box::new(error.clone())) };
        let settled = tasks.into_iter().filter(|q| self.last_copy_gone(q.twin)).map(failed).collect();
        self.forget_if_done(session);
        settled
    }

    /// Results, in the order in which the tasks were given. What is returned counts.
    pub(crate) fn on_results(&mut self, at: usize, session: u32, outcomes: Vec<Outcome>, now: Duration) -> Vec<Outcome> {
        self.observe(at, session, &outcomes, now);
        let mut settled = Vec::with_capacity(outcomes.len());
        for outcome in outcomes {
            let Some(in_hand) = self.slots[at].hand.pop_front() else { break };
            self.slots[at].hand_bytes -= in_hand.task.len();
            self.slots[at].finished += u64::from(outcome.result != TaskResult::Cancelled);
            if let Some(state) = self.sessions.get_mut(&session) {
                state.in_hand -= 1;
                if !state.strikes.is_empty() {
                    state.strikes.remove(&outcome.task);
                }
            }
            settled.extend(self.counts(in_hand, outcome));
        }
        self.forget_if_done(session);
        settled
    }

    /// The outcome, if it is the task's first.
    fn counts(&mut self, in_hand: InHand, outcome: Outcome) -> Option<Outcome> {
        if outcome.result != TaskResult::Cancelled {
            return self.first_result(in_hand.twin).then_some(outcome);
        }
        let last = self.last_copy_gone(in_hand.twin);
        if last && !in_hand.cancelled {
            // Told not to start it because another engine was to run it, and that copy is gone.
            self.put_back(in_hand);
            return None;
        }
        last.then_some(outcome)
    }

    /// One copy of a task has a result; whether it is the first.
    pub(super) fn first_result(&mut self, twin: u64) -> bool {
        let Some(double) = self.doubles.get_mut(&twin) else { return true };
        let first = !std::mem::replace(&mut double.settled, true);
        double.copies -= 1;
        if double.copies == 0 {
            self.doubles.remove(&twin);
        }
        first
    }

    /// One copy of a task is gone without a result; whether nobody else has one or had a result.
    pub(super) fn last_copy_gone(&mut self, twin: u64) -> bool {
        let Some(double) = self.doubles.get_mut(&twin) else { return true };
        double.copies -= 1;
        if double.copies > 0 {
            return false;
        }
        let unsettled = !double.settled;
        self.doubles.remove(&twin);
        unsettled
    }

    /// Back to the head of the list, without suspicion.
    pub(super) fn put_back(&mut self, in_hand: InHand) {
        if let Some(state) = self.sessions.get_mut(&in_hand.session) {
            state.waiting.push_front(Queued::single(in_hand.task));
        }
        self.wake_idle(in_hand.session, 1);
    }

    /// Learns how long a task takes: the engine's own time for it and all that comes with it.
    fn observe(&mut self, at: usize, session: u32, outcomes: &[Outcome], now: Duration) {
        let slot = &mut self.slots[at];
        let passed = now.saturating_sub(slot.progress).as_secs_f64() * 1e6;
        slot.progress = now;
        let run = outcomes.iter().filter(|o| o.result != TaskResult::Cancelled).count();
        let Some(state) = self.sessions.get_mut(&session).filter(|_| run > 0) else { return };
        let us = (passed / run as f64).max(0.5);
        state.task_us = Some(state.task_us.map_or(us, |before| before * MEMORY + us * (1.0 - MEMORY)));
        state.served_us += passed.max(run as f64);
    }
}
