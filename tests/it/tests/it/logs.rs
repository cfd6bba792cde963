//! What tasks write to standard output and error.

use std::fs;

use tidemill_it::{Options, Server, eventually};

#[test]
fn a_running_task_can_be_watched_and_its_streams_are_kept_apart() {
    let server = Server::start(Options { workers: "1..1", ..Options::default() });
    let gate = server.folder().join("gate");
    let script = format!(
        "echo out-one; echo err-one >&2; until [ -e '{}' ]; do sleep 0.1; done; echo out-two; printf 'err-two' >&2",
        gate.display()
    );
    let id = server.detach(&["--", "sh", "-c", &script]);
    let logs = |args: &[&str]| {
        let all: Vec<&str> = ["batch", "logs", &id].into_iter().chain(args.iter().copied()).collect();
        server.cli(&all).ok().stdout
    };
    eventually("the first line is seen while the task runs", || logs(&["--stream", "stdout"]).contains("out-one").then_some(()));
    assert_eq!(logs(&["--stream", "stdout"]), "out-one\n");
    assert_eq!(logs(&["--stream", "stderr"]), "err-one\n");
    let live = server.http().get(&format!("/api/v1/batch/jobs/{id}/logs/0/0?stream=both")).is(200);
    assert_eq!(live.header("x-tidemill-live"), Some("true"));
    let follow = server.call(&["batch", "logs", "--follow", "--stream", "stdout", &id]).start();
    fs::write(&gate, "").unwrap();
    assert_eq!(follow.wait().ok().stdout, "out-one\nout-two\n", "following shows every line once and ends with the task");
    assert_eq!(server.ended(&id)["state"], "succeeded");
    assert_eq!(logs(&["--stream", "stdout"]), "out-one\nout-two\n");
    assert_eq!(logs(&["--stream", "stderr"]), "err-one\nerr-two");
    let kept = server.http().get(&format!("/api/v1/batch/jobs/{id}/logs/0/0?stream=both")).is(200);
    assert_ne!(kept.header("x-tidemill-live"), Some("true"));
}

#[test]
fn the_logs_of_failed_tasks_are_shown_by_attempt() {
    let server = Server::start(Options::default());
    let script = "echo attempt $2; [ $1 != 2 ] || { echo broken at $1 >&2; exit 4; }";
    let run = ["batch", "run", "--array", "1-3", "--retries", "1", "-o", "json", "--", "sh", "-c", script, "sh", "{index}", "{attempt}"];
    let job = server.cli(&run).exits(1).json();
    let id = job["id"].as_str().unwrap();
    assert_eq!(server.cli(&["batch", "logs", id, "--stream", "stderr"]).ok().stdout, "broken at 2\n", "of the failed task alone");
    assert_eq!(server.cli(&["batch", "logs", id, "1", "--stream", "stdout"]).ok().stdout, "attempt 2\n", "the last attempt");
    assert_eq!(server.cli(&["batch", "logs", id, "1", "--attempt", "1", "--stream", "stdout"]).ok().stdout, "attempt 1\n");
    assert_eq!(server.cli(&["batch", "logs", id, "0", "--stream", "stdout"]).ok().stdout, "attempt 1\n", "of one that succeeded");
    let failures = server.sql(&format!("SELECT message FROM batch.failures WHERE job = '{id}'"));
    assert_eq!(failures.len(), 1);
    server.http().get(&format!("/api/v1/batch/jobs/{id}/logs/0/99")).is(404);
}

#[test]
fn a_log_without_end_is_cut_and_its_end_is_kept() {
    let server = Server::start(Options { workers: "1..1", ..Options::default() });
    let script = "yes 'a line that is said over and over again' | head -c 30000000; echo; echo the very end";
    let job = server.cli(&["batch", "run", "-o", "json", "--", "sh", "-c", script]).ok().json();
    let log = server.http().get(&format!("/api/v1/batch/jobs/{}/logs/0/0?stream=stdout", job["id"].as_str().unwrap())).is(200).bytes;
    assert!(log.ends_with(b"the very end\n"));
    assert!(log.len() <= 17 << 20, "{} bytes", log.len());
}
