use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tidemill_base::Env;
use tidemill_engine::{
    Batch, Batches, Engine, EngineSpec, Event, Format, Function, Loss, Outcome, Pool, PoolSettings, Session, SetUp, Task, TaskError,
    TaskResult,
};
use tidemill_runtime::{Shutdown, Tasks, timeout};

/// Nothing here takes longer unless something hangs.
const LIMIT: Duration = Duration::from_secs(120);

/// An example of this crate. They are built before its tests, unless a single test program is asked for.
pub(crate) fn example(name: &str) -> PathBuf {
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    let path = path.join("examples").join(name);
    assert!(path.exists(), "{} is not built; `cargo build -p tidemill-engine --examples`", path.display());
    path
}

pub(crate) struct Place {
    pub(crate) folder: TempDir,
    pub(crate) spec: EngineSpec,
}

/// A scratch folder and the engine that is the example `name`.
pub(crate) fn place(name: &str) -> Place {
    place_of(example(name))
}

pub(crate) fn place_of(program: PathBuf) -> Place {
    let folder = tempfile::tempdir().unwrap();
    let mut spec = EngineSpec::new(program, folder.path().join("engines"));
    spec.limits.boot = Duration::from_secs(20);
    Place { folder, spec }
}

/// A session of the small engine's words, with this set-up data.
pub(crate) fn words(data: &'static str) -> Session {
    let mut session = Session::new(Function::Named("words".into()));
    (session.input, session.output) = (Format::Raw, Format::Raw);
    session.set_up = SetUp { function: None, data: Some(data.into()) };
    session
}

pub(crate) fn tasks(words: &[&str]) -> Vec<Task> {
    (0..).zip(words).map(|(id, word)| Task::new(id, word.as_bytes().to_vec())).collect()
}

pub(crate) fn block_on<T>(what: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async { timeout(LIMIT, "the test", what).await.unwrap() })
}

/// Starts the engine and opens session 1.
pub(crate) async fn opened(spec: &EngineSpec, session: Session) -> Engine {
    let mut engine = Engine::start(spec, "e1").await.unwrap();
    engine.open(1, &Arc::new(session));
    match engine.event().await {
        Event::Opened { session: 1, .. } => engine,
        other => panic!("{other:?}"),
    }
}

/// Results until the engine is lost, and how.
pub(crate) async fn until_lost(engine: &mut Engine) -> (Vec<Outcome>, Loss) {
    let mut had = Vec::new();
    loop {
        match engine.event().await {
            Event::Results { outcomes, .. } => had.extend(outcomes),
            Event::Lost(loss) => return (had, loss),
            other => panic!("{other:?}"),
        }
    }
}

/// So many results.
pub(crate) async fn results(engine: &mut Engine, count: usize) -> Vec<Outcome> {
    let mut had = Vec::new();
    while had.len() < count {
        match engine.event().await {
            Event::Results { outcomes, .. } => had.extend(outcomes),
            other => panic!("{other:?}"),
        }
    }
    had
}

pub(crate) fn value(outcome: &Outcome) -> String {
    match &outcome.result {
        TaskResult::Value(value) => String::from_utf8_lossy(value).into_owned(),
        other => panic!("task {}: {other:?}", outcome.task),
    }
}

#[track_caller]
pub(crate) fn error(outcome: &Outcome) -> &TaskError {
    match &outcome.result {
        TaskResult::Failed(e) => e,
        other => panic!("task {}: {other:?}", outcome.task),
    }
}

/// A pool with one session.
pub(crate) struct Rig {
    pub(crate) pool: Pool,
    pub(crate) batches: Batches,
    pub(crate) session: u32,
    pub(crate) place: Place,
}

pub(crate) fn rig(place: Place, settings: PoolSettings, session: Session) -> Rig {
    let supervised = Tasks::new("test", Shutdown::new());
    let (pool, batches) = Pool::start(place.spec.clone(), settings, Env::system(), &supervised).unwrap();
    let session = pool.open(session);
    Rig { pool, batches, session, place }
}

impl Rig {
    pub(crate) async fn submit(&self, tasks: Vec<Task>) {
        self.pool.submit(self.session, tasks).await.unwrap();
    }

    pub(crate) async fn batch(&mut self) -> Batch {
        self.batches.next().await.unwrap()
    }

    /// The outcomes of tasks 0 to `count`, by number. Each must come once.
    pub(crate) async fn collect(&mut self, count: usize) -> Vec<Outcome> {
        let mut all: Vec<Option<Outcome>> = vec![None; count];
        let mut left = count;
        while left > 0 {
            for outcome in self.batch().await.outcomes {
                let place = &mut all[usize::try_from(outcome.task).unwrap()];
                assert!(place.is_none(), "task {} has two outcomes: {place:?} and {outcome:?}", outcome.task);
                *place = Some(outcome);
                left -= 1;
            }
        }
        assert_eq!(self.pool.status().unsettled, 0);
        all.into_iter().flatten().collect()
    }

    /// Submits and collects.
    pub(crate) async fn run(&mut self, words: &[&str]) -> Vec<Outcome> {
        self.submit(tasks(words)).await;
        self.collect(words.len()).await
    }

    /// Ends the engines, and waits until they have.
    pub(crate) async fn end(mut self) {
        drop(self.pool);
        while self.batches.next().await.is_some() {}
        let left: Vec<_> = std::fs::read_dir(self.place.folder.path().join("engines")).into_iter().flatten().flatten().collect();
        assert!(left.is_empty(), "engines left folders behind: {left:?}");
    }
}

/// Whether a process is there and has not ended.
pub(crate) fn is_alive(pid: &str) -> bool {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    text.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// Kills an engine of the pool from outside, if it is there.
pub(crate) fn kill_engine(pool: &Pool, at: usize) -> bool {
    let pid = pool.status().engines[at].pid;
    pid != 0 && std::process::Command::new("kill").args(["-9", &pid.to_string()]).status().is_ok_and(|s| s.success())
}
