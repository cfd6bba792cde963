//! One run of a script on a server, with what it cost there, and a check of what the server has kept.

use anyhow::{Result, ensure};
use serde_json::Value;

use super::python::{Answer, Python};
use crate::memory;
use crate::mill::Mill;

/// CPU seconds of a run by where they were spent.
pub(super) struct Spent {
    manager: f64,
    worker: f64,
    engines: f64,
    client: f64,
}

impl Spent {
    /// So much a task, in words.
    pub(super) fn a_task(&self, tasks: f64) -> String {
        let us = |seconds: f64| format!("{:.1}", 1e6 * seconds / tasks);
        let (client, manager, worker, engines) = (us(self.client), us(self.manager), us(self.worker), us(self.engines));
        format!("CPU a task {client} µs in the client, {manager} in the manager, {worker} in the worker, {engines} in the engines")
    }
}

/// A server with one worker of two slots, whose engines run on this Python.
pub(super) async fn mill(python: &Python) -> Result<Mill> {
    Mill::start_with(1, 2, python.for_engines()?).await
}

/// Runs a script against the server, and makes sure that the session has every task's result once.
pub(super) async fn run(mill: &Mill, python: &Python, script: &str, args: &[&str]) -> Result<(Answer, Spent)> {
    let before = used(mill);
    let answer = python.run(script, args, Some(mill.data()))?;
    let after = used(mill);
    // Engines that are not there any more have been waited for, and count with their worker.
    let spent = Spent {
        manager: after.0 - before.0,
        worker: after.1 - before.1,
        engines: after.2 - before.2,
        client: answer.number("cpu_seconds").unwrap_or(0.0),
    };
    Ok((answer, spent))
}

/// Every task of the script's session succeeded once and has its result in the table.
pub(super) async fn settled(mill: &Mill, answer: &Answer) -> Result<()> {
    let session = answer.text("session");
    let tasks = answer.number("count")? as u64;
    let sql = format!("SELECT count(*) AS results, count(DISTINCT task) AS tasks FROM grid.results WHERE session = '{session}'");
    let row = mill.sql(&sql).await?;
    let number = |name: &str| row.get(name).and_then(Value::as_u64).unwrap_or(0);
    let (results, different) = (number("results"), number("tasks"));
    // The tasks that warmed the engines up are there as well.
    ensure!(results == different && results >= tasks, "session {session} of {tasks} tasks holds {results} results of {different} tasks");
    Ok(())
}

fn used(mill: &Mill) -> (f64, f64, f64) {
    let workers = mill.workers();
    let engines: Vec<u32> = workers.iter().flat_map(|w| memory::descendants(*w)).collect();
    let sum = |pids: &[u32]| pids.iter().map(|p| memory::cpu_seconds(*p)).sum();
    (memory::cpu_seconds(mill.manager()), sum(&workers), sum(&engines))
}
