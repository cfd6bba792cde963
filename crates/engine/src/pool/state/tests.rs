//! The decisions, without a process. A made-up engine runs what it is told the way a real one does: in order, sending results now and
//! then, losing what it has not sent when it dies.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::loss::Loss;
use crate::session::Function;

/// What a task does to its engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Nature {
    Good,
    Raises,
    Crashes,
    Hangs,
    /// Crashes the first time.
    Flaky,
}

/// An engine as the state sees it.
#[derive(Debug, Default)]
struct Fake {
    up: bool,
    starting: u32,
    open: Vec<u32>,
    /// Session, task, whether to step.
    queue: VecDeque<(u32, Task, bool)>,
    opening: VecDeque<u32>,
    cancelled: BTreeSet<(u32, u64)>,
    unsent: Vec<Outcome>,
    unsent_of: u32,
    ran: u64,
}

struct World {
    state: State,
    fakes: Vec<Fake>,
    now: Duration,
    natures: BTreeMap<(u32, u64), Nature>,
    /// How often each was begun.
    begun: BTreeMap<(u32, u64), u32>,
    outcomes: BTreeMap<(u32, u64), Vec<Outcome>>,
    /// Whether it ran in an engine where nothing had run before.
    fatal_was_first: BTreeMap<(u32, u64), bool>,
    /// Those that somebody has wanted to cancel.
    unwanted: BTreeSet<(u32, u64)>,
    flush_one_in: u64,
    rng: fastrand_like::Rng,
}

/// A generator that is enough for choosing, so that runs repeat.
mod fastrand_like {
    #[derive(Debug)]
    pub(super) struct Rng(pub(super) u64);

    impl Rng {
        pub(super) fn below(&mut self, n: u64) -> u64 {
            // SplitMix64, Steele, Lea and Flood 2014.
            self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            (z ^ (z >> 31)) % n.max(1)
        }
    }
}

impl World {
    fn new(engines: usize, seed: u64) -> Self {
        let mut settings = PoolSettings::new(engines);
        settings.frame_bytes = 1 << 20;
        Self {
            state: State::new(settings),
            fakes: (0..engines).map(|_| Fake::default()).collect(),
            now: Duration::ZERO,
            natures: BTreeMap::new(),
            begun: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            fatal_was_first: BTreeMap::new(),
            unwanted: BTreeSet::new(),
            flush_one_in: 5,
            rng: fastrand_like::Rng(seed),
        }
    }

    fn session(&mut self) -> u32 {
        self.state.open(Session::new(Function::Named("f".into())))
    }

    fn submit(&mut self, session: u32, natures: &[Nature]) {
        let first = self.natures.keys().filter(|(s, _)| *s == session).count() as u64;
        let tasks: Vec<Task> = (first..).zip(natures).map(|(id, _)| Task::new(id, vec![0; 8])).collect();
        self.natures.extend((first..).zip(natures).map(|(id, n)| ((session, id), *n)));
        let settled = self.state.submit(session, tasks).unwrap();
        self.settle(session, settled);
    }

    fn cancel(&mut self, session: u32, every: u64) {
        let wanted: BTreeSet<u64> = self.natures.keys().filter(|(s, id)| *s == session && id % every == 0).map(|(_, id)| *id).collect();
        self.unwanted.extend(wanted.iter().map(|id| (session, *id)));
        let settled = self.state.cancel(session, Some(&wanted), self.now);
        self.settle(session, settled);
    }

    fn withdraw(&mut self, session: u32, every: u64) -> usize {
        let wanted: BTreeSet<u64> = self.natures.keys().filter(|(s, id)| *s == session && id % every == 0).map(|(_, id)| *id).collect();
        self.unwanted.extend(wanted.iter().map(|id| (session, *id)));
        let settled = self.state.withdraw(session, &wanted, self.now);
        assert!(settled.iter().all(|o| o.result == TaskResult::Cancelled && wanted.contains(&o.task)), "{settled:?}");
        let count = settled.len();
        self.settle(session, settled);
        count
    }

    fn settle(&mut self, session: u32, outcomes: Vec<Outcome>) {
        for outcome in outcomes {
            self.outcomes.entry((session, outcome.task)).or_default().push(outcome);
        }
    }

    fn tell(&mut self, at: usize) {
        for action in self.state.next(at, self.now) {
            let fake = &mut self.fakes[at];
            assert!(fake.up, "{action:?} for an engine that is not there");
            match action {
                Action::Open(session, _) => {
                    assert!(!fake.open.contains(&session), "session {session} is opened twice");
                    fake.opening.push_back(session);
                }
                Action::Close(session) => fake.open.retain(|s| *s != session),
                Action::Run { session, step, tasks } => {
                    assert!(fake.open.contains(&session), "tasks for session {session}, which is not open");
                    assert!(!tasks.is_empty());
                    fake.queue.extend(tasks.into_iter().map(|t| (session, t, step)));
                }
                Action::Cancel { session, tasks } => fake.cancelled.extend(tasks.iter().map(|t| (session, *t))),
                Action::Recycle => {
                    assert!(fake.queue.is_empty() && fake.unsent.is_empty(), "an engine is replaced with tasks in hand");
                    self.die(at, Cause::Stopped);
                }
                Action::Kill(cause) => self.die(at, cause),
            }
        }
    }

    fn die(&mut self, at: usize, cause: Cause) {
        let fake = std::mem::take(&mut self.fakes[at]);
        let unsent = fake.unsent.iter().map(|o| (fake.unsent_of, o.task));
        let unfinished = unsent.chain(fake.queue.iter().map(|(s, t, _)| (*s, t.id))).collect();
        let loss = Loss { cause, unfinished, opening: fake.opening.front().copied(), log: "last words".into() };
        for (session, outcomes) in self.state.on_lost(at, &loss) {
            self.settle(session, outcomes);
        }
    }

    fn flush(&mut self, at: usize) {
        let fake = &mut self.fakes[at];
        if !fake.unsent.is_empty() {
            let (session, outcomes) = (fake.unsent_of, std::mem::take(&mut fake.unsent));
            let counted = self.state.on_results(at, session, outcomes, self.now);
            self.settle(session, counted);
        }
    }

    /// One thing happens at an engine.
    fn step(&mut self, at: usize) {
        self.now += Duration::from_micros(50 + self.rng.below(400));
        self.tell(at);
        let fake = &mut self.fakes[at];
        if !fake.up {
            fake.starting += 1;
            if fake.starting > 3 {
                fake.up = true;
                self.state.on_ready(at, self.now);
            }
            return;
        }
        if let Some(session) = fake.opening.pop_front() {
            fake.open.push(session);
            self.state.on_opened(at, session, self.now);
            return;
        }
        match fake.queue.front() {
            Some((session, ..)) if *session != fake.unsent_of || fake.queue.is_empty() => {
                self.flush(at);
                let fake = &mut self.fakes[at];
                fake.unsent_of = fake.queue.front().map_or(0, |(s, ..)| *s);
            }
            Some(_) => self.run_one(at),
            None => self.flush(at),
        }
    }

    fn run_one(&mut self, at: usize) {
        let fake = &mut self.fakes[at];
        let Some((session, task, step)) = fake.queue.front().cloned() else { return };
        let key = (session, task.id);
        let result = if fake.cancelled.remove(&key) {
            TaskResult::Cancelled
        } else {
            let begun = self.begun.entry(key).or_default();
            *begun += 1;
            let nature = self.natures[&key];
            match nature {
                Nature::Crashes | Nature::Flaky if nature == Nature::Crashes || *begun == 1 => {
                    self.fatal_was_first.insert(key, fake.ran == 0);
                    return self.die(at, Cause::Signal(11));
                }
                Nature::Hangs => return self.hang(at),
                Nature::Raises => TaskResult::Failed(Box::new(TaskError::new("ValueError", "no"))),
                _ => TaskResult::Value(Bytes::from_static(b"v")),
            }
        };
        let fake = &mut self.fakes[at];
        fake.queue.pop_front();
        fake.ran += u64::from(result != TaskResult::Cancelled);
        fake.unsent.push(Outcome { task: task.id, run_us: 1, result });
        if step || self.rng.below(self.flush_one_in) == 0 {
            self.flush(at);
        }
    }

    /// Others may take what is behind the task that hangs, and then its time is up.
    fn hang(&mut self, at: usize) {
        self.now += Duration::from_secs(1);
        for other in (0..self.fakes.len()).filter(|o| *o != at).collect::<Vec<_>>() {
            self.tell(other);
        }
        self.tell(at);
        if self.fakes[at].up {
            self.die(at, Cause::Task(Duration::from_secs(1)));
        }
    }

    fn run(&mut self) {
        for _ in 0..200_000 {
            if self.state.unsettled() == 0
                && self.state.waiting() == 0
                && self.fakes.iter().all(|f| f.unsent.is_empty() && f.queue.is_empty())
            {
                return;
            }
            let at = usize::try_from(self.rng.below(self.fakes.len() as u64)).unwrap();
            self.step(at);
        }
        panic!("{} tasks are never settled", self.state.unsettled());
    }

    /// Every task has one outcome, and the right one.
    fn check(&self) {
        for (key, nature) in &self.natures {
            let outcomes = self.outcomes.get(key).map_or(&[][..], Vec::as_slice);
            assert_eq!(outcomes.len(), 1, "task {key:?}, {nature:?}: {outcomes:?}");
            match (nature, &outcomes[0].result) {
                (Nature::Good | Nature::Flaky, TaskResult::Value(_)) => {}
                (Nature::Raises, TaskResult::Failed(e)) => assert_eq!(e.class, "ValueError"),
                (Nature::Crashes, TaskResult::Failed(e)) => {
                    assert_eq!((e.class.as_str(), e.log.as_str()), (class::CRASH, "last words"));
                    assert!(self.fatal_was_first[key], "task {key:?} had its last try in a used engine");
                }
                (Nature::Hangs, TaskResult::Failed(e)) => assert_eq!(e.class, class::TIMEOUT),
                (_, TaskResult::Cancelled) => assert!(self.unwanted.contains(key), "task {key:?} was cancelled by nobody"),
                (nature, result) => panic!("task {key:?}, {nature:?}, ended as {result:?}"),
            }
        }
        assert!(self.state.doubles.is_empty(), "{:?}", self.state.doubles);
        assert!(self.state.sessions.values().all(|s| s.in_hand == 0 && s.strikes.is_empty()));
    }
}

#[test]
fn a_task_that_ends_its_engine_fails_alone() {
    let mut world = World::new(2, 1);
    let session = world.session();
    let mut natures = vec![Nature::Good; 500];
    natures[250] = Nature::Crashes;
    natures[251] = Nature::Raises;
    world.submit(session, &natures);
    world.run();
    world.check();
    let extra: u32 = world.begun.iter().filter(|(key, _)| key.1 != 250).map(|(_, n)| n - 1).sum();
    assert!(extra < 60, "one death made {extra} others run again");
}

#[test]
fn a_stuck_engine_keeps_only_what_it_has_begun() {
    let mut world = World::new(2, 3);
    let session = world.session();
    world.submit(session, &[Nature::Good; 64]);
    // Both engines come up and learn that tasks are short.
    world.run();
    world.submit(session, &[Nature::Good; 64]);
    world.tell(0);
    let had = world.fakes[0].queue.len();
    assert!(had > 2, "{had}");
    // The first is stuck; the second works off the rest, and then the first's.
    for _ in 0..400 {
        world.step(1);
    }
    world.now += Duration::from_secs(1);
    for _ in 0..400 {
        world.step(1);
    }
    assert_eq!(world.state.unsettled(), 1, "only what the stuck engine runs is left");
    world.run();
    world.check();
}

#[test]
fn what_a_stuck_engine_has_not_begun_can_be_taken_back() {
    let mut world = World::new(1, 7);
    let session = world.session();
    world.submit(session, &[Nature::Good; 64]);
    world.run();
    world.submit(session, &[Nature::Good; 640]);
    world.tell(0);
    let had = world.fakes[0].queue.len();
    assert!(had > 2 && had < 640, "{had}");
    // An engine that gets on keeps what it has in hand.
    let waiting = world.state.waiting();
    assert_eq!(world.withdraw(session, 1), waiting);
    world.now += Duration::from_secs(1);
    assert_eq!(world.withdraw(session, 1), had - 1);
    assert_eq!((world.state.unsettled(), world.withdraw(session, 1)), (1, 0));
    // Whether or not it heeds what it is told, there is one word on each task.
    world.tell(0);
    assert_eq!(world.fakes[0].cancelled.len(), had - 1);
    world.fakes[0].cancelled.retain(|(_, id)| id % 2 == 0);
    world.run();
    world.check();
}

#[test]
fn long_tasks_go_one_at_a_time_and_short_ones_in_portions() {
    let mut world = World::new(1, 4);
    let session = world.session();
    world.submit(session, &[Nature::Good; 3]);
    for _ in 0..6 {
        world.step(0);
    }
    world.run();
    let state = world.state.sessions.get_mut(&session).unwrap();
    state.task_us = Some(30_000.0);
    world.submit(session, &[Nature::Good; 10]);
    world.tell(0);
    assert_eq!(world.fakes[0].queue.len(), 1);
    world.run();
    world.state.sessions.get_mut(&session).unwrap().task_us = Some(10.0);
    world.submit(session, &[Nature::Good; 10_000]);
    world.tell(0);
    assert_eq!(world.fakes[0].queue.len(), 4000, "40 ms of 10 us");
}

#[test]
fn a_session_whose_opening_kills_fails_and_others_go_on() {
    let mut world = World::new(2, 5);
    let (bad, good) = (world.session(), world.session());
    world.submit(bad, &[Nature::Good; 20]);
    world.submit(good, &[Nature::Good; 20]);
    for _ in 0..2000 {
        let at = usize::try_from(world.rng.below(2)).unwrap();
        world.tell(at);
        if world.fakes[at].opening.front() == Some(&bad) {
            world.die(at, Cause::Exit(3));
        }
        world.step(at);
    }
    assert!(world.outcomes.iter().filter(|((s, _), _)| *s == good).all(|(_, o)| matches!(o[0].result, TaskResult::Value(_))));
    let failed: Vec<_> = world.outcomes.iter().filter(|((s, _), _)| *s == bad).collect();
    assert_eq!(failed.len(), 20);
    for (_, outcomes) in failed {
        let TaskResult::Failed(e) = &outcomes[0].result else { panic!("{outcomes:?}") };
        assert!(outcomes.len() == 1 && e.message.contains("while the session was being opened"), "{e:?}");
    }
}

#[test]
fn a_cancelled_session_is_settled_whole_and_its_engine_killed_if_it_must() {
    let mut world = World::new(1, 6);
    let session = world.session();
    world.submit(session, &[Nature::Good; 50]);
    for _ in 0..6 {
        world.step(0);
    }
    world.tell(0);
    let settled = world.state.cancel(session, None, world.now);
    world.settle(session, settled);
    // The engine does not come back to its input.
    world.now += Duration::from_secs(3);
    world.tell(0);
    assert!(!world.fakes[0].up, "the engine was not killed");
    assert!(world.outcomes.values().all(|o| o.len() == 1));
    assert_eq!((world.outcomes.len(), world.state.unsettled()), (50, 0));
}

/// An attempt that has the number of one that an engine is still stuck with is a task of its own.
#[test]
fn a_task_may_come_again_while_a_stolen_copy_lies_about() {
    let mut world = World::new(2, 8);
    let session = world.session();
    world.submit(session, &[Nature::Good; 64]);
    world.run();
    world.submit(session, &[Nature::Good; 64]);
    world.tell(0);
    let held: Vec<u64> = world.fakes[0].queue.iter().map(|(_, t, _)| t.id).collect();
    for _ in 0..300 {
        world.step(1);
    }
    world.now += Duration::from_secs(1);
    for _ in 0..300 {
        world.step(1);
    }
    let stolen = held[1];
    assert_eq!(world.outcomes[&(session, stolen)].len(), 1);
    world.outcomes.remove(&(session, stolen));
    assert_eq!(world.state.submit(session, vec![Task::new(stolen, "again")]), Some(Vec::new()));
    world.run();
    world.check();
}

fn nature() -> impl Strategy<Value = Nature> {
    prop_oneof![
        60 => Just(Nature::Good),
        4 => Just(Nature::Raises),
        2 => Just(Nature::Crashes),
        1 => Just(Nature::Hangs),
        2 => Just(Nature::Flaky),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Whatever tasks do to their engines, each is settled once and rightly, and only those that end engines fail for it.
    #[test]
    fn every_task_is_settled_once(
        engines in 1_usize..5,
        seed in any::<u64>(),
        first in prop::collection::vec(nature(), 0..150),
        second in prop::collection::vec(nature(), 0..50),
        flush in 1_u64..30,
        recycle in prop::option::of(1_u64..40),
        cancel in prop::option::of(1_u64..5),
        withdraw in prop::option::of(1_u64..5),
    ) {
        let mut world = World::new(engines, seed);
        world.flush_one_in = flush;
        world.state.settings.recycle_tasks = recycle;
        world.state.settings.open_sessions = 1 + usize::try_from(seed % 2).unwrap();
        let (a, b) = (world.session(), world.session());
        world.submit(a, &first);
        world.submit(b, &second);
        for _ in 0..seed % 300 {
            let at = usize::try_from(world.rng.below(engines as u64)).unwrap();
            world.step(at);
        }
        world.submit(a, &second);
        if let Some(every) = cancel {
            for _ in 0..seed % 97 {
                let at = usize::try_from(world.rng.below(engines as u64)).unwrap();
                world.step(at);
            }
            world.cancel(a, every);
        }
        if let Some(every) = withdraw {
            for _ in 0..seed % 71 {
                let at = usize::try_from(world.rng.below(engines as u64)).unwrap();
                world.step(at);
            }
            world.now += Duration::from_millis(seed % 300);
            world.withdraw(b, every);
            world.withdraw(a, every);
        }
        world.run();
        world.check();
        for session in [a, b] {
            prop_assert!(world.state.close(session, world.now).is_empty());
        }
        prop_assert!(world.state.sessions.is_empty());
        for at in 0..engines {
            world.tell(at);
        }
        prop_assert!(world.fakes.iter().all(|f| f.open.is_empty()), "engines keep sessions that are closed");
    }
}
