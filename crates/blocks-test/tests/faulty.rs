//! The faulty wrappers do what they say: calm ones change nothing, rough ones go wrong in each way, as often for the same seed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use object_store::path::Path;
use tidemill_base::{ErrorKind, Result};
use tidemill_blocks::Blocks;
use tidemill_blocks::ledger::{Ledger, Statement};
use tidemill_blocks::objects::{self, Objects};
use tidemill_blocks::queue::{NewMessage, Queue, QueueSettings, ReceiptOutcome, Receive};
use tidemill_blocks::table::{Condition, Key, Range, Table, Write, read_all};
use tidemill_blocks_test::faulty::{Fault, FaultPlan, Faults};
use tidemill_blocks_test::sim::memory_blocks;
use tidemill_blocks_test::{Harness, run_simulated};

fn calm(h: &Harness) -> Blocks {
    let blocks = memory_blocks(h.env()).expect("blocks in memory can be made");
    Faults::new(FaultPlan::calm(1)).component("calm").blocks(&blocks)
}

async fn calm_queue(h: &Harness) -> Arc<dyn Queue> {
    calm(h).queue
}

async fn calm_table(h: &Harness) -> Arc<dyn Table> {
    calm(h).table
}

async fn calm_ledger(h: &Harness) -> Arc<dyn Ledger> {
    calm(h).ledger
}

async fn calm_objects(h: &Harness) -> Objects {
    calm(h).objects
}

mod queue {
    tidemill_blocks_test::queue_suite!(simulated, super::calm_queue);
}

mod table {
    tidemill_blocks_test::table_suite!(simulated, super::calm_table);
}

mod ledger {
    tidemill_blocks_test::ledger_suite!(simulated, super::calm_ledger);
}

mod store {
    tidemill_blocks_test::objects_suite!(simulated, super::calm_objects);
}

const LEASE: Duration = Duration::from_secs(600);

fn put(sort: &str) -> Write {
    Write::put(Key::new("p", sort.to_owned()), "v", Condition::Absent)
}

/// Runs `test` with blocks as they are and a component under `plan`.
fn under(plan: FaultPlan, test: impl AsyncFnOnce(&Blocks, &Blocks, &Faults) -> Result<()>) {
    run_simulated(async |h: &Harness| {
        let plain = memory_blocks(h.env())?;
        plain.queue.ensure("q", QueueSettings::default()).await?;
        plain.table.ensure("t").await?;
        plain.ledger.transact(vec![Statement::new("CREATE TABLE l (id TEXT PRIMARY KEY)", vec![])]).await?;
        let faults = Faults::new(plan);
        let faulty = faults.component("one").blocks(&plain);
        test(&plain, &faulty, &faults).await
    })
    .expect("the calls on plain blocks succeed");
}

async fn stored(plain: &Blocks) -> Result<(u64, usize, usize, bool)> {
    let sent = plain.queue.stats("q").await?.ready;
    let items = read_all(plain.table.as_ref(), "t", Range::all("p", 100)).await?.len();
    let rows = plain.ledger.query("SELECT id FROM l", vec![]).await?.len();
    let object = objects::get_opt(plain.objects.as_ref(), &Path::from("b/o")).await?;
    Ok((sent, items, rows, object.is_some()))
}

/// One write on each block; all must fail as `Unavailable`.
async fn writes_fail(blocks: &Blocks) {
    let insert = vec![Statement::new("INSERT INTO l VALUES ('x')", vec![])];
    let answers = [
        blocks.queue.send("q", vec![NewMessage::now("x")]).await.map(drop),
        blocks.table.transact("t", vec![put("x")]).await.map(drop),
        blocks.ledger.transact(insert).await.map(drop),
        objects::put(blocks.objects.as_ref(), &Path::from("b/o"), "x").await,
    ];
    for answer in answers {
        assert_eq!(answer.expect_err("the call was to fail").kind(), ErrorKind::Unavailable);
    }
}

#[test]
fn refused_and_throttled_calls_have_no_effect() {
    for (plan, fault) in [
        (FaultPlan { refuse: 1.0, ..FaultPlan::calm(1) }, Fault::Refused),
        (FaultPlan { throttle: 1.0, ..FaultPlan::calm(1) }, Fault::Throttled),
    ] {
        under(plan, async |plain, faulty, faults| {
            writes_fail(faulty).await;
            assert_eq!(stored(plain).await?, (0, 0, 0, false));
            assert_eq!(faults.counts(), BTreeMap::from([(fault, 4)]));
            Ok(())
        });
    }
}

#[test]
fn calls_whose_reply_is_lost_took_effect() {
    under(FaultPlan { lose_reply: 1.0, ..FaultPlan::calm(1) }, async |plain, faulty, faults| {
        writes_fail(faulty).await;
        assert_eq!(stored(plain).await?, (1, 1, 1, true));
        assert_eq!(faults.counts(), BTreeMap::from([(Fault::LostReply, 4)]));
        // A call that fails by itself keeps its own error, and has lost nothing.
        let taken = faulty.table.transact("t", vec![put("x")]).await.expect_err("the item is there");
        assert_eq!(taken.kind(), ErrorKind::Conflict);
        let there = objects::put_new(faulty.objects.as_ref(), &Path::from("b/o"), "y").await?;
        assert!(!there);
        assert_eq!(faults.count(Fault::LostReply), 4);
        Ok(())
    });
}

#[test]
fn a_lost_write_many_may_be_half_done() {
    let mut happened = std::collections::BTreeSet::new();
    for seed in 0..10 {
        under(FaultPlan { lose_reply: 1.0, ..FaultPlan::calm(seed) }, async |plain, faulty, _| {
            let writes = (0..50).map(|n| Write::put(Key::new("p", format!("{n:02}")), "v", Condition::Any)).collect();
            faulty.table.write_many("t", writes).await.expect_err("the reply is lost");
            happened.insert(stored(plain).await?.1);
            Ok(())
        });
    }
    assert!(happened.len() > 5 && happened.iter().all(|n| (1..=50).contains(n)), "of 50 writes there happened {happened:?}");
}

#[test]
fn a_message_reaches_a_second_receiver_under_a_running_lease() {
    under(FaultPlan { duplicate: 1.0, ..FaultPlan::calm(1) }, async |_, faulty, faults| {
        assert!(!faulty.queue.capabilities().strict_leases);
        faulty.queue.send("q", vec![NewMessage::now("x")]).await?;
        let how = Receive::up_to(10, LEASE);
        let first = faulty.queue.receive("q", how).await?;
        let other = faults.component("another").queue(faulty.queue.clone());
        let second = other.receive("q", how).await?;
        assert_eq!((first.len(), &first), (1, &second));
        assert_eq!(faults.count(Fault::Duplicated), 1);
        assert_eq!(other.ack("q", &[second[0].receipt.clone()]).await?, [ReceiptOutcome::Done]);
        assert_eq!(faulty.queue.ack("q", &[first[0].receipt.clone()]).await?, [ReceiptOutcome::Stale]);
        assert!(faulty.queue.receive("q", how).await?.is_empty(), "what was acknowledged does not come back");
        Ok(())
    });
}

#[test]
fn a_message_that_was_acknowledged_comes_once_more() {
    under(FaultPlan { revive: 1.0, ..FaultPlan::calm(1) }, async |_, faulty, faults| {
        assert!(!faulty.queue.capabilities().strict_leases);
        faulty.queue.send("q", vec![NewMessage::now("x")]).await?;
        let how = Receive::up_to(1, LEASE);
        let first = faulty.queue.receive("q", how).await?;
        assert_eq!(faulty.queue.ack("q", &[first[0].receipt.clone()]).await?, [ReceiptOutcome::Done]);
        let mut again = Vec::new();
        for _ in 0..40 {
            again.extend(faulty.queue.receive("q", how).await?);
        }
        assert_eq!((again, faults.count(Fault::Revived)), (first.clone(), 1));
        assert_eq!(faulty.queue.ack("q", &[first[0].receipt.clone()]).await?, [ReceiptOutcome::Stale]);
        Ok(())
    });
}

#[test]
fn messages_come_in_another_order_under_the_right_ids() {
    under(FaultPlan { reorder: 1.0, ..FaultPlan::calm(1) }, async |_, faulty, faults| {
        let sent: Vec<String> = (0..20).map(|n| format!("m{n}")).collect();
        let ids = faulty.queue.send("q", sent.iter().map(|m| NewMessage::now(m.clone())).collect()).await?;
        let got = faulty.queue.receive("q", Receive::up_to(20, LEASE)).await?;
        assert_ne!(got.iter().map(|d| d.body.clone()).collect::<Vec<_>>(), sent);
        assert_eq!(got.len(), 20);
        for d in got {
            let n = ids.iter().position(|id| *id == d.id).expect("the id was given");
            assert_eq!(d.body, sent[n]);
        }
        assert_eq!(faults.count(Fault::Reordered), 2);
        Ok(())
    });
}

#[test]
fn shortened_answers_lose_nothing() {
    under(FaultPlan { shorten: 1.0, ..FaultPlan::calm(3) }, async |plain, faulty, faults| {
        for n in 0..30 {
            plain.table.transact("t", vec![put(&format!("{n:02}"))]).await?;
        }
        let items = read_all(faulty.table.as_ref(), "t", Range::all("p", 10)).await?;
        assert_eq!(items.len(), 30);
        assert!(faults.count(Fault::Shortened) > 3, "{:?}", faults.counts());
        Ok(())
    });
}

#[test]
fn delays_take_simulated_time() {
    under(FaultPlan { delay: 1.0, longest_delay: Duration::from_secs(100), ..FaultPlan::calm(1) }, async |_, faulty, faults| {
        let started = tidemill_runtime::Stopwatch::start();
        for _ in 0..10 {
            faulty.queue.stats("q").await?;
        }
        assert_eq!(faults.count(Fault::Delayed), 10);
        assert!(started.elapsed() > Duration::from_secs(100), "{:?}", started.elapsed());
        Ok(())
    });
}

#[test]
fn a_crash_ends_one_component_between_write_and_reply() {
    let mut took_effect = [false; 2];
    for seed in 0..20 {
        under(FaultPlan::calm(seed), async |plain, other, faults| {
            let victim = faults.component("victim");
            let seen = victim.blocks(plain);
            victim.crash_after(2);
            seen.table.transact("t", vec![put("a")]).await?;
            assert!(!victim.is_crashed());
            let dying = seen.table.transact("t", vec![put("b")]).await.expect_err("it dies in this call");
            assert_eq!(dying.kind(), ErrorKind::Unavailable);
            victim.crashed().await;
            writes_fail(&seen).await;
            let (_, items, rows, _) = stored(plain).await?;
            assert_eq!(rows, 0, "the dead write nothing");
            took_effect[items - 1] = true;
            other.table.transact("t", vec![put("c")]).await?;
            assert_eq!(faults.count(Fault::Crashed), 5);
            victim.restart();
            seen.table.transact("t", vec![put("d")]).await?;
            Ok(())
        });
    }
    assert_eq!(took_effect, [true; 2], "a dying call takes effect with some seeds and not with others");
}

#[test]
fn the_same_seed_goes_wrong_in_the_same_way() {
    let run = |seed| {
        let mut seen = (Vec::new(), BTreeMap::new());
        under(FaultPlan::rough(seed), async |_, faulty, faults| {
            for n in 0..300 {
                let sent = faulty.queue.send("q", vec![NewMessage::now("a"), NewMessage::now("b")]).await;
                let put = faulty.table.transact("t", vec![put(&n.to_string())]).await;
                let got = faulty.queue.receive("q", Receive::up_to(3, LEASE)).await;
                seen.0.push((sent.is_ok(), put.is_ok(), got.map_err(|e| e.kind())));
            }
            seen.1 = faults.counts();
            Ok(())
        });
        seen
    };
    let (first, counts) = run(5);
    assert_eq!((first.clone(), counts.clone()), run(5));
    assert_ne!(first, run(6).0);
    let all = [Fault::Refused, Fault::Throttled, Fault::LostReply, Fault::Delayed, Fault::Duplicated, Fault::Reordered, Fault::Shortened];
    for fault in all {
        assert!(counts.contains_key(&fault), "{fault:?} never happened: {counts:?}");
    }
}

#[test]
fn after_calm_everything_works() {
    under(FaultPlan { refuse: 1.0, ..FaultPlan::rough(1) }, async |_, faulty, faults| {
        faulty.queue.stats("q").await.expect_err("everything is refused");
        faults.calm();
        for _ in 0..200 {
            faulty.queue.stats("q").await?;
        }
        Ok(())
    });
}
