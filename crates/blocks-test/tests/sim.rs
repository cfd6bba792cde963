//! The simulator replays: the same seed gives the same trace, under faults, crashes and many tasks.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tidemill_base::{ErrorKind, Result};
use tidemill_blocks::Blocks;
use tidemill_blocks::queue::{NewMessage, QueueSettings, Receive};
use tidemill_blocks::table::{Condition, Key, Range, Write, read_all};
use tidemill_blocks_test::sim::{Sim, run_and_replay, run_seed, sweep};
use tidemill_runtime::{Kind, Shutdown, Tasks, sleep};

const HOUR: Duration = Duration::from_secs(3600);
const TASKS: usize = 30;

/// Takes messages and completes each in the table, once, whatever happens; for ever.
async fn work(blocks: Blocks) -> Result<()> {
    loop {
        let how = Receive::up_to(4, Duration::from_secs(10)).waiting(Duration::from_secs(5));
        let Ok(got) = blocks.queue.receive("tasks", how).await else {
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        for d in got {
            sleep(Duration::from_millis(500)).await;
            let done = Write::put(Key::new("done", d.body.clone()), d.receipt.0.clone(), Condition::Absent);
            match blocks.table.transact("results", vec![done]).await {
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::Conflict => {}
                Err(_) => continue,
            }
            drop(blocks.queue.ack("tasks", &[d.receipt]).await);
        }
    }
}

/// Three workers, one of which crashes again and again, do every task.
async fn workers_finish(sim: &Sim) -> Result<()> {
    let plain = sim.blocks();
    plain.queue.ensure("tasks", QueueSettings::default()).await?;
    plain.table.ensure("results").await?;
    plain.queue.send("tasks", (0..TASKS).map(|n| NewMessage::now(format!("{n:02}"))).collect()).await?;
    let tasks = Tasks::new("simulated", Shutdown::new());
    for name in ["w1", "w2", "w3"] {
        let component = sim.component(name);
        let blocks = component.blocks(plain);
        let env = sim.env().clone();
        tasks.spawn("worker", Kind::Essential, async move {
            loop {
                if name == "w3" {
                    component.crash_after(1 + env.random_below(20));
                }
                tokio::select! {
                    biased;
                    () = component.crashed() => {}
                    never = work(blocks.clone()) => return never,
                }
                sleep(Duration::from_secs(3)).await;
                component.restart();
            }
        });
    }
    loop {
        let done = read_all(plain.table.as_ref(), "results", Range::all("done", 100)).await?;
        let left = plain.queue.stats("tasks").await?;
        if done.len() == TASKS && left.oldest_age.is_none() {
            sim.note(&format!("done with {:?}", sim.faults().counts()));
            return Ok(());
        }
        sleep(Duration::from_secs(1)).await;
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 0..10 {
        let run = run_and_replay(seed, HOUR, workers_finish).expect("the seed replays");
        run.outcome.expect("the work is done");
        assert!(run.trace.len() > TASKS * 2, "the trace has every call: {} lines", run.trace.len());
        assert!(run.simulated > Duration::from_secs(2) && run.simulated < HOUR);
    }
    let hash = |seed| run_seed(seed, HOUR, workers_finish).hash();
    assert_ne!(hash(1), hash(2));
}

#[test]
fn many_seeds_pass() {
    sweep(100, HOUR, workers_finish);
}

#[test]
fn what_does_not_follow_from_the_seed_is_found() {
    let outside = AtomicU64::new(0);
    let leaky = async |sim: &Sim| {
        sim.note("same");
        sim.note(&format!("outside {}", outside.fetch_add(1, Ordering::Relaxed)));
        Ok(())
    };
    let e = run_and_replay(1, HOUR, leaky).expect_err("the runs differ");
    assert!(e.message().contains("line 1 is `0.000000 outside 0`") && e.message().contains("outside 1"), "{e}");
}

#[test]
fn a_scenario_that_waits_for_ever_ends_at_the_wall() {
    let run = run_seed(1, HOUR, async |sim: &Sim| {
        sim.blocks().queue.ensure("q", QueueSettings::default()).await?;
        loop {
            sim.blocks().queue.receive("q", Receive::up_to(1, HOUR).waiting(Duration::from_secs(20))).await?;
        }
        #[expect(unreachable_code, reason = "it gives the closure its type")]
        Ok(())
    });
    assert_eq!(run.outcome.expect_err("it never ends").kind(), ErrorKind::Unavailable);
    assert!(run.simulated >= HOUR);
}

#[test]
fn a_failing_seed_is_named() {
    let fails_at_three = async |sim: &Sim| {
        sim.note("a line of the trace");
        if sim.seed() == 3 { Err(tidemill_base::Error::internal("an invariant does not hold")) } else { Ok(()) }
    };
    let panic = catch_unwind(AssertUnwindSafe(|| sweep(5, HOUR, fails_at_three))).expect_err("seed 3 fails");
    let told = panic.downcast_ref::<String>().expect("a message");
    for part in ["seed 3 failed", "TIDEMILL_SIM_SEED=3", "an invariant does not hold", "a line of the trace"] {
        assert!(told.contains(part), "{told}");
    }
}
