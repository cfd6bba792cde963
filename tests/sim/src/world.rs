//! Starts the processes of a run, kills and restarts them, and does what people do.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tidemill_base::{Env, Error, ErrorKind, Result};
use tidemill_batch::model::{JobState, Wanted};
use tidemill_batch::protocol::{RangeState, decode, keys};
use tidemill_batch::service::{BatchSettings, Manager, Submit};
use tidemill_batch::store::read;
use tidemill_blocks::Blocks;
use tidemill_blocks::fleet::Offers;
use tidemill_blocks_test::faulty::Component;
use tidemill_blocks_test::sim::Sim;
use tidemill_runtime::{Kind, Shutdown, Tasks, sleep};
use tidemill_worker::{Runners, WorkerBlocks, WorkerNode, WorkerSettings};

use crate::{Plan, RowSink, Wish, check};

/// With nothing going wrong any more, everything has come to its end within this.
const PATIENCE: Duration = Duration::from_secs(3600);

/// The processes of a run.
#[derive(Debug)]
pub struct World<'a> {
    sim: &'a Sim,
    plan: Arc<Plan>,
    outside: Tasks,
    calm: Shutdown,
}

/// Runs a seed's plan to its end and checks what is left.
pub async fn scenario(sim: &Sim) -> Result<()> {
    let plan = Arc::new(Plan::of(sim.seed()));
    let outside = Shutdown::new();
    let world = World { sim, plan: plan.clone(), outside: Tasks::new("outside", outside.clone()), calm: Shutdown::new() };
    for n in 0..plan.managers {
        world.keep_managing(n);
    }
    for n in 0..plan.workers {
        world.keep_working(n);
    }
    let ids = world.people().await?;
    world.sim.note(&format!("all jobs ended, {:?}", sim.faults().counts()));
    let outcome = check(sim, &plan, &ids).await;
    outside.drain();
    outside.close();
    outcome
}

fn settings() -> BatchSettings {
    BatchSettings { segment_rows: 200, segment_age: Duration::from_secs(15), ..BatchSettings::default() }
}

impl World<'_> {
    /// One manager after the other.
    fn keep_managing(&self, n: usize) {
        let (sim, plan, calm, env) = (self.sim.faults().clone(), self.plan.clone(), self.calm.clone(), self.sim.env().clone());
        let blocks = self.sim.blocks().clone();
        self.outside.spawn("managers", Kind::Request, async move {
            for life in 0_u64.. {
                let component = sim.component(&format!("manager{n}-{life}"));
                arm(&component, &plan, &calm, &env);
                let shutdown = Shutdown::new();
                let tasks = Tasks::new("manager", shutdown.clone());
                let seen = component.blocks(&blocks);
                tokio::select! {
                    biased;
                    () = component.crashed() => {}
                    () = manage(seen, &env, &tasks) => {}
                }
                shutdown.drain();
                shutdown.close();
                sleep(Duration::from_millis(500 + env.random_below(8_000))).await;
            }
            Ok(())
        });
    }

    /// One worker after the other.
    fn keep_working(&self, n: usize) {
        let (sim, plan, calm, env) = (self.sim.faults().clone(), self.plan.clone(), self.calm.clone(), self.sim.env().clone());
        let blocks = self.sim.blocks().clone();
        self.outside.spawn("workers", Kind::Request, async move {
            for life in 0_u64.. {
                let name = format!("w{n}-{life}");
                let component = sim.component(&name);
                arm(&component, &plan, &calm, &env);
                let shutdown = Shutdown::new();
                let tasks = Tasks::new("worker", shutdown.clone());
                let seen = component.blocks(&blocks);
                let drained = Duration::from_secs(20 + env.random_below(200));
                tokio::select! {
                    biased;
                    () = component.crashed() => {}
                    () = work(&name, seen, &plan, &env, &tasks) => {}
                    () = sleep(drained) => {
                        // Now and then one is drained in good order.
                        shutdown.drain();
                        sleep(Duration::from_secs(90)).await;
                    }
                }
                // What a dead process was doing must not go on.
                component.crash();
                shutdown.drain();
                shutdown.close();
                sleep(Duration::from_millis(200 + env.random_below(5_000))).await;
            }
            Ok(())
        });
    }

    /// Submits the jobs, asks things of them, and waits for their end. Returns their ids by name.
    async fn people(&self) -> Result<BTreeMap<String, String>> {
        let blocks = self.sim.blocks();
        let mut ids = BTreeMap::new();
        let (done, mut submitted) = tokio::sync::mpsc::unbounded_channel();
        for n in 0..self.plan.jobs.len() {
            let (plan, env, blocks, done) = (self.plan.clone(), self.sim.env().clone(), blocks.clone(), done.clone());
            let component = self.sim.component(&format!("person{n}"));
            self.outside.spawn("person", Kind::Request, async move {
                let outcome = person(&plan, n, &component, &blocks, &env).await;
                drop(done.send((plan.jobs[n].name.clone(), outcome)));
                Ok(())
            });
        }
        drop(done);
        let calm_after = self.plan.calm_after;
        let (faults, calm) = (self.sim.faults().clone(), self.calm.clone());
        self.outside.spawn("weather", Kind::Request, async move {
            sleep(calm_after).await;
            calm.drain();
            faults.calm();
            Ok(())
        });
        while let Some((name, outcome)) = submitted.recv().await {
            ids.insert(name, outcome?);
        }
        self.calm.draining().await;
        let weather_ended = self.sim.env().now();
        loop {
            let mut open = Vec::new();
            for id in ids.values() {
                let job = read::job(blocks.ledger.as_ref(), id).await?;
                if !job.state.is_final() {
                    open.push((job, read::stages(blocks.ledger.as_ref(), Some(id)).await?));
                }
            }
            if open.is_empty() && self.at_rest().await? {
                return Ok(ids);
            }
            if self.sim.env().now().since(weather_ended) > PATIENCE {
                let ranges = blocks
                    .ledger
                    .query("SELECT job, stage, range_id, start_task, len, folded_seq, finished FROM batch_ranges", vec![])
                    .await?;
                let queues = blocks.queue.list().await?;
                let mut fences = Vec::new();
                for row in &ranges {
                    let key = keys::fence(row.text(0)?, u32::try_from(row.uint(1)?).unwrap_or(0), row.uint(2)?);
                    let item = blocks.table.get(keys::STATE_TABLE, &key).await?;
                    fences.push(item.map(|i| decode::<RangeState>("fence", &i.value)).transpose()?);
                }
                return Err(Error::internal(format!("stalled: {open:#?}\nranges {ranges:?}\nfences {fences:#?}\nqueues {queues:#?}")));
            }
            sleep(Duration::from_secs(2)).await;
        }
    }

    /// Whether statistics are all in segments and nothing is in the completions queue.
    async fn at_rest(&self) -> Result<bool> {
        let blocks = self.sim.blocks();
        let ranges = blocks.ledger.query("SELECT COUNT(*) FROM batch_ranges", vec![]).await?;
        let done = blocks.queue.stats(keys::DONE_QUEUE).await?;
        Ok(ranges.first().map(|r| r.int(0)).transpose()? == Some(0) && done.oldest_age.is_none())
    }
}

/// Decides when a process dies.
fn arm(component: &Component, plan: &Plan, calm: &Shutdown, env: &Env) {
    if plan.crash_calls > 0 && calm.phase().is_running() {
        component.crash_after(1 + env.random_below(2 * plan.crash_calls));
    }
}

/// A manager, until the world ends.
async fn manage(blocks: Blocks, env: &Env, tasks: &Tasks) {
    loop {
        match Manager::new(blocks.clone(), env.clone(), settings(), Arc::new(RowSink)).await {
            Ok(manager) => {
                manager.start(tasks);
                return std::future::pending().await;
            }
            Err(_) => sleep(Duration::from_millis(300)).await,
        }
    }
}

/// A worker, until it is drained.
async fn work(name: &str, blocks: Blocks, plan: &Arc<Plan>, env: &Env, tasks: &Tasks) {
    let offers = Offers { slots: 2, memory: 1 << 30, named: BTreeMap::new() };
    let settings =
        WorkerSettings { lease: Duration::from_secs(10), ..WorkerSettings::new(name, "default", PathBuf::from("nowhere"), offers) };
    let (outcomes, grants) = (plan.clone(), None);
    let runners = Runners::simulated(Arc::new(move |item, task| outcomes.outcome(item, task)));
    loop {
        let seen = WorkerBlocks {
            queue: blocks.queue.clone(),
            table: blocks.table.clone(),
            objects: blocks.objects.clone(),
            grants: grants.clone(),
        };
        match WorkerNode::new(settings.clone(), seen, &runners, env.clone(), tasks.clone()) {
            Ok(node) => {
                if node.run().await.is_ok() {
                    return std::future::pending().await;
                }
            }
            Err(_) => sleep(Duration::from_millis(300)).await,
        }
        sleep(Duration::from_millis(300)).await;
    }
}

/// Asks until it is answered; what may have happened is asked again.
async fn insist<T, F: Future<Output = Result<T>>>(mut ask: impl FnMut() -> F) -> Result<Option<T>> {
    for _ in 0..2000 {
        match ask().await {
            Ok(v) => return Ok(Some(v)),
            Err(e) if e.kind() == ErrorKind::Unavailable => sleep(Duration::from_millis(250)).await,
            Err(e) if matches!(e.kind(), ErrorKind::Conflict | ErrorKind::NotFound) => return Ok(None),
            Err(e) => return Err(e),
        }
    }
    Err(Error::unavailable("asked two thousand times"))
}

/// Submits a job, more than once at times, and asks something of it. Returns its id.
async fn person(plan: &Plan, n: usize, component: &Component, blocks: &Blocks, env: &Env) -> Result<String> {
    let job = &plan.jobs[n];
    sleep(job.submitted).await;
    let seen = component.blocks(blocks);
    let Some(manager) = insist(|| Manager::new(seen.clone(), env.clone(), settings(), Arc::new(RowSink))).await? else {
        return Err(Error::internal("no manager for a person"));
    };
    let submit = Submit { user: job.user.clone(), spec: job.spec.clone(), client_token: Some(job.name.clone()) };
    let made = insist(|| manager.submit(submit.clone())).await?.ok_or_else(|| Error::internal("a submit was refused"))?;
    let again = insist(|| manager.submit(submit.clone())).await?.ok_or_else(|| Error::internal("a second submit was refused"))?;
    if again.id != made.id || !again.existing {
        return Err(Error::internal(format!("submitted twice with one token: {made:?} and {again:?}")));
    }
    sleep(job.wished).await;
    match job.wish {
        Wish::None => {}
        Wish::Cancel => drop(insist(|| manager.want(&made.id, Wanted::Cancel, &job.user)).await?),
        Wish::PauseAndResume => {
            insist(|| manager.want(&made.id, Wanted::Pause, &job.user)).await?;
            sleep(Duration::from_secs(20)).await;
            insist(|| manager.want(&made.id, Wanted::Run, &job.user)).await?;
        }
        Wish::Retry => {
            while !insist(|| manager.state_of(&made.id)).await?.is_some_and(JobState::is_final) {
                sleep(Duration::from_secs(5)).await;
            }
            insist(|| manager.retry(&made.id, None, &job.user)).await?;
        }
    }
    Ok(made.id)
}
