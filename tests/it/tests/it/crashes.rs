//! Managers and workers that die in the middle of a job. `TIDEMILL_IT_ROUNDS` says how often.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use serde_json::Value;
use tidemill_it::{Dice, Options, Process, Server, eventually, pause};

fn rounds() -> u64 {
    std::env::var("TIDEMILL_IT_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(5)
}

/// A job of `n` tasks that each take a moment, note their start in a file beside, and leave their number behind.
fn counting(server: &Server, n: u64, log: &str) -> String {
    let log = server.folder().join(log);
    let script = format!("echo $1 $$ >> '{}'; sleep 0.3; echo $1 > \"$2\"", log.display());
    let array = format!("1-{n}");
    server.detach(&["--array", &array, "--output-name", "{index}", "--", "sh", "-c", &script, "sh", "{index}", "{out}"])
}

/// How often each task was started, by what the tasks noted themselves.
fn starts(server: &Server, log: &str) -> BTreeMap<u64, u64> {
    let text = fs::read_to_string(server.folder().join(log)).unwrap_or_default();
    let mut counts = BTreeMap::new();
    for line in text.lines() {
        let index = line.split(' ').next().unwrap().parse().unwrap();
        *counts.entry(index).or_default() += 1;
    }
    counts
}

/// Every task has succeeded, is counted once, and its result is there, once and right.
fn check(server: &Server, id: &str, job: &Value, n: u64) {
    assert_eq!(job["state"], "succeeded", "{job}");
    for (word, count) in [("total", n), ("succeeded", n), ("failed", 0), ("running", 0), ("waiting", 0), ("retrying", 0), ("cancelled", 0)]
    {
        assert_eq!(job["tasks"][word], count, "{word}: {job}");
    }
    let want: BTreeMap<String, Vec<u8>> = (1..=n).map(|i| (i.to_string(), format!("{i}\n").into_bytes())).collect();
    assert!(server.results(id) == want, "results differ");
    let rows = server.sql(&format!(
        "SELECT count(*) AS n, count(DISTINCT task) AS tasks, min(task) AS first, max(task) AS last FROM batch.tasks WHERE job = '{id}' AND class = 'ok'"
    ));
    let number = |name: &str| rows[0][name].as_u64().unwrap();
    assert_eq!((number("n"), number("tasks"), number("first"), number("last")), (n, n, 0, n - 1), "statistics of each task, once");
}

#[test]
fn a_manager_killed_at_any_moment_loses_nothing_and_interrupts_nobody() {
    let mut server = Server::start(Options { workers: "2..2", slots: 2, ..Options::default() });
    let mut dice = Dice::new("kill the manager");
    for round in 0..rounds() {
        let (n, log) = (40, format!("starts-{round}"));
        let id = counting(&server, n, &log);
        // Sometimes at once after the submit, sometimes in the middle, sometimes near the end.
        let before = dice.millis(0, 4_000);
        pause(before);
        let workers = server.worker_processes();
        server.kill9();
        let away = dice.millis(0, 1_500);
        pause(away);
        server.restart();
        println!("round {round}: killed after {before:?}, away for {away:?}, {} workers", workers.len());
        let job = server.ended(&id);
        check(&server, &id, &job, n);
        assert!(workers.iter().all(|w| w.is_alive()), "round {round}: workers survive their manager");
        let again: BTreeMap<u64, u64> = starts(&server, &log).into_iter().filter(|(_, times)| *times != 1).collect();
        assert!(again.is_empty(), "round {round}: tasks that were started again although no worker died: {again:?}");
        assert_eq!(job["attempts"], n, "round {round}");
    }
    assert_eq!(server.worker_processes().len(), 2, "no worker was started beside those that lived");
}

#[test]
fn a_task_runs_on_while_its_manager_is_away_and_is_not_started_again() {
    let mut server = Server::start(Options { workers: "1..1", slots: 1, ..Options::default() });
    let log = server.folder().join("pids");
    // Longer than a manager needs to come back, be it on engines that answer late.
    let script = format!("echo $$ >> '{}'; sleep 30; echo whole > \"$1\"", log.display());
    let id = server.detach(&["--", "sh", "-c", &script, "sh", "{out}"]);
    let pid: i32 = eventually("the task runs", || fs::read_to_string(&log).ok()?.trim().parse().ok());
    let task = Process::of(pid).unwrap();
    let worker = server.worker_processes();
    server.kill9();
    pause(Duration::from_secs(2));
    assert!(task.is_alive(), "the task goes on without the manager");
    server.restart();
    assert!(task.is_alive(), "and with the new one");
    let shown = server.until(&id, "running", 1);
    assert_eq!(shown["state"], "running");
    let job = server.ended(&id);
    assert_eq!((job["state"].as_str(), &job["attempts"]), (Some("succeeded"), &1.into()), "{job}");
    assert_eq!(server.results(&id)["out"], b"whole\n");
    assert_eq!(fs::read_to_string(&log).unwrap().lines().count(), 1, "started once");
    assert_eq!(server.worker_processes(), worker);
}

#[test]
fn a_worker_killed_at_any_moment_is_replaced_and_its_tasks_count_once() {
    let server = Server::start(Options { workers: "2..2", slots: 2, ..Options::default() });
    let mut dice = Dice::new("kill workers");
    for round in 0..rounds() {
        let (n, log) = (30, format!("starts-{round}"));
        let id = counting(&server, n, &log);
        let before = dice.millis(0, 3_000);
        pause(before);
        let workers = eventually("both workers are there", || Some(server.worker_processes()).filter(|w| w.len() == 2));
        let victim = workers[usize::try_from(dice.below(2)).unwrap()];
        victim.signal(9);
        let job = server.ended(&id);
        println!(
            "round {round}: killed a worker after {before:?}: {} starts, {} attempts",
            starts(&server, &log).values().sum::<u64>(),
            job["attempts"]
        );
        check(&server, &id, &job, n);
        let started = starts(&server, &log);
        assert_eq!(started.len() as u64, n, "every task ran");
        eventually("the worker is replaced", || {
            let now = server.worker_processes();
            (now.len() == 2 && !now.contains(&victim)).then_some(())
        });
    }
}

#[test]
fn manager_and_workers_killed_together_lose_nothing_that_was_acknowledged() {
    let mut server = Server::start(Options { workers: "2..2", slots: 2, ..Options::default() });
    let mut dice = Dice::new("kill everything");
    let ids: Vec<String> = (0..3).map(|i| counting(&server, 20, &format!("starts-{i}"))).collect();
    for _ in 0..2 {
        pause(dice.millis(500, 2_500));
        let workers = server.worker_processes();
        server.kill9();
        workers.iter().for_each(|w| w.signal(9));
        server.restart();
    }
    for id in &ids {
        let job = server.ended(id);
        check(&server, id, &job, 20);
    }
}
