//! What one engine has been asked and has not answered. It answers in the order in which it was asked, so one list is enough to find
//! a wrong number, an answer too many, and what was to run when it ended. Plain code over state.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::session::{Outcome, Session, Task, TaskError, TaskResult};
use crate::wire::{FromEngine, Library};

/// Something the engine owes an answer for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Open(u32),
    Task(u32, u64),
}

/// What is known of the engine from what it was sent and has said.
#[derive(Debug, Default)]
pub(crate) struct Flight {
    asked: VecDeque<Asked>,
    sessions: BTreeMap<u32, Arc<Session>>,
    cancelled: BTreeSet<(u32, u64)>,
    ping: Option<u64>,
}

/// An answer that was to be expected.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Opened { session: u32, took_us: u64, loaded: Vec<Library> },
    Refused { session: u32, error: TaskError },
    Results { session: u32, outcomes: Vec<Outcome> },
    Pong,
}

/// What an engine works on, which says how long it may take.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Doing {
    Nothing,
    Opening,
    Task(Option<Duration>),
    Ping,
}

impl Flight {
    pub(crate) fn open(&mut self, number: u32, session: Arc<Session>) {
        self.sessions.insert(number, session);
        self.asked.push_back(Asked::Open(number));
    }

    pub(crate) fn close(&mut self, session: u32) {
        self.sessions.remove(&session);
    }

    pub(crate) fn run(&mut self, session: u32, tasks: &[Task]) {
        self.asked.extend(tasks.iter().map(|t| Asked::Task(session, t.id)));
    }

    pub(crate) fn cancel(&mut self, session: u32, tasks: &[u64]) {
        self.cancelled.extend(tasks.iter().map(|t| (session, *t)));
    }

    /// A PING is sent only to an engine that has nothing to do.
    pub(crate) fn ping(&mut self, number: u64) {
        self.ping = Some(number);
    }

    pub(crate) fn doing(&self) -> Doing {
        match self.asked.front() {
            Some(Asked::Open(_)) => Doing::Opening,
            Some(Asked::Task(session, _)) => Doing::Task(self.sessions.get(session).and_then(|s| s.limit)),
            None if self.ping.is_some() => Doing::Ping,
            None => Doing::Nothing,
        }
    }

    /// Checks an answer. An error says how it breaks the protocol.
    pub(crate) fn on(&mut self, said: FromEngine) -> Result<Answer, String> {
        match said {
            FromEngine::Hello(_) => Err("it said HELLO again".to_owned()),
            FromEngine::Opened(opened) => {
                self.answers_open("OPENED", opened.session)?;
                Ok(Answer::Opened { session: opened.session, took_us: opened.took_us, loaded: opened.loaded })
            }
            FromEngine::Refused(refusal) => {
                self.answers_open("REFUSED", refusal.session)?;
                self.sessions.remove(&refusal.session);
                Ok(Answer::Refused { session: refusal.session, error: refusal.error })
            }
            FromEngine::Results(columns) => {
                for outcome in &columns.outcomes {
                    self.answers_task(columns.session, outcome)?;
                }
                Ok(Answer::Results { session: columns.session, outcomes: columns.outcomes })
            }
            FromEngine::Pong(number) if self.ping == Some(number) => {
                self.ping = None;
                Ok(Answer::Pong)
            }
            FromEngine::Pong(number) => Err(format!("PONG {number} answers no PING")),
        }
    }

    fn answers_open(&mut self, what: &str, session: u32) -> Result<(), String> {
        if self.asked.front() != Some(&Asked::Open(session)) {
            return Err(format!("{what} for session {session} where {} was next", self.next()));
        }
        self.asked.pop_front();
        Ok(())
    }

    fn answers_task(&mut self, session: u32, outcome: &Outcome) -> Result<(), String> {
        if self.asked.front() != Some(&Asked::Task(session, outcome.task)) {
            return Err(format!("a result for task {} of session {session} where {} was next", outcome.task, self.next()));
        }
        let was_cancelled = !self.cancelled.is_empty() && self.cancelled.remove(&(session, outcome.task));
        if outcome.result == TaskResult::Cancelled && !was_cancelled {
            return Err(format!("task {} of session {session} is said to be cancelled and was not", outcome.task));
        }
        self.asked.pop_front();
        Ok(())
    }

    fn next(&self) -> String {
        match self.asked.front() {
            Some(Asked::Open(session)) => format!("session {session}"),
            Some(Asked::Task(session, task)) => format!("task {task} of session {session}"),
            None => "nothing".to_owned(),
        }
    }

    /// Tasks without an answer, and the session that was being opened.
    pub(crate) fn lost(&self) -> (Vec<(u32, u64)>, Option<u32>) {
        let tasks = self.asked.iter().filter_map(|a| match a {
            Asked::Task(session, task) => Some((*session, *task)),
            Asked::Open(_) => None,
        });
        let opening = match self.asked.front() {
            Some(Asked::Open(session)) => Some(*session),
            _ => None,
        };
        (tasks.collect(), opening)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::session::Function;
    use crate::wire::{Opened, ResultColumns};

    fn flight() -> Flight {
        let mut flight = Flight::default();
        flight.open(3, Arc::new(Session::new(Function::Named("f".into()))));
        let opened = FromEngine::Opened(Opened { session: 3, took_us: 5, loaded: Vec::new() });
        assert!(matches!(flight.on(opened), Ok(Answer::Opened { session: 3, .. })));
        flight.run(3, &[Task::new(7, "a"), Task::new(8, "b")]);
        flight
    }

    fn results(session: u32, tasks: &[u64]) -> FromEngine {
        let outcome = |task: &u64| Outcome { task: *task, run_us: 1, result: TaskResult::Value(Bytes::new()) };
        FromEngine::Results(ResultColumns { session, outcomes: tasks.iter().map(outcome).collect() })
    }

    #[track_caller]
    fn broken(said: FromEngine, how: &str) {
        let why = flight().on(said).unwrap_err();
        assert!(why.contains(how), "{why}");
    }

    #[test]
    fn wrong_answers_are_told_apart() {
        broken(results(3, &[9]), "task 9 of session 3 where task 7");
        broken(results(3, &[8]), "where task 7");
        broken(results(4, &[7]), "session 4");
        broken(results(3, &[7, 8, 8]), "where nothing was next");
        broken(results(3, &[7, 7]), "where task 8");
        broken(FromEngine::Pong(0), "answers no PING");
        broken(FromEngine::Opened(Opened { session: 3, took_us: 0, loaded: Vec::new() }), "OPENED for session 3");
        let cancelled = Outcome { task: 7, run_us: 0, result: TaskResult::Cancelled };
        broken(FromEngine::Results(ResultColumns { session: 3, outcomes: vec![cancelled] }), "was not");
    }

    #[test]
    fn what_is_unanswered_is_lost_in_its_order() {
        let mut flight = flight();
        flight.on(results(3, &[7])).unwrap();
        assert_eq!(flight.lost(), (vec![(3, 8)], None));
        assert_eq!(flight.doing(), Doing::Task(None));
        flight.on(results(3, &[8])).unwrap();
        flight.open(4, Arc::new(Session::new(Function::Named("g".into()))));
        assert_eq!(flight.lost(), (Vec::new(), Some(4)));
    }
}
