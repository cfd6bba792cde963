//! What an engine gets next.

use std::time::Duration;

use super::{Action, InHand, Mode, Phase, Queued, State};
use crate::loss::Cause;
use crate::wire::FRAME_TASKS;

/// At most so many tasks are in an engine's hands, however short they are.
const HAND_TASKS: f64 = 16_384.0;
/// A portion lasts at least this long if there is as much to do, microseconds: the last ones are not cut down to single tasks.
const LEAST_US: f64 = 1000.0;

impl State {
    /// What the slot has to tell its engine now.
    pub(crate) fn next(&mut self, at: usize, now: Duration) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.slots[at].phase == Phase::Down {
            return actions;
        }
        if self.cancels(at, now, &mut actions) {
            return actions;
        }
        let slot = &mut self.slots[at];
        let worn = slot.replace || self.settings.recycle_tasks.is_some_and(|most| slot.finished >= most);
        if worn && slot.phase == Phase::Ready {
            slot.phase = Phase::Draining;
        }
        if slot.opening.is_some() {
            return actions;
        }
        if slot.phase == Phase::Draining {
            if slot.hand.is_empty() {
                actions.push(Action::Recycle);
            }
            return actions;
        }
        let gone: Vec<u32> = slot.sessions.keys().filter(|s| !self.sessions.contains_key(s)).copied().collect();
        for session in gone {
            slot.sessions.remove(&session);
            actions.push(Action::Close(session));
        }
        self.give(at, now, &mut actions);
        actions
    }

    /// Tells the engine what not to start; whether it is too late for that and it has to be killed.
    fn cancels(&mut self, at: usize, now: Duration, actions: &mut Vec<Action>) -> bool {
        let slot = &mut self.slots[at];
        if slot.cancel_by.is_some() && !slot.hand.iter().any(|h| h.cancelled) {
            slot.cancel_by = None;
        }
        if slot.cancel_by.is_some_and(|by| now >= by) {
            slot.cancel_by = None;
            actions.push(Action::Kill(Cause::Cancelled));
            return true;
        }
        for (session, task) in std::mem::take(&mut slot.to_cancel) {
            match actions.last_mut() {
                Some(Action::Cancel { session: last, tasks }) if *last == session => tasks.push(task),
                _ => actions.push(Action::Cancel { session, tasks: vec![task] }),
            }
        }
        false
    }

    fn give(&mut self, at: usize, now: Duration, actions: &mut Vec<Action>) {
        if self.slots[at].hand.is_empty() {
            if let Some(session) = self.poorest(|s| !s.culprits.is_empty()) {
                if self.slots[at].finished == 0 {
                    return self.give_some(at, session, Mode::Alone, now, actions);
                }
                if !self.has_fresh() {
                    self.slots[at].phase = Phase::Draining;
                    return actions.push(Action::Recycle);
                }
            }
            if let Some(session) = self.poorest(|s| !s.suspects.is_empty()) {
                return self.give_some(at, session, Mode::Step, now, actions);
            }
            if self.poorest(|s| !s.waiting.is_empty()).is_none() {
                self.steal(now);
            }
            if let Some(session) = self.poorest(|s| !s.waiting.is_empty()) {
                self.give_some(at, session, Mode::Ordinary, now, actions);
            }
            return;
        }
        let suspects = self.poorest(|s| !s.suspects.is_empty());
        let culprits = self.poorest(|s| !s.culprits.is_empty()).is_some();
        match self.slots[at].mode {
            Mode::Alone => {}
            Mode::Step => {
                if let Some(session) = suspects {
                    self.give_some(at, session, Mode::Step, now, actions);
                }
            }
            // Suspicion is cleared up first, by whoever comes to its end first.
            Mode::Ordinary if suspects.is_some() || culprits && !self.has_fresh() => {}
            Mode::Ordinary => {
                if let Some(session) = self.poorest(|s| !s.waiting.is_empty()) {
                    self.give_some(at, session, Mode::Ordinary, now, actions);
                }
            }
        }
    }

    /// Of the sessions that have such work, the one whose tasks have had the least of engines' time.
    fn poorest(&self, has: impl Fn(&super::SessionState) -> bool) -> Option<u32> {
        let with = self.sessions.iter().filter(|(_, s)| has(s));
        with.min_by(|a, b| a.1.served_us.total_cmp(&b.1.served_us)).map(|(number, _)| *number)
    }

    /// Whether an engine is fresh, or about to be.
    fn has_fresh(&self) -> bool {
        self.slots.iter().any(|s| s.phase != Phase::Ready || s.finished == 0 && s.hand.is_empty())
    }

    /// Gives the engine a portion of the session's tasks, or opens the session there first.
    fn give_some(&mut self, at: usize, session: u32, mode: Mode, now: Duration, actions: &mut Vec<Action>) {
        if !self.slots[at].sessions.contains_key(&session) {
            return self.open_at(at, session, now, actions);
        }
        let tasks = self.portion(at, session, mode);
        if tasks.is_empty() {
            return;
        }
        self.uses += 1;
        let slot = &mut self.slots[at];
        slot.sessions.insert(session, self.uses);
        if slot.hand.is_empty() {
            slot.progress = now;
        }
        slot.mode = mode;
        slot.hand_bytes += tasks.iter().map(|(_, q)| q.task.len()).sum::<usize>();
        let in_hand = |(death, q): &(u64, Queued)| {
            let (task, twin) = (q.task.clone(), q.twin);
            InHand { session, task, twin, stolen: false, cancelled: false, death: *death }
        };
        slot.hand.extend(tasks.iter().map(in_hand));
        if let Some(state) = self.sessions.get_mut(&session) {
            state.in_hand += tasks.len();
        }
        let tasks = tasks.into_iter().map(|(_, q)| q.task).collect();
        actions.push(Action::Run { session, step: mode != Mode::Ordinary, tasks });
    }

    fn open_at(&mut self, at: usize, session: u32, now: Duration, actions: &mut Vec<Action>) {
        let Some(state) = self.sessions.get(&session) else { return };
        let slot = &mut self.slots[at];
        while slot.sessions.len() >= self.settings.open_sessions.max(1) {
            let idle = slot.sessions.iter().filter(|(s, _)| !slot.hand.iter().any(|h| h.session == **s));
            let Some(oldest) = idle.min_by_key(|(_, used)| **used).map(|(s, _)| *s) else { return };
            slot.sessions.remove(&oldest);
            actions.push(Action::Close(oldest));
        }
        slot.opening = Some(session);
        slot.progress = now;
        actions.push(Action::Open(session, state.session.clone()));
    }

    /// As many tasks as make some tens of milliseconds, no more than this engine's share; each with the death that it is suspected of.
    fn portion(&mut self, at: usize, session: u32, mode: Mode) -> Vec<(u64, Queued)> {
        let engines = self.slots.iter().filter(|s| s.phase == Phase::Ready).count().max(1);
        let Some(state) = self.sessions.get_mut(&session) else { return Vec::new() };
        let slot = &self.slots[at];
        let (have, room) = (slot.hand.len(), self.settings.hand_bytes.saturating_sub(slot.hand_bytes));
        let ahead = self.settings.ahead.as_secs_f64() * 1e6;
        // Nothing is known of the first task's time, so it is tried alone.
        let (most, least) = state.task_us.map_or((1.0, 1.0), |us| ((ahead / us).clamp(1.0, HAND_TASKS), (LEAST_US / us).max(1.0)));
        let most = if mode == Mode::Alone { 1 } else { most as usize };
        if have > most / 2 {
            return Vec::new();
        }
        let waiting = match mode {
            Mode::Ordinary => state.waiting.len(),
            Mode::Step => state.suspects.len(),
            Mode::Alone => state.culprits.len(),
        };
        let share = waiting.div_ceil(engines).max(least as usize);
        let count = share.min(most - have).min(FRAME_TASKS);
        let (mut tasks, mut bytes) = (Vec::new(), 0);
        while tasks.len() < count {
            let first = match mode {
                Mode::Ordinary => state.waiting.front(),
                Mode::Step => state.suspects.front().map(|(_, q)| q),
                Mode::Alone => state.culprits.front(),
            };
            let Some(first) = first else { break };
            // One task always fits into an empty hand, however large it is.
            if bytes + first.task.len() > room && have + tasks.len() > 0 {
                break;
            }
            bytes += first.task.len();
            let taken = match mode {
                Mode::Ordinary => state.waiting.pop_front().map(|q| (0, q)),
                Mode::Step => state.suspects.pop_front(),
                Mode::Alone => state.culprits.pop_front().map(|q| (0, q)),
            };
            let Some((death, queued)) = taken else { break };
            match self.doubles.get_mut(&queued.twin) {
                Some(double) if double.settled => {
                    double.copies -= 1;
                    if double.copies == 0 {
                        self.doubles.remove(&queued.twin);
                    }
                }
                _ => tasks.push((death, queued)),
            }
        }
        tasks
    }

    /// Takes from an engine that is stuck what it has not begun, back to the list.
    fn steal(&mut self, now: Duration) {
        let stuck = self.settings.stuck;
        let Some(victim) =
            self.slots.iter().position(|s| s.is_stuck(now, stuck) && s.hand.iter().skip(1).any(|h| !h.stolen && !h.cancelled))
        else {
            return;
        };
        // The first is most likely what it is stuck in.
        let mut stolen = Vec::new();
        for in_hand in self.slots[victim].hand.iter_mut().skip(1).rev().filter(|h| !h.stolen && !h.cancelled) {
            in_hand.stolen = true;
            stolen.push((in_hand.session, in_hand.task.id));
            if in_hand.twin == 0 {
                self.twins += 1;
                in_hand.twin = self.twins;
            }
            let twin = in_hand.twin;
            self.doubles.entry(twin).or_insert(super::Double { copies: 1, settled: false }).copies += 1;
            if let Some(state) = self.sessions.get_mut(&in_hand.session) {
                state.waiting.push_front(Queued { task: in_hand.task.clone(), twin });
            }
        }
        self.settings.tally.on_stolen(stolen.len());
        self.slots[victim].to_cancel.extend(stolen);
        self.wake.insert(victim);
    }
}
