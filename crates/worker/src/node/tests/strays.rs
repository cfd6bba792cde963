//! Processes that tasks leave behind.

use std::time::Duration;

use tidemill_batch::model::FailureClass;
use tidemill_runtime::sleep;

use super::rig::{Rig, shell, with_timeout};

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
