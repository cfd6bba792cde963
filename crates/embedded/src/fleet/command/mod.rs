//! The fleet block through a script of the user's: that is how Slurm, Kubernetes, or whatever else starts machines is reached.
//!
//! The driver keeps the groups (sizes, protection, who is draining) in `fleet-command/fleet.json` of the data folder and decides with
//! the same code as the local driver. The script only carries out. It is called as below, directly and not through a shell, with a line
//! of JSON on its standard input; it has to end by itself, and what it leaves running must not hold its output open.
//!
//! | call | standard input | what it does |
//! | --- | --- | --- |
//! | `SCRIPT start GROUP MEMBER` | `{"group":"g","member":"w-1","slots":2,"memory":1073741824,"named":{"gpu":1}}` | starts one worker as `tidemill worker --id MEMBER --class GROUP ...`; memory in bytes. A member that is there already is no error |
//! | `SCRIPT stop GROUP MEMBER drain` | `{"group":"g","member":"w-1","how":"drain"}` | asks it to finish and go, as SIGTERM does; may be called again |
//! | `SCRIPT stop GROUP MEMBER kill` | `{"group":"g","member":"w-1","how":"kill"}` | ends it at once; one that is gone is no error |
//! | `SCRIPT list GROUP` | `{"group":"g"}` | writes a line `{"member":"w-1","state":"running"}` for each member that is there; `waiting` for one that has no machine yet |
//!
//! Exit status 0 is success. Anything else is a failure, which is shown with the script's standard error and tried again.
//! A member has to be listed once its `start` has succeeded, and is gone when it is listed no more.

mod script;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::{StreamExt as _, stream};
use tidemill_base::{Env, Error, HumanDuration, Result, RetryPolicy, Timestamp};
use tidemill_blocks::fleet::{Fleet, Group, GroupSpec};

use super::process::Process;
use super::record::{FleetState, Record};
use super::state::{Action, Ending, GroupState, MemberRecord, Pace};
use script::{How, Listed, ListedState, Script};

/// Calls of the script at once.
const AT_ONCE: usize = 8;

/// How a [`CommandFleet`] reaches its members.
#[derive(Debug, Clone)]
pub struct CommandFleetSettings {
    /// The script's path.
    pub script: PathBuf,
    /// The folder in which `fleet-command/` is kept.
    pub data: PathBuf,
    /// How long one call of the script may take before it is ended.
    pub call_limit: Duration,
    /// How often members are listed when nothing has been asked for.
    pub look_every: Duration,
    /// How long a member may take from its start, or from when it has a machine, to its first sign of life.
    pub boot_limit: Duration,
    /// How long a drained member may take before it is killed.
    pub drain_grace: Duration,
    /// A member that is there this long has started well. One that goes sooner slows down the next start.
    pub healthy_after: Duration,
    /// The pauses between starts that fail. The number of attempts has no meaning here; the group never gives up.
    pub backoff: RetryPolicy,
}

impl CommandFleetSettings {
    /// A minute for a call, a look every five seconds, five minutes to boot, ten minutes to drain, ten seconds to be healthy, pauses from a second to two
    /// minutes.
    pub fn new(data: impl Into<PathBuf>, script: impl Into<PathBuf>) -> Self {
        let (base, cap) = (HumanDuration(Duration::from_secs(1)), HumanDuration(Duration::from_secs(120)));
        Self {
            script: script.into(),
            data: data.into(),
            call_limit: Duration::from_secs(60),
            look_every: Duration::from_secs(5),
            boot_limit: Duration::from_secs(300),
            drain_grace: Duration::from_secs(600),
            healthy_after: Duration::from_secs(10),
            backoff: RetryPolicy { base, cap, ..RetryPolicy::default() },
        }
    }

    const fn pace(&self) -> Pace {
        Pace { drain_grace: self.drain_grace, healthy_after: self.healthy_after, backoff: self.backoff }
    }
}

/// Groups of workers that a script starts and stops. Dropping it leaves them running; whoever opens the fleet next finds them in the
/// script's list.
///
/// ```no_run
/// # async fn example() -> tidemill_base::Result<()> {
/// use std::collections::BTreeMap;
/// use tidemill_base::Env;
/// use tidemill_blocks::fleet::{Fleet, GroupSpec, Offers};
/// use tidemill_embedded::fleet::command::{CommandFleet, CommandFleetSettings};
///
/// let fleet = CommandFleet::open(CommandFleetSettings::new("data", "/etc/tidemill/slurm.sh"), Env::system())?;
/// let offers = Offers { slots: 16, memory: 64 << 30, named: BTreeMap::new() };
/// fleet.ensure(GroupSpec { name: "default".into(), min: 0, max: 50, offers }).await?;
/// fleet.reconcile().await?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct CommandFleet {
    settings: CommandFleetSettings,
    script: Script,
    env: Env,
    inner: Mutex<Inner>,
    /// Held by the one call of [`Fleet::reconcile`] that speaks to the script.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Inner {
    state: FleetState,
    record: Record,
    /// Members that have been asked to drain. A manager that starts again asks once more.
    asked: BTreeSet<String>,
    /// When the members were listed; zero when something was asked for since.
    looked_at: Timestamp,
    /// What went wrong with the script at the last look, by group.
    troubles: BTreeMap<String, String>,
}

/// One call to make.
enum Order {
    Start(GroupSpec, String),
    Stop(String, String, How),
}

impl CommandFleet {
    /// Opens the fleet. Nothing is called yet.
    ///
    /// # Errors
    /// `Unavailable`: another process runs this fleet. `Corrupt`: its record cannot be read.
    pub fn open(settings: CommandFleetSettings, env: Env) -> Result<Self> {
        let (record, state) = Record::open(&settings.data.join("fleet-command"))?;
        let script = Script { program: settings.script.clone(), limit: settings.call_limit };
        let inner = Inner { state, record, asked: BTreeSet::new(), looked_at: Timestamp::ZERO, troubles: BTreeMap::new() };
        Ok(Self { settings, script, env, inner: Mutex::new(inner), turn: tokio::sync::Mutex::new(()) })
    }

    // Everything under the lock is short and plain code; the script is called without it.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_due(&self) -> bool {
        let looked_at = self.lock().looked_at;
        looked_at == Timestamp::ZERO || self.env.now().since(looked_at) >= self.settings.look_every
    }

    /// Lists a group's members and does what follows from it.
    async fn tend(&self, group: &str) -> Result<()> {
        let listed = self.script.list(group).await?;
        let orders = {
            let mut inner = self.lock();
            inner.take_note(group, &listed, &self.settings.pace(), &self.env)?;
            let orders = inner.orders(group, &self.settings.pace(), &self.env)?;
            // Nobody may be started who is not on record.
            inner.save()?;
            orders
        };
        let done: Vec<_> = stream::iter(orders).map(|order| self.carry_out(order)).buffer_unordered(AT_ONCE).collect().await;
        let mut inner = self.lock();
        let mut first = Ok(());
        for (order, outcome) in done {
            first = first.and(inner.settle(order, outcome, &self.settings.pace(), &self.env));
        }
        inner.save().and(first)
    }

    async fn carry_out(&self, order: Order) -> (Order, Result<()>) {
        let outcome = match &order {
            Order::Start(spec, member) => self.script.start(spec, member).await,
            Order::Stop(group, member, how) => self.script.stop(group, member, *how).await,
        };
        (order, outcome)
    }
}

#[async_trait]
impl Fleet for CommandFleet {
    async fn ensure(&self, spec: GroupSpec) -> Result<()> {
        super::check_spec(&spec)?;
        let mut inner = self.lock();
        let group = inner.state.groups.entry(spec.name.clone()).or_insert_with(|| GroupState::new(spec.clone()));
        group.set_spec(spec);
        inner.save_and_look()
    }

    async fn groups(&self) -> Result<Vec<Group>> {
        let (now, pace) = (self.env.now(), self.settings.pace());
        Ok(self.lock().state.groups.values().map(|g| g.view(now, &pace)).collect())
    }

    async fn set_desired(&self, group: &str, desired: u32) -> Result<()> {
        let mut inner = self.lock();
        inner.group(group)?.set_desired(desired)?;
        inner.save_and_look()
    }

    async fn protect(&self, group: &str, member: &str, protected: bool) -> Result<()> {
        let mut inner = self.lock();
        inner.group(group)?.member(member)?.protected = protected;
        inner.save_and_look()
    }

    async fn drain(&self, group: &str, member: &str, replace: bool) -> Result<()> {
        let mut inner = self.lock();
        inner.group(group)?.drain(member, replace, self.env.now())?;
        inner.save_and_look()
    }

    async fn mark_unhealthy(&self, group: &str, member: &str) -> Result<()> {
        let mut inner = self.lock();
        inner.group(group)?.member(member)?.ending = Some(Ending::Sick);
        inner.save_and_look()
    }

    /// Each group is tended whatever goes wrong with another; the first error is answered.
    async fn reconcile(&self) -> Result<()> {
        let _turn = self.turn.lock().await;
        if !self.is_due() {
            return Ok(());
        }
        // Before the look: what is asked for during it is due again.
        self.lock().looked_at = self.env.now();
        let names: Vec<String> = self.lock().state.groups.keys().cloned().collect();
        let mut outcome = Ok(());
        for name in names {
            let tended = self.tend(&name).await;
            self.lock().troubles.remove(&name);
            if let Err(e) = tended {
                self.lock().troubles.insert(name, e.chain());
                outcome = outcome.and(Err(e));
            }
        }
        outcome
    }

    fn boot_limit(&self) -> Duration {
        self.settings.boot_limit
    }

    async fn trouble(&self, group: &str) -> Result<Option<String>> {
        let mut inner = self.lock();
        let of_state = inner.group(group)?.trouble();
        Ok(inner.troubles.get(group).cloned().or(of_state))
    }
}

impl Inner {
    fn save(&mut self) -> Result<()> {
        self.record.save(&self.state)
    }

    fn save_and_look(&mut self) -> Result<()> {
        self.looked_at = Timestamp::ZERO;
        self.save()
    }

    fn group(&mut self, name: &str) -> Result<&mut GroupState> {
        self.state.groups.get_mut(name).ok_or_else(|| Error::not_found(format!("there is no worker group {name}")))
    }

    /// Members that are listed no more are gone. Those that nobody here knows were started by another manager, and the size is set to
    /// keep them: a manager that takes over knows nothing of the size that was wanted, and must not begin by sending workers home.
    fn take_note(&mut self, group: &str, listed: &[Listed], pace: &Pace, env: &Env) -> Result<()> {
        let now = env.now();
        let state = self.group(group)?;
        let names: BTreeSet<&str> = listed.iter().map(|l| l.member.as_str()).collect();
        let gone: Vec<String> = state.members.keys().filter(|id| !names.contains(id.as_str())).cloned().collect();
        for id in &gone {
            tracing::info!(group, member = id, "worker is listed no more");
            state.gone(id, "the script lists it no more", pace, env);
        }
        let mut adopted = false;
        for Listed { member, state: is } in listed {
            adopted |= !state.members.contains_key(member);
            let fresh = MemberRecord { process: None, started_at: now, protected: false, ending: None };
            let known = state.members.entry(member.clone()).or_insert(fresh);
            match is {
                ListedState::Running => known.process = Some(Process::ELSEWHERE),
                // Its time begins when it has a machine.
                ListedState::Waiting => (known.process, known.started_at) = (None, now),
            }
        }
        if adopted {
            state.keep_members();
        }
        self.asked.retain(|id| !gone.contains(id));
        Ok(())
    }

    /// What has to be done now. Those to be started are put on record.
    fn orders(&mut self, group: &str, pace: &Pace, env: &Env) -> Result<Vec<Order>> {
        let now = env.now();
        let state = self.group(group)?;
        let decided = state.decide(now, pace);
        let spec = state.spec.clone();
        let mut orders = Vec::new();
        for action in decided {
            match action {
                Action::Start => {
                    let id = env.id("w-");
                    let record = MemberRecord { process: None, started_at: now, protected: false, ending: None };
                    state.members.insert(id.clone(), record);
                    orders.push(Order::Start(spec.clone(), id));
                }
                Action::Kill(id) => orders.push(Order::Stop(group.to_owned(), id, How::Kill)),
                // Asked below, with those that a person drains.
                Action::Drain(_) => {}
            }
        }
        let draining = state.members.iter().filter(|(_, m)| matches!(m.ending, Some(Ending::Draining { .. })));
        let to_ask: Vec<String> = draining.map(|(id, _)| id.clone()).collect();
        let unasked = to_ask.into_iter().filter(|id| !self.asked.contains(id));
        orders.extend(unasked.map(|id| Order::Stop(group.to_owned(), id, How::Drain)));
        Ok(orders)
    }

    /// Takes note of how a call went. A start that failed is answered by the group's own backoff; a stop is tried at the next look.
    fn settle(&mut self, order: Order, outcome: Result<()>, pace: &Pace, env: &Env) -> Result<()> {
        match (order, outcome) {
            (Order::Start(spec, id), Ok(())) => tracing::info!(group = spec.name, member = id, "worker started"),
            (Order::Start(spec, id), Err(e)) => {
                tracing::warn!(group = spec.name, member = id, error = %e.chain(), "worker did not start");
                self.group(&spec.name)?.not_started(&id, &e.chain(), pace, env);
            }
            (Order::Stop(_, id, How::Drain), Ok(())) => drop(self.asked.insert(id)),
            (Order::Stop(_, _, How::Kill), Ok(())) => {}
            (Order::Stop(..), Err(e)) => return Err(e),
        }
        Ok(())
    }
}
