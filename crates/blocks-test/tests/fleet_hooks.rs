//! A simulation that plays the members of the in-memory fleet is told what they should do, and tells what they did.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tidemill_base::ErrorKind;
use tidemill_blocks::fleet::{Fleet, GroupSpec, MemberState, Offers};
use tidemill_blocks::memory::{FleetHooks, MemoryFleet};
use tidemill_blocks_test::{Harness, run_simulated};

#[derive(Debug, Default)]
struct Told(Mutex<Vec<String>>);

impl Told {
    fn add(&self, what: &str, group: &str, member: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{what} {group}/{member}"));
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl FleetHooks for Told {
    fn start(&self, group: &str, member: &str) {
        self.add("start", group, member);
    }
    fn drain(&self, group: &str, member: &str) {
        self.add("drain", group, member);
    }
    fn kill(&self, group: &str, member: &str) {
        self.add("kill", group, member);
    }
}

#[test]
fn members_live_as_the_hooks_play_them() {
    run_simulated(async |h: &Harness| {
        let told = Arc::new(Told::default());
        let fleet = MemoryFleet::with_hooks(h.env().clone(), told.clone());
        let offers = Offers { slots: 1, memory: 1, named: BTreeMap::new() };
        fleet.ensure(GroupSpec { name: "g".into(), min: 2, max: 3, offers }).await?;
        let states = async || fleet.groups().await.map(|g| g[0].members.iter().map(|m| m.state).collect::<Vec<_>>());

        fleet.reconcile().await?;
        assert_eq!(told.take(), ["start g/w1", "start g/w2"]);
        fleet.alive("g", "w1")?;
        fleet.reconcile().await?;
        assert_eq!(states().await?, [MemberState::Running, MemberState::Starting], "a member starts in its own time");

        fleet.ended("g", "w1")?;
        fleet.reconcile().await?;
        assert_eq!(told.take(), ["start g/w3"], "one that died is replaced");

        fleet.drain("g", "w2", true).await?;
        fleet.reconcile().await?;
        assert_eq!(told.take(), ["drain g/w2", "start g/w4"]);
        assert_eq!(states().await?, [MemberState::Draining, MemberState::Starting, MemberState::Starting], "it goes in its own time");
        fleet.ended("g", "w2")?;
        assert_eq!(fleet.ended("g", "w2").map_err(|e| e.kind()), Err(ErrorKind::NotFound));

        fleet.mark_unhealthy("g", "w3").await?;
        fleet.reconcile().await?;
        assert_eq!(told.take(), ["kill g/w3", "start g/w5"]);
        Ok::<_, tidemill_base::Error>(())
    })
    .expect("every call succeeds");
}
