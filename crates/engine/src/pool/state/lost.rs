//! What the end of an engine means.

use std::collections::VecDeque;
use std::time::Duration;

use super::{InHand, Mode, Phase, Queued, Settled, State};
use crate::loss::{Cause, Loss};
use crate::session::{Outcome, TaskError, TaskResult};

/// After so many starts in a row that came to nothing, what waits fails.
const FAILED_STARTS: u32 = 3;

impl State {
    /// No engine could be started in the slot. How long to wait before the next try, and what has failed for it.
    pub(crate) fn on_failed_start(&mut self, at: usize, loss: &Loss) -> (Duration, Vec<Settled>) {
        self.slots[at] = super::Slot::default();
        self.failed_starts = self.failed_starts.saturating_add(1);
        let pause = Duration::from_millis(100) * 2_u32.pow(self.failed_starts.min(7) - 1);
        if self.failed_starts < FAILED_STARTS {
            return (pause, Vec::new());
        }
        (pause, self.fail_all(&loss.to_error()))
    }

    /// Fails everything that waits, in all sessions.
    pub(crate) fn fail_all(&mut self, error: &TaskError) -> Vec<Settled> {
        let sessions: Vec<u32> = self.sessions.keys().copied().collect();
        let settled = sessions.into_iter().map(|s| (s, self.fail_waiting(s, error, false)));
        settled.filter(|(_, outcomes)| !outcomes.is_empty()).collect()
    }

    /// The slot's engine is no more. What is settled by that.
    pub(crate) fn on_lost(&mut self, at: usize, loss: &Loss) -> Vec<Settled> {
        let slot = std::mem::take(&mut self.slots[at]);
        debug_assert_eq!(self.slots[at].phase, Phase::Down);
        self.wake_all();
        let mut hand: Vec<InHand> = slot.hand.into();
        for in_hand in &hand {
            if let Some(state) = self.sessions.get_mut(&in_hand.session) {
                state.in_hand -= 1;
            }
        }
        let mut settled = Vec::new();
        let sessions: Vec<u32> = hand.iter().map(|h| h.session).collect();
        if hand.is_empty() {
            if let Some(session) = slot.opening {
                settled.extend(self.on_lost_opening(session, loss));
            }
            return settled;
        }
        let is_to_blame = !matches!(loss.cause, Cause::Cancelled | Cause::Stopped);
        if is_to_blame && (slot.mode != Mode::Ordinary || hand.len() == 1) {
            let culprit = hand.remove(0);
            settled.extend(self.blame(culprit, slot.mode == Mode::Alone, loss));
            // The others were not started.
            self.clear_all(hand, &mut settled);
        } else if is_to_blame {
            self.suspect_all(hand, &mut settled);
        } else {
            self.clear_all(hand, &mut settled);
        }
        sessions.into_iter().for_each(|s| self.forget_if_done(s));
        settled
    }

    fn on_lost_opening(&mut self, session: u32, loss: &Loss) -> Option<Settled> {
        let state = self.sessions.get_mut(&session)?;
        state.open_losses += 1;
        if state.open_losses < self.settings.strikes && !matches!(loss.cause, Cause::Open(_)) {
            return None;
        }
        let mut error = loss.to_error();
        error.message = format!("while the session was being opened: {}", error.message);
        Some((session, self.fail_waiting(session, &error, true)))
    }

    /// This task has ended its engine: once more, alone, or it has failed.
    fn blame(&mut self, culprit: InHand, alone: bool, loss: &Loss) -> Option<Settled> {
        let state = self.sessions.get_mut(&culprit.session)?;
        let strikes = state.strikes.entry(culprit.task.id).or_default();
        *strikes += 1;
        let death = culprit.death;
        let failed = alone && *strikes >= self.settings.strikes || matches!(loss.cause, Cause::Task(_));
        if failed {
            state.strikes.remove(&culprit.task.id);
            self.clear_suspects(death);
            let error = Box::new(loss.to_error());
            let outcome = Outcome { task: culprit.task.id, run_us: 0, result: TaskResult::Failed(error) };
            return self.first_result(culprit.twin).then(|| (culprit.session, vec![outcome]));
        }
        self.clear_suspects(death);
        if culprit.cancelled {
            return self.settle_cancelled(&culprit);
        }
        if self.last_copy_gone(culprit.twin)
            && let Some(state) = self.sessions.get_mut(&culprit.session)
        {
            state.culprits.push_back(Queued::single(culprit.task));
        }
        None
    }

    /// One culprit explains one death: the others that were suspected of it are ordinary again.
    fn clear_suspects(&mut self, death: u64) {
        for state in self.sessions.values_mut() {
            let (cleared, kept) = std::mem::take(&mut state.suspects).into_iter().partition(|(d, _)| *d == death);
            state.suspects = kept;
            let cleared: VecDeque<(u64, Queued)> = cleared;
            for (_, queued) in cleared.into_iter().rev() {
                state.waiting.push_front(queued);
            }
        }
    }

    fn suspect_all(&mut self, hand: Vec<InHand>, settled: &mut Vec<Settled>) {
        self.deaths += 1;
        for in_hand in hand {
            if in_hand.cancelled {
                settled.extend(self.settle_cancelled(&in_hand));
            } else if self.last_copy_gone(in_hand.twin)
                && let Some(state) = self.sessions.get_mut(&in_hand.session)
            {
                state.suspects.push_back((self.deaths, Queued::single(in_hand.task)));
            }
        }
    }

    /// Back to the head of the list, in the same order.
    fn clear_all(&mut self, hand: Vec<InHand>, settled: &mut Vec<Settled>) {
        for in_hand in hand.into_iter().rev() {
            if in_hand.cancelled {
                settled.extend(self.settle_cancelled(&in_hand));
            } else if self.last_copy_gone(in_hand.twin) {
                self.put_back(in_hand);
            }
        }
    }

    fn settle_cancelled(&mut self, in_hand: &InHand) -> Option<Settled> {
        if let Some(state) = self.sessions.get_mut(&in_hand.session) {
            state.strikes.remove(&in_hand.task.id);
        }
        let outcome = Outcome { task: in_hand.task.id, run_us: 0, result: TaskResult::Cancelled };
        self.last_copy_gone(in_hand.twin).then(|| (in_hand.session, vec![outcome]))
    }
}
