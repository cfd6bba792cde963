//! What Auto Scaling says of a group, read into plain values.

use aws_sdk_autoscaling::types::{AutoScalingGroup, Instance as SdkInstance};
use tidemill_base::{Error, Result};
use tidemill_blocks::fleet::{GroupSpec, MemberState};

/// An Auto Scaling group as it was when it was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asg {
    pub(super) name: String,
    pub(super) desired: u32,
    pub(super) instances: Vec<Instance>,
}

/// An instance of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Instance {
    pub(super) id: String,
    /// Auto Scaling's word, such as `InService` or `Terminating:Wait`.
    pub(super) lifecycle: String,
    pub(super) healthy: bool,
    pub(super) protected: bool,
}

impl Asg {
    pub(super) fn read(group: &AutoScalingGroup) -> Option<Self> {
        Some(Self {
            name: group.auto_scaling_group_name()?.to_owned(),
            desired: u32::try_from(group.desired_capacity()?).ok()?,
            instances: group.instances().iter().filter_map(Instance::read).collect(),
        })
    }

    /// Active members beyond the desired size.
    pub(super) fn surplus(&self) -> usize {
        self.instances.iter().filter(|i| i.is_active()).count().saturating_sub(self.desired as usize)
    }
}

impl Instance {
    fn read(instance: &SdkInstance) -> Option<Self> {
        Some(Self {
            id: instance.instance_id()?.to_owned(),
            lifecycle: instance.lifecycle_state()?.as_str().to_owned(),
            healthy: instance.health_status().is_none_or(|h| !h.eq_ignore_ascii_case("unhealthy")),
            protected: instance.protected_from_scale_in().unwrap_or(false),
        })
    }

    /// How it is; `None` when it is no member any more, or none yet: those of a warm pool are stopped machines.
    pub(super) fn state(&self, sick: bool) -> Option<MemberState> {
        if self.is_gone() || self.lifecycle.starts_with("Warmed") {
            return None;
        }
        Some(if sick || (!self.healthy && !self.is_leaving()) {
            MemberState::Unhealthy
        } else if self.is_leaving() {
            MemberState::Draining
        } else if self.lifecycle.starts_with("Pending") {
            MemberState::Starting
        } else {
            MemberState::Running
        })
    }

    pub(super) fn is_active(&self) -> bool {
        matches!(self.state(false), Some(MemberState::Starting | MemberState::Running))
    }

    /// On its way out of the group, or taken out of service by a person.
    pub(super) fn is_leaving(&self) -> bool {
        ["Terminating", "Detaching", "EnteringStandby", "Standby"].iter().any(|word| self.lifecycle.starts_with(word))
    }

    /// Kept by a lifecycle hook until somebody lets it go.
    pub(super) fn waits_to_go(&self) -> bool {
        self.lifecycle == "Terminating:Wait"
    }

    pub(super) fn is_gone(&self) -> bool {
        matches!(self.lifecycle.as_str(), "Terminated" | "Detached")
    }
}

/// What holds for groups of every driver.
pub(super) fn check_spec(spec: &GroupSpec) -> Result<()> {
    let name_ok = (1..=40).contains(&spec.name.len()) && spec.name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'));
    if !name_ok {
        return Err(Error::invalid(format!("`{}` is no name for a worker group; use 1 to 40 of a-z, 0-9 and -", spec.name.escape_debug())));
    }
    if spec.min > spec.max {
        return Err(Error::invalid(format!("group {}: the minimum {} is above the maximum {}", spec.name, spec.min, spec.max)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(lifecycle: &str) -> Instance {
        Instance { id: lifecycle.to_owned(), lifecycle: lifecycle.to_owned(), healthy: true, protected: false }
    }

    #[test]
    fn every_lifecycle_state_has_a_meaning() {
        use MemberState::{Draining, Running, Starting, Unhealthy};
        for (word, state) in [
            ("Pending", Some(Starting)),
            ("Pending:Wait", Some(Starting)),
            ("Pending:Proceed", Some(Starting)),
            ("InService", Some(Running)),
            ("Terminating", Some(Draining)),
            ("Terminating:Wait", Some(Draining)),
            ("Terminating:Proceed", Some(Draining)),
            ("Terminated", None),
            ("Detaching", Some(Draining)),
            ("Detached", None),
            ("EnteringStandby", Some(Draining)),
            ("Standby", Some(Draining)),
            ("Warmed:Stopped", None),
        ] {
            assert_eq!(instance(word).state(false), state, "{word}");
        }
        assert_eq!(instance("Terminating:Wait").state(true), Some(Unhealthy));
        let ill = Instance { healthy: false, ..instance("InService") };
        assert_eq!((ill.state(false), ill.is_active()), (Some(Unhealthy), false));
        assert!(instance("Terminating:Wait").waits_to_go() && !instance("Terminating:Proceed").waits_to_go());
    }

    #[test]
    fn what_is_too_many_counts_only_those_that_stay() {
        let asg = |desired, words: &[&str]| Asg { name: "x".to_owned(), desired, instances: words.iter().map(|w| instance(w)).collect() };
        assert_eq!(asg(1, &["InService", "InService", "Pending", "Terminating:Wait", "Terminated"]).surplus(), 2);
        assert_eq!(asg(3, &["InService"]).surplus(), 0);
    }
}
