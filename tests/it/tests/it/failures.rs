//! Tasks that fail: how often they are tried, what is said about them, and how they come back.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::Value;
use tidemill_it::{Options, Server, eventually, gone_within, with_marker};

/// Runs a command that fails and returns the job with its failures.
fn failing(server: &Server, args: &[&str]) -> Value {
    let all: Vec<&str> = ["batch", "run", "-o", "json"].into_iter().chain(args.iter().copied()).collect();
    let job = server.cli(&all).exits(1).json();
    assert_eq!(job["state"], "failed", "{job}");
    job
}

#[track_caller]
fn has_class(job: &Value, class: &str) -> String {
    let failure = &job["failures"][0];
    assert_eq!(failure["class"], class, "{job}");
    failure["message"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn what_passes_at_the_second_try_succeeds_and_every_attempt_is_counted() {
    let server = Server::start(Options::default());
    let job = server
        .cli(&[
            "batch",
            "run",
            "-o",
            "json",
            "--retries",
            "2",
            "--array",
            "1-12",
            "--",
            "sh",
            "-c",
            "test $1 -ge 2 || exit 9",
            "sh",
            "{attempt}",
        ])
        .ok()
        .json();
    assert_eq!((&job["tasks"]["succeeded"], &job["tasks"]["failed"], &job["attempts"]), (&12.into(), &0.into(), &24.into()));
    assert_eq!(job["stages"][0]["failed_attempts"], 12);
    let id = job["id"].as_str().unwrap();
    let rows = server.sql(&format!("SELECT class, count(*) AS n FROM batch.tasks WHERE job = '{id}' GROUP BY class ORDER BY class"));
    let rows: Vec<(String, u64)> = rows.iter().map(|r| (r["class"].as_str().unwrap().to_owned(), r["n"].as_u64().unwrap())).collect();
    assert_eq!(rows, [("exit".to_owned(), 12), ("ok".to_owned(), 12)]);
}

#[test]
fn retries_follow_the_class_of_the_failure() {
    let server = Server::start(Options::default());
    // Exit code 5 is final, a signal is tried again just once, any other exit three times.
    let job = "name = \"classes\"\n[[stage]]\narray = \"0-2\"\nshell = true\n\
               command = '''case $index in 0) exit 5;; 1) kill -9 $$;; 2) exit 7;; esac'''\n\
               [stage.retry]\nattempts = 4\nbase = \"50ms\"\nnever-exit-codes = [5]\nattempts-by-class = { signal = 2 }\n";
    let id = server.submit(job);
    assert_eq!(server.ended(&id)["state"], "failed");
    let rows = server.sql(&format!("SELECT task, attempts, class, exit_code FROM batch.failures WHERE job = '{id}' ORDER BY task"));
    let got: Vec<(u64, u64, &str)> =
        rows.iter().map(|r| (r["task"].as_u64().unwrap(), r["attempts"].as_u64().unwrap(), r["class"].as_str().unwrap())).collect();
    assert_eq!(got, [(0, 1, "exit"), (1, 2, "signal"), (2, 4, "exit")]);
    assert_eq!((&rows[0]["exit_code"], &rows[2]["exit_code"]), (&5.into(), &7.into()));
}

#[test]
fn a_dead_letter_is_read_redriven_and_succeeds_when_the_cause_is_gone() {
    let server = Server::start(Options::default());
    let cure = server.folder().join("cure");
    let script = format!("[ $1 != 5 ] && [ $1 != 8 ] || [ -e '{}' ] || {{ echo sick >&2; exit 3; }}; echo $1 > $2", cure.display());
    let job = failing(
        &server,
        &["--array", "1-10", "--retries", "1", "--output-name", "{index}", "--", "sh", "-c", &script, "sh", "{index}", "{out}"],
    );
    let id = job["id"].as_str().unwrap().to_owned();
    assert_eq!((&job["tasks"]["succeeded"], &job["tasks"]["failed"], &job["attempts"]), (&8.into(), &2.into(), &12.into()));
    server.cli(&["batch", "logs", &id]).ok().says("==> task 0/4 <==");
    let letters = || server.cli(&["queue", "dead", "batch.dead", "-o", "json"]).ok().json()["messages"].as_array().unwrap().clone();
    let dead = eventually("two dead letters", || Some(letters()).filter(|l| l.len() == 2));
    let mut tasks: Vec<u64> = dead.iter().map(|l| l["body"]["task"].as_u64().unwrap()).collect();
    tasks.sort_unstable();
    assert_eq!(tasks, [4, 7], "{dead:?}");
    assert!(dead.iter().all(|l| l["body"]["job"] == *id), "{dead:?}");
    assert_eq!(server.results(&id).len(), 8, "what succeeded is there although the job failed");

    // Redriven too early, the poison is a dead letter again.
    server.cli(&["queue", "redrive", "batch.dead"]).ok().says("2 messages");
    eventually("the tasks have failed again", || {
        let job = server.job(&id);
        (job["state"] == "failed" && job["attempts"].as_u64() > Some(12)).then_some(())
    });
    eventually("they are dead letters again", || Some(letters()).filter(|l| l.len() == 2));

    fs::write(cure, "").unwrap();
    server.cli(&["queue", "redrive", "batch.dead"]).ok();
    server.cli(&["batch", "watch", &id]).exits(0);
    let job = server.job(&id);
    assert_eq!((job["state"].as_str(), &job["tasks"]["succeeded"], &job["tasks"]["failed"]), (Some("succeeded"), &10.into(), &0.into()));
    let want: std::collections::BTreeMap<_, _> = (1..=10).map(|n| (n.to_string(), format!("{n}\n").into_bytes())).collect();
    assert_eq!(server.results(&id), want);
    assert!(letters().is_empty());
}

#[test]
fn a_job_is_retried_by_name_as_well() {
    let server = Server::start(Options::default());
    let cure = server.folder().join("cure");
    let test = format!("test -e '{}' || test $1 = 0", cure.display());
    let job = failing(&server, &["--array", "0-3", "--retries", "0", "--", "sh", "-c", &test, "sh", "{index}"]);
    let id = job["id"].as_str().unwrap().to_owned();
    fs::write(cure, "").unwrap();
    assert_eq!(server.cli(&["batch", "retry", &id, "2", "-o", "quiet"]).ok().word(), "1");
    eventually("task 2 succeeds", || {
        let job = server.job(&id);
        (job["tasks"]["succeeded"] == 2 && job["tasks"]["failed"] == 2 && job["state"] == "failed").then_some(())
    });
    assert_eq!(server.cli(&["batch", "retry", &id, "-o", "quiet"]).ok().word(), "2");
    assert_eq!(server.cli(&["batch", "watch", &id, "-o", "json"]).exits(0).json()["tasks"]["succeeded"], 4);
}

#[test]
fn a_task_that_takes_too_long_is_ended_with_everything_it_started() {
    let server = Server::start(Options::default());
    let marker = format!("timeout-{}", std::process::id());
    let variable = format!("MARK={marker}");
    let start = Instant::now();
    // It ignores the polite signal, and its child has a session of its own.
    let script = "trap '' TERM; setsid sleep 999 & sleep 999 & wait; sleep 999";
    let job = failing(&server, &["--timeout", "2s", "--retries", "0", "--env", &variable, "--", "sh", "-c", script]);
    has_class(&job, "timeout");
    let run_us = job["stages"][0]["times"]["run_us"].as_u64().unwrap();
    assert!(run_us >= 2_000_000, "ended after {run_us} us");
    assert!(start.elapsed() < Duration::from_secs(60));
    gone_within(Duration::from_secs(10), "the task's processes", &with_marker("MARK", &marker));
}

#[test]
fn a_task_that_takes_too_much_memory_is_ended_and_the_worker_lives() {
    let server = Server::start(Options { workers: "1..1", ..Options::default() });
    let before = server.worker_processes();
    // `tail` keeps the last line of what it reads, and there is only one line.
    let job = failing(
        &server,
        &["--memory", "48MiB", "--retries", "0", "--", "sh", "-c", "head -c 900000000 /dev/zero | tail -n 1 | wc -c; sleep 5"],
    );
    let message = has_class(&job, "out_of_memory");
    assert!(message.contains("MiB") || message.contains("memory"), "{message}");
    server.cli(&["batch", "run", "--memory", "48MiB", "--", "true"]).ok();
    assert_eq!(server.worker_processes(), before, "the worker is the same one");
}

#[test]
fn what_a_task_lacks_is_named() {
    let server = Server::start(Options::default());
    let job = failing(&server, &["--retries", "0", "--output-name", "wanted.txt", "--", "true", "{out}"]);
    assert!(has_class(&job, "output").contains("wanted.txt"), "{job}");
    let job = failing(&server, &["--", "no-such-program-here", "x"]);
    assert!(has_class(&job, "start").contains("no-such-program-here"), "{job}");
    assert_eq!(job["attempts"], 1, "it would not be there at the second try either");
    let job = failing(&server, &["--retries", "0", "--", "sh", "-c", "kill -SEGV $$"]);
    has_class(&job, "signal");
    // A name that leaves the folder for outputs is the task's failure, not a file somewhere.
    fs::write(server.folder().join("names.txt"), "good\n../../evil\n/evil\n").unwrap();
    let names = ["--lines", "names.txt", "--retries", "0", "--output-name", "{line}", "--", "sh", "-c", "echo x > \"$1\"", "sh", "{out}"];
    let job = failing(&server, &names);
    assert_eq!((&job["tasks"]["succeeded"], &job["tasks"]["failed"]), (&1.into(), &2.into()));
    assert!(job["failures"].as_array().unwrap().iter().all(|f| f["class"] == "output" || f["class"] == "input"), "{job}");
    assert!(!std::path::Path::new("/evil").exists());
}

#[test]
fn an_input_that_is_not_there_ends_the_job_with_its_name() {
    let server = Server::start(Options::default());
    for (what, input) in [
        ("nothing/here/*.csv", "objects = [\"nothing/here/*.csv\"]\ncommand = [\"cat\", \"{in}\"]"),
        ("nothing/here.txt", "lines = \"nothing/here.txt\"\ncommand = [\"echo\", \"{line}\"]"),
        ("nothing/big.csv", "parts = { objects = [\"nothing/big.csv\"] }\ncommand = [\"cat\", \"{in}\"]"),
    ] {
        let said = server.call(&["batch", "submit", "-", "--wait"]).stdin(format!("name = \"n\"\n[[stage]]\n{input}\n")).run();
        assert!(said.code == Some(1) || said.code == Some(2), "{said}");
        assert!(format!("{}{}", said.stdout, said.stderr).contains(what), "`{what}` is named: {said}");
    }
    // An object that goes away between cutting and running.
    server.http().put("/api/v1/objects/data/a.txt", "here").is(201);
    let job = server.cli(&["batch", "run", "--objects", "data/*.txt", "--stdout", "-o", "json", "--", "cat", "{in}"]).ok().json();
    assert_eq!(server.results(job["id"].as_str().unwrap())["a.out"], b"here");
}
