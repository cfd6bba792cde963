//! Several engines, one list of tasks.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use tidemill_engine::{PoolSettings, Task, TaskResult, class};
use tidemill_runtime::{Stopwatch, sleep};

use crate::support::{block_on, error, is_alive, kill_engine, place, place_of, rig, tasks, value, words};

/// A hundred thousand tasks over two engines that are killed again and again: each has its result, once.
#[test]
fn every_task_has_one_result_whatever_is_killed() {
    block_on(async {
        const TASKS: usize = 100_000;
        let mut rig = rig(place("tiny_engine"), PoolSettings::new(2), words("v"));
        rig.submit((0..TASKS as u64).map(|id| Task::new(id, format!("echo {id}"))).collect()).await;
        let (mut seen, mut had, mut kills, mut next_kill) = (vec![false; TASKS], 0, 0, 5_000);
        while had < TASKS {
            for outcome in rig.batch().await.outcomes {
                assert_eq!(value(&outcome), format!("v{}", outcome.task));
                let seen = &mut seen[usize::try_from(outcome.task).unwrap()];
                assert!(!std::mem::replace(seen, true), "task {} has two results", outcome.task);
                had += 1;
            }
            if had > next_kill && kill_engine(&rig.pool, kills % 2) {
                kills += 1;
                next_kill = had + 8_000;
            }
        }
        assert!(kills >= 5, "only {kills} engines were killed");
        let status = rig.pool.status();
        assert_eq!(status.unsettled, 0);
        assert!(status.engines.iter().map(|e| e.replaced).sum::<u64>() >= 5, "{status:?}");
        assert!(status.engines.iter().any(|e| e.last_loss.as_ref().is_some_and(|l| l.contains("signal 9"))), "{status:?}");
        rig.end().await;
    });
}

#[test]
fn tasks_that_end_their_engine_fail_and_their_neighbours_do_not() {
    block_on(async {
        let mut rig = rig(place("tiny_engine"), PoolSettings::new(2), words(""));
        let mut list: Vec<String> = (0..600).map(|i| format!("echo {i}")).collect();
        list[100] = "abort".into();
        list[300] = "exit 9".into();
        list[301] = "panic softly".into();
        let list: Vec<&str> = list.iter().map(String::as_str).collect();
        let had = rig.run(&list).await;
        for (i, outcome) in had.iter().enumerate() {
            match i {
                100 => assert!(error(outcome).class == class::CRASH && error(outcome).message.contains("signal 6"), "{outcome:?}"),
                300 => assert!(error(outcome).class == class::CRASH && error(outcome).message.contains("exit code 9"), "{outcome:?}"),
                301 => assert_eq!(error(outcome).class, "panic"),
                _ => assert_eq!(value(outcome), i.to_string()),
            }
        }
        rig.end().await;
    });
}

#[test]
fn a_task_that_hangs_fails_with_its_limit() {
    block_on(async {
        let mut session = words("");
        session.limit = Some(Duration::from_millis(400));
        let mut rig = rig(place("tiny_engine"), PoolSettings::new(2), session);
        rig.run(&["echo a"; 50]).await;
        let mut list = vec!["echo a"; 200];
        list[20] = "hang";
        let had = rig.run(&list).await;
        let failed: Vec<_> = had.iter().filter(|o| matches!(o.result, TaskResult::Failed(_))).collect();
        assert_eq!((failed.len(), failed[0].task, error(failed[0]).class.as_str()), (1, 20, class::TIMEOUT));
    });
}

#[test]
fn a_task_that_takes_too_much_memory_fails_for_that() {
    block_on(async {
        let mut place = place("tiny_engine");
        place.spec.limits.memory = Some(150 << 20);
        let mut rig = rig(place, PoolSettings::new(1), words(""));
        let mut list = vec!["echo a"; 30];
        list[10] = "grow 4000";
        let had = rig.run(&list).await;
        assert_eq!(error(&had[10]).class, class::MEMORY, "{:?}", had[10]);
        assert!(had.iter().filter(|o| o.task != 10).all(|o| value(o) == "a"));
    });
}

#[test]
fn an_engine_that_has_grown_is_replaced_between_tasks() {
    block_on(async {
        let mut settings = PoolSettings::new(1);
        settings.recycle_growth = Some(3.0);
        let mut rig = rig(place("tiny_engine"), settings, words(""));
        let before = value(&rig.run(&["pid", "sleep 1300"]).await[0]);
        rig.run(&["grow 100", "sleep 1300"]).await;
        for _ in 0..100 {
            if rig.pool.status().engines[0].replaced == 1 {
                break;
            }
            sleep(Duration::from_millis(50)).await;
        }
        let after = value(&rig.run(&["pid"]).await[0]);
        assert_ne!(before, after);
        assert_eq!(rig.pool.status().engines[0].last_loss, None, "it went by itself");
        rig.end().await;
    });
}

#[test]
fn an_engine_whose_program_has_changed_is_replaced() {
    block_on(async {
        let original = place("tiny_engine");
        let program = original.folder.path().join("engine-v1");
        let copy = |to: &Path| std::fs::copy(&original.spec.program, to).unwrap();
        copy(&program);
        let mut settings = PoolSettings::new(2);
        settings.version_check = Duration::from_millis(100);
        let mut rig = rig(place_of(program.clone()), settings, words(""));
        let before = value(&rig.run(&["pid"]).await[0]);
        // As an update does it: written beside, then moved over.
        let new = program.with_extension("new");
        copy(&new);
        std::fs::rename(&new, &program).unwrap();
        for _ in 0..200 {
            if rig.pool.status().engines.iter().all(|e| e.replaced == 1 && e.pid != 0) {
                break;
            }
            sleep(Duration::from_millis(50)).await;
        }
        let after = value(&rig.run(&["pid"]).await[0]);
        assert_ne!(before, after);
        assert_eq!(rig.pool.status().engines.iter().map(|e| e.replaced).collect::<Vec<_>>(), [1, 1]);
        // And as a caller says it.
        let mut spec = rig.place.spec.clone();
        spec.env.insert("GREETING".into(), "new".into());
        rig.pool.replace(spec).unwrap();
        while !value(&rig.run(&["env"]).await[0]).contains("GREETING=new") {
            sleep(Duration::from_millis(20)).await;
        }
        rig.end().await;
    });
}

#[test]
fn without_an_engine_tasks_fail_with_the_reason() {
    block_on(async {
        let mut place = place("rogue_engine");
        place.spec.args = vec!["dies-early".into()];
        let mut rig = rig(place, PoolSettings::new(2), words(""));
        let had = rig.run(&["a", "b"]).await;
        for outcome in &had {
            assert!(error(outcome).message.contains("cannot find the licence file"), "{outcome:?}");
        }
    });
}

#[test]
fn what_runs_can_be_cancelled() {
    block_on(async {
        let mut settings = PoolSettings::new(1);
        settings.cancel_grace = Duration::from_millis(300);
        let mut rig = rig(place("tiny_engine"), settings, words(""));
        rig.run(&["echo a"]).await;
        rig.submit(tasks(&["sleep 60000", "echo b", "echo c"])).await;
        sleep(Duration::from_millis(200)).await;
        rig.pool.cancel(rig.session, Some(&BTreeSet::from([0, 1]))).await;
        let had = rig.collect(3).await;
        assert_eq!((&had[0].result, &had[1].result), (&TaskResult::Cancelled, &TaskResult::Cancelled));
        assert_eq!(value(&had[2]), "c");
        rig.pool.close(rig.session).await;
        let refused = rig.pool.submit(rig.session, tasks(&["echo d"])).await.unwrap_err();
        assert!(refused.message().contains("is not open"), "{refused}");
        rig.end().await;
    });
}

#[test]
fn a_long_task_holds_up_nobody() {
    block_on(async {
        let mut rig = rig(place("tiny_engine"), PoolSettings::new(2), words(""));
        // Both engines know the session, and that its tasks are short.
        rig.run(&["echo a"; 4000]).await;
        let mut list = vec!["work 20"; 4000];
        list[0] = "sleep 2500";
        rig.submit(tasks(&list)).await;
        let watch = Stopwatch::start();
        let mut short = 0;
        while short < 3999 {
            short += rig.batch().await.outcomes.iter().filter(|o| o.task != 0).count();
        }
        assert!(watch.elapsed() < Duration::from_millis(2000), "short tasks waited {:?} for the long one", watch.elapsed());
        let last = rig.batch().await.outcomes;
        assert_eq!((last.len(), last[0].task, rig.pool.status().unsettled), (1, 0, 0));
        rig.end().await;
    });
}

#[test]
fn sessions_take_turns_and_give_way() {
    block_on(async {
        let mut settings = PoolSettings::new(1);
        settings.open_sessions = 2;
        let mut rig = rig(place("tiny_engine"), settings, words("first "));
        let more: Vec<(u32, String)> =
            ["second ", "third ", "fourth "].into_iter().map(|p| (rig.pool.open(words(p)), p.to_owned())).collect();
        for _ in 0..3 {
            for (session, prefix) in &more {
                rig.pool.submit(*session, tasks(&["echo x"; 40])).await.unwrap();
                let mut had = 0;
                while had < 40 {
                    let batch = rig.batch().await;
                    assert_eq!(batch.session, *session);
                    assert!(batch.outcomes.iter().all(|o| value(o) == format!("{prefix}x")));
                    had += batch.outcomes.len();
                }
            }
        }
        let record = {
            rig.submit(tasks(&["echo x"])).await;
            rig.batch().await.engine.unwrap()
        };
        assert_eq!((record.hello.language.as_str(), record.hello.loaded.len()), ("rust, tiny 1.0", 2));
        rig.end().await;
    });
}

#[test]
fn engines_end_with_their_pool() {
    block_on(async {
        let mut settings = PoolSettings::new(2);
        settings.stop_grace = Duration::from_millis(500);
        let mut rig = rig(place("tiny_engine"), settings, words(""));
        let pids: Vec<String> = rig.run(&["pid"; 40]).await.iter().map(value).collect();
        rig.submit(tasks(&["sleep 60000"; 10])).await;
        sleep(Duration::from_millis(200)).await;
        rig.end().await;
        for pid in pids {
            assert!(!is_alive(&pid), "process {pid} outlives its pool");
        }
    });
}
