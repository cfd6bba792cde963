//! Where statements run: on threads of their own, and so that they can be stopped.
//!
//! A join or an aggregation computes for long stretches without waiting for anything, and some joins for minutes. On the runtime
//! that also serves requests it would hold up the requests, and the timer that is to end it; on a runtime shared by statements it
//! would hold up the others. So each statement has a small runtime of its own while it runs, taken from those that are idle. Rows
//! come from it through a channel, and the deadline is kept by the caller, who waits on the channel. A runtime, and its place among
//! the running statements, is free again when nothing runs on it any more, which can be later than the caller's deadline.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::Result as PlanResult;
use datafusion::common::tree_node::{Transformed, TreeNode as _};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coop::CooperativeExec;
use futures::{FutureExt as _, StreamExt as _};
use tidemill_base::{Error, Result};
use tidemill_runtime::sleep;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::failure;

/// Batches that wait for the caller. One is read while the next is made.
const AHEAD: usize = 2;
/// Planning goes down a statement's tree by recursion, not all of it guarded. This is address space; what is not used is not paid.
pub(crate) const STACK_BYTES: usize = 32 << 20;
/// How often a runtime is looked at that does not come to rest.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Runtimes for statements, made when first needed, never more than there are places.
pub(crate) struct Pool {
    places: Arc<Semaphore>,
    idle: Arc<Mutex<Vec<Threads>>>,
    threads: usize,
    home: Handle,
}

/// A runtime for one statement at a time. Dropping it does not wait for what runs.
struct Threads(Option<Runtime>);

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl Pool {
    /// Room for `places` statements on `threads` threads each. `home` is the caller's runtime.
    pub(crate) fn new(places: usize, threads: usize, home: Handle) -> Self {
        let places = Arc::new(Semaphore::new(places.clamp(1, Semaphore::MAX_PERMITS)));
        Self { places, idle: Arc::default(), threads: threads.max(1), home }
    }

    /// Waits for a place.
    pub(crate) async fn place(&self) -> Result<OwnedSemaphorePermit> {
        let place = Arc::clone(&self.places).acquire_owned().await;
        place.map_err(|e| Error::internal("the SQL engine is closed").with_source(e))
    }

    /// Plans and runs a statement; returns when it is planned.
    pub(crate) async fn run(
        &self,
        plan: impl Future<Output = Result<SendableRecordBatchStream>> + Send + 'static,
        place: OwnedSemaphorePermit,
    ) -> Result<Running> {
        let threads = self.threads()?;
        let Some(runtime) = &threads.0 else { return Err(Error::internal("the SQL engine is closed")) };
        let (planned, schema) = oneshot::channel();
        let (rows, batches) = mpsc::channel(AHEAD);
        let work = async move {
            match AssertUnwindSafe(plan).catch_unwind().await.unwrap_or_else(|_| Err(panicked())) {
                Ok(mut stream) => {
                    if planned.send(Ok(stream.schema())).is_ok() {
                        forward(&mut stream, &rows).await;
                    }
                }
                Err(e) => drop(planned.send(Err(e))),
            }
        };
        let work = runtime.spawn(work);
        // This guard exists before the first wait, so that a caller who gives up while the statement is planned stops it too.
        let stop = Stop(work.abort_handle());
        self.home.spawn(give_back(threads, work, place, Arc::clone(&self.idle)));
        let schema = schema.await.map_err(|_| panicked())??;
        Ok(Running { schema, batches, _stop: stop })
    }

    fn threads(&self) -> Result<Threads> {
        if let Some(idle) = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop() {
            return Ok(idle);
        }
        let runtime =
            Builder::new_multi_thread().worker_threads(self.threads).thread_name("sql").thread_stack_size(STACK_BYTES).enable_all().build();
        Ok(Threads(Some(runtime.map_err(|e| Error::from(e).context("start the threads of a statement"))?)))
    }
}

/// Waits until nothing runs on the threads: first for the statement's own task, then for the parts that it was split into, which
/// are stopped with it and end when they next give way.
async fn give_back(threads: Threads, work: JoinHandle<()>, place: OwnedSemaphorePermit, idle: Arc<Mutex<Vec<Threads>>>) {
    // Stopped, panicked or done is all the same here; the caller has been told.
    let _ = work.await;
    let alive = || threads.0.as_ref().map_or(0, |runtime| runtime.metrics().num_alive_tasks());
    while alive() > 0 {
        sleep(LOOK_AGAIN).await;
    }
    idle.lock().unwrap_or_else(PoisonError::into_inner).push(threads);
    drop(place);
}

async fn forward(stream: &mut SendableRecordBatchStream, rows: &mpsc::Sender<Result<RecordBatch>>) {
    loop {
        let got = match AssertUnwindSafe(stream.next()).catch_unwind().await {
            Ok(Some(batch)) => batch.map_err(failure::from_datafusion),
            Ok(None) => return,
            Err(_) => Err(panicked()),
        };
        let failed = got.is_err();
        if rows.send(got).await.is_err() || failed {
            return;
        }
    }
}

/// A statement at work. Dropping it stops the work.
pub(crate) struct Running {
    schema: SchemaRef,
    batches: mpsc::Receiver<Result<RecordBatch>>,
    _stop: Stop,
}

struct Stop(tokio::task::AbortHandle);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Running {
    pub(crate) const fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The next batch; nothing after the last one or an error.
    pub(crate) async fn next(&mut self) -> Option<Result<RecordBatch>> {
        self.batches.recv().await
    }
}

fn panicked() -> Error {
    Error::internal("the SQL engine failed on this statement in a way it should not; please report it")
}

/// Makes a plan give way often enough to be stopped. DataFusion lets its leaves do so, which is not enough where a node makes many
/// rows of few, as joins do: the leaves are then hardly ever asked.
pub(crate) fn yielding(plan: Arc<dyn ExecutionPlan>) -> PlanResult<Arc<dyn ExecutionPlan>> {
    let wrapped = plan.transform_up(|node| {
        let multiplies = node.name().ends_with("JoinExec") || matches!(node.name(), "UnnestExec" | "RecursiveQueryExec");
        Ok(if multiplies { Transformed::yes(Arc::new(CooperativeExec::new(node)) as _) } else { Transformed::no(node) })
    })?;
    Ok(wrapped.data)
}
