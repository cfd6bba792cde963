//! What a seed makes of a run: jobs, how their tasks end, and what people ask of them meanwhile.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use tidemill_base::{HumanDuration, RetryPolicy};
use tidemill_batch::model::{
    ChainMode, FailureClass, InputSpec, JobSpec, KeepSpec, OutputSpec, Resources, RetrySpec, RunSpec, StageSpec, SuccessSpec,
    UpstreamPolicy,
};
use tidemill_batch::protocol::WorkItem;
use tidemill_worker::SimOutcome;

use crate::SessionPlan;

/// What somebody asks of a job in the middle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// To stop.
    Cancel,
    /// To release nothing new.
    Pause,
    /// To go on.
    Resume,
    /// To go before others, or after them.
    Priority(i32),
    /// To try failed tasks again after the end: all of them, or one.
    Retry {
        /// Whether all.
        all: bool,
    },
}

/// One job of a run.
#[derive(Debug, Clone)]
pub struct JobPlan {
    /// Its name; the outcomes of its tasks follow from it.
    pub name: String,
    /// Whose it is.
    pub user: String,
    /// The job, without what only its submit knows: the ids it waits for, and the time.
    pub spec: JobSpec,
    /// When it is submitted, after the beginning.
    pub submitted: Duration,
    /// It waits for the job of this number.
    pub after: Option<usize>,
    /// It starts so long after its submit.
    pub delayed: Option<Duration>,
    /// What is asked of it, each so long after the one before. One with a cron line is cancelled in the end besides.
    pub wishes: Vec<(Duration, Wish)>,
}

impl JobPlan {
    /// Whether somebody may cancel it.
    pub fn is_cancelled_by_people(&self) -> bool {
        self.spec.cron.is_some() || self.wishes.iter().any(|w| w.1 == Wish::Cancel)
    }

    /// Whether failed tasks of it are tried again after its end.
    pub fn is_retried(&self) -> bool {
        self.wishes.iter().any(|w| matches!(w.1, Wish::Retry { .. }))
    }
}

/// A run.
#[derive(Debug, Clone)]
pub struct Plan {
    seed: u64,
    /// The jobs.
    pub jobs: Vec<JobPlan>,
    /// The sessions.
    pub sessions: Vec<SessionPlan>,
    /// How many managers there are at a time.
    pub managers: usize,
    /// How many workers there are at a time.
    pub workers: usize,
    /// Processes crash at about this many calls of a block; 0: never.
    pub crash_calls: u64,
    /// Processes are frozen now and then for longer than their leases last.
    pub freezes: bool,
    /// Crashes, freezes and faults end after this.
    pub calm_after: Duration,
}

impl Plan {
    /// The plan of a seed.
    pub fn of(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed ^ 0x7469_6465);
        let mut jobs: Vec<JobPlan> = Vec::new();
        for n in 0..rng.usize(1..=3) {
            let next = job(&mut rng, n, &jobs);
            jobs.push(next);
        }
        Self {
            seed,
            jobs,
            sessions: SessionPlan::of(seed),
            managers: rng.usize(1..=2),
            workers: rng.usize(1..=3),
            crash_calls: *rng.choice(&[0, 40, 150, 400]).unwrap_or(&0),
            freezes: rng.bool(),
            calm_after: Duration::from_secs(rng.u64(20..180)),
        }
    }

    /// How an attempt of a task ends. The same for whoever runs it, whenever.
    pub fn outcome(&self, item: &WorkItem, task: u64) -> SimOutcome {
        let mut rng = self.dice(&[u64::from(item.stage), task, u64::from(item.attempt)]);
        let took = Duration::from_millis(match rng.u8(..) {
            0..12 => rng.u64(2_000..40_000),
            // Over before its worker has claimed it.
            n if n < if self.is_quick() { 250 } else { 76 } => rng.u64(0..8),
            _ => rng.u64(1..400),
        });
        let failure = if self.is_doomed(item.stage, task) {
            Some(FailureClass::Exit)
        } else {
            (item.attempt == 1 && rng.u8(..) < 25)
                .then(|| *rng.choice(&[FailureClass::Exit, FailureClass::Timeout]).unwrap_or(&FailureClass::Exit))
        };
        let output = (failure.is_none() && rng.bool()).then(|| Bytes::from(format!("{}/{task}", item.stage)));
        SimOutcome { took, failure, output }
    }

    /// Whether hardly any task takes its time.
    fn is_quick(&self) -> bool {
        self.dice(&[78]).u8(..) < 64
    }

    /// Whether every attempt of a task fails.
    pub fn is_doomed(&self, stage: u32, task: u64) -> bool {
        self.dice(&[77, u64::from(stage), task]).u8(..) < 5
    }

    fn dice(&self, of: &[u64]) -> fastrand::Rng {
        let mixed = of.iter().fold(self.seed, |h, n| (h ^ n).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29));
        fastrand::Rng::with_seed(mixed)
    }
}

fn job(rng: &mut fastrand::Rng, n: usize, earlier: &[JobPlan]) -> JobPlan {
    let cron = rng.u8(0..8) == 0;
    let tasks = if cron { rng.i64(1..10) } else { *rng.choice(&[1, 2, 7, 30, 120, 400]).unwrap_or(&1) };
    let mut stages = vec![stage("s0", InputSpec::Array { first: 0, last: tasks - 1 }, rng)];
    for k in 1..rng.usize(1..=3) {
        let mode = match rng.u8(0..6) {
            0 => ChainMode::Gather { per_task: None },
            1 => ChainMode::Gather { per_task: Some(rng.u64(1..20)) },
            // By the last digit of the task's number.
            2 => ChainMode::Group { key: r"output-\d*(\d)$".into() },
            _ => ChainMode::Stream,
        };
        stages.push(stage(&format!("s{k}"), InputSpec::Stage { stage: format!("s{}", k - 1), mode }, rng));
    }
    let spec = JobSpec {
        name: format!("job{n}"),
        class: "default".into(),
        priority: rng.i32(-1..=1),
        after: Vec::new(),
        at: None,
        cron: cron.then(|| "* * * * *".to_owned()),
        timezone: "UTC".into(),
        labels: BTreeMap::new(),
        stages,
    };
    let before = (rng.u8(0..3) == 0 && !earlier.is_empty()).then(|| rng.usize(..earlier.len()));
    JobPlan {
        name: spec.name.clone(),
        user: format!("user{}", rng.u8(0..2)),
        submitted: Duration::from_millis(rng.u64(0..20_000)),
        after: before.filter(|b| !cron && earlier[*b].spec.cron.is_none()),
        delayed: (rng.u8(0..6) == 0 && !cron).then(|| Duration::from_millis(rng.u64(1..40_000))),
        wishes: if cron { Vec::new() } else { wishes(rng) },
        spec,
    }
}

/// What people ask of a job. Whoever pauses it lets it go on again.
fn wishes(rng: &mut fastrand::Rng) -> Vec<(Duration, Wish)> {
    let mut out = Vec::new();
    let mut paused = false;
    for _ in 0..*rng.choice(&[0, 0, 1, 1, 2, 4]).unwrap_or(&0) {
        let after = Duration::from_millis(rng.u64(0..20_000));
        match rng.u8(0..8) {
            0 => {
                out.push((after, Wish::Cancel));
                return out;
            }
            1 | 2 => out.push((after, Wish::Priority(rng.i32(-1000..=1000)))),
            3 if !paused => out.push((after, Wish::Retry { all: rng.bool() })),
            _ => {
                paused = !paused;
                out.push((after, if paused { Wish::Pause } else { Wish::Resume }));
            }
        }
    }
    if paused {
        out.push((Duration::from_millis(rng.u64(0..40_000)), Wish::Resume));
    }
    out
}

fn stage(name: &str, input: InputSpec, rng: &mut fastrand::Rng) -> StageSpec {
    let policy = RetryPolicy {
        attempts: rng.u32(1..=4),
        base: HumanDuration(Duration::from_millis(200)),
        cap: HumanDuration(Duration::from_secs(5)),
    };
    let gathers = matches!(input, InputSpec::Stage { mode: ChainMode::Gather { .. } | ChainMode::Group { .. }, .. });
    StageSpec {
        name: name.into(),
        input,
        run: RunSpec::Command { argv: vec!["true".into()], shell: false },
        resources: Resources::default(),
        timeout: None,
        retry: RetrySpec { policy, ..RetrySpec::default() },
        success: SuccessSpec::default(),
        output: OutputSpec { name: Some("output".into()), stdout: true, optional: true, ..OutputSpec::default() },
        upstream: if gathers && rng.bool() { UpstreamPolicy::TakeWhatSucceeded } else { UpstreamPolicy::RequireAll },
        env: BTreeMap::new(),
        secrets: BTreeMap::new(),
        credentials: false,
        keep: KeepSpec::default(),
    }
}
