//! Jobs that are cancelled, paused, put first, put off, made to wait, and submitted twice.

use std::fs;
use std::time::Duration;

use tidemill_it::{Options, Server, eventually, gone_within, pause, with_marker};

/// The lines of a file that tasks append to.
fn lines(server: &Server, name: &str) -> Vec<String> {
    let text = fs::read_to_string(server.folder().join(name)).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn cancelling_ends_the_processes_of_running_tasks_at_once() {
    let server = Server::start(Options { workers: "1..1", slots: 2, ..Options::default() });
    let marker = format!("cancel-{}", std::process::id());
    let variable = format!("MARK={marker}");
    let id = server.detach(&["--array", "1-50", "--env", &variable, "--", "sh", "-c", "sleep 600 & setsid sleep 600 & wait; sleep 600"]);
    server.until(&id, "running", 2);
    let running = eventually("both tasks have their children", || Some(with_marker("MARK", &marker)).filter(|p| p.len() >= 6));
    server.cli(&["batch", "cancel", &id]).ok();
    let took = gone_within(Duration::from_secs(20), "the processes of a cancelled job", &running);
    println!("cancel: {} processes were gone after {took:?}", running.len());
    let job = server.ended(&id);
    assert_eq!(job["state"], "cancelled");
    assert_eq!((&job["tasks"]["cancelled"], &job["tasks"]["succeeded"], &job["tasks"]["failed"]), (&50.into(), &0.into(), &0.into()));
    assert!(with_marker("MARK", &marker).is_empty(), "nothing was started afterwards");
    // The worker is free for others.
    server.cli(&["batch", "run", "--", "true"]).ok();
    assert!(took < Duration::from_secs(6), "gone only after {took:?}");
}

#[test]
fn a_paused_job_starts_nothing_until_it_is_resumed() {
    let server = Server::start(Options { workers: "1..1", slots: 1, ..Options::default() });
    let id = server.detach(&["--array", "1-200", "--", "sleep", "0.2"]);
    server.until(&id, "succeeded", 3);
    server.cli(&["batch", "pause", &id]).ok();
    let paused = eventually("what was out has come back", || {
        let before = server.job(&id);
        pause(Duration::from_secs(2));
        let after = server.job(&id);
        (before["tasks"]["succeeded"] == after["tasks"]["succeeded"] && after["tasks"]["running"] == 0).then_some(after)
    });
    assert_eq!(paused["state"], "paused", "{paused}");
    let done = paused["tasks"]["succeeded"].as_u64().unwrap();
    assert!((3..195).contains(&done), "{done} of 200 were done before the pause took hold");
    server.cli(&["batch", "explain", &id]).ok();
    server.cli(&["batch", "resume", &id]).ok();
    let job = server.ended(&id);
    assert_eq!((job["state"].as_str(), &job["tasks"]["succeeded"], &job["attempts"]), (Some("succeeded"), &200.into(), &200.into()));
}

#[test]
fn a_job_of_higher_priority_overtakes_one_that_was_there_first() {
    let server = Server::start(Options { workers: "1..1", slots: 1, company: false, calm: true, ..Options::default() });
    let log = server.folder().join("order");
    let task = format!("echo $1 >> '{}'; sleep 0.2", log.display());
    let low = server.detach(&["--array", "1-400", "--name", "low", "--", "sh", "-c", &task, "sh", "low"]);
    server.until(&low, "succeeded", 1);
    let high = server.detach(&["--array", "1-10", "--name", "high", "--priority", "10", "--", "sh", "-c", &task, "sh", "high"]);
    assert_eq!(server.ended(&high)["state"], "succeeded");
    let order = lines(&server, "order");
    let last = order.iter().rposition(|w| w == "high").unwrap();
    let low_before = order[..last].iter().filter(|w| *w == "low").count();
    assert!(low_before < 60, "{low_before} of 400 tasks of low priority went before the last of high priority");
    // And a priority can be changed afterwards: now another job overtakes.
    let later = server.detach(&["--array", "1-5", "--name", "later", "--", "sh", "-c", &task, "sh", "later"]);
    server.cli(&["batch", "priority", &later, "20"]).ok();
    assert_eq!(server.job(&later)["priority"], 20);
    server.ended(&later);
    let low_job = server.job(&low);
    assert_eq!(low_job["state"], "running", "the job of low priority is still at it: {low_job}");
    server.cli(&["batch", "cancel", &low]).ok();
}

#[test]
fn a_job_for_later_starts_then_and_not_before() {
    let server = Server::start(Options::default());
    let id = server.detach(&["--at", "+3s", "--", "true"]);
    let waiting = server.job(&id);
    assert_eq!(waiting["state"], "waiting", "{waiting}");
    let why = server.cli(&["batch", "explain", &id, "-o", "json"]).ok().json();
    assert!(!why["because"].as_array().unwrap().is_empty(), "it says what it waits for: {why}");
    assert_eq!(server.ended(&id)["state"], "succeeded");
    let row = &server
        .sql(&format!("SELECT CAST(started_at AS BIGINT) - CAST(submitted_at AS BIGINT) AS wait FROM batch.jobs WHERE id = '{id}'"))[0];
    let wait = row["wait"].as_i64().unwrap();
    assert!((2_900_000..60_000_000).contains(&wait), "it waited {wait} us");
}

#[test]
fn a_job_waits_for_the_jobs_it_comes_after() {
    let server = Server::start(Options::default());
    let log = server.folder().join("order");
    let say = |word: &str| format!("sleep 1; echo {word} >> '{}'", log.display());
    let first = server.detach(&["--", "sh", "-c", &say("first")]);
    let second = server.detach(&["--after", &first, "--", "sh", "-c", &say("second")]);
    let third = server.detach(&["--after", &first, "--after", &second, "--", "sh", "-c", &say("third")]);
    assert_eq!(server.job(&third)["after"].as_array().unwrap().len(), 2);
    assert_eq!(server.ended(&third)["state"], "succeeded");
    assert_eq!(lines(&server, "order"), ["first", "second", "third"]);
    // What comes after a failure does not run, and says so.
    let bad = server.detach(&["--retries", "0", "--", "false"]);
    let never = server.detach(&["--after", &bad, "--", "sh", "-c", &say("never")]);
    let job = server.ended(&never);
    assert_ne!(job["state"], "succeeded");
    assert!(job["reason"].as_str().unwrap().contains(&bad), "{job}");
    assert_eq!(lines(&server, "order").len(), 3);
    server.cli(&["batch", "run", "--detach", "--after", "j-nowhere", "--", "true"]).says("j-nowhere");
}

#[test]
fn a_submit_that_is_repeated_is_the_same_job() {
    let mut server = Server::start(Options::default());
    let log = server.folder().join("runs");
    let job = format!("name = \"once\"\n[[stage]]\narray = \"1-1\"\nshell = true\ncommand = '''echo ran >> '{}' '''\n", log.display());
    let submit =
        |server: &Server| server.call(&["batch", "submit", "-", "--token", "night-7"]).stdin(job.as_str()).run().ok().word().to_owned();
    let id = submit(&server);
    assert_eq!(submit(&server), id);
    assert_eq!(server.ended(&id)["state"], "succeeded");
    assert_eq!(submit(&server), id, "also when it has ended");
    server.kill9();
    server.restart();
    assert_eq!(submit(&server), id, "also after a crash");
    assert_eq!(lines(&server, "runs"), ["ran"]);
    let other = server.call(&["batch", "submit", "-", "--token", "night-8"]).stdin(job.as_str()).run().ok().word().to_owned();
    assert_ne!(other, id);
    server.ended(&other);
}
