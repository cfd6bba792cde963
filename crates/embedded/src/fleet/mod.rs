//! The fleet block on this machine: a member is a process.
//!
//! A worker outlives its manager. So members run in process groups of their own, write to their own logs, and are written down in
//! `fleet.json`; a manager that starts again adopts those that still live, told from strangers by process number and start time,
//! and watches them through `/proc`. (Where there is no `/proc`, only members started by this process are known.)
//!
//! What to start and whom to drain is decided in `state.rs`, which never touches a process; this file only carries it out.

pub mod command;
mod launch;
mod process;
mod record;
mod state;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Child;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tidemill_base::{Env, Error, HumanDuration, Result, RetryPolicy};
use tidemill_blocks::fleet::{Fleet, Group, GroupSpec};
use tidemill_runtime::{Stopwatch, sleep};

pub use launch::MemberCommand;
use process::Process;
use record::{FleetState, Record};
use state::{Action, Ending, GroupState, MemberRecord, Pace};

/// How often a shutdown looks whether the members are gone.
const SHUTDOWN_POLL: Duration = Duration::from_millis(20);
/// How long a killed process may take to disappear.
const KILL_WAIT: Duration = Duration::from_secs(5);

/// How a [`LocalFleet`] runs its members.
#[derive(Debug, Clone)]
pub struct LocalFleetSettings {
    /// What a member runs.
    pub command: MemberCommand,
    /// The folder of `fleet.json` and of `workers/MEMBER.log`.
    pub data: PathBuf,
    /// How long a drained member may take before it is killed.
    pub drain_grace: Duration,
    /// A member that lives this long has started well. One that dies sooner slows down the next start.
    pub healthy_after: Duration,
    /// The pauses between starts that fail. The number of attempts has no meaning here; the group never gives up.
    pub backoff: RetryPolicy,
}

impl LocalFleetSettings {
    /// Ten minutes to drain, three seconds to be healthy, pauses from half a second to a minute.
    pub fn new(data: impl Into<PathBuf>, command: MemberCommand) -> Self {
        let (base, cap) = (HumanDuration(Duration::from_millis(500)), HumanDuration(Duration::from_secs(60)));
        Self {
            command,
            data: data.into(),
            drain_grace: Duration::from_secs(600),
            healthy_after: Duration::from_secs(3),
            backoff: RetryPolicy { base, cap, ..RetryPolicy::default() },
        }
    }

    const fn pace(&self) -> Pace {
        Pace { drain_grace: self.drain_grace, healthy_after: self.healthy_after, backoff: self.backoff }
    }
}

/// Groups of worker processes on this machine. Dropping it leaves the workers running; [`LocalFleet::shutdown`] takes them along.
///
/// ```no_run
/// # async fn example() -> tidemill_base::Result<()> {
/// use std::collections::BTreeMap;
/// use tidemill_base::Env;
/// use tidemill_blocks::fleet::{Fleet, GroupSpec, Offers};
/// use tidemill_embedded::fleet::{LocalFleet, LocalFleetSettings, MemberCommand};
///
/// let args = ["worker", "--slots", "{slots}", "--name", "{member}"].map(String::from).to_vec();
/// let command = MemberCommand { program: "tidemill".into(), args, env: BTreeMap::new() };
/// let fleet = LocalFleet::open(LocalFleetSettings::new("data", command), Env::system())?;
/// let offers = Offers { slots: 2, memory: 1 << 30, named: BTreeMap::new() };
/// fleet.ensure(GroupSpec { name: "default".into(), min: 1, max: 4, offers }).await?;
/// fleet.reconcile().await?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct LocalFleet {
    settings: LocalFleetSettings,
    env: Env,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    state: FleetState,
    record: Record,
    /// Those started by this process, which have to be waited for; adopted members are not among them.
    children: BTreeMap<String, Child>,
    closing: bool,
}

impl LocalFleet {
    /// Opens the fleet in the data folder and adopts the members that still live.
    ///
    /// `Unavailable`: another process runs this fleet. `Corrupt`: `fleet.json` cannot be read.
    pub fn open(settings: LocalFleetSettings, env: Env) -> Result<Self> {
        let (record, state) = Record::open(&settings.data)?;
        let mut inner = Inner { state, record, children: BTreeMap::new(), closing: false };
        inner.adopt();
        inner.save()?;
        Ok(Self { settings, env, inner: Mutex::new(inner) })
    }

    /// Asks every member to drain, waits for them at most `grace`, then kills those that are left. Nothing is started any more.
    /// The desired sizes stay on record, so that the next manager starts as many again.
    pub async fn shutdown(&self, grace: Duration) -> Result<()> {
        self.lock().close(&self.env)?;
        if self.all_gone_within(grace).await? {
            return Ok(());
        }
        self.lock().kill_all();
        if self.all_gone_within(KILL_WAIT).await? {
            return Ok(());
        }
        Err(Error::unavailable("some workers are still there after SIGKILL; they wait inside the operating system, most likely for a disk"))
    }

    async fn all_gone_within(&self, limit: Duration) -> Result<bool> {
        let waited = Stopwatch::start();
        loop {
            if self.lock().reap(&self.settings, &self.env)? {
                return Ok(true);
            }
            if waited.elapsed() >= limit {
                return Ok(false);
            }
            sleep(SHUTDOWN_POLL).await;
        }
    }

    /// Where the member's output goes.
    pub fn log_path(&self, member: &str) -> PathBuf {
        launch::log_path(&self.settings.data, member)
    }

    // Everything under the lock is short and plain code: signals, reads of /proc, forks, one small file.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Fleet for LocalFleet {
    async fn ensure(&self, spec: GroupSpec) -> Result<()> {
        check_spec(&spec)?;
        let mut inner = self.lock();
        let group = inner.state.groups.entry(spec.name.clone()).or_insert_with(|| GroupState::new(spec.clone()));
        group.set_spec(spec);
        inner.save()
    }

    async fn groups(&self) -> Result<Vec<Group>> {
        let (now, pace) = (self.env.now(), self.settings.pace());
        Ok(self.lock().state.groups.values().map(|g| g.view(now, &pace)).collect())
    }

    async fn set_desired(&self, group: &str, desired: u32) -> Result<()> {
        let mut inner = self.lock();
        inner.group(group)?.set_desired(desired)?;
        inner.save()
    }

    async fn protect(&self, group: &str, member: &str, protected: bool) -> Result<()> {
        let mut inner = self.lock();
        inner.group(group)?.member(member)?.protected = protected;
        inner.save()
    }

    async fn drain(&self, group: &str, member: &str, replace: bool) -> Result<()> {
        let mut inner = self.lock();
        if inner.group(group)?.drain(member, replace, self.env.now())? {
            inner.save()?;
            inner.signal(group, member, Process::terminate);
        }
        Ok(())
    }

    async fn mark_unhealthy(&self, group: &str, member: &str) -> Result<()> {
        let mut inner = self.lock();
        inner.group(group)?.member(member)?.ending = Some(Ending::Sick);
        inner.save()?;
        inner.signal(group, member, Process::kill);
        Ok(())
    }

    async fn reconcile(&self) -> Result<()> {
        let mut inner = self.lock();
        inner.reap(&self.settings, &self.env)?;
        if inner.closing { Ok(()) } else { inner.reconcile(&self.settings, &self.env) }
    }

    async fn trouble(&self, group: &str) -> Result<Option<String>> {
        Ok(self.lock().group(group)?.trouble())
    }
}

impl Inner {
    fn save(&mut self) -> Result<()> {
        self.record.save(&self.state)
    }

    fn group(&mut self, name: &str) -> Result<&mut GroupState> {
        self.state.groups.get_mut(name).ok_or_else(|| Error::not_found(format!("there is no worker group {name}")))
    }

    /// Keeps the members that live and forgets the others. That they ended while nobody watched says nothing against the command.
    fn adopt(&mut self) {
        let boot = process::boot_id();
        let same_boot = boot == self.state.boot;
        self.state.boot = boot;
        for (name, group) in &mut self.state.groups {
            group.members.retain(|id, member| {
                member.process = member.process.or_else(|| process::find_member(id)).filter(|p| same_boot && p.is_alive());
                match member.process {
                    Some(p) => tracing::info!(group = name, member = id, pid = p.pid, "worker adopted"),
                    None => tracing::info!(group = name, member = id, "worker is gone"),
                }
                member.process.is_some()
            });
        }
    }

    /// Takes note of members that have ended; whether none are left.
    fn reap(&mut self, settings: &LocalFleetSettings, env: &Env) -> Result<bool> {
        let pace = settings.pace();
        for (name, group) in &mut self.state.groups {
            let gone: Vec<_> = group.members.iter().filter_map(|(id, m)| Some((id.clone(), ended(&mut self.children, id, m)?))).collect();
            for (id, mut why) in gone {
                tracing::info!(group = name, member = id, %why, "worker ended");
                if let Some(line) = launch::last_words(&settings.data, &id) {
                    why = format!("{why}, last output `{line}`");
                }
                group.gone(&id, &why, &pace, env);
                self.children.remove(&id);
            }
        }
        self.save()?;
        Ok(self.state.groups.values().all(|g| g.members.is_empty()))
    }

    fn reconcile(&mut self, settings: &LocalFleetSettings, env: &Env) -> Result<()> {
        let names: Vec<_> = self.state.groups.keys().cloned().collect();
        for name in names {
            let actions = self.group(&name)?.decide(env.now(), &settings.pace());
            let mut fresh = Vec::new();
            for action in actions {
                match action {
                    Action::Drain(id) => self.signal(&name, &id, Process::terminate),
                    Action::Kill(id) => self.signal(&name, &id, Process::kill),
                    Action::Start => fresh.push(env.id("w-")),
                }
            }
            self.start(&name, &fresh, settings, env)?;
        }
        self.save()
    }

    /// Written down before it is started, so that a manager that dies in between finds it again.
    fn start(&mut self, group: &str, ids: &[String], settings: &LocalFleetSettings, env: &Env) -> Result<()> {
        if ids.is_empty() {
            return Ok(());
        }
        let record = MemberRecord { process: None, started_at: env.now(), protected: false, ending: None };
        self.group(group)?.members.extend(ids.iter().map(|id| (id.clone(), record.clone())));
        if let Err(e) = self.save() {
            // Nobody may run who is not on record.
            self.group(group)?.members.retain(|id, _| !ids.contains(id));
            return Err(e);
        }
        for id in ids {
            let spec = self.group(group)?.spec.clone();
            match settings.command.start(&settings.data, &spec, id) {
                Ok(child) => {
                    tracing::info!(group, member = id, pid = child.id(), "worker started");
                    self.group(group)?.started(id, Process::of(child.id()));
                    self.children.insert(id.clone(), child);
                }
                Err(e) => {
                    tracing::warn!(group, member = id, error = %e.chain(), "worker did not start");
                    self.group(group)?.gone(id, &e.chain(), &settings.pace(), env);
                }
            }
        }
        let present = self.state.groups.values().flat_map(|g| g.members.keys().map(String::as_str)).collect();
        launch::prune_logs(&settings.data, &present);
        Ok(())
    }

    fn close(&mut self, env: &Env) -> Result<()> {
        self.closing = true;
        for (group, member) in self.everybody() {
            if let Ok(true) = self.group(&group)?.drain(&member, true, env.now()) {
                self.signal(&group, &member, Process::terminate);
            }
        }
        self.save()
    }

    fn kill_all(&self) {
        for (group, member) in self.everybody() {
            self.signal(&group, &member, Process::kill);
        }
    }

    fn everybody(&self) -> Vec<(String, String)> {
        let of = |(name, g): (&String, &GroupState)| g.members.keys().map(|m| (name.clone(), m.clone())).collect::<Vec<_>>();
        self.state.groups.iter().flat_map(of).collect()
    }

    /// Signals the member's process, having looked that it still is the same one. A child of ours keeps its number until we have
    /// waited for it; the number of an adopted one could in principle pass on between the look and the signal.
    fn signal(&self, group: &str, member: &str, send: fn(Process)) {
        let Some(process) = self.state.groups.get(group).and_then(|g| g.members.get(member)?.process) else { return };
        if self.children.contains_key(member) || process.is_alive() {
            send(process);
        }
    }
}

/// How the member ended; `None` while it lives.
fn ended(children: &mut BTreeMap<String, Child>, id: &str, member: &MemberRecord) -> Option<String> {
    match children.get_mut(id) {
        Some(child) => {
            if member.process.is_some_and(Process::is_alive) {
                return None;
            }
            // A worker that crashed leaves its tasks behind. They run elsewhere by then, so here they only cost. Looked at before it
            // is waited for, and not again in between: afterwards its number, which names its group, is no longer ours.
            if let Some(process) = member.process.filter(|p| p.is_zombie()) {
                process.kill();
            }
            match child.try_wait() {
                Ok(status) => status.map(|s| s.to_string()),
                Err(e) => Some(format!("its exit status cannot be read: {e}")),
            }
        }
        None => match member.process {
            Some(process) if process.is_alive() => None,
            _ => Some("it is gone".to_owned()),
        },
    }
}

fn check_spec(spec: &GroupSpec) -> Result<()> {
    let name_ok = (1..=40).contains(&spec.name.len()) && spec.name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'));
    if !name_ok {
        return Err(Error::invalid(format!("`{}` is no name for a worker group; use 1 to 40 of a-z, 0-9 and -", spec.name)));
    }
    if spec.min > spec.max {
        return Err(Error::invalid(format!("group {}: the minimum {} is above the maximum {}", spec.name, spec.min, spec.max)));
    }
    Ok(())
}
