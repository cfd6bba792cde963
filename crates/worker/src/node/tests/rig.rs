//! A worker with memory drivers around it, and a reader of what it reports.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tidemill_base::{Env, HumanDuration, Timestamp};
use tidemill_batch::cut::StageDefinition;
use tidemill_batch::model::*;
use tidemill_batch::protocol::keys::{self, CONTROL_TABLE, DONE_QUEUE, STATE_TABLE, WORKER_TABLE};
use tidemill_batch::protocol::*;
use tidemill_blocks::fleet::Offers;
use tidemill_blocks::memory::{self, MemoryQueue, MemoryTable};
use tidemill_blocks::objects;
use tidemill_blocks::queue::{NewMessage, Queue, QueueSettings};
use tidemill_blocks::table::{Condition, Range, Table, Write, read_all};
use tidemill_runtime::{Kind, Shutdown, Tasks, TokioClock, sleep, timeout};

use crate::{Draw, Runners, WorkerBlocks, WorkerNode, WorkerSettings};

pub(super) const JOB: &str = "j1";

/// What a range's reports say, folded.
#[derive(Debug, Default)]
pub(super) struct Folded {
    pub(super) reports: Vec<Report>,
    pub(super) succeeded: Vec<u64>,
    pub(super) failed: BTreeMap<u64, TaskFailure>,
    pub(super) returned: Vec<u64>,
    pub(super) cancelled: Vec<u64>,
    pub(super) stats: BTreeMap<u64, TaskStat>,
    pub(super) outputs: BTreeMap<u64, TaskOutput>,
    pub(super) finished: bool,
}

pub(super) struct Rig {
    pub(super) env: Env,
    pub(super) blocks: WorkerBlocks,
    pub(super) scratch: TempDir,
    pub(super) slots: u32,
    next_range: std::cell::Cell<u64>,
}

pub(super) struct Started {
    pub(super) shutdown: Shutdown,
    pub(super) tasks: Tasks,
}

impl Rig {
    /// On the machine's clock.
    pub(super) async fn real() -> Self {
        Self::build(Env::system()).await
    }

    /// On tokio's clock.
    pub(super) async fn paused() -> Self {
        Self::build(Env::seeded(Arc::new(TokioClock::starting_at(Timestamp::from_millis(1_700_000_000_000))), 7)).await
    }

    async fn build(env: Env) -> Self {
        let queue = Arc::new(MemoryQueue::new(env.clone()));
        let table = Arc::new(MemoryTable::new(env.clone()));
        for name in [keys::work_queue("c"), DONE_QUEUE.to_owned()] {
            queue.ensure(&name, QueueSettings::default()).await.unwrap();
        }
        for name in [STATE_TABLE, WORKER_TABLE, CONTROL_TABLE] {
            table.ensure(name).await.unwrap();
        }
        let blocks = WorkerBlocks { queue, table, objects: memory::objects(), grants: None };
        Self { env, blocks, scratch: tempfile::tempdir().unwrap(), slots: 2, next_range: std::cell::Cell::new(0) }
    }

    pub(super) fn settings(&self, id: &str) -> WorkerSettings {
        let named = BTreeMap::from([("gpu".to_owned(), 1)]);
        let offers = Offers { slots: self.slots, memory: 1 << 30, named };
        WorkerSettings { report_every: Duration::from_millis(100), ..WorkerSettings::new(id, "c", self.scratch.path().join(id), offers) }
    }

    pub(super) fn start(&self, id: &str, runners: &Runners) -> Started {
        self.start_with(self.settings(id), runners, self.blocks.clone())
    }

    pub(super) fn start_with(&self, settings: WorkerSettings, runners: &Runners, blocks: WorkerBlocks) -> Started {
        let shutdown = Shutdown::new();
        let tasks = Tasks::new("worker", shutdown.clone());
        let node = WorkerNode::new(settings, blocks, runners, self.env.clone(), tasks.clone()).unwrap();
        tasks.spawn("node", Kind::Essential, node.run());
        Started { shutdown, tasks }
    }

    /// Stores a stage's definition.
    pub(super) async fn stage(&self, number: u32, spec: StageSpec) {
        let definition = StageDefinition { job_name: "test".into(), spec, total: 1 << 40, manifest: None, upstream: None };
        self.define(number, definition).await;
    }

    pub(super) async fn define(&self, number: u32, definition: StageDefinition) {
        definition.store(&self.blocks.objects, JOB, number).await.unwrap();
    }

    /// Releases a range and returns its number.
    pub(super) async fn release(&self, stage: u32, start: u64, len: u64) -> u64 {
        let range = self.next_range.replace(self.next_range.get() + 1);
        let item = WorkItem {
            job: JOB.into(),
            stage,
            range,
            start,
            len,
            attempt: 1,
            released_at: self.env.now(),
            pieces: Vec::new(),
            needs: Vec::new(),
        };
        self.send(&item).await;
        range
    }

    pub(super) async fn send(&self, item: &WorkItem) {
        self.blocks.queue.send(&keys::work_queue("c"), vec![NewMessage::now(encode(item).unwrap())]).await.unwrap();
    }

    pub(super) async fn say(&self, key: tidemill_blocks::table::Key, control: Control) {
        let write = Write::put(key, encode(&control).unwrap(), Condition::Any);
        self.blocks.table.transact(CONTROL_TABLE, vec![write]).await.unwrap();
    }

    /// Asks the worker to hand back what it will not start soon, for so many idle slots of others like it.
    pub(super) async fn ask_back(&self, id: &str, idle: u32) {
        self.ask_back_for(id, idle, self.settings(id).offers).await;
    }

    /// The same, for others that offer something else.
    pub(super) async fn ask_back_for(&self, id: &str, idle: u32, offers: Offers) {
        let back = HandBack { idle, offers: vec![offers], at: self.env.now() };
        let write = Write::put(keys::control_hand_back(id), encode(&back).unwrap(), Condition::Any);
        self.blocks.table.transact(CONTROL_TABLE, vec![write]).await.unwrap();
    }

    pub(super) async fn fence(&self, stage: u32, range: u64) -> Option<RangeState> {
        let item = self.blocks.table.get(STATE_TABLE, &keys::fence(JOB, stage, range)).await.unwrap();
        item.map(|i| decode("fence", &i.value).unwrap())
    }

    pub(super) async fn fold(&self, stage: u32, range: u64) -> Folded {
        let table = self.blocks.table.as_ref();
        let mut out = Folded::default();
        for item in read_all(table, STATE_TABLE, Range::all(keys::report_partition(JOB, stage, range), 100)).await.unwrap() {
            let report: Report = decode("report", &item.value).unwrap();
            let numbers = |runs: &[(u64, u64)]| runs.iter().flat_map(|(s, l)| *s..s + l).collect::<Vec<_>>();
            out.succeeded.extend(numbers(&report.succeeded));
            out.returned.extend(numbers(&report.returned));
            out.cancelled.extend(numbers(&report.cancelled));
            out.failed.extend(report.failed.iter().map(|f| (f.task, f.clone())));
            out.stats.extend(TaskColumns::unpack(&report.columns).unwrap().rows().map(|s| (s.task, s)));
            out.finished |= report.finished;
            out.reports.push(report);
        }
        for item in read_all(table, STATE_TABLE, Range::all(keys::output_partition(JOB, stage), 100)).await.unwrap() {
            let page: OutputPage = decode("page", &item.value).unwrap();
            if page.range == range {
                out.outputs.extend(page.tasks.into_iter().map(|t| (t.task, t)));
            }
        }
        for list in [&mut out.succeeded, &mut out.returned, &mut out.cancelled] {
            list.sort_unstable();
        }
        out
    }

    /// What the range's reports say once it is finished.
    pub(super) async fn finished(&self, stage: u32, range: u64) -> Folded {
        let wait = async {
            loop {
                let folded = self.fold(stage, range).await;
                if folded.finished {
                    return folded;
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(Duration::from_secs(120), "finishing the range", wait).await.unwrap()
    }

    /// Waits until `holds`.
    pub(super) async fn until(&self, what: &str, mut holds: impl AsyncFnMut() -> bool) {
        let wait = async {
            while !holds().await {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(Duration::from_secs(60), what, wait).await.unwrap();
    }

    pub(super) async fn heartbeat(&self, id: &str) -> Option<Heartbeat> {
        let item = self.blocks.table.get(WORKER_TABLE, &keys::worker(id)).await.unwrap();
        item.map(|i| decode("heartbeat", &i.value).unwrap())
    }

    pub(super) async fn content(&self, file: &StoredFile) -> String {
        let bytes = objects::get(self.blocks.objects.as_ref(), &objects::parse_path(&file.path).unwrap()).await.unwrap();
        let (from, to) = (usize::try_from(file.offset).unwrap(), usize::try_from(file.offset + file.len).unwrap());
        String::from_utf8(bytes[from..to].to_vec()).unwrap()
    }

    /// Runs one range of a stage to its end with real processes.
    pub(super) async fn run_processes(&self, spec: StageSpec, tasks: u64) -> Folded {
        self.stage(0, spec).await;
        let range = self.release(0, 0, tasks).await;
        let started = self.start("w", &Runners::processes());
        let folded = self.finished(0, range).await;
        started.end().await;
        folded
    }
}

impl Started {
    pub(super) async fn end(self) {
        self.shutdown.drain();
        self.tasks.join(Duration::from_secs(30)).await;
    }
}

pub(super) fn spec(run: RunSpec) -> StageSpec {
    StageSpec {
        name: "s".into(),
        input: InputSpec::Array { first: 1, last: 1_000_000 },
        run,
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

pub(super) fn command(argv: &[&str]) -> StageSpec {
    spec(RunSpec::Command { argv: argv.iter().map(ToString::to_string).collect(), shell: false })
}

pub(super) fn shell(script: &str) -> StageSpec {
    spec(RunSpec::Command { argv: vec![script.into()], shell: true })
}

pub(super) fn with_timeout(mut spec: StageSpec, timeout: Duration) -> StageSpec {
    spec.timeout = Some(HumanDuration(timeout));
    spec
}

/// The first `long` tasks take so long, the others a tenth of a second.
pub(super) fn some_long(long: u64, took: Duration) -> Runners {
    let draw: Draw = Arc::new(move |_, task| {
        let took = if task < long { took } else { Duration::from_millis(100) };
        crate::SimOutcome { took, ..Default::default() }
    });
    Runners::simulated(draw)
}

/// Every task takes `took` and succeeds.
pub(super) fn takes(took: Duration) -> Runners {
    let draw: Draw = Arc::new(move |_, _| crate::SimOutcome { took, ..Default::default() });
    Runners::simulated(draw)
}
