//! The decisions, without a process.

use tidemill_base::{ManualClock, Timestamp};
use tidemill_blocks::fleet::{MemberState, Offers};

use super::*;

struct World {
    group: GroupState,
    env: Env,
    clock: std::sync::Arc<ManualClock>,
    pace: Pace,
    next: u32,
}

const SECOND: Duration = Duration::from_secs(1);

impl World {
    fn new(min: u32, max: u32) -> Self {
        let (env, clock) = Env::manual(Timestamp::from_millis(1_700_000_000_000), 3);
        let offers = Offers { slots: 1, memory: 0, named: BTreeMap::new() };
        let group = GroupState::new(GroupSpec { name: "g".into(), min, max, offers });
        let backoff = RetryPolicy { base: HumanDuration(SECOND), cap: HumanDuration(16 * SECOND), ..RetryPolicy::default() };
        Self { group, env, clock, pace: Pace { drain_grace: 10 * SECOND, healthy_after: 3 * SECOND, backoff }, next: 0 }
    }

    /// One step: what was decided, with starts carried out as members `m0`, `m1`...
    fn step(&mut self) -> Vec<Action> {
        let actions = self.group.decide(self.env.now(), &self.pace);
        for _ in actions.iter().filter(|a| **a == Action::Start) {
            let process = Some(Process { pid: 1000 + self.next, start_ticks: 1 });
            let member = MemberRecord { process, started_at: self.env.now(), protected: false, ending: None };
            self.group.members.insert(format!("m{}", self.next), member);
            self.next += 1;
        }
        actions
    }

    fn dies(&mut self, id: &str) {
        self.group.gone(id, "exit status: 1", &self.pace, &self.env);
    }

    fn wait(&self, by: Duration) {
        self.clock.advance(by);
    }
}

fn drained(ids: &[&str]) -> Vec<Action> {
    ids.iter().map(|id| Action::Drain((*id).to_owned())).collect()
}

#[test]
fn the_group_is_filled_replaced_and_left_alone_when_it_is_as_desired() {
    let mut w = World::new(3, 5);
    assert_eq!(w.step(), vec![Action::Start; 3]);
    assert_eq!(w.step(), vec![]);
    w.wait(60 * SECOND);
    w.dies("m1");
    assert_eq!(w.step(), [Action::Start], "a member that ended after a good life is replaced at once");
    assert_eq!(w.step(), vec![]);
}

#[test]
fn shrinking_takes_the_youngest_unprotected_and_never_the_protected() {
    let mut w = World::new(0, 5);
    for desired in 1..=4 {
        w.group.set_desired(desired).unwrap();
        w.step();
        w.wait(SECOND);
    }
    w.group.member("m3").unwrap().protected = true;
    w.group.set_desired(2).unwrap();
    assert_eq!(w.step(), drained(&["m2", "m1"]));
    w.group.member("m0").unwrap().protected = true;
    w.group.set_desired(0).unwrap();
    assert_eq!(w.step(), vec![]);
    assert!(w.group.trouble().unwrap().contains("2 members too many"));
    w.group.member("m0").unwrap().protected = false;
    assert_eq!(w.step(), drained(&["m0"]));
}

#[test]
fn a_drained_member_is_killed_after_its_grace_and_not_before() {
    let mut w = World::new(1, 5);
    w.step();
    assert!(w.group.drain("m0", true, w.env.now()).unwrap());
    assert!(!w.group.drain("m0", false, w.env.now()).unwrap(), "draining twice is draining once");
    assert_eq!(w.step(), [Action::Start], "its place is taken while it finishes");
    w.wait(9 * SECOND);
    assert_eq!(w.step(), vec![]);
    w.wait(SECOND);
    assert_eq!(w.step(), [Action::Kill("m0".into())]);
}

#[test]
fn draining_without_replacement_shrinks_the_group_down_to_its_minimum() {
    let mut w = World::new(1, 5);
    w.group.set_desired(2).unwrap();
    w.step();
    w.group.drain("m0", false, w.env.now()).unwrap();
    assert_eq!((w.group.desired, w.step()), (1, vec![]));
    let refused = w.group.drain("m1", false, w.env.now()).unwrap_err();
    assert!(refused.message().contains("minimum of 1"), "{refused}");
    assert_eq!((w.group.desired, w.step()), (1, vec![]), "and nothing has changed");
}

#[test]
fn a_broken_command_is_tried_ever_more_slowly_and_its_error_shows() {
    let mut w = World::new(4, 4);
    assert_eq!(w.step().len(), 4);
    for id in ["m0", "m1", "m2", "m3"] {
        w.dies(id);
    }
    assert!(w.group.trouble().unwrap().contains("exit status: 1"));
    let mut starts = Vec::new();
    for tenth in 0..1200_u32 {
        if w.step().contains(&Action::Start) {
            starts.push(tenth);
            w.wait(SECOND / 100);
            w.dies(&format!("m{}", w.next - 1));
        }
        w.wait(SECOND / 10);
    }
    let pauses: Vec<u32> = starts.windows(2).map(|s| s[1] - s[0]).collect();
    assert!((8..16).contains(&starts.len()), "two minutes with pauses of up to 16 s: {starts:?}");
    assert!(pauses.last() > pauses.first() && pauses.iter().all(|p| *p <= 162), "{pauses:?}");

    // Once one comes up, the rest follow at once and the trouble is over.
    w.wait(20 * SECOND);
    assert_eq!(w.step(), [Action::Start]);
    w.wait(2 * SECOND);
    assert!(w.group.trouble().is_some());
    w.wait(SECOND);
    assert_eq!(w.step().len(), 3);
    assert_eq!(w.group.trouble(), None);
}

#[test]
fn an_old_member_does_not_vouch_for_a_command_that_broke_since() {
    let mut w = World::new(1, 2);
    w.step();
    w.wait(60 * SECOND);
    w.group.set_desired(2).unwrap();
    w.step();
    w.dies("m1");
    assert_eq!(w.step(), vec![], "the pause holds although m0 is well");
    assert!(w.group.trouble().is_some());
}

#[test]
fn sizes_stay_within_bounds_and_states_show() {
    let mut w = World::new(1, 2);
    assert!(w.group.set_desired(0).is_err() && w.group.set_desired(3).is_err());
    w.group.set_desired(2).unwrap();
    w.step();
    w.group.member("m1").unwrap().ending = Some(Ending::Sick);
    let states = |w: &World| w.group.view(w.env.now(), &w.pace).members.iter().map(|m| m.state).collect::<Vec<_>>();
    assert_eq!(states(&w), [MemberState::Starting, MemberState::Unhealthy]);
    w.wait(3 * SECOND);
    assert_eq!(states(&w), [MemberState::Running, MemberState::Unhealthy]);
    let spec = GroupSpec { min: 0, max: 1, ..w.group.spec.clone() };
    w.group.set_spec(spec);
    assert_eq!(w.group.desired, 1);
    assert!(w.group.member("nobody").is_err());
}
