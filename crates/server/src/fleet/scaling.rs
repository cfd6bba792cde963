//! Keeps each group as large as its backlog needs it, protects those who work, and replaces those who fell silent.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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

use super::record;

/// How often the loop looks.
const EVERY: Duration = Duration::from_millis(500);
/// A point on the chart every so often, and as many as make an hour.
const POINT_EVERY: Duration = Duration::from_secs(10);
const POINTS: usize = 360;
/// Without experience a task is taken to need so long.
const UNKNOWN_TASK_US: f64 = 1e6;
const LEASE: &str = "fleet";
/// How long the scaling of the fleet is one manager's without renewal,
const LEASE_TTL: Duration = Duration::from_secs(9);
/// how often that one renews it,
const RENEW_EVERY: Duration = Duration::from_secs(3);
/// and how often the others ask for it.
const ASK_EVERY: Duration = Duration::from_millis(750);

/// What the loop goes by.
#[derive(Debug, Clone, Default)]
pub struct ScalerSettings {
    /// The policy of each group.
    pub policies: BTreeMap<String, ScalePolicy>,
    /// Other managers know the same groups: one of them scales at a time, and the others show what that one has written down.
    pub shared: bool,
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
    leads: AtomicBool,
}

#[derive(Debug, Default)]
struct GroupState {
    policy: ScaleState,
    reason: String,
    history: VecDeque<ScalePoint>,
    last_point: Timestamp,
    /// Whether the others have not been told of the last point.
    unsaid: bool,
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
        Self(Arc::new(Inner { blocks, env, settings, holder, groups: Mutex::default(), leads: AtomicBool::new(false) }))
    }

    /// Makes the ledger's table of what other managers show.
    pub async fn migrate(&self) -> Result<()> {
        self.0.blocks.ledger.migrate(record::MIGRATIONS).await
    }

    /// Starts the loop. Of several managers one scales at a time.
    pub fn start(&self, tasks: &Tasks) {
        let (me, shutdown) = (self.clone(), tasks.shutdown().clone());
        tasks.spawn("fleet-scaling", Kind::Essential, async move {
            me.run(&shutdown).await;
            Ok(())
        });
    }

    /// Whether this manager is the one that scales, so that its fleet block is up to date.
    pub fn is_in_charge(&self) -> bool {
        !self.0.settings.shared || self.0.leads.load(Ordering::Acquire)
    }

    /// Why a group is as large as it is, and its last hour.
    pub async fn picture(&self, group: &str) -> Result<(String, Vec<ScalePoint>)> {
        if !self.is_in_charge() {
            return Ok(record::read(self.0.blocks.ledger.as_ref(), group).await?.unwrap_or_default());
        }
        Ok(self.groups().get(group).map(|g| (g.reason.clone(), g.history.iter().cloned().collect())).unwrap_or_default())
    }

    fn groups(&self) -> MutexGuard<'_, BTreeMap<String, GroupState>> {
        self.0.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn run(&self, shutdown: &Shutdown) {
        let schedule = Schedule::new(Arc::clone(&self.0.blocks.ledger), self.0.env.clone());
        let (mut leads, mut asked) = (!self.0.settings.shared, Timestamp::ZERO);
        while shutdown.phase().is_running() {
            let now = self.0.env.now();
            if self.0.settings.shared && now.since(asked) >= if leads { RENEW_EVERY } else { ASK_EVERY } {
                asked = now;
                let won = matches!(schedule.lead(LEASE, &self.0.holder, LEASE_TTL).await, Ok(Some(_)));
                leads = self.take_turn(leads, won).await;
            }
            if leads && let Err(e) = self.look().await {
                tracing::warn!(error = %e.chain(), "the fleet could not be scaled");
            }
            shutdown.sleep(EVERY).await;
        }
        self.0.leads.store(false, Ordering::Release);
        if self.0.settings.shared
            && let Err(e) = schedule.resign(LEASE, &self.0.holder).await
        {
            tracing::debug!(error = %e.chain(), "cannot resign the scaling of the fleet");
        }
    }

    /// Begins or ends to scale. Whoever begins goes on with the chart of the one before. Whether it scales now.
    async fn take_turn(&self, led: bool, won: bool) -> bool {
        if won && !led {
            tracing::info!("scaling the fleet");
            for group in self.0.settings.policies.keys() {
                match record::read(self.0.blocks.ledger.as_ref(), group).await {
                    Ok(Some((reason, history))) => {
                        // A driver that keeps sizes to itself must not begin with its own, which may be long out of date.
                        if let Some(last) = history.last()
                            && let Err(e) = self.0.blocks.fleet.set_desired(group, last.desired).await
                        {
                            tracing::debug!(group, error = %e.chain(), "cannot go on with the size of before");
                        }
                        let state = GroupState { reason, history: history.into(), ..GroupState::default() };
                        self.groups().insert(group.clone(), state);
                    }
                    Ok(None) => {}
                    Err(e) => tracing::debug!(group, error = %e.chain(), "the chart of the scaling before is not there"),
                }
            }
        }
        self.0.leads.store(won, Ordering::Release);
        won
    }

    /// Writes down what the other managers show of the groups.
    async fn tell(&self) -> Result<()> {
        let unsaid: Vec<record::Chart> = {
            let mut groups = self.groups();
            let chart = |(name, g): (&String, &mut GroupState)| {
                std::mem::take(&mut g.unsaid).then(|| (name.clone(), g.reason.clone(), g.history.iter().cloned().collect()))
            };
            groups.iter_mut().filter_map(chart).collect()
        };
        record::write(self.0.blocks.ledger.as_ref(), &unsaid, self.0.env.now()).await
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
        if self.0.settings.shared { self.tell().await } else { Ok(()) }
    }

    async fn scale(&self, group: &Group, waiting: Backlog, now: Timestamp) -> Result<()> {
        let name = &group.spec.name;
        let Some(policy) = self.0.settings.policies.get(name) else { return Ok(()) };
        let input =
            ScaleInput { now, desired: group.desired, slots_each: group.spec.offers.slots, tasks: waiting.tasks, work_us: waiting.work_us };
        let decision = {
            let mut groups = self.groups();
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
                None if now.since(member.started_at) > fleet.boot_limit() => {
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
        self.unsaid = true;
        self.history.push_back(ScalePoint { at: now.rfc3339(), members, desired, backlog });
        while self.history.len() > POINTS {
            self.history.pop_front();
        }
    }
}
