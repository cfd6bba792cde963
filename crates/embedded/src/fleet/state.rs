//! What a group should do next, as plain code on plain state. Nothing in here starts or ends a process.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidemill_base::{Env, Error, Result, RetryPolicy, Timestamp};
use tidemill_blocks::fleet::{Group, GroupSpec, Member, MemberState};

use super::process::Process;

/// Members started in one step. The rest follow in the next.
const MAX_STARTS: usize = 32;

/// The times that decisions go by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    pub(super) drain_grace: Duration,
    pub(super) healthy_after: Duration,
    pub(super) backoff: RetryPolicy,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    Start,
    Drain(String),
    Kill(String),
}

/// Why a member is on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Ending {
    Draining { since: Timestamp },
    Sick,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MemberRecord {
    /// `None` from just before the process is started until it has been.
    pub(super) process: Option<Process>,
    pub(super) started_at: Timestamp,
    pub(super) protected: bool,
    pub(super) ending: Option<Ending>,
}

/// Members that died right after their start, one after the other.
#[derive(Debug, Clone, Default)]
struct Failing {
    times: u32,
    last_at: Timestamp,
    not_before: Timestamp,
    error: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct GroupState {
    pub(super) spec: GroupSpec,
    pub(super) desired: u32,
    pub(super) members: BTreeMap<String, MemberRecord>,
    // A restarted manager tries again at once; what was wrong may be right now.
    #[serde(skip)]
    failing: Failing,
}

impl GroupState {
    pub(super) fn new(spec: GroupSpec) -> Self {
        Self { desired: spec.min, spec, members: BTreeMap::new(), failing: Failing::default() }
    }

    /// Other settings for the same group; the desired size is kept within them.
    pub(super) fn set_spec(&mut self, spec: GroupSpec) {
        self.desired = self.desired.clamp(spec.min, spec.max);
        self.spec = spec;
    }

    pub(super) fn set_desired(&mut self, desired: u32) -> Result<()> {
        let GroupSpec { name, min, max, .. } = &self.spec;
        if desired < *min || desired > *max {
            return Err(Error::invalid(format!("group {name} has {min} to {max} members, and {desired} were asked for")));
        }
        self.desired = desired;
        Ok(())
    }

    /// Raises the size to the members there are, as far as the maximum lets it.
    pub(super) fn keep_members(&mut self) {
        let active = u32::try_from(self.active()).unwrap_or(u32::MAX);
        self.desired = self.desired.max(active.min(self.spec.max));
    }

    pub(super) fn member(&mut self, id: &str) -> Result<&mut MemberRecord> {
        let group = &self.spec.name;
        self.members.get_mut(id).ok_or_else(|| Error::not_found(format!("group {group} has no member {id}")))
    }

    /// Marks the member for draining; whether it was not on its way out already. Without a replacement the group shrinks by one,
    /// and at its minimum that is refused.
    pub(super) fn drain(&mut self, id: &str, replace: bool, now: Timestamp) -> Result<bool> {
        if self.member(id)?.ending.is_some() {
            return Ok(false);
        }
        if !replace {
            let GroupSpec { name, min, .. } = &self.spec;
            if self.desired <= *min {
                return Err(Error::invalid(format!(
                    "group {name} is at its minimum of {min}; drain with a replacement, or lower the minimum"
                )));
            }
            self.desired -= 1;
        }
        self.member(id)?.ending = Some(Ending::Draining { since: now });
        Ok(true)
    }

    pub(super) fn started(&mut self, id: &str, process: Process) {
        if let Some(member) = self.members.get_mut(id) {
            member.process = Some(process);
        }
    }

    /// Takes note that the member's process is gone. A death right after the start is a failure of the command and slows down
    /// the next start; any other is not.
    pub(super) fn gone(&mut self, id: &str, why: &str, pace: &Pace, env: &Env) {
        let Some(member) = self.members.remove(id) else { return };
        let lived = env.now().since(member.started_at);
        if member.ending.is_none() && lived < pace.healthy_after {
            self.failed(member.started_at, pace, env);
            self.failing.error = format!("member {id} ended {:.1} s after its start: {why}", lived.as_secs_f64());
        }
    }

    /// Takes note that the member could not be started, however long it took to find out.
    pub(super) fn not_started(&mut self, id: &str, why: &str, pace: &Pace, env: &Env) {
        let Some(member) = self.members.remove(id) else { return };
        self.failed(member.started_at, pace, env);
        self.failing.error = format!("member {id} was not started: {why}");
    }

    fn failed(&mut self, started_at: Timestamp, pace: &Pace, env: &Env) {
        // Those started together fail for one reason, which counts once.
        if self.failing.times == 0 || started_at > self.failing.last_at {
            self.failing.times = self.failing.times.saturating_add(1);
            self.failing.not_before = env.now() + pace.backoff.delay(self.failing.times, env);
        }
        self.failing.last_at = env.now();
    }

    /// What to do now. Marks those to be drained as such.
    pub(super) fn decide(&mut self, now: Timestamp, pace: &Pace) -> Vec<Action> {
        let came_up =
            |m: &MemberRecord| m.ending.is_none() && m.started_at > self.failing.last_at && now.since(m.started_at) >= pace.healthy_after;
        if self.failing.times > 0 && self.members.values().any(came_up) {
            self.failing = Failing::default();
        }
        let mut actions = self.overdue(now, pace);
        let (active, desired) = (self.active(), self.desired as usize);
        if active > desired {
            for id in self.to_drain(active - desired) {
                if let Some(member) = self.members.get_mut(&id) {
                    member.ending = Some(Ending::Draining { since: now });
                }
                actions.push(Action::Drain(id));
            }
        } else if active < desired && now >= self.failing.not_before {
            // While starts fail, one is tried at a time.
            let most = if self.failing.times > 0 { 1 } else { MAX_STARTS };
            actions.extend(std::iter::repeat_n(Action::Start, (desired - active).min(most)));
        }
        actions
    }

    fn active(&self) -> usize {
        self.members.values().filter(|m| m.ending.is_none()).count()
    }

    /// Those that have had their time.
    fn overdue(&self, now: Timestamp, pace: &Pace) -> Vec<Action> {
        let over = |m: &MemberRecord| match m.ending {
            Some(Ending::Draining { since }) => now.since(since) >= pace.drain_grace,
            Some(Ending::Sick) => true,
            None => false,
        };
        self.members.iter().filter(|(_, m)| over(m)).map(|(id, _)| Action::Kill(id.clone())).collect()
    }

    /// The youngest unprotected members, at most `count`. Protected ones are never chosen: the group stays larger until they are
    /// released.
    fn to_drain(&self, count: usize) -> Vec<String> {
        let mut free: Vec<_> = self.members.iter().filter(|(_, m)| m.ending.is_none() && !m.protected).collect();
        free.sort_by_key(|(id, m)| std::cmp::Reverse((m.started_at, id.as_str())));
        free.into_iter().take(count).map(|(id, _)| id.clone()).collect()
    }

    /// Why the group is not at its desired size, if there is something to say.
    pub(super) fn trouble(&self) -> Option<String> {
        let Failing { times, not_before, error, .. } = &self.failing;
        if *times > 0 {
            return Some(format!("{error} ({times} failed starts in a row, the next one is tried at {not_before})"));
        }
        let (active, desired) = (self.active(), self.desired as usize);
        let held = active.saturating_sub(desired);
        (held > 0 && self.to_drain(held).len() < held)
            .then(|| format!("{held} members too many; those protected from scale-in go when they have finished their work"))
    }

    pub(super) fn view(&self, now: Timestamp, pace: &Pace) -> Group {
        let members = self.members.iter().map(|(id, m)| Member {
            id: id.clone(),
            state: match m.ending {
                Some(Ending::Draining { .. }) => MemberState::Draining,
                Some(Ending::Sick) => MemberState::Unhealthy,
                None if m.process.is_none() || now.since(m.started_at) < pace.healthy_after => MemberState::Starting,
                None => MemberState::Running,
            },
            protected: m.protected,
            started_at: m.started_at,
        });
        Group { spec: self.spec.clone(), desired: self.desired, members: members.collect() }
    }
}
