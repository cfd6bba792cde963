//! Tasks that a worker has not started go to others who have nothing to do.

use std::time::Duration;

use tidemill_batch::protocol::keys;
use tidemill_blocks::fleet::Offers;
use tidemill_runtime::sleep;

use super::rig::{JOB, Rig, command, some_long, takes};

#[tokio::test(start_paused = true)]
async fn a_worker_that_is_stuck_hands_its_tail_back_and_takes_nothing_before_it_gets_on() {
    let rig = Rig::paused().await;
    rig.stage(0, command(&["x"])).await;
    let long = Duration::from_secs(30);
    let range = rig.release(0, 0, 40).await;
    let one = rig.start("w1", &some_long(2, long));
    sleep(Duration::from_secs(3)).await;
    let beat = rig.heartbeat("w1").await.unwrap();
    assert_eq!((beat.waiting, beat.idle, beat.running.len()), (38, 0, 2));
    rig.ask_back("w1", 2).await;
    sleep(Duration::from_millis(500)).await;
    let folded = rig.fold(0, range).await;
    assert_eq!((folded.returned, folded.finished), ((2..40).collect(), false));

    // As the manager does it: released anew, for whoever asks. Both ask; the one that is stuck had asked before it was.
    let two = rig.start("w2", &some_long(2, long));
    sleep(Duration::from_secs(1)).await;
    let anew = [rig.release(0, 2, 10).await, rig.release(0, 12, 10).await, rig.release(0, 22, 18).await];
    let mut done = Vec::new();
    for range in anew {
        let folded = rig.finished(0, range).await;
        assert!(folded.reports.iter().all(|r| r.worker == "w2"), "a worker that is stuck has taken it");
        done.extend(folded.succeeded);
    }
    done.sort_unstable();
    assert_eq!(done, (2..40).collect::<Vec<_>>());
    assert!(!rig.fold(0, range).await.finished, "it waited for the long ones");
    let folded = rig.finished(0, range).await;
    assert_eq!((folded.succeeded, folded.returned.len()), (vec![0, 1], 38), "each ran once");
    // It takes work again.
    two.end().await;
    let late = rig.release(0, 50, 4).await;
    assert_eq!(rig.finished(0, late).await.reports[0].worker, "w1");
    one.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_gets_on_shares_what_is_left() {
    let rig = Rig::paused().await;
    rig.stage(0, command(&["x"])).await;
    let range = rig.release(0, 0, 42).await;
    let started = rig.start("w1", &takes(Duration::from_secs(5)));
    sleep(Duration::from_secs(6)).await;
    rig.ask_back("w1", 2).await;
    sleep(Duration::from_millis(500)).await;
    // Two have run, two are running; of the other 38 as many go as there are slots for them.
    let folded = rig.fold(0, range).await;
    assert_eq!((folded.returned, folded.finished), ((23..42).collect(), false));
    let folded = rig.finished(0, range).await;
    assert_eq!(folded.succeeded, (0..23).collect::<Vec<_>>());
    started.end().await;
}

#[tokio::test(start_paused = true)]
async fn what_nobody_else_can_run_is_not_handed_back() {
    let rig = Rig::paused().await;
    let mut spec = command(&["x"]);
    spec.resources.named = [("gpu".to_owned(), 1)].into();
    rig.stage(0, spec).await;
    let range = rig.release(0, 0, 20).await;
    let started = rig.start("w1", &takes(Duration::from_secs(5)));
    sleep(Duration::from_secs(6)).await;
    let mut offers = rig.settings("w2").offers;
    offers.named.clear();
    rig.ask_back_for("w1", 2, offers).await;
    sleep(Duration::from_secs(1)).await;
    assert!(rig.fold(0, range).await.returned.is_empty());
    started.end().await;
}

#[tokio::test(start_paused = true)]
async fn whoever_idles_and_can_run_nothing_slows_nobody_down() {
    let rig = Rig::paused().await;
    rig.stage(0, command(&["x"])).await;
    let mut ranges = Vec::new();
    for task in 0..60 {
        ranges.push(rig.release(0, task, 1).await);
    }
    let useless = Offers { slots: 0, ..rig.settings("w2").offers };
    let began = rig.env.now();
    let started = rig.start("w1", &takes(Duration::from_secs(1)));
    for range in ranges {
        while !rig.fold(0, range).await.finished {
            rig.ask_back_for("w1", 2, useless.clone()).await;
            sleep(Duration::from_millis(300)).await;
        }
    }
    let took = rig.env.now().since(began);
    assert!(took < Duration::from_secs(33), "60 s of work on two slots took {took:?}");
    started.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_says_when_it_has_nothing_to_do_and_when_it_has() {
    let rig = Rig::paused().await;
    rig.stage(0, command(&["x"])).await;
    let started = rig.start("w", &takes(Duration::from_secs(4)));
    sleep(Duration::from_millis(600)).await;
    let idle = async || rig.heartbeat("w").await.unwrap().idle;
    assert_eq!(idle().await, 2);
    rig.release(0, 0, 3).await;
    sleep(Duration::from_millis(600)).await;
    let beat = rig.heartbeat("w").await.unwrap();
    assert_eq!((beat.idle, beat.waiting), (0, 1));
    sleep(Duration::from_millis(8_000)).await;
    // The third task was taken after four seconds and has ended after eight.
    assert_eq!(idle().await, 2);
    started.end().await;
    let key = keys::control_hand_back("w");
    assert!(key.partition != keys::control_job(JOB).partition && key.partition != keys::control_worker("w").partition);
}
