//! No-op tasks through the whole path (submit, lease, complete, statistics), and how memory grows with their number.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};
use tidemill_runtime::Stopwatch;

use crate::mill::Mill;
use crate::recorder::{Goal, Recorder, Role, Row, median, number};
use crate::{memory, verify};

const LEAST_RATE: f64 = 50_000.0;
const MOST_MEMORY_MIB: f64 = 300.0;
const ARRAY: u64 = 10_000_000;

pub(crate) async fn run(recorder: &mut Recorder, most: u64) -> Result<()> {
    let mut rates = Vec::new();
    for (count, times) in [(most / 100, 9), (most / 10, 5), (most, 3)] {
        rates.push(size(recorder, count, times, count == most).await?);
    }
    let note = "1: as fast at the largest size as at the smallest";
    let ratio = rates[2] / rates[0];
    recorder.add(Row::new(Role::Ours, "rate at the largest size over that at the smallest", ratio, "").goal(Goal::Least(0.9)).note(note));
    array(recorder).await
}

fn noops(count: u64) -> Value {
    json!({"name": "no-ops", "stage": [{"array": format!("1-{count}"), "noop": true}]})
}

/// Runs so many no-ops several times on a fresh server. Returns the median rate.
async fn size(recorder: &mut Recorder, count: u64, times: usize, largest: bool) -> Result<f64> {
    let mill = Mill::start(1, 2).await?;
    mill.run(noops(100), Duration::from_millis(20)).await?;
    let (mut rates, mut whole) = (Vec::new(), Vec::new());
    for _ in 0..times {
        let watch = Stopwatch::start();
        let job = mill.run(noops(count), Duration::from_millis(10)).await?;
        whole.push(count as f64 / watch.elapsed().as_secs_f64());
        rates.push(count as f64 / from_first_start(&mill, &job).await?);
        // The check itself takes memory in the manager: its query is not what is measured, so only the last run has it.
        if rates.len() == times {
            add_memory(recorder, &mill, count, largest);
            verify::settled(&mill, &job, count).await?;
        }
    }
    let (rate, name) = (median(&rates), number(count as f64));
    let row = Row::new(Role::Ours, &format!("{name} no-ops, first task started to job ended"), rate, "tasks/s");
    let row = row.note(&format!("median of {times}; with the submit and its start {}/s", number(median(&whole))));
    recorder.add(if largest { row.goal(Goal::Least(LEAST_RATE)) } else { row });
    Ok(rate)
}

fn add_memory(recorder: &mut Recorder, mill: &Mill, count: u64, largest: bool) {
    let name = number(count as f64);
    let row = Row::new(Role::Ours, &format!("peak memory of the manager, {name}"), memory::peak_mib(mill.manager()), "MiB");
    recorder.add(if largest { row.goal(Goal::Most(MOST_MEMORY_MIB)) } else { row });
    let worker = mill.workers().first().map_or(0.0, |pid| memory::peak_mib(*pid));
    recorder.add(Row::new(Role::Ours, &format!("peak memory of the worker, {name}"), worker, "MiB"));
}

/// Seconds from the start of the job's first task to the job's end.
async fn from_first_start(mill: &Mill, job: &tidemill_api::JobDetail) -> Result<f64> {
    let row = mill.client.tasks(&job.id, &tidemill_client::TaskFilter { limit: Some(1), ..Default::default() }).await?;
    let started = row.tasks.first().and_then(|t| verify::micros(t.started_at.as_deref()?));
    let finished = job.finished_at.as_deref().and_then(verify::micros);
    match (started, finished) {
        (Some(started), Some(finished)) if finished > started => Ok((finished - started) as f64 / 1e6),
        _ => verify::seconds(job),
    }
}

/// Accepts an array of ten million tasks with no worker there, and cancels it.
async fn array(recorder: &mut Recorder) -> Result<()> {
    let mill = Mill::start(0, 2).await?;
    let before = memory::peak_mib(mill.manager());
    let watch = Stopwatch::start();
    let job = mill.client.submit(noops(ARRAY), None).await?;
    let accepted = watch.elapsed().as_secs_f64();
    let cut = loop {
        let job = mill.client.job(&job.id).await?;
        if job.tasks.total == ARRAY {
            break watch.elapsed().as_secs_f64();
        }
    };
    let grown = memory::peak_mib(mill.manager()) - before;
    let name = format!("an array of {}", number(ARRAY as f64));
    recorder.add(Row::new(Role::Ours, &format!("{name} accepted in"), accepted * 1e3, "ms").goal(Goal::Most(5e3)));
    recorder.add(Row::new(Role::Ours, &format!("{name} cut in"), cut * 1e3, "ms").note("until every task is counted"));
    recorder.add(Row::new(Role::Ours, &format!("{name}: memory it takes in the manager"), grown, "MiB"));
    Ok(())
}
