//! Starts the processes of a run, kills and restarts them, and does what people do.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tidemill_base::{Env, Error, Result, Timestamp};
use tidemill_batch::protocol::{Control, RangeState, decode, encode, keys};
use tidemill_batch::service::{BatchSettings, Manager};
use tidemill_batch::store::read;
use tidemill_blocks::Blocks;
use tidemill_blocks::fleet::Offers;
use tidemill_blocks::table::{Condition, Write};
use tidemill_blocks_test::faulty::Component;
use tidemill_blocks_test::sim::Sim;
use tidemill_runtime::{Kind, Shutdown, Tasks, sleep};
use tidemill_worker::{Runners, WorkerBlocks, WorkerNode, WorkerSettings};

use crate::audit::audit;
use crate::doors::Doors;
use crate::people::{Ids, Person};
use crate::{Plan, RowSink, check, sessions};

/// With nothing going wrong any more, everything has come to its end within this.
const PATIENCE: Duration = Duration::from_secs(3600);

/// Longer than anybody is frozen.
const SWEEP_AGAIN: Duration = Duration::from_secs(90);

/// The processes of a run.
#[derive(Debug)]
pub struct World<'a> {
    sim: &'a Sim,
    plan: Arc<Plan>,
    outside: Tasks,
    calm: Shutdown,
    doors: Doors,
}

/// Runs a seed's plan to its end and checks what is left.
pub async fn scenario(sim: &Sim) -> Result<()> {
    let plan = Arc::new(Plan::of(sim.seed()));
    let outside = Shutdown::new();
    let world =
        World { sim, plan: plan.clone(), outside: Tasks::new("outside", outside.clone()), calm: Shutdown::new(), doors: Doors::default() };
    for n in 0..plan.managers {
        world.keep_managing(n);
    }
    for n in 0..plan.workers {
        world.keep_working(n);
    }
    let end = tokio::select! {
        biased;
        wrong = audit(sim.blocks(), sim.env()) => Err(wrong),
        end = world.run() => end,
    };
    let outcome = match end {
        Ok(end) => {
            sim.note(&format!("all jobs ended, {:?}", sim.faults().counts()));
            let mut checked = check(sim, &plan, &end).await;
            for (session, story) in plan.sessions.iter().zip(&end.stories) {
                checked = match checked {
                    Ok(()) => sessions::check(sim, session, story).await,
                    wrong => wrong,
                };
            }
            checked
        }
        Err(e) => Err(e),
    };
    outside.drain();
    outside.close();
    outcome
}

/// How a run came to its end.
#[derive(Debug)]
pub struct End {
    /// The jobs that people submitted, by their number in the plan.
    pub ids: BTreeMap<usize, String>,
    /// When the last fault was over.
    pub calm_since: Timestamp,
    /// What clients and readers of sessions know, in the order of the plan.
    pub(crate) stories: Vec<sessions::Shared>,
}

pub(crate) fn settings() -> BatchSettings {
    BatchSettings { segment_rows: 200, segment_age: Duration::from_secs(15), sweep_again: SWEEP_AGAIN, ..BatchSettings::default() }
}

impl World<'_> {
    /// One manager after the other.
    fn keep_managing(&self, n: usize) {
        let (sim, plan, calm, env) = (self.sim.faults().clone(), self.plan.clone(), self.calm.clone(), self.sim.env().clone());
        let (blocks, doors) = (self.sim.blocks().clone(), self.doors.clone());
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
                    () = manage(seen, &env, &tasks, |manager| doors.open(n, manager)) => {}
                    () = frost(&component, &plan, &calm, &env) => {}
                }
                doors.close(n);
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
        let (blocks, doors) = (self.sim.blocks().clone(), self.doors.clone());
        self.outside.spawn("workers", Kind::Request, async move {
            for life in 0_u64.. {
                let name = format!("w{n}-{life}");
                let component = sim.component(&name);
                arm(&component, &plan, &calm, &env);
                let shutdown = Shutdown::new();
                let tasks = Tasks::new("worker", shutdown.clone());
                let seen = component.blocks(&doors.blocks(&blocks, &env));
                let drained = Duration::from_secs(20 + env.random_below(200));
                tokio::select! {
                    biased;
                    () = component.crashed() => {}
                    () = work(&name, seen, &plan, &env, &tasks) => {}
                    () = frost(&component, &plan, &calm, &env) => {}
                    // Now and then one is drained in good order, from its own machine or by the fleet, and given a while for it.
                    () = async {
                        sleep(drained).await;
                        if env.random_below(2) == 0 { shutdown.drain() } else { drain(&blocks, &name).await }
                        sleep(Duration::from_secs(90)).await;
                    } => {}
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

    /// Lets people do what they do, and waits for the end of everything.
    async fn run(&self) -> Result<End> {
        let ids = Ids::default();
        let (done, mut left) = tokio::sync::mpsc::unbounded_channel();
        for n in 0..self.plan.jobs.len() {
            let person = Person {
                plan: self.plan.clone(),
                n,
                blocks: self.sim.component(&format!("person{n}")).blocks(self.sim.blocks()),
                env: self.sim.env().clone(),
                calm: self.calm.clone(),
                ids: ids.clone(),
            };
            let done = done.clone();
            self.outside.spawn("person", Kind::Request, async move {
                drop(done.send(person.live().await));
                Ok(())
            });
        }
        let stories = self.open_sessions(&done);
        drop(done);
        let calm_after = self.plan.calm_after;
        let (faults, calm) = (self.sim.faults().clone(), self.calm.clone());
        self.outside.spawn("weather", Kind::Request, async move {
            sleep(calm_after).await;
            calm.drain();
            faults.calm();
            Ok(())
        });
        while let Some(outcome) = left.recv().await {
            outcome?;
        }
        self.calm.draining().await;
        let calm_since = self.sim.env().now();
        while !self.at_rest().await? {
            if self.sim.env().now().since(calm_since) > PATIENCE {
                return Err(self.stalled().await?);
            }
            sleep(Duration::from_secs(2)).await;
        }
        // Last acknowledgements.
        sleep(Duration::from_secs(10)).await;
        let ids = ids.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(End { ids, calm_since, stories })
    }

    /// Lets clients of sessions do what they do, and readers follow them.
    fn open_sessions(&self, done: &tokio::sync::mpsc::UnboundedSender<Result<()>>) -> Vec<sessions::Shared> {
        let mut stories = Vec::new();
        for (n, plan) in self.plan.sessions.iter().enumerate() {
            let (story, env) = (sessions::Shared::default(), self.sim.env().clone());
            let blocks = |name: &str| self.sim.component(&format!("{name}{n}")).blocks(self.sim.blocks());
            let silent = plan.spec.terms().is_some_and(|t| t.idle_timeout.is_some() || t.keep_alive.is_some());
            let reader = sessions::Reader {
                blocks: blocks("reader"),
                env: env.clone(),
                calm: self.calm.clone(),
                story: story.clone(),
                silent,
                doors: self.doors.clone(),
            };
            let client =
                sessions::Client { plan: plan.clone(), n, blocks: blocks("client"), env, story: story.clone(), doors: self.doors.clone() };
            for life in [Box::pin(client.live()) as std::pin::Pin<Box<dyn Future<Output = Result<()>> + Send>>, Box::pin(reader.live())] {
                let done = done.clone();
                self.outside.spawn("session", Kind::Request, async move {
                    drop(done.send(life.await));
                    Ok(())
                });
            }
            stories.push(story);
        }
        stories
    }

    /// What is still open, for people.
    async fn stalled(&self) -> Result<Error> {
        let blocks = self.sim.blocks();
        let mut open = Vec::new();
        for row in blocks.ledger.query(&format!("SELECT id FROM batch_jobs WHERE {OPEN}"), vec![]).await? {
            let job = read::job(blocks.ledger.as_ref(), row.text(0)?).await?;
            open.push((read::stages(blocks.ledger.as_ref(), Some(row.text(0)?)).await?, job));
        }
        let ranges =
            blocks.ledger.query("SELECT job, stage, range_id, start_task, len, folded_seq, finished FROM batch_ranges", vec![]).await?;
        let queues = blocks.queue.list().await?;
        let mut fences = Vec::new();
        for row in &ranges {
            let key = keys::fence(row.text(0)?, u32::try_from(row.uint(1)?).unwrap_or(0), row.uint(2)?);
            let item = blocks.table.get(keys::STATE_TABLE, &key).await?;
            fences.push(item.map(|i| decode::<RangeState>("fence", &i.value)).transpose()?);
        }
        Ok(Error::internal(format!("stalled: {open:#?}\nranges {ranges:?}\nfences {fences:#?}\nqueues {queues:#?}")))
    }

    /// Whether every job has ended and been swept, every wish has been carried out, statistics are all in segments and nothing is in the completions
    /// queue.
    async fn at_rest(&self) -> Result<bool> {
        let blocks = self.sim.blocks();
        let sql = format!(
            "SELECT (SELECT COUNT(*) FROM batch_ranges) + (SELECT COUNT(*) FROM batch_commands) + (SELECT COUNT(*) FROM batch_sweeps) + (SELECT COUNT(*) FROM batch_jobs WHERE {OPEN})"
        );
        let left = blocks.ledger.query(&sql, vec![]).await?;
        let done = blocks.queue.stats(keys::DONE_QUEUE).await?;
        Ok(left.first().map(|r| r.int(0)).transpose()? == Some(0) && done.oldest_age.is_none())
    }
}

/// A job that has not ended.
const OPEN: &str = "state NOT IN ('succeeded', 'failed', 'cancelled')";

/// Asks a worker to go, as the fleet does before it takes the machine away.
async fn drain(blocks: &Blocks, worker: &str) {
    let Ok(value) = encode(&Control::Drain) else { return };
    let write = Write::put(keys::control_worker(worker), value, Condition::Any);
    // Before the first manager has made the table nobody can be asked.
    drop(blocks.table.write_many(keys::CONTROL_TABLE, vec![write]).await);
}

/// Freezes a process now and then, for longer than leases last, and spares it once all is calm.
async fn frost(component: &Component, plan: &Plan, calm: &Shutdown, env: &Env) {
    let mut seconds_left = env.random_below(60);
    while calm.phase().is_running() {
        sleep(Duration::from_secs(1)).await;
        if plan.freezes && seconds_left == 0 {
            component.freeze();
            sleep(Duration::from_millis(env.random_below(40_000))).await;
            component.thaw();
            seconds_left = env.random_below(60);
        }
        seconds_left = seconds_left.saturating_sub(1);
    }
    // Nobody crashes any more, whatever was meant for it.
    component.restart();
    std::future::pending().await
}

/// Decides when a process dies.
fn arm(component: &Component, plan: &Plan, calm: &Shutdown, env: &Env) {
    if plan.crash_calls > 0 && calm.phase().is_running() {
        component.crash_after(1 + env.random_below(2 * plan.crash_calls));
    }
}

/// A manager, until the world ends.
async fn manage(blocks: Blocks, env: &Env, tasks: &Tasks, reached: impl Fn(&Manager)) {
    loop {
        match Manager::new(blocks.clone(), env.clone(), settings(), Arc::new(RowSink)).await {
            Ok(manager) => {
                manager.start(tasks);
                reached(&manager);
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
                    return;
                }
            }
            Err(_) => sleep(Duration::from_millis(300)).await,
        }
        sleep(Duration::from_millis(300)).await;
    }
}
