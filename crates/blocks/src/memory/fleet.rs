//! The fleet's meaning, in memory: members are records, and whoever plays the workers is told what should happen to them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tidemill_base::{Env, Error, Result};

use crate::fleet::{Fleet, Group, GroupSpec, Member, MemberState};

/// Told what should happen to members. Called after the fleet's lock is let go, so that it may call the fleet again.
pub trait FleetHooks: Send + Sync + fmt::Debug {
    /// A member should start; say so with [`MemoryFleet::alive`] when it has.
    fn start(&self, group: &str, member: &str);
    /// A member should finish what it has and go; say so with [`MemoryFleet::ended`] when it has.
    fn drain(&self, group: &str, member: &str);
    /// A member is ended now; it has no chance to say anything.
    fn kill(&self, group: &str, member: &str);
}

/// Groups in memory.
#[derive(Debug)]
pub struct MemoryFleet {
    env: Env,
    /// Without hooks a member is alive, and a drained one gone, at the `reconcile` after the one that asked for it.
    hooks: Option<Arc<dyn FleetHooks>>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    groups: BTreeMap<String, Group>,
    last: u64,
}

/// What the hooks are told once the lock is let go.
#[derive(Debug, Clone, Copy)]
enum Order {
    Start,
    Drain,
    Kill,
}

impl MemoryFleet {
    /// No groups yet; members do as they should by themselves.
    pub fn new(env: Env) -> Self {
        Self { env, hooks: None, state: Mutex::default() }
    }

    /// No groups yet; `hooks` plays the members.
    pub fn with_hooks(env: Env, hooks: Arc<dyn FleetHooks>) -> Self {
        Self { env, hooks: Some(hooks), state: Mutex::default() }
    }

    /// The member has shown its first sign of life.
    pub fn alive(&self, group: &str, member: &str) -> Result<()> {
        self.with_member(group, member, |m| {
            if m.state == MemberState::Starting {
                m.state = MemberState::Running;
            }
        })
    }

    /// The member is gone: it has finished draining, or it died.
    pub fn ended(&self, group: &str, member: &str) -> Result<()> {
        self.with_group(group, |g| {
            let before = g.members.len();
            g.members.retain(|m| m.id != member);
            if g.members.len() < before { Ok(()) } else { Err(no_member(group, member)) }
        })?
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with_group<T>(&self, group: &str, f: impl FnOnce(&mut Group) -> T) -> Result<T> {
        let mut state = self.lock();
        let found = state.groups.get_mut(group);
        found.map(f).ok_or_else(|| Error::not_found(format!("group `{group}` does not exist; make it with ensure")))
    }

    fn with_member<T>(&self, group: &str, member: &str, f: impl FnOnce(&mut Member) -> T) -> Result<T> {
        self.with_group(group, |g| g.members.iter_mut().find(|m| m.id == member).map(f))?.ok_or_else(|| no_member(group, member))
    }

    fn tell(&self, order: Order, group: &str, member: &str) {
        if let Some(hooks) = &self.hooks {
            match order {
                Order::Start => hooks.start(group, member),
                Order::Drain => hooks.drain(group, member),
                Order::Kill => hooks.kill(group, member),
            }
        }
    }
}

impl State {
    /// Starts, drains and reaps; returns what members have to be told. `by_themselves`: members do what they were told before.
    fn reconcile(&mut self, env: &Env, by_themselves: bool) -> Vec<(Order, String, String)> {
        let mut orders = Vec::new();
        for (name, group) in &mut self.groups {
            group.members.retain(|m| m.state != MemberState::Unhealthy && !(by_themselves && m.state == MemberState::Draining));
            for m in group.members.iter_mut().filter(|m| by_themselves && m.state == MemberState::Starting) {
                m.state = MemberState::Running;
            }
            let (desired, active) = (group.desired as usize, group.members.iter().filter(|m| is_active(m)).count());
            for _ in active..desired {
                self.last += 1;
                let id = format!("w{}", self.last);
                orders.push((Order::Start, name.clone(), id.clone()));
                group.members.push(Member { id, state: MemberState::Starting, protected: false, started_at: env.now() });
            }
            // Members are kept in the order of their start, so the youngest are the last.
            let surplus = active.saturating_sub(desired);
            for m in group.members.iter_mut().rev().filter(|m| is_active(m) && !m.protected).take(surplus) {
                m.state = MemberState::Draining;
                orders.push((Order::Drain, name.clone(), m.id.clone()));
            }
        }
        orders
    }
}

fn no_member(group: &str, member: &str) -> Error {
    Error::not_found(format!("group `{group}` has no member `{member}`"))
}

fn is_active(m: &Member) -> bool {
    matches!(m.state, MemberState::Starting | MemberState::Running)
}

fn check_spec(spec: &GroupSpec) -> Result<()> {
    let name = &spec.name;
    let fits = (1..=40).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if !fits {
        return Err(Error::invalid(format!("group name `{name}` must be 1 to 40 characters of a-z 0-9 -")));
    }
    if spec.min > spec.max {
        return Err(Error::invalid(format!("group `{name}` has a minimum of {} over its maximum of {}", spec.min, spec.max)));
    }
    Ok(())
}

#[async_trait]
impl Fleet for MemoryFleet {
    async fn ensure(&self, spec: GroupSpec) -> Result<()> {
        check_spec(&spec)?;
        let mut state = self.lock();
        match state.groups.get_mut(&spec.name) {
            Some(group) => {
                group.desired = group.desired.clamp(spec.min, spec.max);
                group.spec = spec;
            }
            None => {
                let group = Group { desired: spec.min, members: Vec::new(), spec };
                state.groups.insert(group.spec.name.clone(), group);
            }
        }
        Ok(())
    }

    async fn groups(&self) -> Result<Vec<Group>> {
        Ok(self.lock().groups.values().cloned().collect())
    }

    async fn set_desired(&self, group: &str, desired: u32) -> Result<()> {
        self.with_group(group, |g| {
            let (min, max) = (g.spec.min, g.spec.max);
            if !(min..=max).contains(&desired) {
                return Err(Error::invalid(format!("group `{group}` cannot have {desired} members; it is set to {min} to {max}")));
            }
            g.desired = desired;
            Ok(())
        })?
    }

    async fn protect(&self, group: &str, member: &str, protected: bool) -> Result<()> {
        self.with_member(group, member, |m| m.protected = protected)
    }

    async fn drain(&self, group: &str, member: &str, replace: bool) -> Result<()> {
        let newly = self.with_group(group, |g| {
            let m = g.members.iter_mut().find(|m| m.id == member).ok_or_else(|| no_member(group, member))?;
            let newly = is_active(m);
            if newly {
                m.state = MemberState::Draining;
                if !replace {
                    g.desired = g.desired.saturating_sub(1).max(g.spec.min);
                }
            }
            Ok::<_, Error>(newly)
        })??;
        if newly {
            self.tell(Order::Drain, group, member);
        }
        Ok(())
    }

    async fn mark_unhealthy(&self, group: &str, member: &str) -> Result<()> {
        self.with_member(group, member, |m| m.state = MemberState::Unhealthy)?;
        self.tell(Order::Kill, group, member);
        Ok(())
    }

    async fn reconcile(&self) -> Result<()> {
        let orders = self.lock().reconcile(&self.env, self.hooks.is_none());
        for (order, group, member) in orders {
            self.tell(order, &group, &member);
        }
        Ok(())
    }
}
