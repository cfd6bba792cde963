//! Python functions that do next to nothing: what is left is what each system itself costs.

use anyhow::Result;
use serde_json::Value;

use super::python::{Answer, Python};
use super::turn::{self, Spent};
use crate::memory;
use crate::mill::Mill;
use crate::peers;
use crate::recorder::{Goal, Recorder, Role, Row, median, number};

const LEAST_RATE: f64 = 100_000.0;
const MOST_MEMORY_MIB: f64 = 500.0;
const MEDIAN_MS: f64 = 1.0;
const P99_MS: f64 = 5.0;
const TURNS: usize = 3;

/// A tenth of `most` tasks on every system, then all of them on ours.
pub(crate) async fn run(recorder: &mut Recorder, most: u64) -> Result<()> {
    let python = Python::find()?;
    let count = most / 10;
    beside_peers(recorder, &python, count).await?;
    million(recorder, &python, most).await
}

async fn beside_peers(recorder: &mut Recorder, python: &Python, count: u64) -> Result<()> {
    let group = format!("{} calls", number(count as f64));
    let add = |recorder: &mut Recorder, role: Role, what: &str, answer: Result<Answer>| {
        let row = answer.and_then(|a| Ok(Row::new(role, what, a.rate()?, "tasks/s").note(&tasks_and_note(&a)?)));
        recorder.add(row.unwrap_or_else(|e| Row::absent(what, &format!("could not be measured: {e:#}"))).group(&group));
    };
    let peer = |system: &str, n: u64| python.run("calls.py", &[system, &n.to_string()], None);
    add(recorder, Role::Floor, "ProcessPoolExecutor(2).map, 500 calls packed into a task by hand", peer("chunked", count));
    let mill = turn::mill(python).await?;
    let (mut rates, mut futures, mut notes) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..TURNS {
        let (answer, spent) = ours(&mill, python, "tidemill", count, "all").await?;
        rates.push(answer.rate()?);
        notes.push(spent.a_task(count as f64));
        let (answer, spent) = ours(&mill, python, "tidemill-futures", count, "all").await?;
        futures.push(answer.rate()?);
        notes.push(spent.a_task(count as f64));
    }
    let (read, _) = ours(&mill, python, "tidemill", count, "collect").await?;
    add(recorder, Role::Peer, "ProcessPoolExecutor(2).submit", peer("pool", count));
    add(recorder, Role::Peer, "Ray", peer("ray", count / 5));
    add(recorder, Role::Peer, "Dask distributed", peer("dask", count / 20));
    let celery = peers::by_script(
        &peers::environment(&peers::PACKAGES, peers::MODULES)?,
        "celery_peer.py",
        &[&(count / 20).to_string(), "plus_one"],
    );
    recorder.add(
        match celery {
            Ok((rate, note)) => {
                Row::new(Role::Peer, "Celery + Redis", rate, "tasks/s").note(&format!("{} tasks; {note}", number((count / 20) as f64)))
            }
            Err(e) => Row::absent("Celery + Redis", &format!("could not be measured: {e:#}")),
        }
        .group(&group),
    );
    let note = |what: &str| format!("median of {TURNS}; {what}");
    let row = Row::new(Role::Ours, "tidemill, Grid.map", median(&rates), "tasks/s").goal(Goal::Least(LEAST_RATE));
    recorder.add(row.note(&note(&notes[notes.len() - 2])).group(&group));
    let row = Row::new(Role::Ours, "tidemill, Grid.submit, a future for each", median(&futures), "tasks/s");
    recorder.add(row.note(&note(&notes[notes.len() - 1])).group(&group));
    let row = Row::new(Role::Ours, "results that lie ready, read by one client", read.rate()?, "results/s");
    let made = read.number("count")? / read.number("made_seconds")?;
    recorder.add(row.goal(Goal::Least(made)).note("the goal is the rate at which they were made").group(&group));
    Ok(())
}

/// All at once, on a fresh server, for its memory.
async fn million(recorder: &mut Recorder, python: &Python, most: u64) -> Result<()> {
    let mill = turn::mill(python).await?;
    let (answer, spent) = ours(&mill, python, "tidemill", most, "all").await?;
    let (name, group) = (number(most as f64), number(most as f64));
    let manager = memory::peak_mib(mill.manager());
    let worker = mill.workers().first().map_or(0.0, |pid| memory::peak_mib(*pid));
    let behind = behind(&mill, &answer).await?;
    turn::settled(&mill, &answer).await?;
    let add = |recorder: &mut Recorder, what: &str, value: f64, unit: &str, goal: Option<Goal>, note: &str| {
        let row = Row::new(Role::Ours, &format!("{name} calls: {what}"), value, unit).note(note).group(&group);
        recorder.add(match goal {
            Some(goal) => row.goal(goal),
            None => row,
        });
    };
    add(recorder, "tidemill, Grid.map", answer.rate()?, "tasks/s", Some(Goal::Least(LEAST_RATE)), &spent.a_task(most as f64));
    add(recorder, "the last result is with the client after the last call's end", behind, "ms", None, "results come while tasks go");
    add(recorder, "peak memory of the manager", manager, "MiB", Some(Goal::Most(MOST_MEMORY_MIB)), "");
    add(recorder, "peak memory of the worker", worker, "MiB", None, "without its engines");
    add(recorder, "peak memory of the client", answer.number("client_mib")?, "MiB", None, "which adds up results as they come");
    Ok(())
}

/// Milliseconds from the end of the session's last call, by the worker's clock, to the client's having all results.
async fn behind(mill: &Mill, answer: &Answer) -> Result<f64> {
    let session = answer.text("session");
    let row =
        mill.sql(&format!("SELECT max(CAST(started_at AS BIGINT) + run_us) AS last FROM grid.attempts WHERE job = '{session}'")).await?;
    let last = row.get("last").and_then(Value::as_f64).unwrap_or(0.0);
    Ok(answer.number("ended_us")? / 1e3 - last / 1e3)
}

async fn ours(mill: &Mill, python: &Python, system: &str, count: u64, what: &str) -> Result<(Answer, Spent)> {
    let (answer, spent) = turn::run(mill, python, "calls.py", &[system, &count.to_string(), what]).await?;
    Ok((answer, spent))
}

fn tasks_and_note(answer: &Answer) -> Result<String> {
    Ok(format!("{} tasks; {}", number(answer.number("count")?), answer.text("note")))
}

/// One call after another, each when the one before has its result.
pub(crate) async fn trips(recorder: &mut Recorder, count: u64) -> Result<()> {
    let python = Python::find()?;
    let n = count.to_string();
    let mill = turn::mill(&python).await?;
    let (ours, _) = turn::run(&mill, &python, "calls.py", &["tidemill", &n, "trips"]).await?;
    let peers = [("ProcessPoolExecutor", "pool", count), ("Ray", "ray", count), ("Dask distributed", "dask", count / 10)];
    for (what, system, count) in peers {
        match python.run("calls.py", &[system, &count.to_string(), "trips"], None) {
            Ok(answer) => add_trip(recorder, Role::Peer, what, &answer, false)?,
            Err(e) => recorder.add(Row::absent(what, &format!("could not be measured: {e:#}"))),
        }
    }
    add_trip(recorder, Role::Ours, "tidemill", &ours, true)
}

fn add_trip(recorder: &mut Recorder, role: Role, what: &str, answer: &Answer, goals: bool) -> Result<()> {
    let parts = [("median", "median_ms", MEDIAN_MS), ("99th percentile", "p99_ms", P99_MS)];
    for (part, key, most) in parts {
        let row = Row::new(role, &format!("{what}: {part}"), answer.number(key)?, "ms").note(&tasks_and_note(answer)?).group(part);
        recorder.add(if goals { row.goal(Goal::Most(most)) } else { row });
    }
    Ok(())
}
