//! Processes that tasks leave behind.

use std::time::Duration;

use tidemill_batch::model::FailureClass;
use tidemill_runtime::{Stopwatch, sleep};

use super::rig::{Rig, command, shell, with_timeout};

#[tokio::test]
async fn a_child_with_a_session_of_its_own_ends_with_its_task() {
    let rig = Rig::real().await;
    let marks = rig.scratch.path().join("marks");
    std::fs::create_dir(&marks).unwrap();
    // One is left by a task that ends well, one has another home, one is a grandchild in yet another session, one's task is killed.
    let script = format!(
        "cd /; child() {{ setsid sh -c \"sleep 2; touch '{0}/$1'\" >/dev/null 2>&1 & }}; \
         case $index in 1) child a;; 2) HOME=/tmp child b;; 3) setsid sh -c \"setsid sh -c 'sleep 2; touch {0}/c' & wait\" & \
         sleep 0.1;; 4) child d; trap '' TERM; sleep 9; sleep 9;; esac",
        marks.display()
    );
    let folded = rig.run_processes(with_timeout(shell(&script), Duration::from_millis(600)), 4).await;
    assert_eq!((folded.succeeded.as_slice(), folded.failed[&3].class), ([0, 1, 2].as_slice(), FailureClass::Timeout), "{folded:?}");
    sleep(Duration::from_millis(2500)).await;
    let left: Vec<_> = std::fs::read_dir(&marks).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(left.is_empty(), "{left:?} lived on");
}

#[tokio::test]
async fn engines_and_tasks_that_a_killed_worker_has_left_are_ended_at_the_next_start() {
    let rig = Rig::real().await;
    let scratch = rig.settings("w").scratch;
    let mut left = Vec::new();
    for place in ["engines/python/engine-1", "slots/0/0", "staged/task"] {
        let folder = scratch.join(place);
        std::fs::create_dir_all(&folder).unwrap();
        let mut command = std::process::Command::new("sleep");
        left.push((place, command.arg("600").current_dir(&folder).spawn().unwrap()));
    }
    rig.run_processes(command(&["true"]), 1).await;
    for (place, mut child) in left {
        let watch = Stopwatch::start();
        while child.try_wait().unwrap().is_none() && watch.elapsed() < Duration::from_secs(5) {
            sleep(Duration::from_millis(10)).await;
        }
        let ended = child.try_wait().unwrap();
        child.kill().unwrap();
        assert!(ended.is_some_and(|e| !e.success()), "what worked in `{place}` lived on");
    }
    assert!(!scratch.join("engines/python/engine-1").exists(), "its folder is still there");
}
