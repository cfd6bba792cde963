//! Each way to wait, and the words for it.

mod capacity;
mod failed;
mod held;
mod out;
mod session;

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
        kind: crate::store::read::JobKind::Job,
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
        session: None,
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
        waiting: 0,
        idle: 0,
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
