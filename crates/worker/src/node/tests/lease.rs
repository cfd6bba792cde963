//! The lease loop in paused time, with simulated tasks.

use std::time::Duration;

use tidemill_base::RunSet;
use tidemill_batch::protocol::keys::{self, DONE_QUEUE, STATE_TABLE};
use tidemill_batch::protocol::*;
use tidemill_blocks::table::{Condition, Write};
use tidemill_runtime::sleep;

use super::rig::{JOB, Rig, command, spec, takes};
use tidemill_batch::model::RunSpec;

async fn put_fence(rig: &Rig, range: u64, state: &RangeState) {
    let write = Write::put(keys::fence(JOB, 0, range), encode(state).unwrap(), Condition::Any);
    rig.blocks.table.transact(STATE_TABLE, vec![write]).await.unwrap();
}

fn other(rig: &Rig, settled: RunSet) -> RangeState {
    let lease_until = rig.env.now() + Duration::from_secs(20);
    RangeState { epoch: 4, worker: "other".into(), lease_until, seq: 2, settled, finished: false }
}

#[tokio::test(start_paused = true)]
async fn a_range_is_run_reported_and_acknowledged() {
    let rig = Rig::paused().await;
    rig.stage(0, command(&["x"])).await;
    let range = rig.release(0, 100, 50).await;
    let started = rig.start("w", &takes(Duration::from_secs(1)));
    let folded = rig.finished(0, range).await;
    assert_eq!(folded.succeeded, (100..150).collect::<Vec<_>>());
    assert!(folded.reports.len() > 5, "reported while it ran: {}", folded.reports.len());
    assert!(folded.stats.values().all(|s| s.run_us >= 1_000_000 && s.attempt == 1 && s.class == 0));
    let waits: Vec<_> = (100..150).map(|t| folded.stats[&t].wait_us).collect();
    assert!(waits[49] >= 24_000_000 && waits[0] < 1_000_000, "{waits:?}");
    sleep(Duration::from_secs(3)).await;
    assert_eq!(rig.blocks.queue.stats(&keys::work_queue("c")).await.unwrap().in_flight, 0);
    assert_eq!(rig.blocks.queue.stats(DONE_QUEUE).await.unwrap().ready as usize, folded.reports.len());
    let beat = rig.heartbeat("w").await.unwrap();
    assert_eq!((beat.phase, beat.ranges, beat.tasks_done), (WorkerPhase::Ready, 0, 50));
    started.end().await;
    assert_eq!(rig.heartbeat("w").await.unwrap().phase, WorkerPhase::Gone);
}

#[tokio::test(start_paused = true)]
async fn claims_are_kept_alive_through_long_tasks() {
    let rig = Rig::paused().await;
    rig.stage(0, command(&["x"])).await;
    let range = rig.release(0, 0, 1).await;
    let one = rig.start("w1", &takes(Duration::from_secs(600)));
    sleep(Duration::from_secs(5)).await;
    let two = rig.start("w2", &takes(Duration::from_secs(1)));
    for _ in 0..50 {
        sleep(Duration::from_secs(10)).await;
        let fence = rig.fence(0, range).await.unwrap();
        assert!(fence.epoch == 1 && fence.lease_until > rig.env.now(), "{fence:?}");
        assert!(rig.heartbeat("w1").await.is_some_and(|b| b.running.len() == 1));
    }
    let folded = rig.finished(0, range).await;
    assert_eq!((folded.succeeded, folded.reports[0].epoch), (vec![0], 1));
    one.end().await;
    two.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_live_claim_of_another_is_left_alone_until_it_ends() {
    let rig = Rig::paused().await;
    rig.stage(0, command(&["x"])).await;
    let range = rig.release(0, 0, 10).await;
    put_fence(&rig, range, &other(&rig, RunSet::from_run(0, 4))).await;
    let began = rig.env.now();
    let started = rig.start("w", &takes(Duration::from_millis(100)));
    let folded = rig.finished(0, range).await;
    let took = rig.env.now().since(began);
    assert!(took >= Duration::from_secs(20) && took < Duration::from_secs(30), "{took:?}");
    assert_eq!(folded.succeeded, (4..10).collect::<Vec<_>>(), "goes on from what was settled");
    let fence = rig.fence(0, range).await.unwrap();
    assert_eq!((fence.epoch, fence.settled.len(), fence.finished), (5, 10, true));
    assert!(fence.seq > 2);
    started.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_finished_range_that_is_delivered_again_is_told_and_acknowledged() {
    let rig = Rig::paused().await;
    rig.stage(0, command(&["x"])).await;
    let range = rig.release(0, 0, 10).await;
    put_fence(&rig, range, &RangeState { finished: true, ..other(&rig, RunSet::from_run(0, 10)) }).await;
    let started = rig.start("w", &takes(Duration::from_millis(100)));
    sleep(Duration::from_secs(1)).await;
    assert_eq!(rig.blocks.queue.stats(&keys::work_queue("c")).await.unwrap().in_flight, 0);
    let told = rig.blocks.queue.browse(DONE_QUEUE, 10).await.unwrap();
    assert_eq!(decode::<Done>("done", &told[0].body).unwrap(), Done { job: JOB.into(), stage: 0, range, seq: 2 });
    assert!(rig.fold(0, range).await.reports.is_empty());
    started.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_range_that_is_taken_away_is_dropped_at_the_next_report() {
    let rig = Rig::paused().await;
    rig.stage(0, command(&["x"])).await;
    let range = rig.release(0, 0, 10).await;
    let started = rig.start("w", &takes(Duration::from_secs(2)));
    sleep(Duration::from_millis(2500)).await;
    let mut taken = rig.fence(0, range).await.unwrap();
    let mine = rig.fold(0, range).await;
    assert_eq!(mine.succeeded.len(), 2);
    (taken.epoch, taken.worker) = (2, "other".into());
    taken.lease_until = rig.env.now() + Duration::from_secs(3600);
    put_fence(&rig, range, &taken).await;
    sleep(Duration::from_secs(60)).await;
    assert_eq!(rig.fold(0, range).await.succeeded.len(), 2, "nothing was reported under a lost claim");
    let beat = rig.heartbeat("w").await.unwrap();
    assert!(beat.running.is_empty() && beat.ranges == 0, "{beat:?}");
    started.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_job_stops_within_a_second_and_a_paused_one_hands_back() {
    for control in [Control::Cancel, Control::Pause] {
        let rig = Rig::paused().await;
        rig.stage(0, command(&["x"])).await;
        let range = rig.release(0, 0, 10).await;
        let started = rig.start("w", &takes(Duration::from_secs(5)));
        sleep(Duration::from_secs(6)).await;
        rig.say(keys::control_job(JOB), control).await;
        sleep(Duration::from_secs(1)).await;
        let folded = rig.fold(0, range).await;
        if control == Control::Cancel {
            assert_eq!((folded.succeeded.len(), folded.cancelled.len(), folded.finished), (2, 8, true));
        } else {
            assert_eq!((folded.succeeded.len(), folded.returned.len(), folded.finished), (2, 6, false));
            assert_eq!(rig.finished(0, range).await.succeeded.len(), 4, "what ran was finished");
        }
        let late = rig.release(0, 50, 5).await;
        let folded = rig.finished(0, late).await;
        assert_eq!(folded.cancelled.len() + folded.returned.len(), 5, "found at the claim");
        started.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_drain_hands_back_what_is_not_started_and_finishes_the_rest() {
    for by_manager in [true, false] {
        let rig = Rig::paused().await;
        rig.stage(0, command(&["x"])).await;
        let range = rig.release(0, 0, 10).await;
        let started = rig.start("w", &takes(Duration::from_secs(5)));
        sleep(Duration::from_secs(1)).await;
        if by_manager {
            rig.say(keys::control_worker("w"), Control::Drain).await;
        } else {
            started.shutdown.drain();
        }
        sleep(Duration::from_secs(1)).await;
        let folded = rig.fold(0, range).await;
        assert_eq!((folded.returned, folded.finished), ((2..10).collect(), false));
        assert_eq!(rig.heartbeat("w").await.unwrap().phase, WorkerPhase::Draining);
        let late = rig.release(0, 50, 5).await;
        let folded = rig.finished(0, range).await;
        assert_eq!(folded.succeeded, [0, 1]);
        started.end().await;
        assert_eq!(rig.heartbeat("w").await.unwrap().phase, WorkerPhase::Gone);
        assert!(rig.fence(0, late).await.is_none(), "nothing new was taken");
    }
}

#[tokio::test(start_paused = true)]
async fn tasks_that_outlive_the_grace_of_a_drain_are_handed_back() {
    let rig = Rig::paused().await;
    rig.stage(0, command(&["x"])).await;
    let range = rig.release(0, 0, 3).await;
    let started = rig.start("w", &takes(Duration::from_secs(500)));
    sleep(Duration::from_secs(1)).await;
    started.shutdown.drain();
    let folded = rig.finished(0, range).await;
    assert_eq!(folded.returned, [0, 1, 2]);
    assert!(folded.succeeded.is_empty() && folded.failed.is_empty());
    started.end().await;
}

#[tokio::test(start_paused = true)]
async fn slots_are_kept_busy_by_ranges_of_one_task() {
    let rig = Rig::paused().await;
    rig.stage(0, command(&["x"])).await;
    let mut ranges = Vec::new();
    for task in 0..60 {
        ranges.push(rig.release(0, task, 1).await);
    }
    let began = rig.env.now();
    let started = rig.start("w", &takes(Duration::from_secs(1)));
    for range in ranges {
        rig.finished(0, range).await;
    }
    let took = rig.env.now().since(began);
    assert!(took < Duration::from_millis(32_000), "60 s of work on two slots took {took:?}");
    started.end().await;
}

#[tokio::test(start_paused = true)]
async fn two_workers_share_and_a_dead_one_is_replaced() {
    let rig = Rig::paused().await;
    rig.stage(0, command(&["x"])).await;
    let range = rig.release(0, 0, 20).await;
    let dead = {
        let settings = rig.settings("w1");
        let shutdown = tidemill_runtime::Shutdown::new();
        let tasks = tidemill_runtime::Tasks::new("worker", shutdown);
        crate::WorkerNode::new(settings, rig.blocks.clone(), &takes(Duration::from_secs(1)), rig.env.clone(), tasks).unwrap().run()
    };
    let crashed = tidemill_runtime::timeout(Duration::from_millis(5500), "crash", dead).await;
    assert!(crashed.is_err());
    let before = rig.fold(0, range).await.succeeded.len();
    assert_eq!(before, 10);
    let two = rig.start("w2", &takes(Duration::from_secs(1)));
    let folded = rig.finished(0, range).await;
    assert_eq!(folded.succeeded, (0..20).collect::<Vec<_>>(), "each counted once");
    assert_eq!(folded.stats.len(), 20);
    two.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_million_noops_are_columns_only() {
    let rig = Rig::paused().await;
    rig.stage(0, spec(RunSpec::Noop)).await;
    let mut ranges = Vec::new();
    for i in 0..3 {
        ranges.push(rig.release(0, i * 10_000, 10_000).await);
    }
    let started = rig.start("w", &takes(Duration::ZERO));
    for range in ranges {
        let folded = rig.finished(0, range).await;
        assert_eq!((folded.succeeded.len(), folded.stats.len(), folded.reports.len()), (10_000, 10_000, 2));
    }
    started.end().await;
}

#[tokio::test(start_paused = true)]
async fn what_only_another_worker_can_run_is_left_to_it() {
    let rig = Rig::paused().await;
    let mut wide = command(&["x"]);
    wide.resources.cpus = 3;
    rig.stage(0, wide).await;
    let small = rig.start("w", &takes(Duration::from_millis(50)));
    let mut settings = rig.settings("large");
    settings.offers.slots = 4;
    let large = rig.start_with(settings, &takes(Duration::from_millis(50)), rig.blocks.clone());
    rig.until("the large one is known", async || rig.heartbeat("large").await.is_some_and(|b| b.phase == WorkerPhase::Ready)).await;
    // More ranges than a message may be delivered, so that handing on does not wear them out.
    for n in 0..12 {
        let range = rig.release(0, n, 1).await;
        let folded = rig.finished(0, range).await;
        assert_eq!(folded.succeeded, [n], "{folded:?}");
    }
    small.end().await;
    large.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_task_that_can_never_fit_fails_and_says_why() {
    let rig = Rig::paused().await;
    let mut wide = command(&["x"]);
    wide.resources.cpus = 3;
    rig.stage(0, wide).await;
    let mut gpus = command(&["x"]);
    gpus.resources.named.insert("gpu".into(), 2);
    rig.stage(1, gpus).await;
    let started = rig.start("w", &takes(Duration::from_secs(1)));
    for (stage, words) in [(0, "needs 3 slots, this worker offers 2"), (1, "needs 2 of `gpu`, this worker offers 1")] {
        let range = rig.release(stage, 0, 2).await;
        let folded = rig.finished(stage, range).await;
        assert!(folded.failed.len() == 2 && folded.failed[&0].message.contains(words), "{:?}", folded.failed);
    }
    started.end().await;
}
