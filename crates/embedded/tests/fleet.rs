//! Worker groups of real processes. Whatever a failing test leaves behind ends by itself after a minute.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers included")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use tidemill_base::{Env, ErrorKind};
use tidemill_blocks::fleet::{Fleet, Group, GroupSpec, MemberState, Offers};
use tidemill_embedded::fleet::{LocalFleet, LocalFleetSettings, MemberCommand};
use tidemill_runtime::{Stopwatch, sleep};

/// Ends on SIGTERM, as any process does that does not care.
const PLAIN: &str = "exec sleep 60";
/// Does not end on SIGTERM.
const STUBBORN: &str = "trap '' TERM; echo ready; sleep 60; sleep 60";

fn settings(data: &Path, script: &str) -> LocalFleetSettings {
    let args = ["-c", script].map(String::from).to_vec();
    let command = MemberCommand { program: "/bin/sh".into(), args, env: BTreeMap::from([("WHO".into(), "{member}".into())]) };
    let mut settings = LocalFleetSettings::new(data, command);
    settings.healthy_after = Duration::from_millis(300);
    settings
}

fn open(data: &Path, script: &str) -> LocalFleet {
    LocalFleet::open(settings(data, script), Env::system()).unwrap()
}

fn spec(min: u32, max: u32) -> GroupSpec {
    GroupSpec { name: "g".into(), min, max, offers: Offers { slots: 3, memory: 1024, named: BTreeMap::new() } }
}

async fn with_group(data: &Path, script: &str, size: u32) -> LocalFleet {
    let fleet = open(data, script);
    fleet.ensure(spec(size, 10)).await.unwrap();
    fleet.reconcile().await.unwrap();
    fleet
}

async fn group(fleet: &LocalFleet) -> Group {
    fleet.groups().await.unwrap().remove(0)
}

async fn ids(fleet: &LocalFleet) -> BTreeSet<String> {
    group(fleet).await.members.into_iter().map(|m| m.id).collect()
}

/// Reconciles until `done` says so.
async fn until(fleet: &LocalFleet, what: &str, done: impl Fn(&Group) -> bool) {
    let waited = Stopwatch::start();
    while !done(&group(fleet).await) {
        assert!(waited.elapsed() < Duration::from_secs(20), "{what}: {:?}", group(fleet).await);
        fleet.reconcile().await.unwrap();
        sleep(Duration::from_millis(20)).await;
    }
}

async fn until_log_says(fleet: &LocalFleet, member: &str, word: &str) {
    let waited = Stopwatch::start();
    while !std::fs::read_to_string(fleet.log_path(member)).unwrap_or_default().contains(word) {
        assert!(waited.elapsed() < Duration::from_secs(20), "the log of {member} does not say {word}");
        sleep(Duration::from_millis(10)).await;
    }
}

fn record(data: &Path) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(data.join("fleet.json")).unwrap()).unwrap()
}

fn pid(data: &Path, member: &str) -> u64 {
    record(data)["groups"]["g"]["members"][member]["process"]["pid"].as_u64().unwrap()
}

/// Neither there nor running: a zombie waits for its parent only.
fn is_running(pid: u64) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|s| !s.rsplit_once(") ").unwrap().1.starts_with('Z'))
}

async fn until_not_running(pid: u64) {
    let waited = Stopwatch::start();
    while is_running(pid) {
        assert!(waited.elapsed() < Duration::from_secs(20), "process {pid} is still there");
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn members_are_started_as_told_and_become_running() {
    let dir = tempfile::tempdir().unwrap();
    let script = "echo group={group} member={member} slots={slots} memory={memory} who=$WHO; echo pgrp=$(cut -d' ' -f5 /proc/$$/stat) pid=$$; exec sleep 60";
    let fleet = with_group(dir.path(), script, 2).await;
    assert!(group(&fleet).await.members.iter().all(|m| m.state == MemberState::Starting));
    for id in ids(&fleet).await {
        assert!(id.starts_with("w-"), "{id}");
        until_log_says(&fleet, &id, &format!("group=g member={id} slots=3 memory=1024 who={id}")).await;
        let pid = pid(dir.path(), &id);
        until_log_says(&fleet, &id, &format!("pgrp={pid} pid={pid}")).await;
    }
    until(&fleet, "running", |g| g.members.iter().all(|m| m.state == MemberState::Running)).await;
    fleet.set_desired("g", 4).await.unwrap();
    fleet.reconcile().await.unwrap();
    assert_eq!(ids(&fleet).await.len(), 4);
    fleet.shutdown(Duration::from_secs(5)).await.unwrap();
}

#[tokio::test]
async fn a_member_that_dies_or_is_sick_is_replaced_and_takes_along_all_it_had_started() {
    let dir = tempfile::tempdir().unwrap();
    let fleet = with_group(dir.path(), "sleep 60 & echo child=$!; wait", 3).await;
    until(&fleet, "running", |g| g.members.iter().all(|m| m.state == MemberState::Running)).await;
    let before: Vec<_> = ids(&fleet).await.into_iter().collect();
    let mut children = Vec::new();
    for id in &before {
        until_log_says(&fleet, id, "child=").await;
        let log = std::fs::read_to_string(fleet.log_path(id)).unwrap();
        children.push(log.trim().strip_prefix("child=").unwrap().parse::<u64>().unwrap());
    }
    assert!(children.iter().all(|c| is_running(*c)));

    fleet.mark_unhealthy("g", &before[0]).await.unwrap();
    until_not_running(children[0]).await;
    let killed = std::process::Command::new("kill").args(["-9", &pid(dir.path(), &before[1]).to_string()]).status();
    assert!(killed.unwrap().success());
    until(&fleet, "replaced", |g| g.members.len() == 3 && g.members.iter().all(|m| !before[..2].contains(&m.id))).await;
    until_not_running(children[1]).await;
    assert!(ids(&fleet).await.contains(&before[2]) && is_running(children[2]), "the third is left alone");
    fleet.shutdown(Duration::from_secs(5)).await.unwrap();
    until_not_running(children[2]).await;
}

#[tokio::test]
async fn a_restarted_manager_adopts_the_living_and_replaces_the_dead() {
    let dir = tempfile::tempdir().unwrap();
    let fleet = with_group(dir.path(), PLAIN, 2).await;
    fleet.set_desired("g", 3).await.unwrap();
    fleet.reconcile().await.unwrap();
    let before = ids(&fleet).await;
    let protected = before.last().unwrap().clone();
    fleet.protect("g", &protected, true).await.unwrap();
    let pids: Vec<_> = before.iter().map(|id| pid(dir.path(), id)).collect();
    drop(fleet);

    let fleet = open(dir.path(), PLAIN);
    assert_eq!((ids(&fleet).await, group(&fleet).await.desired), (before.clone(), 3));
    assert!(group(&fleet).await.members.iter().any(|m| m.id == protected && m.protected));
    fleet.reconcile().await.unwrap();
    assert_eq!(before.iter().map(|id| pid(dir.path(), id)).collect::<Vec<_>>(), pids, "nobody was started anew");

    // An adopted member is watched, drained and killed like any other.
    let (first, second) = (before.first().unwrap(), before.iter().nth(1).unwrap());
    fleet.mark_unhealthy("g", first).await.unwrap();
    fleet.drain("g", second, false).await.unwrap();
    until(&fleet, "one sick, one drained", |g| g.members.len() == 2 && g.members.iter().all(|m| m.id != *first && m.id != *second)).await;
    assert!(!is_running(pids[0]) && !is_running(pids[1]) && is_running(pids[2]));
    fleet.shutdown(Duration::from_secs(5)).await.unwrap();
    assert!(!is_running(pids[2]));
}

#[tokio::test]
async fn a_stranger_with_a_members_number_is_neither_adopted_nor_ended() {
    let dir = tempfile::tempdir().unwrap();
    let fleet = with_group(dir.path(), PLAIN, 1).await;
    let id = ids(&fleet).await.pop_first().unwrap();
    let stranger = pid(dir.path(), &id);
    drop(fleet);
    let mut changed = record(dir.path());
    let ticks = &mut changed["groups"]["g"]["members"][&id]["process"]["start_ticks"];
    *ticks = (ticks.as_u64().unwrap() - 1).into();
    std::fs::write(dir.path().join("fleet.json"), changed.to_string()).unwrap();

    let fleet = open(dir.path(), PLAIN);
    assert_eq!(ids(&fleet).await.len(), 0);
    fleet.reconcile().await.unwrap();
    fleet.shutdown(Duration::from_secs(5)).await.unwrap();
    assert!(is_running(stranger));

    // Its true record makes it ours again, and lets the test leave nothing behind.
    changed["groups"]["g"]["members"][&id]["process"] = serde_json::Value::Null;
    drop(fleet);
    std::fs::write(dir.path().join("fleet.json"), changed.to_string()).unwrap();
    let fleet = open(dir.path(), PLAIN);
    assert_eq!(pid(dir.path(), &id), stranger, "a member whose number was not written down is found by its name");
    fleet.shutdown(Duration::from_secs(5)).await.unwrap();
    assert!(!is_running(stranger));
}

#[tokio::test]
async fn a_command_that_cannot_run_is_said_so_and_does_not_storm() {
    for (program, script, says) in
        [("/no/such/program", "", "/no/such/program"), ("/bin/sh", "echo no licence found >&2; exit 3", "no licence found")]
    {
        let dir = tempfile::tempdir().unwrap();
        let mut settings = settings(dir.path(), script);
        settings.command.program = program.into();
        let fleet = LocalFleet::open(settings, Env::system()).unwrap();
        fleet.ensure(spec(2, 2)).await.unwrap();
        for _ in 0..60 {
            fleet.reconcile().await.unwrap();
            sleep(Duration::from_millis(10)).await;
        }
        let trouble = fleet.trouble("g").await.unwrap().unwrap();
        assert!(trouble.contains(says), "{trouble}");
        let started = std::fs::read_dir(dir.path().join("workers")).unwrap().count();
        assert!((2..=4).contains(&started), "{started} starts in 0.6 s");
    }
}

#[tokio::test]
async fn shrinking_lets_protected_members_be() {
    let dir = tempfile::tempdir().unwrap();
    let fleet = with_group(dir.path(), PLAIN, 0).await;
    fleet.set_desired("g", 3).await.unwrap();
    fleet.reconcile().await.unwrap();
    let all = ids(&fleet).await;
    let youngest = all.last().unwrap();
    fleet.protect("g", youngest, true).await.unwrap();
    fleet.set_desired("g", 1).await.unwrap();
    until(&fleet, "one left", |g| g.members.len() == 1).await;
    assert_eq!(ids(&fleet).await, BTreeSet::from([youngest.clone()]));
    fleet.set_desired("g", 0).await.unwrap();
    fleet.reconcile().await.unwrap();
    assert!(is_running(pid(dir.path(), youngest)) && fleet.trouble("g").await.unwrap().is_some());
    fleet.protect("g", youngest, false).await.unwrap();
    until(&fleet, "empty", |g| g.members.is_empty()).await;
}

#[tokio::test]
async fn a_drained_member_may_finish_and_is_killed_when_it_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = settings(dir.path(), STUBBORN);
    settings.drain_grace = Duration::from_millis(600);
    let fleet = LocalFleet::open(settings, Env::system()).unwrap();
    fleet.ensure(spec(1, 2)).await.unwrap();
    fleet.reconcile().await.unwrap();
    let id = ids(&fleet).await.pop_first().unwrap();
    until_log_says(&fleet, &id, "ready").await;
    let waited = Stopwatch::start();
    fleet.drain("g", &id, true).await.unwrap();
    fleet.reconcile().await.unwrap();
    assert!(group(&fleet).await.members.iter().any(|m| m.id == id && m.state == MemberState::Draining));
    until(&fleet, "the drained one is gone", |g| g.members.len() == 1 && g.members[0].id != id).await;
    assert!(waited.elapsed() >= Duration::from_millis(600), "{:?}", waited.elapsed());
    fleet.shutdown(Duration::from_millis(100)).await.unwrap();
}

#[tokio::test]
async fn a_shutdown_waits_for_those_who_finish_and_ends_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let script = "trap 'sleep 0.3; echo finished; exit 0' TERM; echo ready; while :; do sleep 0.05; done";
    let fleet = with_group(dir.path(), script, 2).await;
    let all = ids(&fleet).await;
    for id in &all {
        until_log_says(&fleet, id, "ready").await;
    }
    fleet.shutdown(Duration::from_secs(10)).await.unwrap();
    fleet.reconcile().await.unwrap();
    assert_eq!(ids(&fleet).await.len(), 0, "nothing is started after a shutdown");
    for id in &all {
        assert!(std::fs::read_to_string(fleet.log_path(id)).unwrap().contains("finished"));
    }
    drop(fleet);

    let fleet = open(dir.path(), STUBBORN);
    fleet.reconcile().await.unwrap();
    let again = ids(&fleet).await;
    assert_eq!(again.len(), 2, "the next manager starts as many again");
    for id in &again {
        until_log_says(&fleet, id, "ready").await;
    }
    let pids: Vec<_> = again.iter().map(|id| pid(dir.path(), id)).collect();
    fleet.shutdown(Duration::from_millis(200)).await.unwrap();
    assert!(pids.into_iter().all(|p| !is_running(p)));
}

#[tokio::test]
async fn wrong_settings_and_names_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let fleet = with_group(dir.path(), PLAIN, 0).await;
    let e = LocalFleet::open(settings(dir.path(), PLAIN), Env::system()).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Unavailable, "two managers may not run one fleet");
    for name in ["", "A", "a b", "../x", &"x".repeat(41)] {
        assert_eq!(fleet.ensure(GroupSpec { name: name.into(), ..spec(0, 1) }).await.unwrap_err().kind(), ErrorKind::Invalid, "{name}");
    }
    assert_eq!(fleet.ensure(spec(3, 2)).await.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(fleet.set_desired("g", 11).await.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(fleet.set_desired("h", 1).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(fleet.drain("g", "w-1", true).await.unwrap_err().kind(), ErrorKind::NotFound);

    drop(fleet);
    std::fs::write(dir.path().join("fleet.json"), "{").unwrap();
    let e = LocalFleet::open(settings(dir.path(), PLAIN), Env::system()).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Corrupt);
    assert!(e.message().contains("fleet.json"), "{e}");
}
