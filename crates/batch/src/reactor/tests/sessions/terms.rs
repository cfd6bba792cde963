//! Sessions that end by themselves.

use super::*;
use crate::model::{Budget, OnAbandon, OnBudget};
use tidemill_base::HumanDuration;

fn span(seconds: u64) -> Option<HumanDuration> {
    Some(Duration::from_secs(seconds).into())
}

impl Bench {
    /// Lets time pass, second by second, with whatever the leader does meanwhile; what is released runs at once.
    fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.clock.advance(Duration::from_secs(1));
            self.core.tick(self.env.now());
            self.carry_out();
        }
    }

    /// What the leader does with the reactor's wishes.
    fn carry_out(&mut self) {
        let fx = self.core.take_effects().unwrap();
        self.queue.extend(fx.sends.into_iter().map(|(_, item)| item));
        self.ended.extend(fx.finished_jobs);
        for job in fx.closings {
            assert!(!self.stage().session.as_ref().unwrap().takes_tasks(), "{job} takes tasks while it is being closed");
            self.close();
        }
    }

    fn work(&mut self) {
        for item in std::mem::take(&mut self.queue) {
            self.settle(&item, |_, _, _| None);
        }
    }

    fn reason(&self) -> String {
        self.core.jobs.get("s").map(|j| j.reason.clone()).unwrap_or_default()
    }
}

fn with(budget: Budget) -> Terms {
    Terms { budget, ..Terms::default() }
}

#[test]
fn an_idle_session_is_closed_and_one_that_somebody_reads_or_that_works_is_not() {
    let mut b = Bench::new();
    b.session_with(Terms { idle_timeout: span(600), ..Terms::default() }, once());
    b.tasks(0, 3, &[]);
    b.pass(2_000);
    assert!(b.ended.is_empty(), "it has work, although nobody does it");
    b.work();
    b.pass(590);
    b.core.on_seen("s", b.env.now());
    b.pass(590);
    assert!(b.ended.is_empty(), "somebody reads");
    assert!(b.core.next_due().unwrap() > b.env.now(), "the leader knows when to look again");
    let due = b.core.next_due().unwrap().since(b.env.now());
    assert!(due <= Duration::from_secs(20), "{due:?}");
    b.pass(20);
    assert_eq!(b.ended["s"], JobState::Succeeded);
}

#[test]
fn an_idle_session_says_why_it_was_closed() {
    let mut b = Bench::new();
    b.session_with(Terms { idle_timeout: span(30), ..Terms::default() }, once());
    b.pass(59);
    assert!(b.ended.is_empty(), "a manager that has just begun waits for a while");
    b.clock.advance(Duration::from_secs(2));
    b.core.tick(b.env.now());
    assert!(b.reason().contains("for 30s"), "{}", b.reason());
    b.core.on_submitted("s", 0, 1, vec![], b.env.now());
    b.carry_out();
    b.pass(5);
    assert!(b.ended.is_empty(), "what was submitted at that moment is done");
    b.work();
    b.pass(1);
    assert_eq!(b.ended["s"], JobState::Succeeded);
}

#[test]
fn a_session_whose_client_has_gone_ends_as_it_was_told_to() {
    for (on_abandon, ends) in [(OnAbandon::Cancel, JobState::Cancelled), (OnAbandon::Close, JobState::Succeeded)] {
        let mut b = Bench::new();
        b.session_with(Terms { keep_alive: span(60), on_abandon, ..Terms::default() }, once());
        b.tasks(0, 4, &[]);
        b.pass(100);
        b.core.on_seen("s", b.env.now());
        b.pass(59);
        assert_eq!(b.reason(), "");
        b.pass(2);
        assert!(b.reason().contains("keep_alive"), "{}", b.reason());
        if on_abandon == OnAbandon::Cancel {
            for item in std::mem::take(&mut b.queue) {
                b.core.on_range_revoked("s", 0, item.range, false, b.env.now());
            }
        }
        for _ in 0..5 {
            b.work();
            b.pass(1);
        }
        assert_eq!(b.ended["s"], ends);
    }
}

#[test]
fn a_closed_session_is_not_abandoned() {
    let mut b = Bench::new();
    b.session_with(Terms { keep_alive: span(60), idle_timeout: span(60), ..Terms::default() }, once());
    b.tasks(0, 4, &[]);
    b.close();
    b.pass(500);
    assert_eq!(b.reason(), "");
    b.work();
    b.pass(2);
    b.work();
    b.pass(2);
    assert_eq!(b.ended["s"], JobState::Succeeded);
}

#[test]
fn a_budget_of_failures_stops_what_has_not_begun_and_lets_the_rest_finish() {
    let mut b = Bench::new();
    b.session_with(with(Budget { failures: Some(2), ..Budget::default() }), once());
    b.tasks(0, 1_000, &[(999, &[0])]);
    b.tick();
    let mut items = std::mem::take(&mut b.queue);
    let last = items.pop().unwrap();
    for item in items {
        b.settle(&item, |_, task, _| (task < 2).then_some(FailureClass::Error));
    }
    b.core.tick(b.env.now());
    assert!(b.reason().contains("budget of 2 failures"), "{}", b.reason());
    b.carry_out();
    b.balance();
    assert_eq!((b.stage().pending.len(), b.stage().outstanding_tasks()), (0, last.len));
    let reason = b.reason();
    b.core.on_retry("s", None, b.env.now());
    assert_eq!((b.stage().retrying(), b.reason()), (0, reason), "a stopped session is not taken up again");
    b.settle(&last, |_, _, _| None);
    let (done, failed) = (b.stage().succeeded, b.stage().failed);
    assert!(done >= last.len && failed == 2, "what was begun counts");
    b.pass(1);
    assert_eq!(b.ended["s"], JobState::Failed);
}

#[test]
fn a_budget_of_time_stops_the_session_at_once_when_it_was_told_to() {
    let now = Bench::new().env.now();
    for budget in [
        Budget { wall: span(100), ..Budget::default() },
        Budget { deadline: Some(now + Duration::from_secs(100)), wall: span(900), ..Budget::default() },
    ] {
        let mut b = Bench::new();
        b.session_with(with(Budget { on_met: OnBudget::Cancel, ..budget.clone() }), once());
        b.tasks(0, 50, &[]);
        b.pass(99);
        assert!(b.reason().is_empty() && b.core.next_due().is_some_and(|due| due.since(b.env.now()) <= Duration::from_secs(1)));
        b.pass(1);
        let word = if budget.deadline.is_some() { "deadline" } else { "budget of 1m40s" };
        assert!(b.reason().contains(word), "{}", b.reason());
        for item in std::mem::take(&mut b.queue) {
            b.core.on_range_revoked("s", 0, item.range, false, b.env.now());
        }
        b.pass(1);
        assert_eq!(b.ended["s"], JobState::Cancelled);
    }
}

#[test]
fn engine_time_is_counted_over_all_attempts() {
    let mut b = Bench::new();
    // Each attempt takes a millisecond: see `Bench::report`.
    let time = Some(Duration::from_millis(30).into());
    b.session_with(with(Budget { engine_time: time, ..Budget::default() }), RetrySpec::default());
    b.tasks(0, 10_000, &[]);
    for _ in 0..40 {
        b.pass(1);
        for item in std::mem::take(&mut b.queue) {
            b.settle(&item, |_, task, _| (task % 2 == 0).then_some(FailureClass::Exit));
        }
    }
    assert_eq!(b.ended["s"], JobState::Failed);
}

#[test]
fn a_budget_of_tasks_closes_the_session_and_all_of_them_are_done() {
    let mut b = Bench::new();
    b.session_with(with(Budget { tasks: Some(5), ..Budget::default() }), once());
    b.tasks(0, 4, &[]);
    b.pass(2);
    assert_eq!(b.reason(), "");
    b.tasks(4, 1, &[]);
    b.pass(2);
    assert!(b.reason().contains("budget of 5 tasks"), "{}", b.reason());
    for _ in 0..3 {
        b.work();
        b.pass(1);
    }
    assert_eq!(b.ended["s"], JobState::Succeeded);
}

#[test]
fn what_is_on_its_way_to_a_stopped_session_is_cancelled_and_told() {
    let mut b = Bench::new();
    b.session_with(with(Budget { wall: span(10), ..Budget::default() }), once());
    b.pass(9);
    b.clock.advance(Duration::from_secs(2));
    b.core.tick(b.env.now());
    b.core.on_submitted("s", 0, 3, vec![], b.env.now());
    let fx = b.core.take_effects().unwrap();
    let told: Vec<_> = fx.completions.iter().filter_map(|c| c.cancelled.clone()).collect();
    assert_eq!((told[0].tasks.as_slice(), told.len()), ([(0, 3)].as_slice(), 1));
    assert!(told[0].message.contains("budget of 10s"), "{}", told[0].message);
    assert_eq!(b.stage().cancelled, 3);
}
