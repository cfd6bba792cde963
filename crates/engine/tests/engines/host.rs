//! One engine and its host: results, limits, ends.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use tidemill_engine::{Cause, Engine, Event, Limits, Task, User};
use tidemill_runtime::{Stopwatch, sleep};

use crate::support::{block_on, error, is_alive, opened, place, results, tasks, until_lost, value, words};

#[test]
fn results_come_in_order_and_state_stays_warm() {
    block_on(async {
        let place = place("tiny_engine");
        let mut engine = opened(&place.spec, words("hello ")).await;
        let hello = engine.hello_said();
        assert_eq!(
            (hello.kit.as_str(), hello.loaded[1].name.as_str(), hello.loaded[1].version.as_str()),
            ("tidemill-rust", "words", "2.1")
        );
        engine.run(1, false, &tasks(&["echo a", "echo b", "panic now", "calls"]));
        let had = results(&mut engine, 4).await;
        assert_eq!((value(&had[0]).as_str(), value(&had[1]).as_str(), value(&had[3]).as_str()), ("hello a", "hello b", "4"));
        assert!(error(&had[2]).class == "panic" && error(&had[2]).message.contains("asked to panic: now"), "{had:?}");
        engine.run(1, true, &[Task { id: 9, payload: "sum".into(), dependencies: ["5", "-3", "40"].map(Into::into).into() }]);
        assert_eq!(value(&results(&mut engine, 1).await[0]), "42");
        engine.run(1, false, &tasks(&["sleep 20", "echo last"]));
        engine.stop();
        let (had, loss) = until_lost(&mut engine).await;
        assert_eq!((value(&had[1]).as_str(), loss.cause, loss.unfinished.len()), ("hello last", Cause::Stopped, 0));
    });
}

#[test]
fn an_engine_sees_what_it_is_given_and_nothing_else() {
    block_on(async {
        let mut place = place("tiny_engine");
        place.spec.env.insert("GREETING".into(), "moin".into());
        let mut engine = opened(&place.spec, words("")).await;
        engine.run(1, false, &tasks(&["env"]));
        let env = value(&results(&mut engine, 1).await[0]);
        let names: Vec<&str> = env.lines().filter_map(|l| Some(l.split_once('=')?.0)).collect();
        assert!(env.contains("GREETING=moin\n"), "{env}");
        assert!(names.iter().all(|n| ["GREETING", "PATH", "LANG", "HOME", "TMPDIR", "OMP_NUM_THREADS"].contains(n)), "{names:?}");
        let home = env.lines().find_map(|l| l.strip_prefix("HOME=")).unwrap().to_owned();
        assert!(std::fs::metadata(&home).unwrap().is_dir());
        drop(engine);
        assert!(std::fs::metadata(&home).is_err(), "the engine's folder is still there");
    });
}

#[test]
fn a_crash_says_what_is_done_and_what_is_not() {
    block_on(async {
        let place = place("tiny_engine");
        let mut engine = opened(&place.spec, words("")).await;
        engine.run(1, false, &tasks(&["echo a", "sleep 40", "print the last words", "abort", "echo b"]));
        let (had, loss) = until_lost(&mut engine).await;
        // What was sent before is not lost: the sleep is longer than the time between two flushes.
        assert!(had.len() >= 2, "{had:?}");
        assert_eq!(loss.cause, Cause::Signal(6));
        assert_eq!(loss.unfinished.last(), Some(&(1, 4)));
        assert_eq!(had.len() + loss.unfinished.len(), 5);
        assert!(loss.log.contains("the last words") && loss.to_string().contains("abort"), "{loss:?}");

        let mut engine = opened(&place.spec, words("")).await;
        engine.run(1, true, &tasks(&["echo a", "echo b", "exit 7", "echo c"]));
        let (had, loss) = until_lost(&mut engine).await;
        assert_eq!((had.len(), loss.cause, loss.unfinished), (2, Cause::Exit(7), vec![(1, 2), (1, 3)]));
    });
}

/// The first result may be sent at once; the others have to wait for the thread, and that twice: it is started, then it is woken.
#[test]
fn results_do_not_wait_behind_a_long_task() {
    block_on(async {
        let place = place("tiny_engine");
        let mut engine = opened(&place.spec, words("")).await;
        engine.run(1, false, &tasks(&["echo a", "echo b", "echo c", "sleep 2000", "echo d"]));
        assert_eq!(results(&mut engine, 3).await.len(), 3);
        assert_eq!(value(&results(&mut engine, 2).await[1]), "d");
        engine.run(1, false, &tasks(&["echo a", "echo b", "echo c", "sleep 60000"]));
        assert_eq!(results(&mut engine, 3).await.len(), 3);
    });
}

#[test]
fn a_hang_is_ended_even_when_it_talks() {
    for word in ["hang", "flood"] {
        block_on(async {
            let place = place("tiny_engine");
            let mut session = words("");
            session.limit = Some(Duration::from_millis(300));
            let mut engine = opened(&place.spec, session).await;
            let watch = Stopwatch::start();
            engine.run(1, false, &tasks(&["sleep 100", word, "echo b"]));
            let (had, loss) = until_lost(&mut engine).await;
            assert_eq!((had.len(), &loss.cause), (1, &Cause::Task(Duration::from_millis(300))));
            assert_eq!(loss.unfinished, [(1, 1), (1, 2)]);
            assert!(watch.elapsed() < Duration::from_secs(5), "{:?}", watch.elapsed());
            assert_eq!(loss.log.contains("xxxx"), word == "flood");
        });
    }
}

#[test]
fn memory_over_the_limit_ends_an_engine() {
    block_on(async {
        let mut place = place("tiny_engine");
        place.spec.limits.memory = Some(100 << 20);
        let mut engine = opened(&place.spec, words("")).await;
        engine.run(1, false, &tasks(&["grow 20", "grow 200", "sleep 60000"]));
        let (_, loss) = until_lost(&mut engine).await;
        assert!(matches!(loss.cause, Cause::Memory { seen, limit } if seen > limit && limit == 100 << 20), "{loss:?}");
    });
}

#[test]
fn processor_time_over_the_limit_ends_an_engine() {
    block_on(async {
        let mut place = place("tiny_engine");
        place.spec.limits.cpu_seconds = Some(1);
        let mut engine = opened(&place.spec, words("")).await;
        engine.run(1, false, &tasks(&["work 60000000"]));
        let (_, loss) = until_lost(&mut engine).await;
        assert!(matches!(loss.cause, Cause::Signal(9 | 24)), "{loss:?}");
    });
}

#[test]
fn children_end_with_their_engine() {
    block_on(async {
        let place = place("tiny_engine");
        let mut engine = opened(&place.spec, words("")).await;
        engine.run(1, false, &tasks(&["child"]));
        let child = value(&results(&mut engine, 1).await[0]);
        assert!(is_alive(&child));
        engine.stop();
        let (_, loss) = until_lost(&mut engine).await;
        assert_eq!(loss.cause, Cause::Stopped);
        for _ in 0..100 {
            if !is_alive(&child) {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
        panic!("process {child} outlives its engine");
    });
}

/// Both pipes are full: the engine cannot write because nobody reads, the host cannot write because the engine does not read.
#[test]
fn full_pipes_in_both_directions_do_not_lock_up() {
    block_on(async {
        let place = place("tiny_engine");
        let mut engine = opened(&place.spec, words("")).await;
        let payload = format!("echo {}", "x".repeat(8000));
        let all: Vec<Task> = (0..4000).map(|id| Task::new(id, payload.clone())).collect();
        engine.run(1, false, &all);
        assert!(engine.backlog() > 32_000_000);
        sleep(Duration::from_millis(200)).await;
        let had = results(&mut engine, all.len()).await;
        assert!(had.iter().all(|o| value(o).len() == 8000));
    });
}

#[test]
fn a_result_that_is_too_large_fails_alone() {
    block_on(async {
        let mut place = place("tiny_engine");
        place.spec.limits = Limits { frame_bytes: 16 << 20, ..Limits::default() };
        let mut engine = opened(&place.spec, words("")).await;
        engine.run(1, false, &tasks(&["big 7000000", "big 17000000", "echo a"]));
        let had = results(&mut engine, 3).await;
        assert_eq!((value(&had[0]).len(), value(&had[2]).as_str()), (7_000_000, "a"));
        assert!(error(&had[1]).class == "too_large" && error(&had[1]).message.contains("17000000"), "{:?}", error(&had[1]));
    });
}

#[test]
fn cancelled_tasks_are_not_started() {
    block_on(async {
        let place = place("tiny_engine");
        let mut engine = opened(&place.spec, words("")).await;
        engine.run(1, false, &tasks(&["sleep 300", "echo a", "abort", "echo b"]));
        engine.run(1, false, &[Task::new(10, "abort")]);
        engine.cancel(1, &[2, 10]);
        let had = results(&mut engine, 5).await;
        assert_eq!((value(&had[1]).as_str(), value(&had[3]).as_str()), ("a", "b"));
        assert!([2, 4].iter().all(|i| had[*i].result == tidemill_engine::TaskResult::Cancelled), "{had:?}");
    });
}

#[test]
fn a_session_that_cannot_be_opened_says_why() {
    block_on(async {
        let place = place("tiny_engine");
        let mut engine = opened(&place.spec, words("")).await;
        engine.open(2, &Arc::new(words("refuse")));
        let Event::Refused { session: 2, error } = engine.event().await else { panic!() };
        assert_eq!((error.class.as_str(), error.message.as_str()), ("Refused", "the data says so"));
        engine.open(3, &Arc::new(tidemill_engine::Session::new(tidemill_engine::Function::Named("price".into()))));
        let Event::Refused { session: 3, error } = engine.event().await else { panic!() };
        assert!(error.message.contains("no function `price`; it has noop, program, words"), "{error:?}");
        engine.open(4, &Arc::new(words("abort")));
        let (_, loss) = until_lost(&mut engine).await;
        assert_eq!((loss.cause, loss.opening), (Cause::Signal(6), Some(4)));
    });
}

#[test]
fn an_engine_runs_as_another_user() {
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED an_engine_runs_as_another_user: only root may become another user");
        return;
    }
    block_on(async {
        let mut place = place("tiny_engine");
        // Where the other user can get at it.
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(place.folder.path(), open).unwrap();
        let program = place.folder.path().join("tiny_engine");
        std::fs::copy(&place.spec.program, &program).unwrap();
        place.spec.program = program;
        place.spec.user = Some(User { uid: 65534, gid: 65534 });
        let mut engine = opened(&place.spec, words("")).await;
        engine.run(1, false, &tasks(&["user"]));
        assert_eq!(value(&results(&mut engine, 1).await[0]), "65534");
    });
}

#[test]
fn an_idle_engine_that_does_not_answer_is_ended_and_one_that_does_is_kept() {
    block_on(async {
        let mut place = place("tiny_engine");
        (place.spec.limits.ping_every, place.spec.limits.ping) = (Duration::from_millis(100), Duration::from_millis(400));
        let mut engine = opened(&place.spec, words("")).await;
        assert!(tidemill_runtime::timeout(Duration::from_secs(1), "an idle engine's event", engine.event()).await.is_err());
        let stopped = std::process::Command::new("kill").args(["-STOP", &engine.hello_said().pid.to_string()]).status().unwrap();
        assert!(stopped.success());
        let (_, loss) = until_lost(&mut engine).await;
        assert_eq!(loss.cause, Cause::Ping(Duration::from_millis(400)));
    });
}

#[test]
fn a_program_that_is_not_there_is_an_error_and_leaves_nothing() {
    block_on(async {
        let mut place = place("tiny_engine");
        place.spec.program = "/no/such/engine".into();
        let loss = Engine::start(&place.spec, "e1").await.unwrap_err();
        assert!(matches!(&loss.cause, Cause::Start(why) if why.contains("/no/such/engine")), "{loss:?}");
        assert!(!place.spec.scratch.join("e1").exists());
    });
}
