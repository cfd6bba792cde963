//! The C++ kit: the example is built by the system's compiler and put behind a pool.

use std::path::{Path, PathBuf};
use std::process::Command;

use tidemill_engine::{Format, Function, PoolSettings, Session, SetUp, Task, class};

use crate::support::{block_on, error, opened, place_of, results, rig, tasks, value, words};

fn kit() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../examples/engine-cpp")
}

/// The sources, built with the kit; or the reason why not.
fn built(folder: &Path, sources: &[PathBuf]) -> Result<PathBuf, String> {
    let compiler =
        ["c++", "g++", "clang++"].into_iter().find(|c| Command::new(c).arg("--version").output().is_ok_and(|o| o.status.success()));
    let Some(compiler) = compiler else { return Err("there is no C++ compiler".to_owned()) };
    let program = folder.join("legacy-engine");
    let ran = Command::new(compiler)
        .args(["-std=c++17", "-O1", "-pthread", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-o"])
        .arg(&program)
        .arg("-I")
        .arg(kit())
        .args(sources)
        .output()
        .map_err(|e| e.to_string())?;
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    Ok(program)
}

#[test]
fn a_legacy_library_in_cpp_is_an_engine() {
    let folder = tempfile::tempdir().unwrap();
    let program = match built(folder.path(), &["main.cpp", "legacy_pricer.cpp"].map(|name| kit().join(name))) {
        Ok(program) => program,
        Err(why) => return println!("SKIPPED a_legacy_library_in_cpp_is_an_engine: {why}"),
    };
    block_on(async {
        let mut session = Session::new(Function::Named("call".into()));
        (session.input, session.output) = (Format::Raw, Format::Raw);
        session.set_up = SetUp { function: None, data: Some("rate 0.05\nvolatility 0.2\n".into()) };
        let mut rig = rig(place_of(program), PoolSettings::new(2), session);
        // Strike and years; spot 100. The first value is Hull's, Options, Futures and Other Derivatives, of a call at the money for a year.
        let mut list: Vec<Task> = (0..5000).map(|id| Task::new(id, "100 1")).collect();
        list[11] = Task::new(11, "-1 1");
        list[12] = Task::new(12, "nonsense");
        list[13] = Task::new(13, "666 1");
        rig.submit(list).await;
        let had = rig.collect(5000).await;
        for outcome in &had {
            match outcome.task {
                11 => assert!(error(outcome).class == "std::invalid_argument" && error(outcome).message.contains("strike"), "{outcome:?}"),
                12 => assert_eq!(error(outcome).class, "std::runtime_error"),
                // The library has a bug that ends the process.
                13 => assert!(error(outcome).class == class::CRASH && error(outcome).log.contains("corner case"), "{outcome:?}"),
                _ => {
                    let value: f64 = value(outcome).parse().unwrap();
                    assert!((value - 10.450_583_572_185_565).abs() < 1e-9, "{value}");
                }
            }
        }
        let record = {
            rig.submit(vec![Task::new(0, "100 1")]).await;
            rig.batch().await.engine.unwrap()
        };
        assert_eq!((record.hello.kit.as_str(), record.hello.loaded[0].name.as_str()), ("tidemill-cpp", "legacy-pricer"));
        rig.end().await;
    });
}

#[test]
fn results_do_not_wait_behind_a_long_task_in_cpp() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("sleeper.cpp");
    std::fs::write(&source, SLEEPER).unwrap();
    let program = match built(folder.path(), &[source]) {
        Ok(program) => program,
        Err(why) => return println!("SKIPPED results_do_not_wait_behind_a_long_task_in_cpp: {why}"),
    };
    block_on(async {
        let place = place_of(program);
        let mut engine = opened(&place.spec, words("")).await;
        engine.run(1, false, &tasks(&["0", "0", "0", "2000", "0"]));
        assert_eq!(results(&mut engine, 3).await.len(), 3);
        assert_eq!(value(&results(&mut engine, 2).await[1]), "slept 0");
        engine.run(1, false, &tasks(&["0", "0", "0", "60000"]));
        assert_eq!(results(&mut engine, 3).await.len(), 3);
    });
}

const SLEEPER: &str = r#"
#include "tidemill_engine.hpp"

int main() {
    tidemill::Engine engine("sleeper", "1");
    engine.function("words", [](const tidemill::Session&) -> tidemill::Run {
        return [](const tidemill::Call& call) {
            const std::string ms(call.payload);
            std::this_thread::sleep_for(std::chrono::milliseconds(std::stoi(ms)));
            return "slept " + ms;
        };
    });
    return engine.serve();
}
"#;
