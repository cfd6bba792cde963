//! What is looked at before anything relies on it: `tidemill check`, `tidemill config`, and what a server refuses.

use std::path::Path;

use serde_json::Value;
use tidemill_it::{Call, Engine, Outcome, free_port};

use super::on_engines;

on_engines! {
    check_names_what_is_missing_makes_it_and_finds_it
}

fn words(report: &Value, place: &str) -> Vec<String> {
    let rows = report.as_array().unwrap().iter().filter(|r| r["place"] == place);
    rows.map(|r| r["found"].as_str().unwrap().to_owned()).collect()
}

fn check_names_what_is_missing_makes_it_and_finds_it(engine: &Engine) {
    let folder = tempfile::tempdir().unwrap();
    let check = |args: &[&str]| {
        let all: Vec<&str> = ["check", "-o", "json"].into_iter().chain(args.iter().copied()).collect();
        engine.call(folder.path(), &all).run()
    };
    let before = check(&[]).exits(1).json();
    assert!(words(&before, engine.driver).iter().any(|w| w == "missing"), "{before}");
    let made = check(&["--create"]).ok().json();
    assert!(words(&made, engine.driver).iter().any(|w| w == "made") && words(&made, "batch").iter().any(|w| w == "made"), "{made}");
    let after = check(&[]).ok().json();
    assert!(after.as_array().unwrap().iter().all(|r| r["found"] == "ready"), "{after}");
    assert!(after.to_string().contains("batch.work.default") && after.to_string().contains("batch-state"), "{after}");

    // An engine that is not there: within seconds, by name, with an exit code of its own.
    let closed = format!("127.0.0.1:{}", free_port());
    let away = match engine.driver {
        "postgres" => engine.with("TIDEMILL_POSTGRES_URL", &format!("postgres://ada:hunter2@{closed}/mill")),
        _ => engine.with("TIDEMILL_AWS_ENDPOINT", &format!("http://{closed}")),
    };
    let outcome = away.call(folder.path(), &["check"]).run().exits(3);
    assert!(outcome.stdout.contains("unreachable") && !says(&outcome, "hunter2"), "{outcome}");
}

/// Whether the text is in what it wrote.
fn says(outcome: &Outcome, text: &str) -> bool {
    outcome.stdout.contains(text) || outcome.stderr.contains(text)
}

fn serve(folder: &Path, variables: &[(&str, &str)]) -> Outcome {
    let data = folder.to_string_lossy().into_owned();
    let mut call = Call::new(&["--data", data.as_str(), "serve", "--listen", "127.0.0.1:0"]);
    for (name, value) in variables {
        call = call.env(name, value);
    }
    call.run()
}

#[test]
fn what_does_not_go_together_is_refused_before_anything_starts() {
    let folder = tempfile::tempdir().unwrap();
    serve(folder.path(), &[("TIDEMILL_DRIVERS_QUEUE", "aws")]).exits(2).says("drivers.ledger is `embedded`");
    serve(folder.path(), &[("TIDEMILL_DRIVERS_DEFAULT", "postgres")]).exits(2).says("TIDEMILL_POSTGRES_URL");
    serve(folder.path(), &[("TIDEMILL_DRIVERS_DEFAULT", "mysql")]).exits(2).says("`mysql` is none of");
    let worker = ["worker", "--drivers", "--id", "w"];
    Call::new(&worker).run().exits(2).says("start the worker with --manager URL");
}

#[test]
fn a_password_is_not_shown() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_string_lossy().into_owned();
    let url = format!("postgres://ada:hunter2@127.0.0.1:{}/mill", free_port());
    for form in ["table", "json", "quiet"] {
        let call = Call::new(&["--data", data.as_str(), "config", "-o", form]).env("TIDEMILL_POSTGRES_URL", &url);
        let outcome = call.run().ok();
        assert!(outcome.stdout.contains("ada:***@") && !says(&outcome, "hunter2"), "{outcome}");
    }
    let variables = [("TIDEMILL_DRIVERS_DEFAULT", "postgres"), ("TIDEMILL_POSTGRES_URL", url.as_str())];
    let outcome = serve(folder.path(), &variables);
    assert!(outcome.code != Some(0) && !says(&outcome, "hunter2"), "{outcome}");
}

#[test]
fn engines_of_another_installation_are_left_alone() {
    let Some(engine) = Engine::aws("engines::check::engines_of_another_installation_are_left_alone") else { return };
    let first = super::Mill::start(&engine);
    let folder = tempfile::tempdir().unwrap();
    // Another ledger, and by mistake the same prefix and bucket.
    let schema = engine.variables.iter().find(|(name, _)| name == "TIDEMILL_POSTGRES_SCHEMA").map(|(_, v)| format!("{v}b")).unwrap();
    let other = engine.with("TIDEMILL_POSTGRES_SCHEMA", &schema);
    other.call(folder.path(), &["serve", "--listen", "127.0.0.1:0"]).run().exits(1).says("belong to the installation");
    first.managers[0].cli(&["batch", "run", "--", "true"]).ok();
}
