//! The node: receives ranges, carries each to its end, follows control, says that it lives.

mod carry;
mod control;
mod credential;
mod fence;
mod heartbeat;
mod intake;
mod prepare;
mod recall;
mod report;
mod transfer;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use tidemill_base::{Env, Result, Timestamp};
use tidemill_batch::cut::Reader;
use tidemill_batch::protocol::{Control, WorkItem, WorkerPhase};
use tidemill_blocks::objects;
use tidemill_blocks::queue::Receipt;
use tidemill_runtime::{Shutdown, Tasks, sleep, timeout};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::{Notify, Semaphore};

use crate::floor::Floor;
use crate::payloads::Kept;
use crate::range::{Kill, OpenRange};
use crate::runner::{LiveLog, Runner, Runners};
use crate::settings::{WorkerBlocks, WorkerSettings};
use crate::stage::Stage;

/// How long killed tasks and last reports may take when the node goes.
const LAST_WORDS: Duration = Duration::from_secs(10);
/// What feeds have said of jobs is remembered for so many of them.
const REMEMBERED_JOBS: usize = 4096;

type RangeKey = (String, u32, u64);

/// What the manager has said of a job, and the version of the item that it said it with.
#[derive(Debug, Clone, Copy)]
struct Said {
    control: Control,
    version: u64,
}

/// A range this worker has taken a message for.
#[derive(Debug)]
struct Held {
    receipt: Mutex<Receipt>,
    range: OnceLock<Arc<OpenRange>>,
}

impl Held {
    fn receipt(&self) -> Receipt {
        self.receipt.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What all parts of the node share.
#[derive(Debug)]
struct Node {
    settings: WorkerSettings,
    blocks: WorkerBlocks,
    env: Env,
    tasks: Tasks,
    floor: Arc<Floor>,
    runner: Arc<dyn Runner>,
    reader: Reader,
    submissions: Kept,
    stages: Mutex<BTreeMap<(String, u32), Arc<Stage>>>,
    held: Mutex<BTreeMap<RangeKey, Arc<Held>>>,
    controls: Mutex<BTreeMap<String, Said>>,
    recalls: Mutex<BTreeMap<String, recall::Recalled>>,
    /// Until when no work is asked for, so that others get what only they can run.
    aside_until: Mutex<Timestamp>,
    /// Draining: nothing new. Closing: running tasks are handed back.
    stop: Shutdown,
    transfers: Arc<Semaphore>,
    held_changed: Notify,
    started_at: Timestamp,
    tools: Vec<String>,
}

/// A worker. See the crate.
#[derive(Debug)]
pub struct WorkerNode {
    node: Arc<Node>,
    live: UnboundedReceiver<LiveLog>,
}

impl WorkerNode {
    /// Makes the node and starts its runner. `tasks` must live under the shutdown that ends it. `Invalid` for settings that cannot
    /// work, `Exhausted` or `Denied` when the scratch folder cannot be prepared.
    pub fn new(settings: WorkerSettings, blocks: WorkerBlocks, runners: &Runners, env: Env, tasks: Tasks) -> Result<Self> {
        settings.check()?;
        let floor = Arc::new(Floor::new(settings.offers.clone()));
        let (logs, live) = unbounded_channel();
        let runner = runners.start(&settings, &blocks, &floor, &env, &tasks, logs)?;
        let node = Node {
            reader: Reader::default(),
            submissions: Kept::default(),
            stages: Mutex::default(),
            held: Mutex::default(),
            controls: Mutex::default(),
            recalls: Mutex::default(),
            aside_until: Mutex::default(),
            stop: Shutdown::new(),
            transfers: Arc::new(Semaphore::new(settings.transfers)),
            held_changed: Notify::new(),
            started_at: env.now(),
            tools: if runner.uses_files() { crate::runner::engines() } else { Vec::new() },
            settings,
            blocks,
            env,
            tasks,
            floor,
            runner,
        };
        Ok(Self { node: Arc::new(node), live })
    }

    /// Works until the shutdown of its tasks drains or the manager asks it to go. Dropping the future is what a crash is: claims
    /// and messages run out, and others take over.
    pub async fn run(mut self) -> Result<()> {
        let node = self.node.clone();
        // Threads end and running processes are left alone however this ends.
        let _stopped = StopRunner(node.runner.clone());
        tokio::select! {
            biased;
            () = node.live() => {}
            () = heartbeat::beat(&node) => {}
            () = control::follow(&node) => {}
            () = node.follow_shutdown() => {}
            () = node.write_live_logs(&mut self.live) => {}
        }
        heartbeat::say(&node, WorkerPhase::Gone, 0).await
    }
}

struct StopRunner(Arc<dyn Runner>);

impl Drop for StopRunner {
    fn drop(&mut self) {
        self.0.stop();
    }
}

impl Node {
    /// The node's life: intake until it is to drain, then the end.
    async fn live(self: &Arc<Self>) {
        let mut carriers = FuturesUnordered::new();
        intake::run(self, &mut carriers).await;
        tracing::info!(worker = self.settings.id, "draining");
        for range in self.open_ranges() {
            range.stop(false);
        }
        let rest = async { while carriers.next().await.is_some() {} };
        let over = async {
            tokio::select! {
                biased;
                () = self.tasks.shutdown().closing() => {}
                () = sleep(self.settings.drain_grace) => {}
            }
            self.stop.close();
            for range in self.open_ranges() {
                self.kill(&range, Kill::Return);
            }
            sleep(LAST_WORDS).await;
        };
        tokio::select! {
            biased;
            () = rest => {}
            () = over => tracing::warn!("left without having reported everything"),
        }
    }

    async fn follow_shutdown(&self) {
        self.tasks.shutdown().draining().await;
        self.stop.drain();
        std::future::pending().await
    }

    async fn write_live_logs(&self, live: &mut UnboundedReceiver<LiveLog>) {
        while let Some(log) = live.recv().await {
            let store = self.blocks.objects.as_ref();
            let done = match &log {
                LiveLog::Put(path, bytes) => {
                    timeout(Duration::from_secs(5), "writing a live log", objects::put(store, path, bytes.clone()))
                }
                LiveLog::Remove(path) => {
                    match timeout(Duration::from_secs(5), "removing a live log", objects::delete(store, path)).await {
                        Ok(Ok(())) => {}
                        Ok(Err(e)) | Err(e) => tracing::debug!(error = %e.chain(), "live log"),
                    }
                    continue;
                }
            };
            match done.await {
                Ok(Ok(())) => {}
                Ok(Err(e)) | Err(e) => tracing::debug!(error = %e.chain(), "live log"),
            }
        }
        std::future::pending().await
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<RangeKey, Arc<Held>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open_ranges(&self) -> Vec<Arc<OpenRange>> {
        self.held().values().filter_map(|h| h.range.get().cloned()).collect()
    }

    /// Enters a range; `None` when this worker is at it already, which then goes on under the new delivery.
    fn hold(&self, item: &WorkItem, receipt: Receipt) -> Option<Arc<Held>> {
        let mut held = self.held();
        let key = (item.job.clone(), item.stage, item.range);
        if let Some(already) = held.get(&key) {
            *already.receipt.lock().unwrap_or_else(PoisonError::into_inner) = receipt;
            return None;
        }
        let entry = Arc::new(Held { receipt: Mutex::new(receipt), range: OnceLock::new() });
        held.insert(key, entry.clone());
        Some(entry)
    }

    fn let_go(&self, item: &WorkItem) {
        self.held().remove(&(item.job.clone(), item.stage, item.range));
        self.held_changed.notify_one();
    }

    /// Kills the running tasks of a range and lets no other start.
    fn kill(&self, range: &Arc<OpenRange>, why: Kill) {
        range.set_kill(why);
        range.stop(why == Kill::Cancel);
        self.runner.kill(range);
    }

    /// What the feed has said of a job since this worker started.
    fn heard(&self, job: &str) -> Option<Said> {
        self.controls.lock().unwrap_or_else(PoisonError::into_inner).get(job).copied()
    }

    /// Whether nothing was heard by which tasks of the job would be given back. What was heard may be old, which a claim finds out; without
    /// one, tasks that may run again would go to and fro between here and the manager until the feed says so.
    fn is_unhindered(&self, job: &str) -> bool {
        self.heard(job).is_none_or(|said| said.control == Control::Run) && !self.has_recalled(job)
    }

    /// Does what is asked about a job's range.
    fn obey(&self, range: &Arc<OpenRange>, control: Control) {
        match control {
            Control::Cancel => self.kill(range, Kill::Cancel),
            Control::Pause => range.stop(false),
            Control::Run | Control::Drain => {}
        }
    }
}
