//! A worker that freezes beyond its lease: its tasks run elsewhere, and what it says when it wakes changes nothing.

use std::fs;
use std::time::Duration;

use tidemill_it::{Options, Server, Worker, eventually, pause};

#[test]
fn the_late_report_of_a_frozen_worker_changes_nothing() {
    let server = Server::start(Options { workers: "0..0", ..Options::default() });
    let frozen = Worker::start(&server, "frozen", &["--slots", "1"]);
    let gate = server.folder().join("gate");
    let log = server.folder().join("starts");
    // Each run leaves its own process number behind, so that one can tell whose result counted.
    let script = format!("echo $1 $$ >> '{}'; until [ -e '{}' ]; do sleep 0.1; done; echo $$ > \"$2\"", log.display(), gate.display());
    let id = server.detach(&["--array", "1-3", "--output-name", "{index}", "--", "sh", "-c", &script, "sh", "{index}", "{out}"]);
    eventually("a task of the first worker runs", || Some(fs::read_to_string(&log).ok()?.lines().count()).filter(|n| *n > 0));
    frozen.process.signal(libc::SIGSTOP);
    let line = fs::read_to_string(&log).unwrap().lines().next().unwrap().to_owned();
    let (task, first) = line.split_once(' ').unwrap();
    // Its task ends while it sleeps; nobody reports that.
    fs::write(&gate, "").unwrap();
    let _awake = Worker::start(&server, "awake", &["--slots", "1"]);
    let job = server.ended(&id);
    assert_eq!((job["state"].as_str(), &job["tasks"]["succeeded"]), (Some("succeeded"), &3.into()), "{job}");
    let started = fs::read_to_string(&log).unwrap();
    let runs = started.lines().filter(|l| l.split_once(' ').is_some_and(|(t, _)| t == task)).count();
    assert!(runs == 2, "the frozen worker's task ran again:\n{started}");
    let results = server.results(&id);
    let count = || server.sql(&format!("SELECT count(*) AS n FROM batch.tasks WHERE job = '{id}' AND class = 'ok'"))[0]["n"].clone();
    assert_eq!(count(), 3);
    frozen.process.signal(libc::SIGCONT);
    // Long enough for it to wake, to find out, to report and to take work again.
    pause(Duration::from_secs(8));
    let later = server.job(&id);
    assert_eq!(later["tasks"], job["tasks"]);
    assert_eq!(later["attempts"], job["attempts"]);
    assert_eq!(later["state"], "succeeded");
    assert_eq!(count(), 3, "a task is counted once");
    assert!(server.results(&id) == results, "the results are those that counted first");
    assert_ne!(String::from_utf8_lossy(&results[task]).trim(), first, "the frozen worker's result did not count");
    // The worker that woke is a good worker still.
    assert!(frozen.process.is_alive(), "{}", frozen.log());
    eventually("it is listed again", || server.workers().iter().any(|w| w["id"] == "frozen" && w["state"] == "ready").then_some(()));
    assert_eq!(server.cli(&["batch", "run", "--array", "1-20", "-o", "json", "--", "true"]).ok().json()["attempts"], 20);
}
