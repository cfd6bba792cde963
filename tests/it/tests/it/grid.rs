//! `tidemill grid`: functions on many small tasks, on warm engines, from the command line.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use serde_json::{Value, json};
use tidemill_it::{Dice, Options, Server, eventually, on_engines, pause, program, skipped};

/// Whether the machine has what the tests with Python need; says so if not.
fn no_python(test: &str) -> bool {
    let missing = program("python3").is_none();
    if missing {
        skipped(test, "there is no python3");
    }
    missing
}

/// Lines of JSON by their task; a task that is there twice fails the test.
fn by_task(text: &str) -> BTreeMap<u64, Value> {
    let mut found = BTreeMap::new();
    for line in text.lines() {
        let value: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("`{line}` is no JSON: {e}"));
        let twice = found.insert(value["task"].as_u64().unwrap(), value);
        assert!(twice.is_none(), "two results: {twice:?}");
    }
    found
}

fn session(server: &Server, id: &str) -> Value {
    server.cli(&["grid", "show", id, "-o", "json"]).ok().json()
}

fn until(server: &Server, id: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    eventually(&format!("session {id} {what}"), || Some(session(server, id)).filter(|s| holds(s)))
}

#[test]
fn a_function_of_python_is_called_once_for_each_line() {
    if no_python("a_function_of_python_is_called_once_for_each_line") {
        return;
    }
    let server = Server::start(Options::default());
    let numbers: Vec<String> = (0..1_000).map(|n| format!("{n}.5")).collect();
    let done = server
        .call(&["grid", "run", "--module", "math:sqrt", "--json", "-", "--results", "-", "-o", "json"])
        .stdin(numbers.join("\n"))
        .run();
    let done = done.ok().says("1,000 tasks: 1,000 succeeded");
    // In the order of their tasks, to the last digit.
    for (i, line) in done.stdout.lines().enumerate() {
        let task: Value = serde_json::from_str(line).unwrap();
        let value: f64 = line.rsplit(':').next().unwrap().trim_end_matches('}').parse().unwrap();
        assert_eq!((task["task"].as_u64(), value), (Some(i as u64), (i as f64 + 0.5).sqrt()), "{line}");
    }
    assert_eq!(done.stdout.lines().count(), 1_000);

    // Other sources: text, rows, numbers; to a file and to a folder.
    fs::write(server.folder().join("words.txt"), "tide\nmill\n").unwrap();
    server.cli(&["grid", "run", "--module", "builtins:len", "--lines", "words.txt", "--results", "lengths/"]).ok();
    assert_eq!(fs::read_to_string(server.folder().join("lengths/1.json")).unwrap(), "4");
    fs::write(server.folder().join("rows.csv"), "name,price\na,1.5\n").unwrap();
    server.cli(&["grid", "run", "--module", "builtins:sorted", "--csv", "rows.csv", "--results", "rows.jsonl"]).ok();
    let rows = by_task(&fs::read_to_string(server.folder().join("rows.jsonl")).unwrap());
    assert_eq!(rows[&0]["value"], json!(["name", "price"]));
    let id = server.cli(&["grid", "run", "--module", "builtins:abs", "--range", "-3-3", "--detach"]).ok().word().to_owned();
    let watched = server.cli(&["grid", "watch", &id, "-o", "json"]).ok().json();
    assert_eq!((watched["state"].as_str(), watched["tasks"]["succeeded"].as_u64()), (Some("succeeded"), Some(7)));
    let results = server.cli(&["grid", "results", &id, "-o", "json"]).ok().json();
    let values: Vec<i64> = results["results"].as_array().unwrap().iter().map(|r| r["value"].as_i64().unwrap()).collect();
    assert_eq!(values, [3, 2, 1, 0, 1, 2, 3]);

    // From the last cursor on there is nothing, and no session is hidden.
    let next = results["next"].as_u64().unwrap().to_string();
    let rest = server.cli(&["grid", "results", &id, "--after", &next, "-o", "json"]).ok().json();
    assert_eq!((rest["results"].as_array().unwrap().len(), &rest["next"]), (0, &results["next"]));
    assert_eq!(server.cli(&["grid", "list", "-o", "quiet"]).ok().stdout.lines().count(), 4);
    server.cli(&["grid", "explain", &id]).ok();
    server.cli(&["grid", "delete", &id]).ok();
    server.cli(&["grid", "show", &id]).exits(1).says("there is no session");
}

#[test]
fn a_function_that_fails_is_shown_with_its_traceback_and_spares_the_others() {
    if no_python("a_function_that_fails_is_shown_with_its_traceback_and_spares_the_others") {
        return;
    }
    let server = Server::start(Options::default());
    let call = ["grid", "run", "--module", "json:loads", "--lines", "-", "--results", "numbers.jsonl"];
    let done = server.call(&call).stdin("no\nnumber\n2\n3\n4\n5\n6\n7\n8\n9").run().exits(1);
    assert!(done.stdout.contains("10 tasks: 8 succeeded, 2 failed"), "{done}");
    let traced = ["JSONDecodeError", "Traceback (most recent call last)", "in raw_decode"];
    assert!(traced.iter().all(|word| done.stdout.contains(word)), "{done}");
    let results = by_task(&fs::read_to_string(server.folder().join("numbers.jsonl")).unwrap());
    assert_eq!(results.len(), 10);
    for (task, result) in &results {
        if *task < 2 {
            let error = &result["error"];
            assert!(error["kind"].as_str().unwrap().contains("JSONDecodeError"), "{result}");
            assert!(error["traceback"].as_str().unwrap().contains("in raw_decode"), "{result}");
        } else {
            assert_eq!(result["value"], *task);
        }
    }
    // What cannot be imported fails each task and says why; what no worker knows as well.
    let missing = server.cli(&["grid", "run", "--module", "no_such_module:f", "--range", "1-3"]).exits(1);
    assert!(missing.stdout.contains("no_such_module"), "{missing}");
    let unknown = server.cli(&["grid", "run", "--engine", "cobol", "--name", "f", "--range", "1-2"]).exits(1);
    assert!(unknown.stdout.contains("no engine `cobol`"), "{unknown}");
    server.cli(&["grid", "run", "--module", "math", "--range", "1-2"]).exits(2).says("module:function");
}

#[test]
fn the_bundled_engine_values_products_as_the_books_print_them() {
    let server = Server::start(Options::default());
    let value = |function: &str, payload: &str| {
        let call = ["grid", "run", "--engine", "pricing", "--name", function, "--json", "-", "--results", "-"];
        let done = server.call(&call).stdin(payload).run().ok();
        serde_json::from_str::<Value>(done.stdout.trim()).unwrap()["value"].as_f64().unwrap()
    };
    // E. G. Haug, The Complete Guide to Option Pricing Formulas, second edition.
    let european = r#"{"type": "call", "spot": 60, "strike": 65, "rate": 0.08, "volatility": 0.3, "years": 0.25}"#;
    assert!((value("european", european) - 2.1334).abs() < 1e-4);
    let barrier = r#"{"kind": "down_out", "barrier": 95, "rebate": 3, "type": "call", "spot": 100, "strike": 90, "rate": 0.08, "dividend": 0.04, "volatility": 0.25, "years": 0.5}"#;
    assert!((value("barrier", barrier) - 9.0246).abs() < 1e-4);
    let digital = r#"{"pays": "cash", "amount": 10, "type": "put", "spot": 100, "strike": 80, "rate": 0.06, "dividend": 0.06, "volatility": 0.35, "years": 0.75}"#;
    assert!((value("digital", digital) - 2.6710).abs() < 1e-4);
    // F. A. Longstaff and E. S. Schwartz 2001, table 1: an American put by finite differences.
    let american =
        r#"{"type": "put", "spot": 36, "strike": 40, "rate": 0.06, "volatility": 0.2, "years": 1, "space_steps": 400, "time_steps": 400}"#;
    assert!((value("american", american) - 4.478).abs() < 1e-2);

    // A poisoned task says which field it is, and spares its neighbour.
    let two = format!("{european}\n{}", european.replace("0.3", "-0.3"));
    let call = ["grid", "run", "--engine", "pricing", "--name", "european", "--json", "-", "--results", "two.jsonl"];
    let done = server.call(&call).stdin(two).run().exits(1);
    assert!(done.stdout.contains("`volatility` is -0.3"), "{done}");
    let two = by_task(&fs::read_to_string(server.folder().join("two.jsonl")).unwrap());
    assert!(two[&0]["value"].is_number() && two[&1]["error"]["message"].as_str().unwrap().contains("`volatility`"));

    // A portfolio that is kept warm, in blocks.
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/risk");
    let text = |name: &str| fs::read_to_string(root.join(name)).unwrap();
    let setup = json!({"static": text("static.json"), "market_history": text("market_history.csv"), "trades": text("trades.csv")});
    fs::write(server.folder().join("portfolio.json"), setup.to_string()).unwrap();
    let blocks: Vec<String> = (0..20).map(|i| json!({"trades": [i * 5, i * 5 + 5], "scenarios": [0, 1]}).to_string()).collect();
    let call = ["grid", "run", "--engine", "pricing", "--name", "value", "--setup", "portfolio.json", "--json", "-", "--results", "-"];
    let done = server.call(&call).stdin(blocks.join("\n")).run().ok();
    let expected = text("expected_base_npv.csv");
    let want: Vec<(f64, bool)> = expected
        .lines()
        .skip(1)
        .zip(text("trades.csv").lines().skip(1))
        .map(|(row, trade)| (row.split(',').nth(1).unwrap().parse().unwrap(), trade.contains("american")))
        .collect();
    for (task, result) in by_task(&done.stdout) {
        for (i, row) in result["value"]["values"].as_array().unwrap().iter().enumerate() {
            let (want, american) = want[task as usize * 5 + i];
            let got = row[0].as_f64().unwrap();
            let tolerance = if american { 5e-3 } else { 1e-6 };
            assert!((got / want - 1.0).abs() < tolerance, "trade {}: {got} and not {want}", task * 5 + i as u64);
        }
    }
}

#[test]
fn running_work_is_cancelled_at_once_and_what_was_done_stays() {
    if no_python("running_work_is_cancelled_at_once_and_what_was_done_stays") {
        return;
    }
    let server = Server::start(Options { workers: "1..1", slots: 2, ..Options::default() });
    let id = server.cli(&["grid", "run", "--module", "time:sleep", "--range", "3600-3609", "--detach"]).ok().word().to_owned();
    until(&server, &id, "runs", |s| s["tasks"]["running"].as_u64() >= Some(1));
    server.cli(&["grid", "cancel", &id]).ok();
    let ended = until(&server, &id, "is cancelled", |s| s["state"] == "cancelled");
    assert_eq!((&ended["tasks"]["succeeded"], &ended["tasks"]["cancelled"]), (&json!(0), &json!(10)), "{ended}");
    // The engines that slept for an hour are gone: the next session is served at once.
    let next = server.cli(&["grid", "run", "--module", "math:sqrt", "--range", "4-4", "--results", "-"]).ok();
    assert_eq!(by_task(&next.stdout)[&0]["value"], json!(2.0));
    server.cli(&["grid", "watch", &id]).exits(1);
}

#[test]
fn a_paused_session_releases_nothing_until_it_is_resumed() {
    if no_python("a_paused_session_releases_nothing_until_it_is_resumed") {
        return;
    }
    let server = Server::start(Options { workers: "1..1", slots: 2, ..Options::default() });
    let id = squares(&server, 400, "0.2");
    until(&server, &id, "has results", |s| s["tasks"]["succeeded"].as_u64() >= Some(4));
    server.cli(&["grid", "pause", &id]).ok();
    // Reports of what was out may come late.
    let still = eventually("what was out has come back", || {
        let before = session(&server, &id);
        pause(Duration::from_secs(2));
        let after = session(&server, &id);
        (before["tasks"]["succeeded"] == after["tasks"]["succeeded"] && after["tasks"]["running"] == 0).then_some(after)
    });
    assert!(still["state"] == "paused" && still["tasks"]["succeeded"].as_u64() < Some(400), "{still}");
    let explained = server.cli(&["grid", "explain", &id]).ok();
    assert!(explained.stdout.contains("paused"), "{explained}");
    server.cli(&["grid", "priority", &id, "7"]).ok();
    server.cli(&["grid", "resume", &id]).ok();
    server.cli(&["grid", "watch", &id]).ok();
    assert_eq!(session(&server, &id)["priority"], 7);
}

/// A session of the squares of 0, 1, ..., each of which takes so many seconds. It is closed, and nobody waits for it.
fn squares(server: &Server, n: u64, seconds: &str) -> String {
    let lines: Vec<String> = (0..n).map(|i| format!("__import__('time').sleep({seconds}) or {i} * {i}")).collect();
    let call = ["grid", "run", "--module", "builtins:eval", "--lines", "-", "--detach"];
    server.call(&call).stdin(lines.join("\n")).run().ok().word().to_owned()
}

/// Every task has one result, and the right one.
fn check(text: &str, n: u64) {
    let results = by_task(text);
    assert_eq!(results.len() as u64, n);
    for (task, result) in &results {
        assert_eq!(result["value"].as_u64(), Some(task * task), "{result}");
    }
}

#[test]
fn results_go_on_from_a_cursor_over_kills_of_the_server_and_of_workers() {
    if no_python("results_go_on_from_a_cursor_over_kills_of_the_server_and_of_workers") {
        return;
    }
    let mut server = Server::start(Options { workers: "2..2", slots: 2, ..Options::default() });
    let mut dice = Dice::new("kill in the middle of a session");
    let n = 6_000;
    let id = squares(&server, n, "0.002");
    // One reader follows through it all; another comes and goes, and keeps nothing but its cursor.
    let follower = server.call(&["grid", "results", &id, "--follow", "--to", "all.jsonl"]).start();
    until(&server, &id, "has results", |s| s["tasks"]["succeeded"].as_u64() >= Some(200));
    let (mut cursor, mut parts) = ("0".to_owned(), String::new());
    let mut step = |server: &Server, cursor: &mut String| {
        let json = server.cli(&["grid", "results", &id, "--after", cursor, "-o", "json"]).ok().json();
        *cursor = json["next"].as_u64().unwrap().to_string();
        json["results"].as_array().unwrap().iter().for_each(|r| parts.push_str(&format!("{r}\n")));
    };
    step(&server, &mut cursor);
    assert_ne!(cursor, "0");
    server.kill9();
    pause(dice.millis(100, 1_000));
    server.restart();
    step(&server, &mut cursor);
    pause(dice.millis(100, 600));
    let workers = eventually("both workers are there", || Some(server.worker_processes()).filter(|w| w.len() == 2));
    workers[0].signal(9);
    step(&server, &mut cursor);
    let ended = until(&server, &id, "ends", |s| ["succeeded", "failed"].iter().any(|w| s["state"] == *w));
    assert_eq!((&ended["state"], &ended["tasks"]["succeeded"]), (&json!("succeeded"), &json!(n)), "{ended}");
    step(&server, &mut cursor);
    check(&parts, n);
    let followed = follower.wait().ok();
    // On engines it may have asked the other manager, which lives on.
    if !on_engines() {
        followed.says("lost the server");
    }
    check(&fs::read_to_string(server.folder().join("all.jsonl")).unwrap(), n);
}
