//! Worker groups that a script starts: the suite on a real script that starts processes, and scripts that fail.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers included")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tidemill_base::{Env, ErrorKind, HumanDuration};
use tidemill_blocks::fleet::{Fleet, GroupSpec, MemberState, Offers};
use tidemill_blocks_test::Harness;
use tidemill_embedded::fleet::command::{CommandFleet, CommandFleetSettings};
use tidemill_runtime::{Stopwatch, sleep};

/// A script of this folder's own: a link to the one that starts processes. It is linked and not written, since a file that was just
/// written cannot be run while another test's child still has it open.
fn script(folder: &Path) -> PathBuf {
    let path = folder.join("fleet.sh");
    let real = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/fleet-processes.sh");
    if !path.exists() {
        std::os::unix::fs::symlink(real, &path).unwrap();
    }
    path
}

/// Has the folder's script do this instead.
fn instead(folder: &Path, text: &str) {
    std::fs::write(folder.join("instead.sh"), text).unwrap();
}

fn settings(folder: &Path) -> CommandFleetSettings {
    let mut settings = CommandFleetSettings::new(folder.join("data"), script(folder));
    settings.look_every = Duration::ZERO;
    settings.healthy_after = Duration::from_millis(50);
    settings
}

fn open(folder: &Path) -> CommandFleet {
    CommandFleet::open(settings(folder), Env::system()).unwrap()
}

fn spec(min: u32, max: u32) -> GroupSpec {
    let named = BTreeMap::from([("gpu".to_owned(), 1)]);
    GroupSpec { name: "g".into(), min, max, offers: Offers { slots: 3, memory: 1024, named } }
}

/// Ends what a test's groups have left running.
async fn end_all(fleet: &CommandFleet) {
    for group in fleet.groups().await.unwrap() {
        fleet.ensure(GroupSpec { min: 0, ..group.spec.clone() }).await.unwrap();
        fleet.set_desired(&group.spec.name, 0).await.unwrap();
    }
    let watch = Stopwatch::start();
    while fleet.groups().await.unwrap().iter().any(|g| !g.members.is_empty()) {
        fleet.reconcile().await.unwrap();
        assert!(watch.elapsed() < Duration::from_secs(20), "members stay");
        sleep(Duration::from_millis(20)).await;
    }
}

mod command {
    use super::*;

    async fn make(h: &Harness) -> Arc<dyn Fleet> {
        Arc::new(open(h.folder()))
    }

    tidemill_blocks_test::fleet_suite!(real, make);
}

#[tokio::test]
async fn the_script_is_told_what_to_start_and_members_outlive_the_manager() {
    let folder = tempfile::tempdir().unwrap();
    let fleet = open(folder.path());
    fleet.ensure(spec(2, 4)).await.unwrap();
    fleet.reconcile().await.unwrap();
    fleet.reconcile().await.unwrap();
    let before = fleet.groups().await.unwrap().remove(0).members;
    assert_eq!(before.len(), 2);
    let requests = std::fs::read_to_string(folder.path().join("requests")).unwrap();
    let expected = format!(r#"{{"group":"g","member":"{}","slots":3,"memory":1024,"named":{{"gpu":1}}}}"#, before[0].id);
    assert!(requests.lines().any(|l| l == expected), "{requests}");
    drop(fleet);

    // Also for a manager without the record: the script knows them.
    std::fs::remove_file(folder.path().join("data/fleet-command/fleet.json")).unwrap();
    let fleet = open(folder.path());
    fleet.ensure(spec(0, 4)).await.unwrap();
    for _ in 0..3 {
        fleet.reconcile().await.unwrap();
    }
    let after = fleet.groups().await.unwrap().remove(0);
    assert_eq!(after.desired, 2, "whoever takes over sends nobody home");
    let after = after.members;
    let ids = |members: &[tidemill_blocks::fleet::Member]| members.iter().map(|m| m.id.clone()).collect::<Vec<_>>();
    assert_eq!(ids(&after), ids(&before));
    end_all(&fleet).await;
}

#[tokio::test]
async fn a_script_that_fails_is_named_with_its_status_and_its_words_and_does_not_storm() {
    let folder = tempfile::tempdir().unwrap();
    // It takes longer to fail than a member to be healthy.
    let text =
        "echo call >> \"$FLEET_DIR/calls.$1\"\nif [ $1 = list ]; then exit 0; fi\nsleep 0.1; echo no partition of that name >&2\nexit 3\n";
    instead(folder.path(), text);
    let mut settings = settings(folder.path());
    settings.backoff.base = HumanDuration(Duration::from_secs(60));
    let fleet = CommandFleet::open(settings, Env::system()).unwrap();
    fleet.ensure(spec(2, 4)).await.unwrap();
    for _ in 0..5 {
        fleet.reconcile().await.unwrap();
    }
    let trouble = fleet.trouble("g").await.unwrap().unwrap();
    for part in ["fleet.sh start g w-", "exit status: 3", "no partition of that name"] {
        assert!(trouble.contains(part), "`{trouble}` does not say `{part}`");
    }
    let starts = std::fs::read_to_string(folder.path().join("calls.start")).unwrap().lines().count();
    assert_eq!(starts, 2, "the two of the first look, and then a pause");
}

#[tokio::test]
async fn a_script_that_cannot_list_loses_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let fleet = open(folder.path());
    fleet.ensure(spec(1, 4)).await.unwrap();
    fleet.reconcile().await.unwrap();
    let before = fleet.groups().await.unwrap();
    for (broken, says) in [("echo squeue: timed out >&2; exit 1\n", "squeue: timed out"), ("echo not json\n", "`not json`")] {
        instead(folder.path(), broken);
        let e = fleet.reconcile().await.unwrap_err();
        assert!(e.chain().contains(says), "{}", e.chain());
        assert!(fleet.trouble("g").await.unwrap().unwrap().contains(says));
        assert_eq!(fleet.groups().await.unwrap()[0].members.len(), before[0].members.len());
    }
    std::fs::remove_file(folder.path().join("instead.sh")).unwrap();
    fleet.reconcile().await.unwrap();
    assert_eq!((fleet.trouble("g").await.unwrap(), fleet.groups().await.unwrap()[0].members.len()), (None, 1));
    end_all(&fleet).await;
}

#[tokio::test]
async fn a_call_that_hangs_is_ended_and_arguments_meet_no_shell() {
    let folder = tempfile::tempdir().unwrap();
    instead(folder.path(), "sleep 60\n");
    let mut hanging = settings(folder.path());
    hanging.call_limit = Duration::from_millis(300);
    let fleet = CommandFleet::open(hanging, Env::system()).unwrap();
    fleet.ensure(spec(1, 1)).await.unwrap();
    let watch = Stopwatch::start();
    let e = fleet.reconcile().await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Unavailable);
    assert!(e.message().contains("list g") && watch.elapsed() < Duration::from_secs(10), "{e}");
    drop(fleet);

    // A member's name that a shell would take apart, as an earlier manager's script may list it.
    let listing = "echo \"$#:$3\" >> \"$FLEET_DIR/args\"\n[ \"$1\" = list ] && echo '{\"member\":\"w $(touch pwned); x\"}'\nexit 0\n";
    instead(folder.path(), listing);
    let fleet = open(folder.path());
    fleet.ensure(spec(0, 1)).await.unwrap();
    fleet.reconcile().await.unwrap();
    fleet.drain("g", "w $(touch pwned); x", true).await.unwrap();
    fleet.reconcile().await.unwrap();
    let args = std::fs::read_to_string(folder.path().join("args")).unwrap();
    assert!(args.lines().any(|l| l == "4:w $(touch pwned); x"), "{args}");
}

#[tokio::test]
async fn a_member_without_a_machine_waits_and_has_no_age() {
    let folder = tempfile::tempdir().unwrap();
    let text = "[ \"$1\" = list ] && cat \"$FLEET_DIR/listing\"\nexit 0\n";
    instead(folder.path(), text);
    let fleet = open(folder.path());
    std::fs::write(folder.path().join("listing"), "{\"member\":\"w-1\",\"state\":\"waiting\"}\n").unwrap();
    fleet.ensure(spec(1, 1)).await.unwrap();
    fleet.reconcile().await.unwrap();
    let first = fleet.groups().await.unwrap().remove(0).members.remove(0);
    sleep(Duration::from_millis(100)).await;
    fleet.reconcile().await.unwrap();
    let second = fleet.groups().await.unwrap().remove(0).members.remove(0);
    assert_eq!((first.state, second.state), (MemberState::Starting, MemberState::Starting));
    assert!(second.started_at > first.started_at, "its time has not begun");
    std::fs::write(folder.path().join("listing"), "{\"member\":\"w-1\"}\n").unwrap();
    fleet.reconcile().await.unwrap();
    sleep(Duration::from_millis(100)).await;
    fleet.reconcile().await.unwrap();
    assert_eq!(fleet.groups().await.unwrap().remove(0).members.remove(0).state, MemberState::Running);
}

#[tokio::test]
async fn wrong_scripts_and_names_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut absent = settings(folder.path());
    absent.script = "/no/such/script".into();
    let fleet = CommandFleet::open(absent.clone(), Env::system()).unwrap();
    assert_eq!(CommandFleet::open(absent, Env::system()).unwrap_err().kind(), ErrorKind::Unavailable, "two managers may not run one fleet");
    fleet.ensure(spec(0, 1)).await.unwrap();
    let e = fleet.reconcile().await.unwrap_err();
    assert!(e.message().contains("/no/such/script") && e.message().contains("chmod +x"), "{e}");
}
