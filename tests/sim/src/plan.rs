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

/// What somebody asks of a job in the middle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Nothing.
    None,
    /// To stop.
    Cancel,
    /// To pause, and to go on a while later.
    PauseAndResume,
    /// To try failed tasks again after the end.
    Retry,
}

/// One job of a run.
#[derive(Debug, Clone)]
pub struct JobPlan {
    /// Its name; the outcomes of its tasks follow from it.
    pub name: String,
    /// Whose it is.
    pub user: String,
    /// The job.
    pub spec: JobSpec,
    /// When it is submitted, after the beginning.
    pub submitted: Duration,
    /// What is asked of it.
    pub wish: Wish,
    /// When that is asked, after its submit.
    pub wished: Duration,
}

/// A run.
#[derive(Debug, Clone)]
pub struct Plan {
    seed: u64,
    /// The jobs.
    pub jobs: Vec<JobPlan>,
    /// How many managers there are at a time.
    pub managers: usize,
    /// How many workers there are at a time.
    pub workers: usize,
    /// Processes crash at about this many calls of a block; 0: never.
    pub crash_calls: u64,
    /// Crashes and faults end after this.
    pub calm_after: Duration,
}

impl Plan {
    /// The plan of a seed.
    pub fn of(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed ^ 0x7469_6465);
        let jobs = (0..rng.usize(1..=3)).map(|n| job(&mut rng, n)).collect();
        Self {
            seed,
            jobs,
            managers: rng.usize(1..=2),
            workers: rng.usize(1..=3),
            crash_calls: *rng.choice(&[0, 40, 150, 400]).unwrap_or(&0),
            calm_after: Duration::from_secs(rng.u64(20..180)),
        }
    }

    /// How an attempt of a task ends. The same for whoever runs it, whenever.
    pub fn outcome(&self, item: &WorkItem, task: u64) -> SimOutcome {
        let mut rng = self.dice(&[u64::from(item.stage), task, u64::from(item.attempt)]);
        let took = Duration::from_millis(if rng.u8(..) < 12 { rng.u64(2_000..40_000) } else { rng.u64(1..400) });
        let failure = if self.is_doomed(item.stage, task) {
            Some(FailureClass::Exit)
        } else {
            (item.attempt == 1 && rng.u8(..) < 25)
                .then(|| *rng.choice(&[FailureClass::Exit, FailureClass::Timeout]).unwrap_or(&FailureClass::Exit))
        };
        let output = (failure.is_none() && rng.bool()).then(|| Bytes::from(format!("{}/{task}", item.stage)));
        SimOutcome { took, failure, output }
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

fn job(rng: &mut fastrand::Rng, n: usize) -> JobPlan {
    let tasks = *rng.choice(&[1, 2, 7, 30, 120, 400]).unwrap_or(&1);
    let mut stages = vec![stage("s0", InputSpec::Array { first: 0, last: tasks - 1 }, rng)];
    for k in 1..rng.usize(1..=3) {
        let mode = match rng.u8(0..4) {
            0 => ChainMode::Gather { per_task: None },
            1 => ChainMode::Gather { per_task: Some(rng.u64(1..20)) },
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
        cron: None,
        timezone: "UTC".into(),
        labels: BTreeMap::new(),
        stages,
    };
    let wish = *rng.choice(&[Wish::None, Wish::None, Wish::None, Wish::Cancel, Wish::PauseAndResume, Wish::Retry]).unwrap_or(&Wish::None);
    JobPlan {
        name: spec.name.clone(),
        user: format!("user{}", rng.u8(0..2)),
        spec,
        submitted: Duration::from_millis(rng.u64(0..20_000)),
        wish,
        wished: Duration::from_millis(rng.u64(0..30_000)),
    }
}

fn stage(name: &str, input: InputSpec, rng: &mut fastrand::Rng) -> StageSpec {
    let policy = RetryPolicy {
        attempts: rng.u32(1..=4),
        base: HumanDuration(Duration::from_millis(200)),
        cap: HumanDuration(Duration::from_secs(5)),
    };
    let gathers = matches!(input, InputSpec::Stage { mode: ChainMode::Gather { .. }, .. });
    StageSpec {
        name: name.into(),
        input,
        run: RunSpec::Command { argv: vec!["true".into()], shell: false },
        resources: Resources::default(),
        timeout: None,
        retry: RetrySpec { policy, ..RetrySpec::default() },
        success: SuccessSpec::default(),
        output: OutputSpec { optional: true, ..OutputSpec::default() },
        upstream: if gathers && rng.bool() { UpstreamPolicy::TakeWhatSucceeded } else { UpstreamPolicy::RequireAll },
        env: BTreeMap::new(),
        secrets: BTreeMap::new(),
        credentials: false,
        keep: KeepSpec::default(),
    }
}
