//! A group whose instances are real processes: moto keeps the group, and a supervisor turns every instance that is in service into a
//! process and ends those of instances that are gone. It shows that the driver's calls, as they are signed and sent, start, replace
//! and take away; it shows nothing of boot times, cooldowns or lacking capacity.

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tidemill_aws::fleet::AutoScalingFleet;
use tidemill_base::Env;
use tidemill_blocks::fleet::{Fleet, GroupSpec, MemberState, Offers};
use tidemill_runtime::{Stopwatch, sleep};

use crate::fleet::on_moto;
use crate::support::or_skip;

/// Instances and their processes.
#[derive(Default)]
struct Supervisor(BTreeMap<String, Child>);

impl Supervisor {
    /// One look: starts, ends, and tells of the instances whose process has died by itself.
    async fn look(&mut self, fleet: &AutoScalingFleet) -> Vec<String> {
        let members = fleet.groups().await.unwrap().remove(0).members;
        let in_service: Vec<&str> = members.iter().filter(|m| m.state == MemberState::Running).map(|m| m.id.as_str()).collect();
        self.0.retain(|id, child| {
            let stays = in_service.contains(&id.as_str());
            if !stays {
                drop(child.kill());
                child.wait().unwrap();
            }
            stays
        });
        for id in in_service {
            let start = || Command::new("sleep").arg("60").env("INSTANCE_ID", id).stdin(Stdio::null()).spawn().unwrap();
            self.0.entry(id.to_owned()).or_insert_with(start);
        }
        self.0.iter_mut().filter_map(|(id, child)| child.try_wait().unwrap().map(|_| id.clone())).collect()
    }

    /// Looks until there are so many, all alive. A dead one is reported, as the manager does with a worker that fell silent.
    async fn until(&mut self, fleet: &AutoScalingFleet, size: usize) {
        let watch = Stopwatch::start();
        loop {
            fleet.reconcile().await.unwrap();
            let dead = self.look(fleet).await;
            if dead.is_empty() && self.0.len() == size {
                return;
            }
            for id in dead {
                fleet.mark_unhealthy("g", &id).await.unwrap();
            }
            assert!(watch.elapsed() < Duration::from_secs(30), "{} processes, not {size}", self.0.len());
            sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        for child in self.0.values_mut() {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

#[tokio::test]
async fn a_killed_process_is_replaced_and_the_group_comes_and_goes() {
    let env = Env::system();
    let aws = or_skip!("a_killed_process_is_replaced_and_the_group_comes_and_goes", on_moto(&env, &["g".to_owned()]).await);
    let fleet = aws.fleet(None).looking_every(Duration::ZERO);
    let offers = Offers { slots: 1, memory: 1 << 20, named: BTreeMap::new() };
    fleet.ensure(GroupSpec { name: "g".to_owned(), min: 0, max: 3, offers }).await.unwrap();
    let mut machines = Supervisor::default();
    fleet.set_desired("g", 3).await.unwrap();
    machines.until(&fleet, 3).await;
    let before: Vec<String> = machines.0.keys().cloned().collect();

    machines.0.get_mut(&before[1]).unwrap().kill().unwrap();
    machines.0.get_mut(&before[1]).unwrap().wait().unwrap();
    machines.until(&fleet, 3).await;
    let after: Vec<String> = machines.0.keys().cloned().collect();
    assert!(!after.contains(&before[1]) && after.contains(&before[0]) && after.contains(&before[2]), "{before:?} {after:?}");

    fleet.protect("g", &before[2], true).await.unwrap();
    fleet.set_desired("g", 0).await.unwrap();
    machines.until(&fleet, 1).await;
    assert_eq!(machines.0.keys().collect::<Vec<_>>(), [&before[2]], "whoever works is left alone");
    assert!(fleet.trouble("g").await.unwrap().unwrap().contains("1 members too many"));
    fleet.protect("g", &before[2], false).await.unwrap();
    machines.until(&fleet, 0).await;
}
