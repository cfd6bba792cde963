//! Each way to wait, and the words for it.

use std::time::Duration;

use tidemill_base::{RunSet, Timestamp};
use tidemill_blocks::fleet::{Group, GroupSpec, Member, MemberState, Offers};
use tidemill_blocks::queue::QueueStats;

use super::*;
use crate::model::{FailureClass, JobState};
use crate::protocol::{Heartbeat, RangeState, RunningTask, WorkerPhase};
use crate::store::read::{ExceptionRow, JobRow, StageRow};

const NOW: Timestamp = Timestamp(1_700_000_000_000_000);

const JOB: &str = r#"
name = "n"
[[stage]]
name = "a"
array = "0-9"
command = ["true"]
timeout = "5m"
[[stage]]
name = "b"
from = "a"
mode = "stream"
command = ["true"]
[[stage]]
name = "c"
from = "b"
mode = "gather"
command = ["true"]
"#;

fn ago(seconds: u64) -> Timestamp {
    NOW - Duration::from_secs(seconds)
}

fn ahead(seconds: u64) -> Timestamp {
    NOW + Duration::from_secs(seconds)
}

fn offers(slots: u32) -> Offers {
    Offers { slots, memory: 1 << 30, named: Default::default() }
}

fn stage(stage: u32, name: &str, state: &str, total: u64) -> StageFacts {
    let row = StageRow {
        job: "j1".into(),
        stage,
        name: name.into(),
        state: state.into(),
        total,
        succeeded: 0,
        failed: 0,
        cancelled: 0,
        skipped: 0,
        retrying: 0,
        outstanding: 0,
        attempts: 0,
        failed_attempts: 0,
        wait_us: 0,
        stage_in_us: 0,
        run_us: 0,
        stage_out_us: 0,
        wasted_us: 0,
        cpu_us: 0,
        peak_memory: 0,
        bytes_in: 0,
        bytes_out: 0,
        mean_us: 0.0,
        started_at: None,
        finished_at: None,
    };
    StageFacts { row, pending: RunSet::new(), skipped: RunSet::new(), ranges: Vec::new(), first_retry: None }
}

/// A running job of three stages with all ten tasks of the first unstarted, a worker with two free slots, and no group.
fn facts() -> Facts {
    let job = JobRow {
        id: "j1".into(),
        name: "n".into(),
        user: "ann".into(),
        class: "default".into(),
        priority: 0,
        state: JobState::Running,
        reason: String::new(),
        cron_parent: None,
        submitted_at: ago(60),
        start_after: ago(60),
        started_at: Some(ago(60)),
        finished_at: None,
    };
    let mut stages = vec![stage(0, "a", "open", 10), stage(1, "b", "open", 10), stage(2, "c", "blocked", 1)];
    stages[0].pending = RunSet::from_run(0, 10);
    Facts {
        now: NOW,
        led: true,
        job,
        spec: crate::spec::from_toml(JOB, NOW).unwrap(),
        cut: true,
        stages,
        after: Vec::new(),
        failures: Vec::new(),
        exceptions: Default::default(),
        attempts: Vec::new(),
        workers: vec![worker("w1", 2)],
        groups: Vec::new(),
        queue: QueueStats::default(),
        rivals: Vec::new(),
    }
}

fn worker(id: &str, slots: u32) -> Heartbeat {
    Heartbeat {
        worker: id.into(),
        class: "default".into(),
        host: "h".into(),
        version: "1".into(),
        offers: offers(slots),
        started_at: ago(100),
        at: ago(1),
        phase: WorkerPhase::Ready,
        running: Vec::new(),
        ranges: 0,
        tasks_done: 0,
        busy_us: 0,
        cpu_us: 0,
        tools: Vec::new(),
    }
}

fn runs(w: &mut Heartbeat, job: &str, stage: u32, task: u64) {
    w.running.push(RunningTask { job: job.into(), stage, task, attempt: 1, started_at: ago(7), memory: 0 });
}

fn group(f: &mut Facts, max: u32, desired: u32, members: Vec<Member>, trouble: Option<&str>) {
    let spec = GroupSpec { name: "default".into(), min: 0, max, offers: offers(2) };
    f.groups = vec![GroupFacts { group: Group { spec, desired, members }, trouble: trouble.map(str::to_owned) }];
}

/// Tasks 0 to 4 of the first stage are in range 0, released 10 s ago; `held` says whose it is and until when.
fn released(f: &mut Facts, held: Option<(&str, Timestamp)>) {
    f.stages[0].pending = RunSet::from_run(5, 5);
    let fence = held.map(|(worker, lease_until)| RangeState {
        epoch: 1,
        worker: worker.into(),
        lease_until,
        seq: 0,
        settled: RunSet::new(),
        finished: false,
    });
    f.stages[0].ranges = vec![RangeFacts { range: 0, start: 0, len: 5, attempt: 1, released_at: ago(10), settled: RunSet::new(), fence }];
}

fn failure(f: &mut Facts, stage: u32, task: u64, dead: bool, due: Option<Timestamp>) {
    let e = ExceptionRow {
        stage,
        task,
        attempts: if dead { 3 } else { 1 },
        class: "exit".into(),
        exit: Some(7),
        signal: None,
        message: "exit code 7\nmore".into(),
        worker: "w1".into(),
        dead,
        due,
        at: ago(5),
    };
    f.failures.push(FailureCount { stage, class: "exit".into(), dead, tasks: 1, first: task, message: e.message.clone() });
    f.exceptions.insert((stage, task), e);
    let s = &mut f.stages[stage as usize];
    s.pending.remove_run(task, 1);
    if dead {
        s.row.failed += 1
    } else {
        s.row.retrying += 1
    }
    s.first_retry = due;
}

/// One way to wait: what is asked, what the facts are, the state, a part of a reason, and a part of a next step (empty: it has ended
/// well and there is none).
type Case = (&'static str, About, fn(&mut Facts), &'static str, &'static str, &'static str);

fn check(cases: &[Case]) {
    for (name, about, change, state, because, next) in cases {
        let mut f = facts();
        change(&mut f);
        let e = explain(&f, *about).unwrap();
        assert_eq!(e.state, *state, "{name}: {e:#?}");
        assert!(e.because.iter().any(|b| b.contains(because)), "{name}: no reason says `{because}`: {e:#?}");
        if next.is_empty() {
            assert!(e.next.is_empty(), "{name}: {e:#?}");
        } else {
            assert!(e.next.iter().any(|n| n.contains(next)), "{name}: no next step says `{next}`: {e:#?}");
        }
    }
}

fn job_is(f: &mut Facts, state: JobState) {
    f.job.state = state;
}

#[test]
fn jobs_that_have_not_started_or_are_held() {
    use About::Job;
    check(&[
        ("no leader", Job, |f| f.led = false, "running", "no manager leads", "server's log"),
        (
            "time",
            Job,
            |f| {
                job_is(f, JobState::Waiting);
                f.job.start_after = ahead(90);
            },
            "waiting",
            "it starts at 2023-11-14T22:14:50Z, in 1m30s",
            "nothing to do until then",
        ),
        (
            "cron",
            Job,
            |f| {
                job_is(f, JobState::Waiting);
                f.spec.cron = Some("0 3 * * *".into());
            },
            "waiting",
            "cron line `0 3 * * *` in UTC, next at 2023-11-15T03:00:00Z",
            "`tidemill batch cancel j1` ends the schedule",
        ),
        (
            "other job",
            Job,
            |f| {
                job_is(f, JobState::Waiting);
                f.after = vec![("j0".into(), Some(JobState::Succeeded)), ("j9".into(), Some(JobState::Paused))];
            },
            "waiting",
            "it waits for job j9, which is paused",
            "`tidemill batch explain j9`",
        ),
        (
            "other job failed",
            Job,
            |f| {
                job_is(f, JobState::Waiting);
                f.after = vec![("j9".into(), Some(JobState::Failed))];
            },
            "waiting",
            "has failed: this one is about to be cancelled",
            "submit both anew",
        ),
        (
            "other job gone",
            Job,
            |f| {
                job_is(f, JobState::Waiting);
                f.after = vec![("j9".into(), None)];
            },
            "waiting",
            "job j9, which is not there any more",
            "without that job",
        ),
        (
            "cutting",
            Job,
            |f| {
                job_is(f, JobState::Waiting);
                f.cut = false;
            },
            "waiting",
            "its inputs are being cut into tasks",
            "starts by itself",
        ),
        ("due", Job, |f| job_is(f, JobState::Waiting), "waiting", "starts in a moment", "by itself"),
        (
            "paused",
            Job,
            |f| {
                job_is(f, JobState::Paused);
                runs(&mut f.workers[0], "j1", 0, 1);
            },
            "paused",
            "1 task that had been started runs to the end",
            "`tidemill batch resume j1`",
        ),
        (
            "cancelling: a worker runs tasks",
            Job,
            |f| {
                job_is(f, JobState::Cancelling);
                runs(&mut f.workers[0], "j1", 0, 1);
                runs(&mut f.workers[0], "j1", 0, 2);
            },
            "cancelling",
            "worker w1 still runs 2 tasks (STAGE/TASK 0/1, 0/2)",
            "within seconds",
        ),
        (
            "cancelling: a lost worker",
            Job,
            |f| {
                job_is(f, JobState::Cancelling);
                released(f, Some(("w9", ahead(20))));
            },
            "cancelling",
            "range 0 of stage 0 `a` is with worker w9, whose lease ends at 2023-11-14T22:13:40Z, in 20s",
            "free when its lease ends",
        ),
    ]);
}

#[test]
fn jobs_that_have_ended() {
    use About::Job;
    check(&[
        (
            "succeeded",
            Job,
            |f| {
                job_is(f, JobState::Succeeded);
            },
            "succeeded",
            "all 21 tasks of 3 stages succeeded",
            "",
        ),
        (
            "failed",
            Job,
            |f| {
                job_is(f, JobState::Failed);
                failure(f, 0, 4, true, None);
                f.stages[1].row.skipped = 1;
            },
            "failed",
            "1 task of stage 0 `a` failed with exit (an exit code that is no success), task 4: exit code 7",
            "`tidemill batch retry j1`",
        ),
        (
            "could not be cut",
            Job,
            |f| {
                job_is(f, JobState::Failed);
                f.job.reason = "stage `a`: no object matches".into();
            },
            "failed",
            "no object matches",
            "submit it anew",
        ),
        (
            "cancelled",
            Job,
            |f| {
                job_is(f, JobState::Cancelled);
                f.stages[0].row.cancelled = 10;
            },
            "cancelled",
            "10 tasks had not come to an end",
            "submit it anew",
        ),
    ]);
}

#[test]
fn work_that_nobody_takes() {
    use About::{Job, Task};
    const T: About = Task(0, 7);
    check(&[
        (
            "nobody at all",
            Job,
            |f| f.workers.clear(),
            "running",
            "no worker that takes class `default`, and no group",
            "`tidemill worker --manager URL --class default --slots N`",
        ),
        (
            "group of none",
            T,
            |f| {
                f.workers.clear();
                group(f, 0, 0, vec![], None);
            },
            "waiting",
            "its maximum is 0",
            "--workers 0..N",
        ),
        (
            "group with trouble",
            Job,
            |f| {
                f.workers.clear();
                group(f, 2, 1, vec![], Some("`tidemill` exited with 2 five times"));
            },
            "running",
            "has trouble: `tidemill` exited with 2 five times",
            "put right",
        ),
        (
            "group starting",
            T,
            |f| {
                f.workers.clear();
                let member = Member { id: "m1".into(), state: MemberState::Starting, protected: false, started_at: ago(3) };
                group(f, 2, 1, vec![member], None);
            },
            "waiting",
            "worker m1 of the group `default` is starting, since 2023-11-14T22:13:17Z, for 3s",
            "takes work as soon as it is up",
        ),
        (
            "group asleep",
            T,
            |f| {
                f.workers.clear();
                group(f, 2, 0, vec![], None);
            },
            "waiting",
            "has 0 workers and should have 0",
            "scaled to its backlog",
        ),
        ("silent", T, |f| f.workers[0].at = ago(20), "waiting", "worker w1 of class `default` has been silent for 20s", "start a worker"),
        ("draining", T, |f| f.workers[0].phase = WorkerPhase::Draining, "waiting", "w1 of class `default` is draining", "start a worker"),
        ("of another class", T, |f| f.workers[0].class = "gpu".into(), "waiting", "no worker that takes class `default`", "start a worker"),
        (
            "slots too few",
            T,
            |f| f.spec.stages[0].resources.cpus = 4,
            "waiting",
            "a task needs 4 slots, and the largest worker of class `default` has 2",
            "--slots 4",
        ),
        (
            "named resource missing",
            Job,
            |f| f.spec.stages[0].resources.named.extend([("gpu".to_owned(), 1)]),
            "running",
            "a task needs 1 of `gpu`",
            "`resources`",
        ),
        (
            "memory too small",
            Job,
            |f| f.spec.stages[0].resources.memory = 2 << 30,
            "running",
            "a task needs 2 GiB of memory",
            "`resources`",
        ),
        (
            "slots taken by another's job",
            T,
            |f| {
                runs(&mut f.workers[0], "j2", 0, 1);
                runs(&mut f.workers[0], "j1", 0, 2);
                f.rivals = vec![Rival { id: "j2".into(), user: "bob".into(), priority: 5, open: 30 }];
                group(f, 1, 1, vec![], None);
            },
            "waiting",
            "all 2 slots of class `default` are taken: 1 by this job, 1 by job j2 (user bob, priority 5)",
            "`tidemill batch priority j1 6`",
        ),
        (
            "at the maximum",
            T,
            |f| {
                runs(&mut f.workers[0], "j1", 0, 1);
                runs(&mut f.workers[0], "j1", 0, 2);
                group(f, 1, 1, vec![], None);
            },
            "waiting",
            "at its maximum of 1 worker",
            "add a worker",
        ),
        (
            "a wide task",
            T,
            |f| {
                f.spec.stages[0].resources.cpus = 2;
                runs(&mut f.workers[0], "j9", 0, 1);
            },
            "waiting",
            "a task takes 2 slots at once, and no worker of class `default` has more than 1 free",
            "slots come free",
        ),
        (
            "higher priority",
            T,
            |f| f.rivals = vec![Rival { id: "j2".into(), user: "bob".into(), priority: 5, open: 30 }],
            "waiting",
            "higher priority go first: j2 (user bob, priority 5, 30 tasks left)",
            "`tidemill batch priority j1 6`",
        ),
        ("its turn is about to come", T, |_| {}, "waiting", "2 slots free", "nothing to do"),
        ("its place", T, |_| {}, "waiting", "with 7 tasks of its stage before it", "nothing to do"),
    ]);
}

#[test]
fn tasks_that_are_out() {
    const T: About = About::Task(0, 3);
    check(&[
        (
            "running",
            T,
            |f| {
                released(f, Some(("w1", ahead(20))));
                runs(&mut f.workers[0], "j1", 0, 3);
            },
            "running",
            "worker w1 runs attempt 1 of it since 2023-11-14T22:13:13Z, for 7s",
            "killed by its timeout at 2023-11-14T22:18:13Z",
        ),
        (
            "running on a silent worker",
            T,
            |f| {
                released(f, Some(("w1", ahead(20))));
                runs(&mut f.workers[0], "j1", 0, 3);
                f.workers[0].at = ago(40);
            },
            "running",
            "worker w1 has been silent for 40s",
            "another takes range 0 when its lease ends",
        ),
        (
            "leased",
            T,
            |f| released(f, Some(("w1", ahead(20)))),
            "waiting",
            "it is in range 0 (tasks 0 to 4, attempt 1), leased by worker w1, released since 2023-11-14T22:13:10Z, for 10s",
            "ends at 2023-11-14T22:13:40Z, in 20s if the worker is lost",
        ),
        (
            "leased by a worker that is gone",
            T,
            |f| released(f, Some(("w9", ahead(20)))),
            "waiting",
            "worker w9 has not been heard of",
            "if the worker is lost",
        ),
        ("queued", T, |f| released(f, None), "waiting", "in the queue since 2023-11-14T22:13:10Z, for 10s", "nothing to do"),
        (
            "queued for long",
            T,
            |f| {
                released(f, None);
                f.stages[0].ranges[0].released_at = ago(600);
                f.queue.ready = 4;
            },
            "waiting",
            "nobody has claimed range 0 for long; the queue of class `default` has 4 ready",
            "`tidemill fleet list`",
        ),
        (
            "lease ended",
            T,
            |f| released(f, Some(("w9", ago(2)))),
            "waiting",
            "the lease of worker w9 on it ended 2023-11-14T22:13:18Z",
            "nothing to do",
        ),
        (
            "reported",
            T,
            |f| {
                released(f, Some(("w1", ahead(20))));
                f.stages[0].ranges[0].fence.as_mut().unwrap().settled.insert(3);
                runs(&mut f.workers[0], "j1", 0, 3);
                f.workers[0].running.clear();
            },
            "reported",
            "the manager is about to count it",
            "moment",
        ),
        (
            "cancelling",
            T,
            |f| {
                released(f, Some(("w1", ahead(20))));
                runs(&mut f.workers[0], "j1", 0, 3);
                job_is(f, JobState::Cancelling);
            },
            "running",
            "its job is being cancelled",
            "within seconds",
        ),
        ("the whole stage", About::Stage(0), |f| released(f, None), "open", "5 tasks of stage 0 `a` are in the queue", "nothing to do"),
        (
            "the whole stage, a lost worker",
            About::Stage(0),
            |f| released(f, Some(("w9", ahead(20)))),
            "open",
            "range 0 of stage 0 `a` (5 tasks) is leased by worker w9, and worker w9 has not been heard of",
            "another worker takes range 0",
        ),
    ]);
}

#[test]
fn tasks_that_failed_or_wait_for_others() {
    const T: About = About::Task(0, 3);
    check(&[
        (
            "due later",
            T,
            |f| failure(f, 0, 3, false, Some(ahead(8))),
            "retrying",
            "attempt 1 of 3 failed on worker w1 with exit (an exit code that is no success): exit code 7",
            "tried again by itself",
        ),
        (
            "when",
            T,
            |f| failure(f, 0, 3, false, Some(ahead(8))),
            "retrying",
            "attempt 2 is due at 2023-11-14T22:13:28Z, in 8s",
            "by itself",
        ),
        (
            "due while paused",
            T,
            |f| {
                failure(f, 0, 3, false, Some(ago(8)));
                job_is(f, JobState::Paused);
            },
            "retrying",
            "it was paused",
            "`tidemill batch resume j1`",
        ),
        ("dead", T, |f| failure(f, 0, 3, true, None), "failed", "attempt 3 of 3 failed", "`tidemill batch retry j1 0/3`"),
        (
            "not tried again",
            T,
            |f| {
                failure(f, 0, 3, true, None);
                f.exceptions.get_mut(&(0, 3)).unwrap().attempts = 1;
            },
            "failed",
            "attempt 1, and failures like this are not tried again,",
            "`tidemill batch logs j1 0/3`",
        ),
        (
            "in the job",
            About::Job,
            |f| failure(f, 0, 3, false, Some(ahead(8))),
            "running",
            "1 task of stage 0 `a` waits for another attempt after exit, the first at 2023-11-14T22:13:28Z, in 8s",
            "--state retrying",
        ),
        (
            "skipped",
            About::Task(1, 3),
            |f| {
                failure(f, 0, 3, true, None);
                f.stages[1].skipped.insert(3);
            },
            "skipped",
            "task 3 of stage 0 `a`, which it takes its input from, failed for good",
            "`tidemill batch retry j1 0/3`; this task then runs as well",
        ),
        (
            "a gathering stage skipped",
            About::Task(2, 0),
            |f| {
                f.stages[1].row.failed = 2;
                f.stages[2].skipped.insert(0);
            },
            "skipped",
            "it takes its input from stage 1 `b`, of which 2 failed",
            "`tidemill batch retry j1`",
        ),
        (
            "streaming",
            About::Task(1, 3),
            |_| {},
            "waiting",
            "it takes its input from task 3 of stage 0 `a`, which is waiting",
            "nothing to do",
        ),
        (
            "streaming stage",
            About::Stage(1),
            |_| {},
            "open",
            "10 tasks of stage 1 `b` wait for the tasks of stage 0 `a` with the same numbers",
            "--stage 0",
        ),
        (
            "blocked",
            About::Stage(2),
            |f| f.stages[1].row.succeeded = 4,
            "blocked",
            "stage 2 `c` takes its input from stage 1 `b`, which has to be done first: 6 of 10 tasks are not settled",
            "`tidemill batch explain j1 --stage 1`",
        ),
        ("blocked task", About::Task(2, 0), |_| {}, "waiting", "which has to be done first", "--stage 1"),
        (
            "succeeded",
            T,
            |f| {
                f.stages[0].pending = RunSet::new();
                let attempt = |attempt, class| Attempt { attempt, class, worker: "w1".into(), run_us: 2_000_000 };
                f.attempts = vec![attempt(1, Some(FailureClass::Timeout)), attempt(2, None)];
            },
            "succeeded",
            "attempt 2 succeeded on worker w1 after 2s",
            "",
        ),
        ("being counted", T, |f| f.stages[0].pending = RunSet::new(), "reported", "being counted", "moment"),
        (
            "cancelled",
            T,
            |f| {
                f.stages[0].pending = RunSet::new();
                job_is(f, JobState::Cancelled);
            },
            "cancelled",
            "it was cancelled",
            "submit it anew",
        ),
        (
            "done stage",
            About::Stage(0),
            |f| {
                f.stages[0] = stage(0, "a", "done", 10);
                f.stages[0].row.succeeded = 10;
            },
            "done",
            "all 10 tasks succeeded",
            "",
        ),
        (
            "done stage with failures",
            About::Stage(0),
            |f| {
                f.stages[0] = stage(0, "a", "done", 10);
                f.stages[0].row.succeeded = 9;
                failure(f, 0, 3, true, None);
            },
            "done",
            "of 10 tasks 9 succeeded, 1 failed",
            "`tidemill batch retry j1`",
        ),
    ]);
}

#[test]
fn what_there_is_not_is_named() {
    let e = explain(&facts(), About::Task(0, 10)).unwrap_err();
    assert_eq!(e.message(), "stage 0 `a` of job j1 has no task 10; its tasks are 0 to 9");
    let e = explain(&facts(), About::Stage(3)).unwrap_err();
    assert_eq!(e.message(), "job j1 has no stage 3; its stages are 0 `a`, 1 `b`, 2 `c`");
}

/// Whatever the facts, there is a reason; and unless it has ended well, a next step.
#[test]
fn nothing_waits_silently() {
    let mut rng = fastrand::Rng::with_seed(11);
    let states = [JobState::Waiting, JobState::Running, JobState::Paused, JobState::Cancelling, JobState::Failed, JobState::Cancelled];
    for round in 0..5000 {
        let mut f = facts();
        f.led = rng.u8(..8) > 0;
        f.cut = rng.bool();
        f.job.state = states[rng.usize(..states.len())];
        if rng.bool() {
            released(&mut f, [None, Some(("w1", ahead(9))), Some(("w9", ago(9)))][rng.usize(..3)]);
        }
        if rng.bool() {
            runs(&mut f.workers[0], if rng.bool() { "j1" } else { "j2" }, 0, rng.u64(..10));
        }
        if rng.bool() {
            let (dead, due) = (rng.bool(), rng.bool());
            failure(&mut f, 0, rng.u64(5..10), dead, (!dead).then(|| if due { ahead(4) } else { ago(4) }));
        }
        match rng.u8(..5) {
            0 => f.workers.clear(),
            1 => f.workers[0].at = ago(30),
            2 => f.spec.stages[0].resources.cpus = 64,
            3 => f.rivals = vec![Rival { id: "j2".into(), user: "u".into(), priority: rng.i32(-5..5), open: rng.u64(..9) }],
            _ => {}
        }
        if rng.bool() {
            group(&mut f, rng.u32(..2), rng.u32(..2), vec![], rng.bool().then_some("it cannot start"));
        }
        let (stage, task) = (rng.u32(..3), rng.u64(..10));
        let about = [About::Job, About::Stage(stage), About::Task(stage, if stage == 2 { 0 } else { task })][rng.usize(..3)];
        let e = explain(&f, about).unwrap();
        let well = ["succeeded", "done"].contains(&e.state.as_str());
        assert!(!e.because.is_empty() && (well || !e.next.is_empty()), "round {round}, {about:?}: {e:#?}");
    }
}
