//! The fleet block on EC2 Auto Scaling: a group of workers is an Auto Scaling group named `PREFIX-GROUP`, a member is an instance.
//!
//! The groups are made outside (by a template or by hand), since what an instance is made of is for their owner to say: a launch
//! template whose user data starts `tidemill worker` with the instance's id for `--id` and the group's name for `--class`. This
//! driver sets the sizes, protects members that work, and takes away those that are drained or sick. [`Aws::check_fleet`] says which
//! groups are missing.
//!
//! Shrinking takes the youngest member first (termination policy `NewestInstance`, set by [`Fleet::ensure`]) and passes over protected
//! ones. With a [`Drainer`] a member that is to go is kept by a lifecycle hook until it has finished its work, for
//! [`DRAIN_LIMIT`] at most; without one an instance ends at once, and what it had leased runs elsewhere when the lease expires.
//!
//! An instance's record in a group does not say when it was started; [`Member::started_at`] is when this program first saw it.
//!
//! Never run against EC2 itself: tested against moto, which has no launch times, no cooldowns, no capacity errors and no hooks.

mod group;
mod notice;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_autoscaling::Client;
use tidemill_base::{Env, Error, ErrorKind, Result, Timestamp};
use tidemill_blocks::check::{Finding, Found};
use tidemill_blocks::fleet::{Fleet, Group, GroupSpec, Member};

use crate::Aws;
use crate::error::error;
use group::{Asg, Instance, check_spec};
pub use notice::Notices;

/// How long a member may take to finish its work before Auto Scaling ends it. A hook can be kept alive for longer, by whoever asks;
/// this is what tasks get when nobody does.
pub const DRAIN_LIMIT: Duration = Duration::from_secs(1800);

/// Auto Scaling answers only so many questions a second for a whole account.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// From an instance's being in service to its worker's first word: the system starts, and user data may install things.
const BOOT_LIMIT: Duration = Duration::from_secs(600);
const HOOK: &str = "tidemill-drain";
const TERMINATION_POLICY: &str = "NewestInstance";
/// Names in one question.
const PAGE: usize = 50;

/// How a member is told to finish, and how it is seen that it has. Auto Scaling only knows machines; the program that takes tasks is
/// reached by other ways.
#[async_trait]
pub trait Drainer: Send + Sync + fmt::Debug {
    /// Asks the member to take no more work. Asked again until it is gone.
    async fn ask(&self, member: &str) -> Result<()>;

    /// Whether it has finished, or will never say.
    async fn is_done(&self, member: &str) -> Result<bool>;
}

impl Aws {
    /// The fleet block. With a `drainer` members finish their work before they go.
    pub fn fleet(&self, drainer: Option<Arc<dyn Drainer>>) -> AutoScalingFleet {
        AutoScalingFleet::new(self, drainer, LOOK_EVERY)
    }

    /// Whether the groups' Auto Scaling groups are there. They are not made: see the documentation of [`fleet`](crate::fleet).
    pub async fn check_fleet(&self, groups: &[String]) -> Vec<Finding> {
        let fleet = self.fleet(None);
        let mut findings = Vec::new();
        for group in groups {
            let what = format!("Auto Scaling group {}", fleet.asg_name(group));
            findings.push(match fleet.find(group).await {
                Ok(_) => Finding::ready(what),
                Err(e) => {
                    let found = match e.kind() {
                        ErrorKind::NotFound => Found::Missing,
                        ErrorKind::Denied => Found::Denied,
                        _ => Found::Unreachable,
                    };
                    Finding::new(what, found, e.chain())
                }
            });
        }
        findings
    }
}

/// Groups of EC2 instances.
#[derive(Debug)]
pub struct AutoScalingFleet {
    client: Client,
    env: Env,
    prefix: String,
    drainer: Option<Arc<dyn Drainer>>,
    look_every: Duration,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// The groups that were asked for, by name.
    specs: BTreeMap<String, GroupSpec>,
    /// When each instance was first seen.
    seen: BTreeMap<String, Timestamp>,
    /// Instances that were found sick and are on their way out.
    sick: BTreeSet<String>,
    /// The groups as they were then. What has been changed since is not in it, so a change throws it away.
    picture: Option<(Timestamp, Vec<Asg>)>,
}

impl AutoScalingFleet {
    fn new(aws: &Aws, drainer: Option<Arc<dyn Drainer>>, look_every: Duration) -> Self {
        let config = aws_sdk_autoscaling::config::Builder::from(&aws.inner.config).interceptor(aws.inner.calls.counting("autoscaling"));
        Self {
            client: Client::from_conf(config.build()),
            env: aws.inner.env.clone(),
            prefix: aws.inner.settings.prefix.clone(),
            drainer,
            look_every,
            inner: Mutex::default(),
        }
    }

    /// The same, looking at the groups as often as this; zero: whenever it is asked. By default every five seconds.
    #[must_use]
    pub fn looking_every(mut self, every: Duration) -> Self {
        self.look_every = every;
        self
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn asg_name(&self, group: &str) -> String {
        format!("{}-{group}", self.prefix)
    }

    /// The groups that were asked for, as they are now or were a moment ago.
    async fn look(&self) -> Result<Vec<Asg>> {
        let now = self.env.now();
        let names: Vec<String> = {
            let inner = self.lock();
            if let Some((at, picture)) = &inner.picture
                && now.since(*at) < self.look_every
            {
                return Ok(picture.clone());
            }
            inner.specs.keys().map(|g| self.asg_name(g)).collect()
        };
        let mut found = Vec::new();
        for page in names.chunks(PAGE) {
            found.extend(self.describe(page.to_vec()).await?);
        }
        self.lock().keep(now, &found);
        Ok(found)
    }

    /// One group as it is now. `NotFound` says how it is made.
    async fn find(&self, group: &str) -> Result<Asg> {
        let name = self.asg_name(group);
        self.describe(vec![name.clone()]).await?.pop().ok_or_else(|| {
            let how = format!(
                "make it with minimum, maximum and desired size 0 from a launch template whose user data starts `tidemill worker --class {group} \
                 --id INSTANCE_ID`"
            );
            Error::not_found(format!("there is no Auto Scaling group {name}; {how}"))
        })
    }

    async fn describe(&self, names: Vec<String>) -> Result<Vec<Asg>> {
        let shown = names.join(", ");
        let call = self.client.describe_auto_scaling_groups().set_auto_scaling_group_names(Some(names)).max_records(100);
        let answer = call.send().await.map_err(|e| error(format_args!("describe Auto Scaling groups {shown}"), e))?;
        Ok(answer.auto_scaling_groups().iter().filter_map(Asg::read).collect())
    }

    fn spec(&self, group: &str) -> Result<GroupSpec> {
        let found = self.lock().specs.get(group).cloned();
        found.ok_or_else(|| Error::not_found(format!("there is no worker group {group}")))
    }

    /// The group, and the member in it, as they are now.
    async fn member(&self, group: &str, member: &str) -> Result<(Asg, Instance)> {
        self.spec(group)?;
        let asg = self.find(group).await?;
        let instance = asg.instances.iter().find(|i| i.id == member && !i.is_gone()).cloned();
        let instance = instance.ok_or_else(|| Error::not_found(format!("group {group} has no member {member}")))?;
        Ok((asg, instance))
    }

    async fn terminate(&self, member: &str, shrink: bool) -> Result<()> {
        let call = self.client.terminate_instance_in_auto_scaling_group().instance_id(member).should_decrement_desired_capacity(shrink);
        call.send().await.map_err(|e| error(format_args!("end instance {member}"), e))?;
        self.forget_picture();
        Ok(())
    }

    async fn resize(&self, name: &str, desired: u32) -> Result<()> {
        let call = self.client.set_desired_capacity().auto_scaling_group_name(name).desired_capacity(size(desired)?);
        call.honor_cooldown(false).send().await.map_err(|e| error(format_args!("set the size of Auto Scaling group {name}"), e))?;
        self.forget_picture();
        Ok(())
    }

    /// Has members that are to go wait until they have finished their work.
    async fn hook(&self, name: &str) -> Result<()> {
        let seconds = i32::try_from(DRAIN_LIMIT.as_secs()).unwrap_or(i32::MAX);
        let call = self.client.put_lifecycle_hook().auto_scaling_group_name(name).lifecycle_hook_name(HOOK);
        let call = call.lifecycle_transition("autoscaling:EC2_INSTANCE_TERMINATING").heartbeat_timeout(seconds).default_result("CONTINUE");
        call.send().await.map_err(|e| error(format_args!("put a lifecycle hook on Auto Scaling group {name}"), e))?;
        Ok(())
    }

    /// Lets the hook go of a member that has finished, or that is sick.
    async fn release(&self, name: &str, member: &str) -> Result<()> {
        let call = self.client.complete_lifecycle_action().auto_scaling_group_name(name).lifecycle_hook_name(HOOK);
        let call = call.instance_id(member).lifecycle_action_result("CONTINUE");
        call.send().await.map_err(|e| error(format_args!("let instance {member} of {name} go"), e))?;
        self.forget_picture();
        Ok(())
    }

    /// Asks those that wait to go, and lets them go when they have finished.
    async fn see_off(&self, asg: &Asg) -> Result<()> {
        for instance in asg.instances.iter().filter(|i| i.waits_to_go()) {
            let sick = self.lock().sick.contains(&instance.id);
            let done = match &self.drainer {
                Some(drainer) if !sick => {
                    drainer.ask(&instance.id).await?;
                    drainer.is_done(&instance.id).await?
                }
                _ => true,
            };
            if done {
                self.release(&asg.name, &instance.id).await?;
            }
        }
        Ok(())
    }

    fn forget_picture(&self) {
        self.lock().picture = None;
    }
}

#[async_trait]
impl Fleet for AutoScalingFleet {
    async fn ensure(&self, spec: GroupSpec) -> Result<()> {
        check_spec(&spec)?;
        let asg = self.find(&spec.name).await?;
        let desired = asg.desired.clamp(spec.min, spec.max);
        let call = self.client.update_auto_scaling_group().auto_scaling_group_name(&asg.name).termination_policies(TERMINATION_POLICY);
        let call = call.min_size(size(spec.min)?).max_size(size(spec.max)?).desired_capacity(size(desired)?);
        call.send().await.map_err(|e| error(format_args!("change Auto Scaling group {}", asg.name), e))?;
        if self.drainer.is_some() {
            self.hook(&asg.name).await?;
        }
        let mut inner = self.lock();
        inner.specs.insert(spec.name.clone(), spec);
        inner.picture = None;
        Ok(())
    }

    async fn groups(&self) -> Result<Vec<Group>> {
        let asgs = self.look().await?;
        let inner = self.lock();
        // A group that somebody removed has no members, and is to be seen.
        let one = |spec: &GroupSpec| {
            let asg = asgs.iter().find(|a| a.name == self.asg_name(&spec.name));
            Group { spec: spec.clone(), desired: asg.map_or(0, |a| a.desired), members: asg.map_or_else(Vec::new, |a| inner.members(a)) }
        };
        Ok(inner.specs.values().map(one).collect())
    }

    async fn set_desired(&self, group: &str, desired: u32) -> Result<()> {
        let GroupSpec { min, max, .. } = self.spec(group)?;
        if desired < min || desired > max {
            return Err(Error::invalid(format!("group {group} has {min} to {max} members, and {desired} were asked for")));
        }
        self.resize(&self.asg_name(group), desired).await
    }

    async fn protect(&self, group: &str, member: &str, protected: bool) -> Result<()> {
        let (asg, _) = self.member(group, member).await?;
        let call = self.client.set_instance_protection().auto_scaling_group_name(&asg.name).instance_ids(member);
        let call = call.protected_from_scale_in(protected);
        call.send().await.map_err(|e| error(format_args!("protect instance {member} of {}", asg.name), e))?;
        self.forget_picture();
        Ok(())
    }

    async fn drain(&self, group: &str, member: &str, replace: bool) -> Result<()> {
        let spec = self.spec(group)?;
        let (asg, instance) = self.member(group, member).await?;
        if instance.is_leaving() {
            return Ok(());
        }
        if !replace && asg.desired <= spec.min {
            let advice = "drain with a replacement, or lower the minimum";
            return Err(Error::invalid(format!("group {group} is at its minimum of {}; {advice}", spec.min)));
        }
        self.terminate(member, !replace).await
    }

    async fn mark_unhealthy(&self, group: &str, member: &str) -> Result<()> {
        let (_, instance) = self.member(group, member).await?;
        self.lock().sick.insert(member.to_owned());
        if instance.is_leaving() { Ok(()) } else { self.terminate(member, false).await }
    }

    /// Auto Scaling itself starts and replaces. Left to do here: seeing members off, and asking again for a size that was held back
    /// by protected members.
    async fn reconcile(&self) -> Result<()> {
        for asg in self.look().await? {
            self.see_off(&asg).await?;
            if asg.surplus() > 0 && asg.instances.iter().any(|i| i.is_active() && !i.protected) {
                self.resize(&asg.name, asg.desired).await?;
            }
        }
        Ok(())
    }

    fn boot_limit(&self) -> Duration {
        BOOT_LIMIT
    }

    async fn trouble(&self, group: &str) -> Result<Option<String>> {
        let name = self.asg_name(&self.spec(group)?.name);
        let call = self.client.describe_scaling_activities().auto_scaling_group_name(&name).max_records(1);
        let answer = call.send().await.map_err(|e| error(format_args!("describe the activities of Auto Scaling group {name}"), e))?;
        if let Some(last) = answer.activities().first()
            && last.status_code().is_some_and(|code| code.as_str() == "Failed")
        {
            let why = last.status_message().or(last.cause()).unwrap_or("Auto Scaling does not say why");
            return Ok(Some(format!("Auto Scaling group {name} could not be changed: {why}")));
        }
        let held = self.look().await?.iter().filter(|a| a.name == name).map(Asg::surplus).sum::<usize>();
        Ok((held > 0).then(|| format!("{held} members too many; those protected from scale-in go when they have finished their work")))
    }
}

impl Inner {
    fn keep(&mut self, now: Timestamp, found: &[Asg]) {
        let ids: BTreeSet<&str> = found.iter().flat_map(|a| &a.instances).map(|i| i.id.as_str()).collect();
        self.seen.retain(|id, _| ids.contains(id.as_str()));
        self.sick.retain(|id| ids.contains(id.as_str()));
        for id in ids {
            self.seen.entry(id.to_owned()).or_insert(now);
        }
        self.picture = Some((now, found.to_vec()));
    }

    fn members(&self, asg: &Asg) -> Vec<Member> {
        let one = |i: &Instance| {
            let state = i.state(self.sick.contains(&i.id))?;
            let started_at = self.seen.get(&i.id).copied().unwrap_or_default();
            Some(Member { id: i.id.clone(), state, protected: i.protected, started_at })
        };
        asg.instances.iter().filter_map(one).collect()
    }
}

fn size(members: u32) -> Result<i32> {
    i32::try_from(members).map_err(|_| Error::invalid(format!("a group of {members} members is larger than Auto Scaling has them")))
}
