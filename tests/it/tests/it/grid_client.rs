//! The Python client while servers and workers are killed: whatever it submits is run, and it gets each result once.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;
use tidemill_it::{Dice, Options, Running, Server, checkout, eventually, pause, python_with, skipped};

/// Waves of 40 calls by `submit`, each read before the next; and calls by `map` beside them.
const WAVES: u64 = 60;
const MAPPED: u64 = 5_000;
const TASKS: u64 = WAVES * 40 + MAPPED;

/// Python with what functions travel by.
pub(crate) fn python(test: &str) -> Option<PathBuf> {
    let made = python_with("cloudpickle", &["cloudpickle==3.1.1"]);
    made.map_err(|why| skipped(test, &format!("cloudpickle cannot be installed ({why})"))).ok()
}

/// A client at work on a server.
pub(crate) struct Client {
    running: Running,
    results: PathBuf,
}

impl Client {
    pub(crate) fn start(server: &Server, python: &Path) -> Self {
        let script = checkout().join("tests/it/tests/it/grid_client/submits.py").display().to_string();
        let results = server.folder().join("results.csv");
        let args = [script.as_str(), &results.display().to_string(), &WAVES.to_string(), &MAPPED.to_string()];
        Self { running: server.python(python, &args).start(), results }
    }

    /// Waits until it has so many eighths of the results of its waves.
    pub(crate) fn until(&mut self, eighths: u64) {
        let least = usize::try_from(WAVES * 40 * eighths / 8).unwrap();
        let lines = || fs::read_to_string(&self.results).unwrap_or_default().lines().count();
        eventually(&format!("{least} results have come"), || (lines() >= least || !self.running.is_running()).then_some(()));
        assert!(self.running.is_running(), "the client has ended before it was put to the test");
    }

    /// Waits for its end. It has got each result once, and so has the server.
    pub(crate) fn check(self, server: &Server) {
        self.running.wait().ok();
        let (mut seen, mut tasks) = (BTreeSet::new(), BTreeSet::new());
        for line in fs::read_to_string(&self.results).unwrap().lines() {
            let [n, value, task] = line.split(',').collect::<Vec<_>>().try_into().unwrap();
            let n: u64 = n.parse().unwrap();
            assert_eq!(value, (n * n).to_string(), "{line}");
            assert!(seen.insert(n), "{n} came twice");
            assert!(task.is_empty() || tasks.insert(task.to_owned()), "two calls have task {task}");
        }
        assert_eq!(seen, (0..TASKS).collect(), "each has come");
        let sessions = server.cli(&["grid", "list", "-o", "json"]).ok().json();
        let kept: Vec<_> = sessions["sessions"].as_array().unwrap().iter().filter(|s| s["name"] == "kept").collect();
        assert_eq!(kept.len(), 1, "{sessions}");
        assert_eq!((&kept[0]["tasks"]["total"], &kept[0]["tasks"]["succeeded"]), (&json!(TASKS), &json!(TASKS)), "{sessions}");
        let id = kept[0]["id"].as_str().unwrap();
        let count = server.sql(&format!("SELECT count(*) AS n, count(DISTINCT task) AS tasks FROM grid.results WHERE session = '{id}'"));
        assert_eq!(count, [json!({"n": TASKS, "tasks": TASKS})]);
    }
}

#[test]
fn a_client_that_submits_and_reads_outlives_kills_of_server_and_workers() {
    let Some(python) = python("a_client_that_submits_and_reads_outlives_kills_of_server_and_workers") else { return };
    let variables = vec![("TIDEMILL_GRID_PYTHON".to_owned(), python.display().to_string())];
    let mut server = Server::start(Options { workers: "2..2", slots: 2, variables, ..Options::default() });
    let mut dice = Dice::new("kill while a client submits");
    let mut client = Client::start(&server, &python);
    for kill in 1..=4 {
        client.until(kill);
        server.kill9();
        pause(dice.millis(50, 800));
        server.restart();
        if kill % 2 == 0 {
            let workers = eventually("workers are there", || Some(server.worker_processes()).filter(|w| !w.is_empty()));
            workers[0].signal(9);
        }
    }
    client.check(&server);
}
