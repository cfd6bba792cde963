//! What a seed makes of the sessions of a run.

use std::collections::BTreeMap;
use std::time::Duration;

use tidemill_base::{HumanDuration, RetryPolicy};
use tidemill_batch::model::{
    Budget, EngineSpec, FunctionRef, InputSpec, JobSpec, KeepSpec, OnBudget, OutputSpec, Resources, RetrySpec, RunSpec, StageSpec,
    SuccessSpec, Terms, UpstreamPolicy,
};

/// Something that a session's client does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Hands tasks over; each has the numbers of tasks that it needs, counted back from itself.
    Submit(Vec<Vec<u64>>),
    /// Gives up some of what it has submitted, from a share of it on.
    Cancel {
        /// Where it begins, of 100.
        from: u64,
        /// How many.
        most: u64,
        /// What runs as well.
        running: bool,
    },
    /// Releases nothing for a while.
    Pause,
    /// Goes on.
    Resume,
    /// Stops everything.
    CancelAll,
    /// Tries again what has failed by now.
    Retry,
}

/// How a session comes to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Its client closes it.
    Closed,
    /// Its client forgets it, and it is idle.
    Idle,
    /// Its client goes without a word, which it had promised.
    Abandoned,
}

/// One session of a run.
#[derive(Debug, Clone)]
pub struct SessionPlan {
    /// The session as a job.
    pub spec: JobSpec,
    /// When it is opened, after the beginning.
    pub opened: Duration,
    /// What its client does, each so long after the step before.
    pub steps: Vec<(Duration, Step)>,
    /// How it ends.
    pub ending: Ending,
}

impl SessionPlan {
    /// The sessions of a seed. They follow from it apart from its jobs.
    pub fn of(seed: u64) -> Vec<Self> {
        let mut rng = fastrand::Rng::with_seed(seed ^ 0x0073_6573_7369_6f6e);
        (0..*rng.choice(&[0, 1, 1, 2]).unwrap_or(&1)).map(|n| session(&mut rng, n)).collect()
    }

    /// Whether failed tasks are tried again at some time.
    pub fn is_retried(&self) -> bool {
        self.steps.iter().any(|(_, step)| *step == Step::Retry)
    }

    /// Its terms.
    pub fn terms(&self) -> Terms {
        self.spec.terms().cloned().unwrap_or_default()
    }
}

fn session(rng: &mut fastrand::Rng, n: usize) -> SessionPlan {
    let ending = *rng.choice(&[Ending::Closed, Ending::Closed, Ending::Closed, Ending::Idle, Ending::Abandoned]).unwrap_or(&Ending::Closed);
    let span = |s: u64| Some(HumanDuration(Duration::from_secs(s)));
    let mut budget = Budget { on_met: if rng.bool() { OnBudget::Finish } else { OnBudget::Cancel }, ..Budget::default() };
    match rng.u8(0..10) {
        0 => budget.failures = Some(rng.u64(1..4)),
        1 => budget.engine_time = span(rng.u64(5..60)),
        2 => budget.wall = span(rng.u64(5..120)),
        3 => budget.tasks = Some(rng.u64(1..80)),
        _ => {}
    }
    let terms = Terms {
        idle_timeout: if ending == Ending::Idle { span(rng.u64(20..200)) } else { None },
        keep_alive: if ending == Ending::Abandoned { span(rng.u64(20..120)) } else { None },
        budget,
        ..Terms::default()
    };
    let policy = RetryPolicy {
        attempts: rng.u32(1..=3),
        base: HumanDuration(Duration::from_millis(200)),
        cap: HumanDuration(Duration::from_secs(5)),
    };
    let spec = JobSpec {
        name: format!("session{n}"),
        class: "default".into(),
        priority: rng.i32(-1..=1),
        after: Vec::new(),
        at: None,
        cron: None,
        timezone: "UTC".into(),
        labels: BTreeMap::new(),
        stages: vec![stage(terms, RetrySpec { policy, ..RetrySpec::default() })],
    };
    let steps = steps(rng);
    SessionPlan { spec, opened: Duration::from_millis(rng.u64(0..20_000)), steps, ending }
}

fn steps(rng: &mut fastrand::Rng) -> Vec<(Duration, Step)> {
    let (mut out, mut total, mut paused) = (Vec::new(), 0_u64, false);
    for _ in 0..rng.usize(1..8) {
        let wait = Duration::from_millis(rng.u64(0..15_000));
        let step = match rng.u8(0..10) {
            0..4 => {
                let count = *rng.choice(&[1, 3, 10, 60, 200]).unwrap_or(&1);
                let needy = rng.bool();
                let of = |task: u64, rng: &mut fastrand::Rng| match task {
                    0 => Vec::new(),
                    _ if !needy || rng.u8(0..3) > 0 => Vec::new(),
                    _ => (0..rng.u64(1..4)).map(|_| rng.u64(1..=task.min(40))).collect(),
                };
                let tasks = (0..count).map(|at| of(total + at, rng)).collect();
                total += count;
                Step::Submit(tasks)
            }
            4..7 => Step::Cancel { from: rng.u64(0..100), most: rng.u64(1..50), running: rng.bool() },
            7 => {
                paused = !paused;
                if paused { Step::Pause } else { Step::Resume }
            }
            8 => Step::Retry,
            _ if rng.u8(0..3) == 0 => Step::CancelAll,
            _ => Step::Cancel { from: 0, most: u64::MAX, running: rng.bool() },
        };
        out.push((wait, step));
    }
    if paused {
        out.push((Duration::from_millis(rng.u64(0..20_000)), Step::Resume));
    }
    out
}

fn stage(terms: Terms, retry: RetrySpec) -> StageSpec {
    let engine = EngineSpec {
        engine: "simulated".into(),
        function: FunctionRef::Name("f".into()),
        setup_function: None,
        setup: None,
        input: "bytes".into(),
        output: "bytes".into(),
        parameters: BTreeMap::new(),
        packages: Vec::new(),
    };
    StageSpec {
        name: "tasks".into(),
        input: InputSpec::Submitted { terms: Box::new(terms) },
        run: RunSpec::Engine(engine),
        resources: Resources::default(),
        timeout: None,
        retry,
        success: SuccessSpec::default(),
        output: OutputSpec::default(),
        upstream: UpstreamPolicy::default(),
        env: BTreeMap::new(),
        secrets: BTreeMap::new(),
        credentials: false,
        keep: KeepSpec::default(),
    }
}
