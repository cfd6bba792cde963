//! The Python kit behind a pool, and the kit's own tests.

use std::path::PathBuf;
use std::process::Command;

use tidemill_engine::{EngineSpec, Function, PoolSettings, Session, SetUp, Task};

use crate::support::{Place, block_on, error, kill_engine, place_of, rig, value};

fn kit() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../python").canonicalize().unwrap()
}

/// Whether there is a Python with cloudpickle; says so for the test `name` if not.
fn has_python(name: &str) -> bool {
    let found = Command::new("python3").args(["-c", "import cloudpickle, sys; assert sys.version_info >= (3, 9)"]).output();
    let found = found.is_ok_and(|o| o.status.success());
    if !found {
        println!("SKIPPED {name}: there is no python3 of version 3.9 or later with cloudpickle");
    }
    found
}

const MODEL: &str = r#"
import os, sys, time

def load(rate):
    return {"rate": rate, "calls": 0, "pid": os.getpid()}

def price(model, years, *others):
    model["calls"] += 1
    if years == 13:
        raise ValueError("no thirteen")
    if years == 17:
        os._exit(3)
    if years == 19:
        sys.exit("leaving")
    if years == 23:
        print("hello from the model", flush=True)
    if years == 29 and os.fork() == 0:
        return "from the child"
    return model["rate"] * years + sum(others)
"#;

/// A Python engine that can import `model`.
fn place() -> Place {
    let mut place = place_of("python3".into());
    place.spec.args = EngineSpec::python("python3", "").args;
    std::fs::write(place.folder.path().join("model.py"), MODEL).unwrap();
    let path = std::env::join_paths([kit(), place.folder.path().to_owned()]).unwrap();
    place.spec.env.insert("PYTHONPATH".into(), path);
    place.spec.env.insert("PYTHONDONTWRITEBYTECODE".into(), "1".into());
    place
}

/// `pickle.dumps(((number,), {}), 5)` for a small number.
fn one(number: u8) -> Vec<u8> {
    [b"\x80\x05K", [number].as_slice(), b"\x85}\x86."].concat()
}

fn session() -> Session {
    let mut session = Session::new(Function::Module("model:price".into()));
    session.set_up = SetUp { function: Some(Function::Module("model:load".into())), data: Some(one(2).into()) };
    session
}

/// What a small number is pickled to.
fn pickled(number: u8) -> Vec<u8> {
    [b"\x80\x05K", [number].as_slice(), b"."].concat()
}

#[test]
fn python_functions_run_fail_print_fork_and_die() {
    if !has_python("python_functions_run_fail_print_fork_and_die") {
        return;
    }
    block_on(async {
        let mut rig = rig(place(), PoolSettings::new(2), session());
        let log = async |rig: &mut crate::support::Rig, tasks: Vec<Task>| {
            let (mut had, mut log, count) = (Vec::new(), String::new(), tasks.len());
            rig.submit(tasks).await;
            while had.len() < count {
                let batch = rig.batch().await;
                had.extend(batch.outcomes);
                log.push_str(&batch.log);
            }
            had.sort_by_key(|o| o.task);
            (had, log)
        };
        let years: Vec<u8> = (0..60).collect();
        let (had, said) = log(&mut rig, years.iter().map(|y| Task::new(u64::from(*y), one(*y))).collect()).await;
        for (outcome, years) in had.iter().zip(years) {
            match years {
                13 => {
                    let e = error(outcome);
                    assert_eq!((e.class.as_str(), e.message.as_str()), ("ValueError", "no thirteen"));
                    assert!(e.traceback.contains("model.py") && !e.traceback.contains("_serve.py"), "{}", e.traceback);
                    assert!(!e.value.is_empty());
                }
                17 => assert!(error(outcome).class == "crash" && error(outcome).message.contains("exit code 3"), "{outcome:?}"),
                19 => assert_eq!(error(outcome).class, "SystemExit"),
                _ => assert_eq!(value(outcome).as_bytes(), String::from_utf8_lossy(&pickled(2 * years)).as_bytes()),
            }
        }
        assert!(said.contains("hello from the model") || had.len() == 60, "{said}");
        let with = Task { id: 0, payload: one(1).into(), dependencies: [pickled(30), pickled(10)].map(Into::into).into() };
        let (had, _) = log(&mut rig, vec![with]).await;
        assert_eq!(value(&had[0]).as_bytes(), String::from_utf8_lossy(&pickled(42)).as_bytes());
        rig.end().await;
    });
}

#[test]
fn python_engines_may_be_killed() {
    if !has_python("python_engines_may_be_killed") {
        return;
    }
    block_on(async {
        const TASKS: usize = 60_000;
        let mut rig = rig(place(), PoolSettings::new(2), session());
        rig.submit((0..TASKS as u64).map(|id| Task::new(id, one(u8::try_from(id % 10).unwrap()))).collect()).await;
        let (mut seen, mut had, mut kills) = (vec![false; TASKS], 0, 0);
        while had < TASKS {
            for outcome in rig.batch().await.outcomes {
                let digit = u8::try_from(outcome.task % 10).unwrap();
                assert_eq!(value(&outcome).as_bytes(), String::from_utf8_lossy(&pickled(2 * digit)).as_bytes());
                assert!(!std::mem::replace(&mut seen[usize::try_from(outcome.task).unwrap()], true), "task {}", outcome.task);
                had += 1;
            }
            if had > (kills + 1) * TASKS / 5 && kill_engine(&rig.pool, kills % 2) {
                kills += 1;
            }
        }
        assert!(kills >= 3, "{kills}");
        rig.end().await;
    });
}

#[test]
fn a_module_that_is_not_there_is_named() {
    if !has_python("a_module_that_is_not_there_is_named") {
        return;
    }
    block_on(async {
        let mut rig = rig(place(), PoolSettings::new(1), Session::new(Function::Module("quantlab:price".into())));
        rig.submit(vec![Task::new(0, one(1))]).await;
        let had = rig.collect(1).await;
        assert!(error(&had[0]).class == "ModuleNotFoundError" && error(&had[0]).message.contains("quantlab"), "{had:?}");
        rig.end().await;
    });
}

#[test]
fn the_kits_own_tests_pass() {
    if !has_python("the_kits_own_tests_pass") {
        return;
    }
    let ran = Command::new("python3")
        .args(["-m", "unittest", "-q", "tests.test_engine"])
        .current_dir(kit())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output();
    let ran = ran.unwrap();
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success() && said.contains("OK") && !said.contains("Ran 0"), "{said}");
}

#[test]
fn the_interpreter_is_looked_up() {
    let spec = EngineSpec::new("no-such-python", "/tmp");
    assert!(spec.identity().unwrap_err().message().contains("no-such-python"));
}
