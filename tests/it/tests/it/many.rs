//! Very many tasks, and what is told about a job afterwards.

use std::time::{Duration, Instant};

use tidemill_it::{Options, Server, eventually};

#[test]
fn ten_million_tasks_are_accepted_in_seconds_and_cost_no_memory() {
    let server = Server::start(Options { workers: "0..0", ..Options::default() });
    let start = Instant::now();
    let id = server.detach(&["--array", "0-9999999", "--", "true"]);
    let job = eventually("it is cut", || Some(server.job(&id)).filter(|j| j["tasks"]["total"] == 10_000_000));
    assert!(start.elapsed() < Duration::from_secs(30), "accepted after {:?}", start.elapsed());
    assert_eq!(job["tasks"]["waiting"], 10_000_000, "{job}");
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.process().pid)).unwrap();
    let resident = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap().trim().trim_end_matches(" kB").trim().parse::<u64>();
    assert!(resident.clone().unwrap() < 400 << 10, "{resident:?} KiB");
    server.cli(&["batch", "cancel", &id]).ok();
    let job = server.ended(&id);
    assert_eq!((job["state"].as_str(), &job["tasks"]["cancelled"]), (Some("cancelled"), &10_000_000.into()), "{job}");
    // A list of a million lines is held as one object and not as a million records.
    let lines: String = (0..1_000_000_u32).map(|n| format!("line {n}\n")).collect();
    server.http().put("/api/v1/objects/data/lines.txt", lines).is(201);
    let start = Instant::now();
    let id = server.submit("name = \"lines\"\n[[stage]]\nlines = \"data/lines.txt\"\ncommand = [\"echo\", \"{line}\"]\n");
    eventually("the lines are cut", || (server.job(&id)["tasks"]["total"] == 1_000_000).then_some(()));
    assert!(start.elapsed() < Duration::from_secs(60), "cut after {:?}", start.elapsed());
    server.cli(&["batch", "cancel", &id]).ok();
}

#[test]
fn a_hundred_thousand_tasks_that_do_nothing_are_each_counted_once() {
    let server = Server::start(Options { workers: "2..2", slots: 2, ..Options::default() });
    let id = server.submit("name = \"noop\"\n[[stage]]\narray = \"1-100000\"\nnoop = true\n");
    let job = server.ended(&id);
    assert_eq!((&job["tasks"]["succeeded"], &job["attempts"]), (&100_000.into(), &100_000.into()), "{job}");
    let rows = server.sql(&format!(
        "SELECT count(*) AS n, count(DISTINCT task) AS tasks, min(task) AS first, max(task) AS last FROM batch.tasks WHERE job = '{id}'"
    ));
    let number = |name: &str| rows[0][name].as_u64().unwrap();
    assert_eq!((number("n"), number("tasks"), number("first"), number("last")), (100_000, 100_000, 0, 99_999));
}

#[test]
fn a_report_agrees_with_what_was_done() {
    let server = Server::start(Options { workers: "1..1", slots: 2, ..Options::default() });
    // Task 9 is slow; two tasks fail once, after a while.
    let script = "case $1.$2 in 3.1|4.1) sleep 0.5; exit 7;; 9.*) sleep 1.5;; *) sleep 0.1;; esac";
    let args = ["batch", "run", "--array", "0-19", "-o", "json", "--", "sh", "-c", script, "sh", "{index}", "{attempt}"];
    let job = server.cli(&args).ok().json();
    let id = job["id"].as_str().unwrap();
    let report = server.cli(&["batch", "report", id, "-o", "json"]).ok().json();
    let stage = &report["stages"][0];
    assert_eq!((&stage["tasks"]["succeeded"], &stage["attempts"]), (&20.into(), &22.into()), "{report}");
    let run = |p: &str| stage["run_us"][p].as_f64().unwrap();
    assert!((90_000.0..1_000_000.0).contains(&run("p50")) && run("max") >= 1_500_000.0 && run("p90") <= run("p99"), "{report}");
    assert_eq!((&report["slowest"][0]["task"], &report["slowest"][0]["attempt"]), (&9.into(), &1.into()), "{report}");
    let waste = report["waste"].as_array().unwrap();
    assert_eq!((waste.len(), &waste[0]["cause"], &waste[0]["attempts"]), (1, &"exit".into(), &2.into()), "{report}");
    assert!(waste[0]["slot_us"].as_u64().unwrap() >= 1_000_000, "{report}");
    let cost = |name: &str| report["cost"][name].as_f64().unwrap();
    assert!(cost("wasted") > 0.0 && cost("wasted") < cost("total"), "{report}");
    assert!((cost("total") - cost("slot_hours") * cost("price_per_slot_hour")).abs() < 1e-9, "{report}");
    let shown = server.cli(&["batch", "report", id]).ok().stdout;
    assert!(shown.contains("exit") && shown.contains('9'), "{shown}");
}
