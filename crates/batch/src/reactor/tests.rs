//! The reactor alone: a made-up fleet that settles ranges as it likes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tidemill_base::{Env, ManualClock, RunSet, Timestamp};

use super::release::range_len;
use super::{Capacity, Core, JobEntry, ReactorSettings, StageEntry};
use crate::model::{
    ChainMode, FailureClass, InputSpec, JobSpec, JobState, KeepSpec, OutputSpec, Resources, RetrySpec, RunSpec, StageSpec, StageState,
    SuccessSpec, TaskColumns, TaskFailure, TaskStat, UpstreamPolicy, Wanted,
};
use crate::protocol::{Control, Report, WorkItem};

mod sessions;

fn stage(name: &str, input: InputSpec) -> StageSpec {
    StageSpec {
        name: name.into(),
        input,
        run: RunSpec::Noop,
        resources: Resources::default(),
        timeout: None,
        retry: RetrySpec::default(),
        success: SuccessSpec::default(),
        output: OutputSpec::default(),
        upstream: UpstreamPolicy::default(),
        env: BTreeMap::new(),
        secrets: BTreeMap::new(),
        credentials: false,
        keep: KeepSpec::default(),
    }
}

fn array(n: u64) -> InputSpec {
    InputSpec::Array { first: 0, last: n.cast_signed() - 1 }
}

fn after(stage: &str, mode: ChainMode) -> InputSpec {
    InputSpec::Stage { stage: stage.into(), mode }
}

struct Bench {
    core: Core,
    clock: Arc<ManualClock>,
    env: Env,
    queue: Vec<WorkItem>,
    ended: BTreeMap<String, JobState>,
    dead: Vec<(u32, u64)>,
    ledger: usize,
}

impl Bench {
    fn new() -> Self {
        let (env, clock) = Env::manual(Timestamp::from_millis(1_000_000), 5);
        let mut core = Core::new(ReactorSettings::default(), env.clone());
        core.on_workers([("default".to_owned(), Capacity { workers: 2, slots: 4 })].into());
        Self { core, clock, env, queue: Vec::new(), ended: BTreeMap::new(), dead: Vec::new(), ledger: 0 }
    }

    fn submit(&mut self, id: &str, user: &str, priority: i32, stages: Vec<StageSpec>) {
        let mut entries: Vec<StageEntry> = Vec::new();
        for s in &stages {
            entries.push(match &s.input {
                InputSpec::Array { first, last } => {
                    let n = (last - first + 1).unsigned_abs();
                    StageEntry::new(StageState::Open, n, RunSet::from_run(0, n))
                }
                InputSpec::Stage { mode: ChainMode::Stream, .. } => StageEntry::new(StageState::Open, entries[0].total, RunSet::new()),
                InputSpec::Stage { mode: ChainMode::Gather { .. }, .. } => StageEntry::new(StageState::Blocked, 1, RunSet::new()),
                _ => StageEntry::new(StageState::Blocked, 0, RunSet::new()),
            });
        }
        let spec = JobSpec {
            name: id.into(),
            class: "default".into(),
            priority,
            after: vec![],
            at: None,
            cron: None,
            timezone: "UTC".into(),
            labels: BTreeMap::new(),
            stages,
        };
        let now = self.env.now();
        let entry = JobEntry {
            user: user.into(),
            class: "default".into(),
            priority,
            state: JobState::Waiting,
            wanted: Wanted::Run,
            reason: String::new(),
            submitted_at: now,
            start_after: now,
            started_at: None,
            finished_at: None,
            spec: Arc::new(spec),
            stages: entries,
            unmet: BTreeSet::new(),
            cut: true,
            cutting: false,
            last_tick: Timestamp::ZERO,
        };
        self.core.on_job(id, entry);
    }

    fn tick(&mut self) {
        self.clock.advance(Duration::from_millis(10));
        self.core.tick(self.env.now());
        let fx = self.core.take_effects().unwrap();
        self.ledger += fx.ledger.len();
        self.queue.extend(fx.sends.into_iter().map(|(_, item)| item));
        self.ended.extend(fx.finished_jobs);
        self.dead.extend(fx.dead.iter().map(|d| (d.stage, d.failure.task)));
        for (job, stage) in fx.open {
            self.core.on_stage_opened(&job, &[(stage, 3)]);
        }
    }

    /// Settles a range; `fails` says which tasks fail.
    fn settle(&mut self, item: &WorkItem, fails: impl Fn(u32, u64, u32) -> Option<FailureClass>) {
        let mut report = self.report(item);
        for task in item.start..item.start + item.len {
            match fails(item.stage, task, item.attempt) {
                Some(class) => report.failed.push(TaskFailure { task, class, exit: Some(1), signal: None, message: "no".into() }),
                None => report.succeeded.push((task, 1)),
            }
        }
        self.core.on_report(&item.job, item.stage, item.range, 1, &report, self.env.now());
    }

    fn report(&self, item: &WorkItem) -> Report {
        let mut columns = TaskColumns::default();
        for task in item.start..item.start + item.len {
            columns.push(TaskStat { task, attempt: item.attempt, run_us: 1000, ..TaskStat::default() });
        }
        Report {
            worker: "w".into(),
            epoch: 1,
            attempt: item.attempt,
            succeeded: vec![],
            failed: vec![],
            returned: vec![],
            cancelled: vec![],
            finished: true,
            columns: columns.pack().unwrap(),
            at: self.env.now(),
        }
    }

    fn run(&mut self, fails: impl Fn(u32, u64, u32) -> Option<FailureClass>) {
        for _ in 0..2000 {
            self.tick();
            let Some(item) = (!self.queue.is_empty()).then(|| self.queue.remove(0)) else {
                if self.core.jobs.is_empty() {
                    return;
                }
                self.clock.advance(Duration::from_secs(30));
                continue;
            };
            self.settle(&item, &fails);
            self.balance();
        }
        panic!("the jobs never ended: {:?}", self.core.jobs);
    }

    /// Every task of an open stage is in one place only.
    fn balance(&self) {
        for (id, job) in &self.core.jobs {
            for s in job.stages.iter().filter(|s| s.state == StageState::Open) {
                let accounted = s.pending.len() + s.outstanding_tasks() + s.retrying() + s.settled();
                assert!(accounted <= s.total, "{id}: {accounted} of {} {s:?}", s.total);
            }
        }
    }
}

#[test]
fn ten_million_tasks_are_held_as_runs_and_released_as_the_fleet_takes_them() {
    let mut b = Bench::new();
    b.submit("j1", "ann", 0, vec![stage("s", array(10_000_000))]);
    b.tick();
    let first: u64 = b.queue.iter().map(|i| i.len).sum();
    assert!(first <= 20, "nothing is known of the tasks yet, and {first} were released");
    for _ in 0..30 {
        for item in std::mem::take(&mut b.queue) {
            b.settle(&item, |_, _, _| None);
        }
        b.tick();
    }
    let s = &b.core.jobs["j1"].stages[0];
    assert!(s.pending.run_count() <= 1 && s.outstanding.len() <= 16, "{} runs, {} ranges", s.pending.run_count(), s.outstanding.len());
    assert!(b.queue.iter().any(|i| i.len >= 1000), "ranges grow with experience: {:?}", b.queue);
    assert!(b.queue.iter().map(|i| i.len).sum::<u64>() < 40_000, "only seconds of work are in the queue");
}

#[test]
fn a_report_counts_once() {
    let mut b = Bench::new();
    b.submit("j1", "ann", 0, vec![stage("s", array(100))]);
    b.tick();
    let item = b.queue[0].clone();
    b.settle(&item, |_, _, _| None);
    b.settle(&item, |_, _, _| None);
    assert_eq!(b.core.jobs["j1"].stages[0].succeeded, item.len);
    assert_eq!(b.core.jobs["j1"].stages[0].sums.attempts, item.len);
}

#[test]
fn a_report_in_the_middle_of_a_range_counts_once_in_statistics_too() {
    let mut b = Bench::new();
    b.submit("j1", "ann", 0, vec![stage("a", array(100))]);
    b.tick();
    let item = b.queue.remove(0);
    let report = Report { finished: false, succeeded: vec![(item.start, 1)], ..b.report(&item) };
    for _ in 0..3 {
        b.core.on_report("j1", 0, item.range, 1, &report, b.env.now());
    }
    let s = &b.core.jobs["j1"].stages[0];
    assert_eq!((s.succeeded, s.sums.attempts, b.core.effects.columns.len()), (1, item.len, 1));
}

#[test]
fn a_failing_task_leaves_its_range_is_retried_and_dies_after_its_attempts() {
    let mut b = Bench::new();
    b.submit("j1", "ann", 0, vec![stage("s", array(50))]);
    b.run(|_, task, attempt| (task == 7 || (task == 9 && attempt < 3)).then_some(FailureClass::Exit));
    assert_eq!(b.ended["j1"], JobState::Failed);
    assert_eq!(b.dead, vec![(0, 7)], "task 9 succeeds at its third attempt");
}

#[test]
fn what_is_not_to_be_retried_is_not() {
    let mut b = Bench::new();
    b.submit("j1", "ann", 0, vec![stage("s", array(3))]);
    b.run(|_, task, attempt| {
        assert_eq!(attempt, 1);
        (task == 1).then_some(FailureClass::Start)
    });
    assert_eq!(b.dead, vec![(0, 1)]);
}

#[test]
fn streaming_stages_run_task_by_task_and_skip_what_failed_before() {
    let mut b = Bench::new();
    let second = stage("b", after("a", ChainMode::Stream));
    b.submit("j1", "ann", 0, vec![stage("a", array(20)), second, stage("c", after("b", ChainMode::Stream))]);
    b.tick();
    let item = b.queue.remove(0);
    b.settle(&item, |_, _, _| None);
    b.tick();
    assert!(b.queue.iter().any(|i| i.stage == 1), "the second stage starts before the first is done");
    b.run(|stage, task, _| (stage == 0 && task == 19).then_some(FailureClass::Start));
    assert_eq!((b.ended["j1"], b.dead.as_slice()), (JobState::Failed, [(0, 19)].as_slice()));
}

#[test]
fn gathering_waits_for_all_and_does_not_run_on_a_gap() {
    let mut b = Bench::new();
    let gather = || after("a", ChainMode::Gather { per_task: None });
    b.submit(
        "good",
        "ann",
        0,
        vec![stage("a", array(20)), stage("g", gather()), stage("k", after("g", ChainMode::Group { key: "(.)".into() }))],
    );
    b.run(|_, _, _| None);
    assert_eq!(b.ended["good"], JobState::Succeeded);
    b.submit("bad", "ann", 0, vec![stage("a", array(20)), stage("g", gather())]);
    b.run(|stage, task, _| {
        assert_eq!(stage, 0, "the gathering stage must not run");
        (task == 3).then_some(FailureClass::Start)
    });
    assert_eq!(b.ended["bad"], JobState::Failed);
    let mut kept = stage("g", gather());
    kept.upstream = UpstreamPolicy::TakeWhatSucceeded;
    b.submit("kept", "ann", 0, vec![stage("a", array(20)), kept]);
    let ran = std::cell::Cell::new(false);
    b.run(|stage, task, _| {
        ran.set(ran.get() || stage == 1);
        (stage == 0 && task == 3).then_some(FailureClass::Start)
    });
    assert!(ran.get());
}

#[test]
fn what_streams_from_a_stage_that_is_skipped_is_skipped_too() {
    let mut b = Bench::new();
    let gather = stage("g", after("a", ChainMode::Gather { per_task: None }));
    b.submit("j1", "ann", 0, vec![stage("a", array(5)), gather, stage("c", after("g", ChainMode::Stream))]);
    b.core.jobs.get_mut("j1").unwrap().stages[2].total = 1;
    b.run(|stage, task, _| {
        assert_eq!(stage, 0);
        (task == 3).then_some(FailureClass::Start)
    });
    assert_eq!(b.ended["j1"], JobState::Failed);
}

#[test]
fn cancelling_counts_every_task_once() {
    let mut b = Bench::new();
    b.submit("j1", "ann", 0, vec![stage("a", array(1000)), stage("b", after("a", ChainMode::Stream))]);
    b.tick();
    let items = std::mem::take(&mut b.queue);
    b.settle(&items[0], |_, _, _| None);
    b.core.on_wanted("j1", Wanted::Cancel, b.env.now());
    for item in &items[1..] {
        let mut report = b.report(item);
        report.cancelled = vec![(item.start, item.len)];
        b.core.on_report("j1", 0, item.range, 1, &report, b.env.now());
    }
    let before: Vec<_> = b.core.jobs["j1"].stages.iter().map(|s| (s.succeeded, s.cancelled, s.total)).collect();
    b.tick();
    assert_eq!(b.ended["j1"], JobState::Cancelled);
    assert_eq!(before[0], (items[0].len, 1000 - items[0].len, 1000));
    assert_eq!(before[1], (0, 1000, 1000));
    assert!(b.queue.is_empty());
}

#[test]
fn a_paused_job_releases_nothing_and_goes_on_where_it_was() {
    let mut b = Bench::new();
    b.submit("j1", "ann", 0, vec![stage("a", array(1000))]);
    b.tick();
    b.core.on_wanted("j1", Wanted::Pause, b.env.now());
    for item in std::mem::take(&mut b.queue) {
        let mut report = b.report(&item);
        report.returned = vec![(item.start, item.len)];
        report.columns = TaskColumns::default().pack().unwrap();
        b.core.on_report("j1", 0, item.range, 1, &report, b.env.now());
    }
    b.tick();
    assert!(b.queue.is_empty());
    assert_eq!(b.core.jobs["j1"].stages[0].pending.len(), 1000, "all of it was handed back");
    b.core.on_wanted("j1", Wanted::Run, b.env.now());
    b.run(|_, _, _| None);
    assert_eq!(b.ended["j1"], JobState::Succeeded);
}

#[test]
fn higher_priority_goes_first_and_equal_users_share() {
    let mut b = Bench::new();
    b.submit("j1", "ann", 0, vec![stage("a", array(100_000))]);
    b.submit("j2", "bob", 0, vec![stage("a", array(100_000))]);
    let mut given: BTreeMap<String, u64> = BTreeMap::new();
    for _ in 0..200 {
        b.tick();
        for item in std::mem::take(&mut b.queue) {
            *given.entry(item.job.clone()).or_default() += item.len;
            b.settle(&item, |_, _, _| None);
        }
        if given.values().sum::<u64>() > 100_000 {
            break;
        }
    }
    let ratio = given["j1"] as f64 / given["j2"] as f64;
    assert!((0.6..1.6).contains(&ratio), "{given:?}");
    b.submit("hot", "bob", 10, vec![stage("a", array(100))]);
    b.tick();
    assert!(!b.queue.is_empty() && b.queue[0].job == "hot", "{:?}", b.queue);
}

#[test]
fn a_range_that_kills_its_workers_is_taken_apart_and_the_poison_named() {
    let mut b = Bench::new();
    b.submit("j1", "ann", 0, vec![stage("a", array(2))]);
    b.tick();
    let item = b.queue.remove(0);
    let len = item.len;
    b.core.on_range_revoked("j1", 0, item.range, true, b.env.now());
    let mut alone = 0;
    for _ in 0..200 {
        b.tick();
        b.clock.advance(Duration::from_secs(10));
        let Some(item) = (!b.queue.is_empty()).then(|| b.queue.remove(0)) else { continue };
        alone += u64::from(item.len == 1);
        if item.start == 0 {
            b.core.on_range_revoked("j1", 0, item.range, true, b.env.now());
        } else {
            b.settle(&item, |_, _, _| None);
        }
    }
    assert!(alone >= len);
    assert_eq!(b.dead, vec![(0, 0)]);
    assert_eq!(b.ended["j1"], JobState::Failed);
}

#[test]
fn failed_tasks_can_be_retried_after_the_end() {
    let mut b = Bench::new();
    b.submit("j1", "ann", 0, vec![stage("a", array(10)), stage("b", after("a", ChainMode::Stream))]);
    for _ in 0..200 {
        // Tick by hand so that the entry can be kept as it was just before the job ended.
        b.tick();
        b.clock.advance(Duration::from_secs(10));
        for item in std::mem::take(&mut b.queue) {
            b.settle(&item, |stage, task, _| (stage == 0 && task == 4).then_some(FailureClass::Start));
        }
        let job = &b.core.jobs["j1"];
        if job.stages[1].skipped.len() == 1 && job.stages[1].succeeded == 9 {
            break;
        }
    }
    b.core.on_retry("j1", None, b.env.now());
    b.run(|_, _, _| None);
    assert_eq!(b.ended["j1"], JobState::Succeeded);
}

#[test]
fn range_lengths_follow_time_experience_and_what_is_left() {
    let two = Capacity { workers: 2, slots: 4 };
    assert_eq!(range_len(1_000_000, 1_000_000.0, 0, two, 2e6), 2, "unknown tasks go out one a slot");
    assert_eq!(range_len(1_000_000, 0.5, 1_000_000, two, 2e6), crate::protocol::MAX_RANGE);
    assert_eq!(range_len(1_000_000, 60e6, 1000, two, 2e6), 1, "long tasks go alone");
    assert_eq!(range_len(100, 10_000.0, 1000, two, 2e6), 25, "the end is shared out");
}

/// Statements on exceptions that wait in the effects.
fn exception_writes(b: &Bench, verb: &str) -> usize {
    b.core.effects.ledger.iter().filter(|s| s.sql.starts_with(verb) && s.sql.contains("batch_exceptions")).count()
}

#[test]
fn tasks_cancelled_during_their_next_attempt_do_not_wait_for_another() {
    let mut b = Bench::new();
    b.submit("j1", "ann", 0, vec![stage("a", array(3))]);
    b.tick();
    while let Some(item) = b.queue.pop() {
        b.settle(&item, |_, _, _| Some(FailureClass::Exit));
        b.tick();
        if b.core.jobs["j1"].stages[0].exceptions.len() == 3 {
            break;
        }
    }
    b.clock.advance(Duration::from_secs(60));
    b.tick();
    let again = std::mem::take(&mut b.queue);
    assert_eq!(again.iter().map(|i| i.len).sum::<u64>(), 3, "all three are out again");
    b.core.on_wanted("j1", Wanted::Cancel, b.env.now());
    for item in &again {
        let mut report = b.report(item);
        report.cancelled = vec![(item.start, item.len)];
        b.core.on_report("j1", 0, item.range, 1, &report, b.env.now());
    }
    // What stays in the ledger would be read back as a task that is tried again.
    assert_eq!(exception_writes(&b, "DELETE"), 3);
    assert!(b.core.jobs["j1"].stages[0].exceptions.is_empty());
    assert_eq!(b.core.jobs["j1"].stages[0].cancelled, 3);
}

#[test]
fn tasks_of_a_range_taken_apart_are_written_down_since_a_paused_job_releases_none_of_them() {
    let mut b = Bench::new();
    b.submit("j1", "ann", 0, vec![stage("a", array(20))]);
    b.tick();
    let item = b.queue.remove(0);
    assert!(item.len > 1);
    b.core.on_wanted("j1", Wanted::Pause, b.env.now());
    b.core.on_range_revoked("j1", 0, item.range, true, b.env.now());
    assert_eq!(exception_writes(&b, "INSERT") as u64, item.len);
}

#[test]
fn a_job_that_ended_paused_runs_when_its_failed_tasks_are_retried() {
    let mut b = Bench::new();
    b.submit("j1", "ann", 0, vec![stage("a", array(1))]);
    b.tick();
    let item = b.queue.remove(0);
    b.core.on_wanted("j1", Wanted::Pause, b.env.now());
    b.settle(&item, |_, _, _| Some(FailureClass::Start));
    b.core.settle(b.env.now());
    assert_eq!(b.core.jobs["j1"].state, JobState::Failed);
    let _paused = std::mem::take(&mut b.core.effects.control);
    b.core.on_retry("j1", None, b.env.now());
    assert_eq!((b.core.jobs["j1"].state, b.core.jobs["j1"].wanted), (JobState::Running, Wanted::Run));
    assert_eq!(b.core.effects.control, vec![("j1".to_owned(), Control::Run)], "workers are told as well");
}

#[test]
fn a_wish_that_comes_after_the_end_does_not_keep_failed_tasks_from_being_retried() {
    let mut b = Bench::new();
    b.submit("j1", "ann", 0, vec![stage("a", array(1))]);
    b.tick();
    let item = b.queue.remove(0);
    b.settle(&item, |_, _, _| Some(FailureClass::Start));
    b.core.settle(b.env.now());
    b.core.on_wanted("j1", Wanted::Cancel, b.env.now());
    b.core.on_retry("j1", None, b.env.now());
    b.run(|_, _, _| None);
    assert_eq!(b.ended["j1"], JobState::Succeeded);
}

#[test]
fn a_grouping_stage_that_is_opened_after_the_cancel_counts_its_tasks_as_cancelled() {
    let mut b = Bench::new();
    b.submit("j1", "ann", 0, vec![stage("a", array(1)), stage("b", after("a", ChainMode::Group { key: "(.)".into() }))]);
    b.tick();
    let item = b.queue.remove(0);
    b.settle(&item, |_, _, _| None);
    b.core.settle(b.env.now());
    assert!(b.core.jobs["j1"].stages[1].opening);
    b.core.on_wanted("j1", Wanted::Cancel, b.env.now());
    b.core.on_stage_opened("j1", &[(1, 5)]);
    let s = &b.core.jobs["j1"].stages[1];
    assert_eq!((s.total, s.cancelled, s.pending.len()), (5, 5, 0));
    b.tick();
    assert_eq!(b.ended["j1"], JobState::Cancelled);
}

#[test]
fn a_paused_job_that_waited_for_one_that_failed_is_cancelled_and_stays_so() {
    let mut b = Bench::new();
    b.submit("j1", "ann", 0, vec![stage("a", array(1))]);
    b.submit("j2", "ann", 0, vec![stage("a", array(1))]);
    b.submit("j3", "ann", 0, vec![stage("a", array(1))]);
    for (id, before) in [("j2", "j1"), ("j3", "j2")] {
        let job = b.core.jobs.get_mut(id).unwrap();
        job.unmet = [before.to_owned()].into();
        job.cut = false;
        job.stages = vec![StageEntry::new(StageState::Blocked, 0, RunSet::new())];
    }
    b.core.on_wanted("j2", Wanted::Pause, b.env.now());
    b.tick();
    let item = b.queue.remove(0);
    b.settle(&item, |_, _, _| Some(FailureClass::Start));
    b.tick();
    let ended: Vec<_> = ["j1", "j2", "j3"].map(|id| b.ended[id]).into();
    assert_eq!(ended, [JobState::Failed, JobState::Cancelled, JobState::Cancelled]);
}
