//! Tasks that somebody gives up, and tasks that are tried again.

use super::*;
use crate::reactor::Completion;

/// What those are told who read a session: how each task ended, in the order in which it was told.
#[derive(Default)]
struct Reader {
    n: u64,
    told: BTreeMap<u64, Vec<&'static str>>,
}

impl Reader {
    fn read(&mut self, completions: Vec<Completion>) {
        for c in completions {
            assert_eq!(c.n, self.n + 1, "numbers without a gap");
            self.n = c.n;
            let mut tell = |task: u64, how: &'static str| self.told.entry(task).or_default().push(how);
            c.succeeded.iter().flat_map(|(start, len)| *start..start + len).for_each(|t| tell(t, "succeeded"));
            c.dead.iter().for_each(|d| tell(d.task, if d.class.is_some() { "failed" } else { "skipped" }));
            c.cancelled.iter().flat_map(|c| &c.tasks).flat_map(|(start, len)| *start..start + len).for_each(|t| tell(t, "cancelled"));
        }
    }

    fn of(&self, how: &str) -> u64 {
        self.told.values().filter(|t| t.last() == Some(&how)).count() as u64
    }
}

impl Bench {
    fn read(&mut self, reader: &mut Reader) {
        let fx = self.core.take_effects().unwrap();
        self.queue.extend(fx.sends.into_iter().map(|(_, item)| item));
        self.ended.extend(fx.finished_jobs);
        reader.read(fx.completions);
    }
}

#[test]
fn what_nobody_has_begun_is_cancelled_at_once_and_told_once() {
    let mut b = Bench::new();
    b.session();
    b.tasks(0, 1_000, &[(900, &[0])]);
    let mut reader = Reader::default();
    b.cancel(&[(500, 500)], false);
    b.cancel(&[(500, 500), (600, 3)], true);
    b.read(&mut reader);
    let s = b.stage();
    assert_eq!((s.cancelled, reader.of("cancelled"), s.pending.len()), (500, 500, 500), "a task that waits for a result is among them");
    b.close();
    let told = b.told(|_, task, _| {
        assert!(task < 500, "{task} was given up and ran");
        None
    });
    assert_eq!(told.iter().map(|t| t.1).sum::<u64>(), 500);
    assert_eq!(b.ended["s"], JobState::Succeeded, "nobody misses what was given up");
}

#[test]
fn of_what_runs_nothing_counts_after_it_was_cancelled() {
    let mut b = Bench::new();
    b.session();
    b.tasks(0, 40, &[]);
    b.tick();
    let item = b.queue.remove(0);
    let mut reader = Reader::default();
    b.cancel(&[(item.start, item.len)], true);
    assert_eq!(b.core.recall_of("s").at_once, [(item.start, item.len)], "its worker is told to stop it");
    b.settle(&item, |_, task, _| (task == item.start).then_some(FailureClass::Error));
    b.balance();
    b.read(&mut reader);
    let s = b.stage();
    assert_eq!((s.cancelled, s.succeeded, s.failed), (item.len, 0, 0));
    assert!(reader.told.values().all(|t| t == &["cancelled"]), "{:?}", reader.told);
    assert!(b.core.recall_of("s").is_empty(), "no worker has it any more");
}

#[test]
fn what_was_begun_counts_unless_it_was_to_be_stopped() {
    let mut b = Bench::new();
    b.session();
    b.tasks(0, 40, &[]);
    b.tick();
    let item = b.queue.iter().find(|i| i.len >= 2).cloned().unwrap_or_else(|| b.queue[0].clone());
    let mut reader = Reader::default();
    b.cancel(&[(item.start, item.len)], false);
    b.read(&mut reader);
    assert_eq!((b.stage().cancelled, reader.told.len()), (0, 0), "nobody knows yet whether it has begun");
    assert_eq!(b.core.recall_of("s").unless_begun, [(item.start, item.len)]);
    // The worker had begun the first.
    let rest = (item.start + 1, item.len - 1);
    let report = Report { succeeded: vec![(item.start, 1)], cancelled: vec![rest], ..b.report(&item) };
    b.core.on_report("s", 0, item.range, 1, &report, b.env.now());
    b.balance();
    b.read(&mut reader);
    let s = b.stage();
    assert_eq!((s.succeeded, s.cancelled, reader.of("succeeded"), reader.of("cancelled")), (1, rest.1, 1, rest.1));
    assert!(s.session.as_ref().unwrap().asked.is_empty());
}

#[test]
fn workers_are_not_asked_for_what_they_have_reported() {
    let mut b = Bench::new();
    b.session();
    b.tasks(0, 100_000, &[]);
    for _ in 0..3 {
        b.tick();
        std::mem::take(&mut b.queue).iter().for_each(|item| b.settle(item, |_, _, _| None));
    }
    b.tick();
    let item = b.queue.iter().find(|i| i.len > 1).unwrap().clone();
    let report = Report { finished: false, succeeded: vec![(item.start, 1)], ..b.report(&item) };
    b.core.on_report("s", 0, item.range, 1, &report, b.env.now());
    b.cancel(&[(item.start, item.len)], false);
    assert_eq!(b.core.recall_of("s").unless_begun, [(item.start + 1, item.len - 1)]);
}

#[test]
fn what_comes_back_or_fails_after_somebody_gave_it_up_is_not_tried_again() {
    for how in ["returned", "failed", "revoked", "lost"] {
        let mut b = Bench::new();
        b.session();
        b.tasks(0, 4, &[]);
        b.tick();
        let item = b.queue.remove(0);
        b.cancel(&[(item.start, item.len)], false);
        let run = vec![(item.start, item.len)];
        match how {
            "returned" => {
                let report = Report { returned: run, ..b.report(&item) };
                b.core.on_report("s", 0, item.range, 1, &report, b.env.now());
            }
            "failed" => b.settle(&item, |_, _, _| Some(FailureClass::Exit)),
            _ => b.core.on_range_revoked("s", 0, item.range, how == "lost", b.env.now()),
        }
        b.balance();
        let s = b.stage();
        let ended = if how == "failed" { s.failed } else { s.cancelled };
        assert_eq!((ended, s.retrying(), s.pending.len()), (item.len, 0, 4 - item.len - s.outstanding_tasks()), "{how}: {s:?}");
        assert!(s.session.as_ref().unwrap().asked.is_empty(), "{how}");
    }
}

#[test]
fn a_task_between_two_tries_is_given_up_with_what_needs_it() {
    let mut b = Bench::new();
    b.session_with(Terms::default(), RetrySpec::default());
    b.tasks(0, 3, &[(1, &[0]), (2, &[1])]);
    b.tick();
    let item = b.queue.remove(0);
    b.settle(&item, |_, _, _| Some(FailureClass::Exit));
    assert_eq!(b.stage().retrying(), 1);
    let mut reader = Reader::default();
    b.cancel(&[(0, 1)], false);
    b.read(&mut reader);
    let s = b.stage();
    assert_eq!((s.retrying(), s.cancelled, s.skipped.len(), s.exceptions.len()), (0, 1, 2, 0));
    assert_eq!((reader.of("cancelled"), reader.of("skipped")), (1, 2));
    // One that comes later is told as well.
    b.tasks(3, 1, &[(3, &[0])]);
    b.read(&mut reader);
    assert_eq!(reader.of("skipped"), 3);
    b.close();
    b.told(|_, task, _| panic!("task {task} ran"));
    assert_eq!(b.ended["s"], JobState::Failed, "those that needed it were not given up");
}

#[test]
fn what_was_given_up_stays_so_when_another_manager_leads() {
    let mut b = Bench::new();
    b.session();
    b.tasks(0, 4, &[(2, &[0]), (3, &[2])]);
    b.cancel(&[(2, 1)], false);
    let before = b.core.jobs.get_mut("s").unwrap().stages[0].session.take().unwrap();
    let row: SessionRow = crate::protocol::decode("session", &crate::protocol::encode(&before.row()).unwrap()).unwrap();
    b.core.jobs.get_mut("s").unwrap().stages[0].session = Some(Box::new(SessionState::new(row, b.env.now())));
    b.core.on_needs_read("s", vec![(2, vec![0]), (3, vec![2])]);
    b.close();
    b.told(|_, task, _| {
        assert!(task < 2, "task {task} ran");
        None
    });
    assert_eq!((b.ended["s"], b.core.jobs.len()), (JobState::Failed, 0));
}

#[test]
fn whoever_waited_is_counted_as_cancelled_and_nothing_else_when_another_manager_ends_the_session() {
    let mut b = Bench::new();
    b.session_with(Terms::default(), once());
    b.tasks(0, 4, &[(2, &[0]), (3, &[1])]);
    b.tick();
    let items: Vec<_> = std::mem::take(&mut b.queue);
    b.core.on_wanted("s", Wanted::Cancel, b.env.now());
    let before = b.core.jobs.get_mut("s").unwrap().stages[0].session.take().unwrap();
    b.core.jobs.get_mut("s").unwrap().stages[0].session = Some(Box::new(SessionState::new(before.row(), b.env.now())));
    b.core.on_needs_read("s", vec![(2, vec![0]), (3, vec![1])]);
    // Of what was running one half fails and the other succeeds, and neither has anybody who waits for it.
    items.iter().for_each(|item| b.settle(item, |_, task, _| (task == 0).then_some(FailureClass::Error)));
    b.balance();
    let s = b.stage();
    assert_eq!((s.succeeded, s.failed, s.cancelled, s.skipped.len(), s.pending.len()), (1, 1, 2, 0, 0));
}

#[test]
fn a_retry_brings_back_only_who_needs_nothing_else_that_is_lost() {
    let mut b = Bench::new();
    b.session_with(Terms::default(), once());
    b.tasks(0, 5, &[(2, &[0, 1]), (3, &[0]), (4, &[2, 3])]);
    b.told(|_, task, _| (task < 2).then_some(FailureClass::Error));
    assert_eq!((b.stage().failed, b.stage().skipped.len()), (2, 3));
    b.core.on_retry("s", Some(&[(0, 0)]), b.env.now());
    let told = b.told(|_, _, _| None);
    assert_eq!(told.iter().map(|t| t.1).sum::<u64>(), 2, "tasks 0 and 3: {told:?}");
    assert_eq!(b.stage().skipped.iter().collect::<Vec<_>>(), [2, 4]);
    b.core.on_retry("s", Some(&[(0, 0)]), b.env.now());
    assert!(b.told(|_, _, _| None).is_empty(), "it has succeeded, so asking again changes nothing");
    b.core.on_retry("s", None, b.env.now());
    assert_eq!(b.told(|_, _, _| None).iter().map(|t| t.1).sum::<u64>(), 3);
    b.close();
    b.told(|_, _, _| None);
    assert_eq!(b.ended["s"], JobState::Succeeded);
}

#[test]
fn a_closed_session_waits_for_tasks_that_it_has_not_heard_of() {
    let mut b = Bench::new();
    b.session();
    b.tasks(0, 2, &[]);
    b.core.on_closed("s", 5, b.env.now());
    b.told(|_, _, _| None);
    assert!(b.ended.is_empty(), "three more were taken in before it was closed");
    b.tasks(2, 3, &[]);
    b.told(|_, _, _| None);
    assert_eq!(b.ended["s"], JobState::Succeeded);
}

#[test]
fn millions_that_are_given_up_are_told_in_portions() {
    let mut b = Bench::new();
    b.session();
    b.tasks(0, 25_000, &[]);
    b.cancel(&[(0, 10), (20, 24_980)], true);
    let fx = b.core.take_effects().unwrap();
    let told: Vec<u64> = fx.completions.iter().map(|c| c.cancelled.iter().flat_map(|c| &c.tasks).map(|(_, len)| len).sum()).collect();
    assert_eq!(told, [10_000, 10_000, 4_990]);
}

#[test]
fn a_range_of_which_nothing_is_wanted_need_not_wait_for_a_worker() {
    let mut b = Bench::new();
    b.session();
    b.tasks(0, 40, &[]);
    b.tick();
    assert!(b.core.unwanted_ranges().is_empty());
    let (first, second) = (b.queue[0].clone(), b.queue[1].clone());
    b.cancel(&[(first.start, first.len)], false);
    assert_eq!(b.core.unwanted_ranges(), [("s".to_owned(), 0, first.range)]);
    b.cancel(&[(second.start, second.len)], true);
    assert_eq!(b.core.unwanted_ranges().len(), 2);
    assert_eq!(b.core.recalled_jobs(), ["s"]);
}

#[test]
fn whatever_is_asked_in_whatever_order_each_task_is_told_once_and_counts_add_up() {
    for seed in 0..200 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let (mut b, mut reader) = (Bench::new(), Reader::default());
        b.session_with(Terms::default(), if rng.bool() { once() } else { RetrySpec::default() });
        let (mut total, mut at_once) = (0_u64, RunSet::new());
        for _ in 0..rng.u32(5..60) {
            b.clock.advance(Duration::from_millis(rng.u64(1..3_000)));
            match rng.u8(0..6) {
                0 => {
                    let count = rng.u64(1..40);
                    let mut needs: Vec<(u64, Vec<u64>)> = Vec::new();
                    for task in (total + 1..total + count).filter(|t| t % 4 == seed % 4) {
                        needs.push((task, vec![rng.u64(..task), rng.u64(..task)]));
                    }
                    b.core.on_submitted("s", total, count, needs, b.env.now());
                    total += count;
                }
                1 if total > 0 => {
                    let (start, running) = (rng.u64(..total), rng.bool());
                    let len = rng.u64(1..=20.min(total - start));
                    b.cancel(&[(start, len)], running);
                    if running {
                        at_once.insert_run(start, len);
                    }
                }
                2 if !b.queue.is_empty() => {
                    let item = b.queue.remove(rng.usize(..b.queue.len()));
                    let split = item.start + rng.u64(..=item.len);
                    let report = Report { returned: vec![(split, item.start + item.len - split)], ..b.report(&item) };
                    let report = Report { succeeded: vec![(item.start, split - item.start)], ..report };
                    b.core.on_report("s", 0, item.range, 1, &report, b.env.now());
                }
                3 if !b.queue.is_empty() => {
                    let item = b.queue.remove(0);
                    b.core.on_range_revoked("s", 0, item.range, rng.bool(), b.env.now());
                }
                _ if !b.queue.is_empty() => {
                    let item = b.queue.remove(0);
                    b.settle(&item, |_, task, _| (task % 7 == 3).then_some(FailureClass::Exit));
                }
                _ => {}
            }
            b.core.tick(b.env.now());
            b.read(&mut reader);
            b.balance();
            let untold = at_once.iter().find(|task| !reader.told.contains_key(task));
            assert_eq!(untold, None, "seed {seed}: it was cancelled at once, and those who wait were not told at once");
        }
        b.close();
        for _ in 0..300 {
            b.clock.advance(Duration::from_secs(400));
            b.core.tick(b.env.now());
            b.read(&mut reader);
            for item in std::mem::take(&mut b.queue) {
                b.settle(&item, |_, task, _| (task % 7 == 3).then_some(FailureClass::Exit));
            }
        }
        b.read(&mut reader);
        assert!(b.ended.contains_key("s"), "seed {seed} never ended: {:?}", b.core.jobs);
        assert_eq!(reader.told.len() as u64, total, "seed {seed}: somebody was told nothing");
        let twice = reader.told.iter().find(|(_, t)| t.len() != 1);
        assert_eq!(twice, None, "seed {seed}");
    }
}
