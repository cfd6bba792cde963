//! Keeps each group as large as its backlog needs it, protects those who work, and replaces those who fell silent.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tidemill_api::ScalePoint;
use tidemill_base::{Env, Result, Timestamp};
use tidemill_batch::fleet::{ScaleInput, ScalePolicy, ScaleState, decide};
use tidemill_batch::model::JobState;
use tidemill_batch::protocol::Heartbeat;
use tidemill_batch::service::{SILENT_AFTER, live_workers};
use tidemill_batch::store::read;
use tidemill_blocks::Blocks;
use tidemill_blocks::fleet::{Group, MemberState};
use tidemill_blocks::schedule::Schedule;
use tidemill_runtime::{Kind, Shutdown, Tasks};

/// How often the loop looks.
const EVERY: Duration = Duration::from_millis(500);
/// A point on the chart every so often, and as many as make an hour.
const POINT_EVERY: Duration = Duration::from_secs(10);
const POINTS: usize = 360;
/// Without experience a task is taken to need so long.
const UNKNOWN_TASK_US: f64 = 1e6;
/// A member that has not shown a sign of life for so long after its start is sick.
const BOOT_LIMIT: Duration = Duration::from_secs(60);
const LEASE: &str = "fleet";

/// What the loop goes by.
#[derive(Debug, Clone)]
pub struct ScalerSettings {
    /// The policy of each group.
    pub policies: BTreeMap<String, ScalePolicy>,
}

/// The loop's handle.
#[derive(Debug, Clone)]
pub struct Scaler(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    blocks: Blocks,
    env: Env,
    settings: ScalerSettings,
    holder: String,
    groups: Mutex<BTreeMap<String, GroupState>>,
}

#[derive(Debug, Default)]
struct GroupState {
    policy: ScaleState,
    reason: String,
    history: VecDeque<ScalePoint>,
    last_point: Timestamp,
}

/// What waits for a class of workers.
#[derive(Debug, Clone, Copy, Default)]
struct Backlog {
    tasks: u64,
    work_us: f64,
}

impl Scaler {
    /// Over the fleet and the batch system's backlog.
    pub fn new(blocks: Blocks, env: Env, settings: ScalerSettings) -> Self {
        let holder = env.id("s");
        Self(Arc::new(Inner { blocks, env, settings, holder, groups: Mutex::default() }))
    }

    /// Starts the loop. Of several managers one scales at a time.
    pub fn start(&self, tasks: &Tasks) {
        let (me, shutdown) = (self.clone(), tasks.shutdown().clone());
        tasks.spawn("fleet-scaling", Kind::Essential, async move {
            me.run(&shutdown).await;
            Ok(())
        });
    }

    /// Why a group is as large as it is, and its last hour.
    pub fn picture(&self, group: &str) -> (String, Vec<ScalePoint>) {
        let groups = self.0.groups.lock().unwrap_or_else(PoisonError::into_inner);
        groups.get(group).map(|g| (g.reason.clone(), g.history.iter().cloned().collect())).unwrap_or_default()
    }

    async fn run(&self, shutdown: &Shutdown) {
        let schedule = Schedule::new(Arc::clone(&self.0.blocks.ledger), self.0.env.clone());
        let (mut leads, mut asked) = (false, Timestamp::ZERO);
        while shutdown.phase().is_running() {
            let now = self.0.env.now();
            if now.since(asked) > Duration::from_secs(3) {
                asked = now;
                leads = matches!(schedule.lead(LEASE, &self.0.holder, Duration::from_secs(9)).await, Ok(Some(_)));
            }
            if leads && let Err(e) = self.look().await {
                tracing::warn!(error = %e.chain(), "the fleet could not be scaled");
            }
            shutdown.sleep(EVERY).await;
        }
        if let Err(e) = schedule.resign(LEASE, &self.0.holder).await {
            tracing::debug!(error = %e.chain(), "cannot resign the scaling of the fleet");
        }
    }

    async fn look(&self) -> Result<()> {
        let (blocks, now) = (&self.0.blocks, self.0.env.now());
        blocks.fleet.reconcile().await?;
        let workers = live_workers(blocks.table.as_ref(), now).await?;
        let backlog = self.backlog(&workers).await?;
        for group in blocks.fleet.groups().await? {
            self.care(&group, &workers, now).await?;
            let waiting = backlog.get(&group.spec.name).copied().unwrap_or_default();
            self.scale(&group, waiting, now).await?;
        }
        Ok(())
    }

    async fn scale(&self, group: &Group, waiting: Backlog, now: Timestamp) -> Result<()> {
        let name = &group.spec.name;
        let Some(policy) = self.0.settings.policies.get(name) else { return Ok(()) };
        let input =
            ScaleInput { now, desired: group.desired, slots_each: group.spec.offers.slots, tasks: waiting.tasks, work_us: waiting.work_us };
        let decision = {
            let mut groups = self.0.groups.lock().unwrap_or_else(PoisonError::into_inner);
            let state = groups.entry(name.clone()).or_default();
            let decision = decide(policy, &mut state.policy, &input);
            state.reason.clone_from(&decision.reason);
            let members = u32::try_from(group.members.len()).unwrap_or(u32::MAX);
            state.chart(now, members, decision.desired, waiting.tasks);
            decision
        };
        if decision.desired != group.desired {
            tracing::info!(group = name, from = group.desired, to = decision.desired, reason = decision.reason, "scaling");
            self.0.blocks.fleet.set_desired(name, decision.desired).await?;
            self.0.blocks.fleet.reconcile().await?;
        }
        Ok(())
    }

    /// Protects members that work, and replaces those that fell silent.
    async fn care(&self, group: &Group, workers: &[Heartbeat], now: Timestamp) -> Result<()> {
        let (name, fleet) = (&group.spec.name, &self.0.blocks.fleet);
        for member in group.members.iter().filter(|m| matches!(m.state, MemberState::Running | MemberState::Starting)) {
            match workers.iter().find(|w| w.worker == member.id) {
                Some(w) if now.since(w.at) > SILENT_AFTER => {
                    tracing::warn!(group = name, member = member.id, "a worker fell silent, replacing it");
                    fleet.mark_unhealthy(name, &member.id).await?;
                }
                Some(w) => {
                    let busy = !w.running.is_empty() || w.ranges > 0;
                    if busy != member.protected {
                        fleet.protect(name, &member.id, busy).await?;
                    }
                }
                None if now.since(member.started_at) > BOOT_LIMIT => {
                    tracing::warn!(group = name, member = member.id, "a worker never showed a sign of life, replacing it");
                    fleet.mark_unhealthy(name, &member.id).await?;
                }
                None => {}
            }
        }
        Ok(())
    }

    async fn backlog(&self, workers: &[Heartbeat]) -> Result<BTreeMap<String, Backlog>> {
        let ledger = self.0.blocks.ledger.as_ref();
        let mut out: BTreeMap<String, Backlog> = BTreeMap::new();
        for state in [JobState::Running, JobState::Cancelling] {
            let filter = read::JobFilter { state: Some(state), limit: 1000, ..read::JobFilter::default() };
            for job in read::jobs(ledger, &filter).await? {
                let class = out.entry(job.class.clone()).or_default();
                for s in read::stages(ledger, Some(&job.id)).await? {
                    // Work that waits for an earlier stage is none yet; a job being stopped has only what is out.
                    let settled = s.succeeded + s.failed + s.cancelled + s.skipped;
                    let open =
                        if state == JobState::Cancelling || s.state != "open" { s.outstanding } else { s.total.saturating_sub(settled) };
                    class.tasks += open;
                    class.work_us += open as f64 * if s.attempts == 0 { UNKNOWN_TASK_US } else { s.mean_us };
                }
            }
        }
        for w in workers {
            let class = out.entry(w.class.clone()).or_default();
            class.tasks = class.tasks.max(w.running.len() as u64);
        }
        Ok(out)
    }
}

impl GroupState {
    fn chart(&mut self, now: Timestamp, members: u32, desired: u32, backlog: u64) {
        let changed = self.history.back().is_none_or(|p| p.members != members || p.desired != desired);
        if !changed && now.since(self.last_point) < POINT_EVERY {
            return;
        }
        self.last_point = now;
        self.history.push_back(ScalePoint { at: now.rfc3339(), members, desired, backlog });
        while self.history.len() > POINTS {
            self.history.pop_front();
        }
    }
}
