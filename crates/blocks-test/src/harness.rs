//! What a behaviour needs besides the driver: time that passes, names of its own, a folder, many callers at once.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use tidemill_base::{Env, Result, Timestamp};
use tidemill_runtime::{TokioClock, sleep};
use tokio::task::JoinSet;

use crate::suites::Skip;

/// Added to every wait on real time, since a driver's own timers may be that coarse.
const SLACK: Duration = Duration::from_millis(100);

/// The surroundings of one behaviour's test.
#[derive(Debug)]
pub struct Harness {
    env: Env,
    slack: Duration,
    names: AtomicU32,
    folder: OnceLock<TempDir>,
    behaviour: OnceLock<&'static str>,
}

impl Harness {
    fn new(env: Env, slack: Duration) -> Self {
        Self { env, slack, names: AtomicU32::new(0), folder: OnceLock::new(), behaviour: OnceLock::new() }
    }

    /// Clock, randomness and ids; hand it to the driver.
    pub const fn env(&self) -> &Env {
        &self.env
    }

    /// Lets at least `d` pass.
    pub async fn pass(&self, d: Duration) {
        sleep(d + self.slack).await;
    }

    /// A name that no other test uses, fit for a queue or a table.
    pub fn name(&self, what: &str) -> String {
        let n = self.names.fetch_add(1, Ordering::Relaxed);
        format!("{}-{what}-{n}", self.env.id("t"))
    }

    /// A folder of this test's own, removed at its end.
    pub fn folder(&self) -> &Path {
        self.folder.get_or_init(|| TempDir::new().expect("a temporary folder can be made")).path()
    }

    /// A place inside [`Harness::folder`] that does not exist yet.
    pub fn fresh_path(&self, what: &str) -> PathBuf {
        self.folder().join(self.name(what))
    }

    /// Says which behaviour of which block is tested, and in which module; `docs/reference/drivers.md` is counted from these lines.
    #[doc(hidden)]
    pub fn begin(&self, suite: &'static str, module: &'static str, behaviour: &'static str) {
        println!("CONFORMANCE {suite} {module}");
        self.behaviour.get_or_init(|| behaviour);
    }

    /// The behaviour under test, for a `make` whose engine is known to lie about some of them.
    pub fn behaviour(&self) -> &'static str {
        self.behaviour.get().copied().unwrap_or_default()
    }

    /// Says that this test is not done and why; it counts as skipped.
    pub fn skipped(&self, why: &Skip) {
        println!("SKIPPED {}: {}", self.behaviour(), why.0);
    }

    /// Says that a behaviour is not tested because the driver does not claim it.
    pub fn skip(&self, capability: &str) -> Result<()> {
        println!("skipped: the driver does not claim `{capability}`");
        Ok(())
    }

    /// Runs `count` callers as tasks of their own and returns what they answered, by number.
    pub async fn all_at_once<T, F>(&self, count: usize, mut caller: impl FnMut(usize) -> F) -> Vec<T>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let mut set = JoinSet::new();
        for n in 0..count {
            let future = caller(n);
            set.spawn(async move { (n, future.await) });
        }
        let mut answers = set.join_all().await;
        answers.sort_by_key(|(n, _)| *n);
        answers.into_iter().map(|(_, answer)| answer).collect()
    }
}

/// Runs a test on real time and several threads: for drivers with threads, files or sockets.
pub fn run_real<T>(test: impl AsyncFnOnce(&Harness) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime can be built");
    let harness = Harness::new(Env::system(), SLACK);
    runtime.block_on(test(&harness))
}

/// Runs a test on one thread and simulated time: hours pass at once whenever every task waits.
pub fn run_simulated<T>(test: impl AsyncFnOnce(&Harness) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().expect("a runtime can be built");
    runtime.block_on(async {
        let clock = TokioClock::starting_at(Timestamp::from_millis(1_700_000_000_000));
        let harness = Harness::new(Env::seeded(Arc::new(clock), 1), Duration::ZERO);
        test(&harness).await
    })
}
