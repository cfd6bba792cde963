//! Deciding: what each engine gets next, and what the end of an engine means. Plain code over state; time comes in as an argument.
//!
//! The life of a task. It waits in its session. An engine gets it in a portion, sized from observed run times, so that the engine
//! always has some tens of milliseconds ahead and never much more. Its result comes back, and that is all. But:
//!
//! - An engine that is stuck in a long task while others have nothing to do loses what it has not begun: those tasks go back to the
//!   list, the engine is told not to start them, and should one be run twice, the first result counts (`doubles`).
//! - When an engine dies with several tasks in hand, each of them may have been the cause. They run again step by step: every result is
//!   sent before the next task is started, so that the next death has one culprit. The others in hand are cleared by that.
//! - A culprit runs once more, as the first task of a fresh engine and alone. If that dies as well, the task has failed, with what the
//!   engine said last. Its neighbours never fail for it.

mod choose;
mod lost;
mod settle;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::loss::Cause;
use crate::session::{Outcome, Session, Task, TaskError, TaskResult, class};
use crate::wire::HEADER_BYTES;

use super::PoolSettings;

/// What a slot has to tell its engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    Open(u32, Arc<Session>),
    Close(u32),
    Run {
        session: u32,
        step: bool,
        tasks: Vec<Task>,
    },
    Cancel {
        session: u32,
        tasks: Vec<u64>,
    },
    /// It has nothing in hand: let it end, and start another.
    Recycle,
    Kill(Cause),
}

/// Outcomes of one session's tasks.
pub(crate) type Settled = (u32, Vec<Outcome>);

/// How the tasks that an engine has in hand were given to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Mode {
    #[default]
    Ordinary,
    /// Step by step: the first unanswered one is what runs.
    Step,
    /// One task, the first in its engine.
    Alone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Phase {
    /// No engine: being started, or not.
    #[default]
    Down,
    Ready,
    /// Finishes what it has, and is then replaced.
    Draining,
}

/// A task in a list.
#[derive(Debug, Clone)]
struct Queued {
    task: Task,
    /// Its number in `doubles`, or 0. Not the task's own number: that may come again for another attempt.
    twin: u64,
}

impl Queued {
    fn single(task: Task) -> Self {
        Self { task, twin: 0 }
    }
}

/// A task in an engine's hands.
#[derive(Debug, Clone)]
struct InHand {
    session: u32,
    task: Task,
    /// As in [`Queued`].
    twin: u64,
    /// Given to others meanwhile.
    stolen: bool,
    /// The caller does not want it any more.
    cancelled: bool,
    /// The death that it is suspected of, or 0.
    death: u64,
}

#[derive(Debug, Default)]
struct Slot {
    phase: Phase,
    /// Open sessions, and when each was last used.
    sessions: BTreeMap<u32, u64>,
    opening: Option<u32>,
    hand: VecDeque<InHand>,
    hand_bytes: usize,
    mode: Mode,
    /// Tasks that the present engine has finished.
    finished: u64,
    /// When it last answered, or was given something while it had nothing.
    progress: Duration,
    to_cancel: Vec<(u32, u64)>,
    cancel_by: Option<Duration>,
    replace: bool,
}

impl Slot {
    /// Whether it has not answered for so long although it has more to do.
    fn is_stuck(&self, now: Duration, stuck: Duration) -> bool {
        self.mode == Mode::Ordinary && self.hand.len() > 1 && now.saturating_sub(self.progress) >= stuck
    }
}

#[derive(Debug)]
struct SessionState {
    session: Arc<Session>,
    waiting: VecDeque<Queued>,
    /// To be run step by step, with the death that each was in.
    suspects: VecDeque<(u64, Queued)>,
    /// To be run alone.
    culprits: VecDeque<Queued>,
    strikes: BTreeMap<u64, u32>,
    /// Observed time of a task, microseconds.
    task_us: Option<f64>,
    /// Microseconds of engines' time that it has had, for fairness.
    served_us: f64,
    open_losses: u32,
    error: Option<TaskError>,
    closing: bool,
    in_hand: usize,
}

/// A task that is in several places.
#[derive(Debug)]
struct Double {
    copies: u32,
    settled: bool,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct State {
    settings: PoolSettings,
    sessions: BTreeMap<u32, SessionState>,
    slots: Vec<Slot>,
    doubles: BTreeMap<u64, Double>,
    twins: u64,
    deaths: u64,
    uses: u64,
    next_session: u32,
    failed_starts: u32,
    /// Slots that have something to do.
    wake: BTreeSet<usize>,
}

impl State {
    pub(crate) fn new(settings: PoolSettings) -> Self {
        let slots = (0..settings.engines.max(1)).map(|_| Slot::default()).collect();
        Self {
            settings,
            sessions: BTreeMap::new(),
            slots,
            doubles: BTreeMap::new(),
            twins: 0,
            deaths: 0,
            uses: 0,
            next_session: 0,
            failed_starts: 0,
            wake: BTreeSet::new(),
        }
    }

    /// Slots that have something to do since this was last asked.
    pub(crate) fn take_wakes(&mut self) -> BTreeSet<usize> {
        std::mem::take(&mut self.wake)
    }

    fn wake_all(&mut self) {
        self.wake.extend(0..self.slots.len());
    }

    pub(crate) fn open(&mut self, session: Session) -> u32 {
        self.next_session += 1;
        // A session that comes late has no claim on what others had before.
        let served_us = self.sessions.values().filter(|s| s.has_work()).map(|s| s.served_us).min_by(f64::total_cmp).unwrap_or(0.0);
        let state = SessionState {
            session: Arc::new(session),
            waiting: VecDeque::new(),
            suspects: VecDeque::new(),
            culprits: VecDeque::new(),
            strikes: BTreeMap::new(),
            task_us: None,
            served_us,
            open_losses: 0,
            error: None,
            closing: false,
            in_hand: 0,
        };
        self.sessions.insert(self.next_session, state);
        self.next_session
    }

    /// Takes tasks in. Those that cannot be run at all are settled at once. `None`: there is no such session, or it is being closed.
    pub(crate) fn submit(&mut self, session: u32, tasks: Vec<Task>) -> Option<Vec<Outcome>> {
        let most = (self.settings.frame_bytes as usize).saturating_sub(HEADER_BYTES + 64);
        let state = self.sessions.get_mut(&session).filter(|s| !s.closing)?;
        let mut settled = Vec::new();
        let before = state.waiting.len();
        for task in tasks {
            let refusal = match &state.error {
                Some(e) => Some(e.clone()),
                None if task.len() > most => Some(TaskError::new(
                    class::TOO_LARGE,
                    format!(
                        "the task has {} bytes, at most {most} are allowed; put its input into an object and give it the key",
                        task.len()
                    ),
                )),
                None => None,
            };
            match refusal {
                Some(e) => settled.push(Outcome { task: task.id, run_us: 0, result: TaskResult::Failed(Box::new(e)) }),
                None => state.waiting.push_back(Queued::single(task)),
            }
        }
        let added = state.waiting.len() - before;
        self.wake_idle(session, added);
        Some(settled)
    }

    /// Wakes as many slots with little in hand as there are tasks; warm ones first, empty ones before others.
    fn wake_idle(&mut self, session: u32, tasks: usize) {
        let mut idle: Vec<_> = self.slots.iter().enumerate().filter(|(_, s)| s.phase == Phase::Ready).collect();
        idle.sort_by_key(|(i, s)| (s.hand.len(), !s.sessions.contains_key(&session), *i));
        let chosen: Vec<usize> = idle.into_iter().take(tasks).map(|(i, _)| i).collect();
        self.wake.extend(chosen);
    }

    /// Ends tasks: all of the session, or those named. What waits is settled at once; what an engine has is settled when it says so, and
    /// the engine is killed if it has not by `now` and the grace.
    pub(crate) fn cancel(&mut self, session: u32, tasks: Option<&BTreeSet<u64>>, now: Duration) -> Vec<Outcome> {
        let Some(state) = self.sessions.get_mut(&session) else { return Vec::new() };
        let wanted = |task: &Task| tasks.is_none_or(|t| t.contains(&task.id));
        let mut gone = Vec::new();
        state.waiting.retain(|q| keep(!wanted(&q.task), q, &mut gone));
        state.suspects.retain(|(_, q)| keep(!wanted(&q.task), q, &mut gone));
        state.culprits.retain(|q| keep(!wanted(&q.task), q, &mut gone));
        for (id, _) in &gone {
            state.strikes.remove(id);
        }
        let by = now + self.settings.cancel_grace;
        for (i, slot) in self.slots.iter_mut().enumerate() {
            let mut some = false;
            for in_hand in slot.hand.iter_mut().filter(|h| h.session == session && !h.cancelled && wanted(&h.task)) {
                in_hand.cancelled = true;
                some = true;
                if !in_hand.stolen {
                    slot.to_cancel.push((session, in_hand.task.id));
                }
            }
            if some {
                slot.cancel_by = Some(slot.cancel_by.map_or(by, |before| before.min(by)));
                self.wake.insert(i);
            }
        }
        let cancelled = |(task, _)| Outcome { task, run_us: 0, result: TaskResult::Cancelled };
        gone.into_iter().filter(|(_, twin)| self.last_copy_gone(*twin)).map(cancelled).collect()
    }

    /// Takes tasks back that no engine has begun, for somebody else to run: those that wait, and those behind what an engine is stuck in.
    /// They are settled as cancelled at once. Should an engine begin one before it is told not to, its result counts for nothing. Tasks that
    /// are looked into because an engine has died stay, with what is known of them.
    pub(crate) fn withdraw(&mut self, session: u32, tasks: &BTreeSet<u64>, now: Duration) -> Vec<Outcome> {
        let Some(state) = self.sessions.get_mut(&session) else { return Vec::new() };
        let mut gone = Vec::new();
        state.waiting.retain(|q| keep(!tasks.contains(&q.task.id), q, &mut gone));
        // Gone from the list is as good as a result: whatever comes of another copy comes too late.
        let mut taken: Vec<u64> = gone.into_iter().filter(|(_, twin)| self.first_result(*twin)).map(|(task, _)| task).collect();
        for (at, slot) in self.slots.iter_mut().enumerate() {
            if !slot.is_stuck(now, self.settings.stuck) {
                continue;
            }
            // The first is what it is stuck in.
            for in_hand in slot.hand.iter_mut().skip(1).filter(|h| h.session == session && !h.stolen && !h.cancelled) {
                if !tasks.contains(&in_hand.task.id) {
                    continue;
                }
                if in_hand.twin == 0 {
                    self.twins += 1;
                    in_hand.twin = self.twins;
                }
                let double = self.doubles.entry(in_hand.twin).or_insert(Double { copies: 1, settled: false });
                if !std::mem::replace(&mut double.settled, true) {
                    taken.push(in_hand.task.id);
                }
                in_hand.stolen = true;
                slot.to_cancel.push((session, in_hand.task.id));
                self.wake.insert(at);
            }
        }
        taken.into_iter().map(|task| Outcome { task, run_us: 0, result: TaskResult::Cancelled }).collect()
    }

    /// Takes no more tasks, cancels those that there are, and forgets the session when the last one is settled.
    pub(crate) fn close(&mut self, session: u32, now: Duration) -> Vec<Outcome> {
        let settled = self.cancel(session, None, now);
        if let Some(state) = self.sessions.get_mut(&session) {
            state.closing = true;
        }
        self.forget_if_done(session);
        settled
    }

    fn forget_if_done(&mut self, session: u32) {
        if self.sessions.get(&session).is_some_and(|s| s.closing && s.in_hand == 0 && !s.has_work()) {
            self.sessions.remove(&session);
            self.wake_all();
        }
    }

    /// The slot's engine is to be replaced when it has finished what it has.
    pub(crate) fn replace(&mut self, slot: usize) {
        self.slots[slot].replace = true;
        self.wake.insert(slot);
    }

    /// Tasks that are not settled.
    pub(crate) fn unsettled(&self) -> usize {
        let more_than_once: u32 = self.doubles.values().map(|d| if d.settled { d.copies } else { d.copies - 1 }).sum();
        let in_hand: usize = self.sessions.values().map(|s| s.in_hand).sum();
        (self.waiting() + in_hand).saturating_sub(more_than_once as usize)
    }

    /// Tasks that wait for an engine.
    pub(crate) fn waiting(&self) -> usize {
        self.sessions.values().map(|s| s.waiting.len() + s.suspects.len() + s.culprits.len()).sum()
    }

    /// What a slot's engine runs: the session and the task.
    pub(crate) fn running(&self, slot: usize) -> Option<(u32, u64)> {
        self.slots[slot].hand.front().map(|first| (first.session, first.task.id))
    }

    /// Tasks in the hands of a slot's engine, and how many it has finished.
    pub(crate) fn load(&self, slot: usize) -> (usize, u64) {
        (self.slots[slot].hand.len(), self.slots[slot].finished)
    }
}

/// For `retain`: whether to keep the task; if not, it is noted.
fn keep(keep: bool, queued: &Queued, gone: &mut Vec<(u64, u64)>) -> bool {
    if !keep {
        gone.push((queued.task.id, queued.twin));
    }
    keep
}

impl SessionState {
    fn has_work(&self) -> bool {
        !(self.waiting.is_empty() && self.suspects.is_empty() && self.culprits.is_empty())
    }
}
