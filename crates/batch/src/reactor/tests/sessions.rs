//! Sessions: submissions, needs, completions.

use super::*;
use crate::model::Terms;
use crate::reactor::{CANCELLED, SessionRow, SessionState};

mod cancel;
mod terms;
mod turns;

impl Bench {
    fn session(&mut self) {
        self.session_with(Terms::default(), RetrySpec::default());
    }

    fn session_with(&mut self, terms: Terms, retry: RetrySpec) {
        self.session_of("s", "ada", terms, retry);
    }

    fn session_of(&mut self, id: &str, user: &str, terms: Terms, retry: RetrySpec) {
        let tasks = stage("tasks", InputSpec::Submitted { terms: Box::new(terms) });
        self.submit(id, user, 0, vec![StageSpec { retry, ..tasks }]);
        let now = self.env.now();
        let s = &mut self.core.jobs.get_mut(id).unwrap().stages[0];
        s.state = StageState::Open;
        s.session = Some(Box::new(SessionState::new(SessionRow { open: true, ..SessionRow::default() }, now)));
    }

    fn stage(&self) -> &StageEntry {
        &self.core.jobs["s"].stages[0]
    }

    fn close(&mut self) {
        let all = self.stage().total;
        self.core.on_closed("s", all, self.env.now());
    }

    /// Gives tasks up.
    fn cancel(&mut self, tasks: &[(u64, u64)], running: bool) {
        self.core.on_cancelled_tasks("s", tasks, running, CANCELLED, self.env.now());
        self.balance();
    }

    fn tasks(&mut self, first: u64, count: u64, needs: &[(u64, &[u64])]) {
        let needs = needs.iter().map(|(task, needs)| (*task, needs.to_vec())).collect();
        self.core.on_submitted("s", first, count, needs, self.env.now());
    }

    /// Works until nothing is released any more, and says what those who wait were told: number, successes, deaths.
    fn told(&mut self, fails: impl Fn(u32, u64, u32) -> Option<FailureClass>) -> Vec<(u64, u64, Vec<u64>)> {
        let mut told = Vec::new();
        for _ in 0..200 {
            self.clock.advance(Duration::from_secs(1));
            self.core.tick(self.env.now());
            let fx = self.core.take_effects().unwrap();
            self.queue.extend(fx.sends.into_iter().map(|(_, item)| item));
            self.ended.extend(fx.finished_jobs);
            told.extend(fx.completions.into_iter().map(|c| {
                let done = c.succeeded.iter().map(|(_, len)| len).sum();
                (c.n, done, c.dead.iter().map(|d| d.task).collect())
            }));
            while !self.queue.is_empty() {
                let item = self.queue.remove(0);
                self.settle(&item, &fails);
                self.balance();
            }
        }
        told
    }
}

fn once() -> RetrySpec {
    let mut retry = RetrySpec::default();
    retry.policy.attempts = 1;
    retry
}

#[test]
fn a_session_takes_tasks_while_it_is_open_and_ends_when_it_is_closed() {
    let mut b = Bench::new();
    b.session();
    assert!(b.told(|_, _, _| None).is_empty() && b.ended.is_empty(), "an empty session waits");
    b.tasks(0, 500, &[]);
    let told = b.told(|_, _, _| None);
    assert_eq!(told.iter().map(|t| t.1).sum::<u64>(), 500);
    assert_eq!(told.iter().map(|t| t.0).collect::<Vec<_>>(), (1..=told.len() as u64).collect::<Vec<_>>(), "numbers without a gap");
    assert!(b.ended.is_empty(), "it is open still");
    b.tasks(500, 3, &[]);
    b.close();
    assert_eq!(b.told(|_, _, _| None).iter().map(|t| t.1).sum::<u64>(), 3);
    assert_eq!(b.ended["s"], JobState::Succeeded);
}

#[test]
fn a_task_waits_for_the_results_it_needs_and_is_told_where_they_are() {
    let mut b = Bench::new();
    b.session();
    // A tree: 0..8 are leaves, 8..12 need two of them each, 12 needs those.
    b.tasks(0, 13, &[(8, &[0, 1]), (9, &[2, 3]), (10, &[4, 5]), (11, &[6, 7]), (12, &[8, 9, 10, 11])]);
    let mut order = Vec::new();
    while b.core.jobs["s"].stages[0].succeeded < 13 {
        b.tick();
        assert!(!b.queue.is_empty(), "nothing is released: {:?}", b.core.jobs["s"].stages[0]);
        for item in std::mem::take(&mut b.queue) {
            for task in item.start..item.start + item.len {
                let needs = item.needs.iter().find(|(t, _)| *t == task).map_or(0, |(_, at)| at.len());
                assert_eq!(
                    needs,
                    match task {
                        0..8 => 0,
                        8..12 => 2,
                        _ => 4,
                    },
                    "task {task}"
                );
                order.push(task);
            }
            b.settle(&item, |_, _, _| None);
            b.balance();
        }
    }
    let place = |task: u64| order.iter().position(|t| *t == task).unwrap();
    assert!((8..12).all(|t| place(t) > place(2 * (t - 8)) && place(t) > place(2 * (t - 8) + 1) && place(12) > place(t)));
    // What is submitted later may need what has long been done.
    b.tasks(13, 1, &[(13, &[0, 12])]);
    b.tick();
    assert_eq!((b.queue[0].start, b.queue[0].needs[0].1.len()), (13, 2));
}

#[test]
fn who_needs_what_failed_is_skipped_and_told_and_a_retry_brings_it_back() {
    let mut b = Bench::new();
    b.session_with(Terms::default(), once());
    b.tasks(0, 4, &[(2, &[0, 1]), (3, &[2])]);
    let told = b.told(|_, task, _| (task == 1).then_some(FailureClass::Error));
    let mut dead: Vec<u64> = told.iter().flat_map(|t| t.2.clone()).collect();
    dead.sort_unstable();
    assert_eq!(dead, [1, 2, 3]);
    // One that comes after the failure is told as well.
    b.tasks(4, 1, &[(4, &[3])]);
    assert_eq!(b.told(|_, _, _| None).into_iter().flat_map(|t| t.2).collect::<Vec<_>>(), [4]);
    let s = &b.core.jobs["s"].stages[0];
    assert_eq!((s.succeeded, s.failed, s.skipped.len(), s.total), (1, 1, 3, 5));

    b.core.on_retry("s", None, b.env.now());
    let told = b.told(|_, _, _| None);
    assert_eq!(told.iter().map(|t| t.1).sum::<u64>(), 4, "{told:?}");
    b.close();
    b.told(|_, _, _| None);
    assert_eq!(b.ended["s"], JobState::Succeeded);
}

#[test]
fn what_is_read_back_goes_on_where_it_was() {
    let mut b = Bench::new();
    b.session();
    b.tasks(0, 4, &[(2, &[0]), (3, &[1, 2])]);
    b.tick();
    let first: Vec<_> = std::mem::take(&mut b.queue);
    b.settle(&first[0], |_, _, _| None);
    let done: Vec<u64> = (first[0].start..first[0].start + first[0].len).collect();
    // Another manager: the row, the results that were told of, what tasks need.
    let s = &mut b.core.jobs.get_mut("s").unwrap().stages[0];
    let before = s.session.take().unwrap();
    let mut after = SessionState::new(before.row(), b.env.now());
    after.found(&[(done[0], done.len() as u64)], first[0].range, 1);
    s.session = Some(Box::new(after));
    b.core.on_needs_read("s", vec![(2, vec![0]), (3, vec![1, 2])]);
    first[1..].iter().for_each(|item| b.settle(item, |_, _, _| None));
    b.told(|_, _, _| None);
    assert_eq!(b.core.jobs["s"].stages[0].succeeded, 4);
}

#[test]
fn a_task_whose_command_comes_after_its_needs_were_read_waits_for_all_of_them() {
    let mut b = Bench::new();
    b.session();
    b.tasks(0, 2, &[]);
    // Another manager begins to lead, and finds a submission in the ledger whose command nobody has carried out.
    b.core.on_needs_read("s", vec![(2, vec![0, 1])]);
    b.tasks(2, 1, &[(2, &[0, 1])]);
    b.tick();
    let items = std::mem::take(&mut b.queue);
    let first = items.iter().position(|i| i.start == 0 && i.len == 1).unwrap();
    b.settle(&items[first], |_, _, _| None);
    b.tick();
    assert!(b.queue.is_empty(), "it needs the result of task 1 as well: {:?}", b.queue);
    items.iter().filter(|i| i.start == 1).for_each(|item| b.settle(item, |_, _, _| None));
    b.tick();
    assert_eq!((b.queue[0].start, b.queue[0].needs[0].1.len()), (2, 2));
}

#[test]
fn a_range_whose_tasks_name_what_they_need_is_short() {
    let mut session = SessionState::new(SessionRow { open: true, ..SessionRow::default() }, Timestamp::ZERO);
    session.needs(5_000, vec![0]);
    assert_eq!((session.longest(0, 4_000), session.longest(4_000, 4_000)), (4_000, 256));
}

#[test]
fn cancelling_forgets_who_waits() {
    let mut b = Bench::new();
    b.session();
    b.tasks(0, 100, &[(50, &[0]), (51, &[50])]);
    b.tick();
    b.core.on_wanted("s", Wanted::Cancel, b.env.now());
    b.tasks(100, 5, &[]);
    let first = b.queue.remove(0);
    assert_eq!(first.start, 0);
    b.settle(&first, |_, _, _| None);
    let s = b.stage();
    assert!(s.pending.is_empty(), "what waited for task 0 is let go of: {s:?}");
    assert_eq!(s.cancelled, 105 - s.succeeded - s.outstanding_tasks(), "what was on its way is cancelled as well");
    for item in std::mem::take(&mut b.queue) {
        b.core.on_range_revoked("s", 0, item.range, false, b.env.now());
    }
    b.told(|_, _, _| None);
    assert_eq!(b.ended["s"], JobState::Cancelled);
}
