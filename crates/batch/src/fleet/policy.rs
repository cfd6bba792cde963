//! Target tracking: enough workers that the backlog is worked off within a target time.
//!
//! The unit is capacity (slots), not instances, and the input is work (expected slot time of what waits and runs), not the number
//! of messages, since a queue of a thousand one-second tasks and one of a thousand one-hour tasks want different fleets. Growing is
//! immediate and goes all the way; shrinking waits until the need has been lower for the whole of the cool-down, so that a fleet
//! does not saw. See "Target tracking scaling policies" in the EC2 Auto Scaling guide for the shape that users know.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidemill_base::{HumanDuration, Timestamp};

/// What a group is scaled by.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct ScalePolicy {
    /// Never fewer workers; 0 scales to zero when idle.
    pub min: u32,
    /// Never more.
    pub max: u32,
    /// The backlog should be worked off within this.
    pub target: HumanDuration,
    /// After growing, not grown again within this.
    pub grow_cooldown: HumanDuration,
    /// Shrunk only when the need has been lower for so long.
    pub shrink_cooldown: HumanDuration,
}

impl Default for ScalePolicy {
    fn default() -> Self {
        Self {
            min: 0,
            max: 4,
            target: HumanDuration(Duration::from_secs(60)),
            grow_cooldown: HumanDuration(Duration::from_secs(3)),
            shrink_cooldown: HumanDuration(Duration::from_secs(60)),
        }
    }
}

/// What there is to do, and with what.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScaleInput {
    /// The time.
    pub now: Timestamp,
    /// The size that the group has been given.
    pub desired: u32,
    /// Slots of one worker.
    pub slots_each: u32,
    /// Tasks waiting (and releasable) or running.
    pub tasks: u64,
    /// Their expected slot time, microseconds.
    pub work_us: f64,
}

/// What the policy remembers between decisions.
#[derive(Debug, Clone, Default)]
pub struct ScaleState {
    grown_at: Option<Timestamp>,
    /// Needs within the shrink cool-down, oldest first, each larger than all after it.
    needs: VecDeque<(Timestamp, u32)>,
    since: Option<Timestamp>,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The size that the group should have.
    pub desired: u32,
    /// Why.
    pub reason: String,
}

/// Workers that would do the work in time, before bounds.
pub(crate) fn need(policy: &ScalePolicy, input: &ScaleInput) -> u32 {
    if input.tasks == 0 {
        return 0;
    }
    let slots_each = f64::from(input.slots_each.max(1));
    let by_work = (input.work_us / policy.target.0.as_micros().max(1) as f64 / slots_each).ceil();
    let by_tasks = (input.tasks as f64 / slots_each).ceil();
    by_work.min(by_tasks).clamp(1.0, f64::from(u32::MAX)) as u32
}

/// Decides on the size of a group.
pub fn decide(policy: &ScalePolicy, state: &mut ScaleState, input: &ScaleInput) -> Decision {
    let now = input.now;
    let wanted = need(policy, input);
    // A worker whose slots have tasks is not given up: the work costs the same, and ends sooner.
    let in_use = input.tasks.div_ceil(u64::from(input.slots_each.max(1))).min(u64::from(input.desired)) as u32;
    let bounded = wanted.max(in_use).clamp(policy.min, policy.max.max(policy.min));
    state.since.get_or_insert(now);
    while state.needs.back().is_some_and(|(_, n)| *n <= bounded) {
        state.needs.pop_back();
    }
    state.needs.push_back((now, bounded));
    while state.needs.len() > 1 && state.needs.front().is_some_and(|(at, _)| now.since(*at) > policy.shrink_cooldown.0) {
        state.needs.pop_front();
    }
    let current = input.desired;
    let work_s = input.work_us / 1e6;
    if current < policy.min || current > policy.max.max(policy.min) {
        return Decision { desired: bounded, reason: format!("brought within {} to {}", policy.min, policy.max) };
    }
    if bounded > current {
        if state.grown_at.is_some_and(|at| now.since(at) < policy.grow_cooldown.0) {
            return Decision { desired: current, reason: format!("{bounded} needed; it grew a moment ago") };
        }
        state.grown_at = Some(now);
        let capped = if wanted > bounded { format!(", {wanted} would be needed, the maximum is {}", policy.max) } else { String::new() };
        return Decision {
            desired: bounded,
            reason: format!("{} tasks with about {work_s:.0} s of work to be done within {}{capped}", input.tasks, policy.target),
        };
    }
    let peak = state.needs.front().map_or(bounded, |(_, n)| *n);
    let seen_long_enough = state.since.is_some_and(|since| now.since(since) >= policy.shrink_cooldown.0);
    if peak < current && seen_long_enough {
        let idle = if input.tasks == 0 { "nothing to do".to_owned() } else { format!("about {work_s:.0} s of work left") };
        return Decision { desired: peak, reason: format!("{idle} for {}", policy.shrink_cooldown) };
    }
    let reason =
        if wanted > policy.max { format!("at its maximum; {wanted} would be needed") } else { "enough for what there is".to_owned() };
    Decision { desired: current, reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(now_s: i64, desired: u32, tasks: u64, work_s: f64) -> ScaleInput {
        ScaleInput { now: Timestamp::from_millis(now_s * 1000), desired, slots_each: 2, tasks, work_us: work_s * 1e6 }
    }

    #[test]
    fn grows_at_once_to_what_the_work_needs_and_not_beyond_what_the_tasks_can_use() {
        let policy = ScalePolicy { max: 50, ..ScalePolicy::default() };
        let mut state = ScaleState::default();
        assert_eq!(decide(&policy, &mut state, &input(0, 0, 10_000, 2400.0)).desired, 20);
        assert_eq!(
            decide(&policy, &mut state, &input(10, 20, 4, 3600.0 * 4.0)).desired,
            20,
            "four tasks need two workers, but shrinking waits"
        );
        assert_eq!(decide(&policy, &mut ScaleState::default(), &input(0, 0, 4, 3600.0 * 4.0)).desired, 2);
        assert_eq!(decide(&policy, &mut ScaleState::default(), &input(0, 0, 1, 0.001)).desired, 1);
    }

    #[test]
    fn shrinks_only_after_the_need_was_low_for_the_whole_cooldown() {
        let policy = ScalePolicy { max: 10, ..ScalePolicy::default() };
        let mut state = ScaleState::default();
        assert_eq!(decide(&policy, &mut state, &input(0, 0, 100, 1200.0)).desired, 10);
        assert_eq!(decide(&policy, &mut state, &input(30, 10, 0, 0.0)).desired, 10);
        assert_eq!(decide(&policy, &mut state, &input(50, 10, 10, 240.0)).desired, 10);
        assert_eq!(decide(&policy, &mut state, &input(70, 10, 0, 0.0)).desired, 5, "the five workers that had tasks at 50 s still count");
        assert_eq!(decide(&policy, &mut state, &input(120, 5, 0, 0.0)).desired, 0);
    }

    #[test]
    fn says_when_the_maximum_holds_it_back_and_keeps_the_bounds() {
        let policy = ScalePolicy { min: 1, max: 3, ..ScalePolicy::default() };
        let mut state = ScaleState::default();
        let d = decide(&policy, &mut state, &input(0, 1, 1000, 100_000.0));
        assert_eq!(d.desired, 3);
        assert!(d.reason.contains("maximum is 3"), "{}", d.reason);
        assert_eq!(decide(&policy, &mut state, &input(1000, 3, 0, 0.0)).desired, 1);
        assert_eq!(decide(&policy, &mut state, &input(1001, 9, 0, 0.0)).desired, 1);
    }
}
