//! `kill -9` of the manager and of workers at random moments, under work: nothing lost, nothing counted twice.
//!
//! Each round submits a job and kills one process after a random while. Jobs of earlier rounds go on meanwhile, so a kill meets every
//! state that a job can be in. At the end each job is compared with the model: the results of its tasks byte for byte, the
//! ledger's counts, and the statistics.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use tidemill_base::ErrorKind;
use tidemill_client::is_final;
use tidemill_runtime::{Stopwatch, sleep};

use crate::mill::{Mill, kill};
use crate::recorder::{Goal, Recorder, Role, Row, median, quantile};
use crate::verify;

const WORKERS: u32 = 2;
/// Jobs that have not ended, at most: more would only make the run longer.
const OPEN_JOBS: usize = 6;
/// A job that takes longer has stalled.
const STALL: Duration = Duration::from_secs(300);
const POLL: Duration = Duration::from_millis(50);

struct Open {
    id: String,
    /// Results are compared with the model.
    process: bool,
    tasks: u64,
    since: Stopwatch,
}

#[derive(Default)]
struct Tally {
    manager_ms: Vec<f64>,
    worker_ms: Vec<f64>,
    job_s: Vec<f64>,
    jobs: u64,
    tasks: u64,
    attempts: u64,
    results: u64,
}

pub(crate) async fn run(recorder: &mut Recorder, rounds: u32, seed: u64) -> Result<()> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut mill = Mill::start(WORKERS, 2).await?;
    let (mut open, mut tally) = (Vec::new(), Tally::default());
    for round in 0..rounds {
        open.push(submit(&mill, round, &mut rng).await?);
        sleep(Duration::from_millis(rng.u64(0..400))).await;
        strike(&mut mill, &mut rng, &mut tally).await.with_context(|| format!("round {round}, seed {seed}"))?;
        while open.len() >= OPEN_JOBS {
            settle(&mill, &mut open, &mut tally).await.with_context(|| format!("round {round}, seed {seed}"))?;
            sleep(POLL).await;
        }
        if round % 10 == 9 {
            eprintln!("  round {}: {} jobs checked, {} open", round + 1, tally.jobs, open.len());
        }
    }
    while !open.is_empty() {
        settle(&mill, &mut open, &mut tally).await.with_context(|| format!("after all rounds, seed {seed}"))?;
        sleep(POLL).await;
    }
    report(recorder, rounds, seed, &tally);
    Ok(())
}

fn report(recorder: &mut Recorder, rounds: u32, seed: u64, tally: &Tally) {
    let what = format!("{} of the manager, {} of a worker; seed {seed}", tally.manager_ms.len(), tally.worker_ms.len());
    recorder.add(Row::new(Role::Ours, "rounds", f64::from(rounds), "kills").note(&what));
    let note = format!("{} jobs, {} tasks, {} attempts, {} result files read", tally.jobs, tally.tasks, tally.attempts, tally.results);
    // A task that was lost or counted twice ends the bench with an error and leaves no row at all.
    recorder.add(Row::new(Role::Ours, "tasks lost", 0.0, "").goal(Goal::Most(0.0)).note(&note));
    recorder.add(Row::new(Role::Ours, "tasks counted twice", 0.0, "").goal(Goal::Most(0.0)).note("by ledger, statistics and result files"));
    for (what, values) in [("manager ready again", &tally.manager_ms), ("workers all ready again", &tally.worker_ms)] {
        recorder.add(Row::new(Role::Ours, &format!("{what}: median"), median(values), "ms"));
        recorder.add(Row::new(Role::Ours, &format!("{what}: longest"), quantile(values, 1.0), "ms"));
    }
    recorder.add(Row::new(Role::Ours, "a job under fire, submit to end: median", median(&tally.job_s), "s"));
    recorder.add(Row::new(Role::Ours, "a job under fire, submit to end: longest", quantile(&tally.job_s, 1.0), "s"));
}

/// Submits one of two kinds of job, as often as it takes; the token makes it one job.
async fn submit(mill: &Mill, round: u32, rng: &mut fastrand::Rng) -> Result<Open> {
    let process = rng.bool();
    let tasks: u64 = if process { rng.u64(5..60) } else { rng.u64(1000..60_000) };
    let array = format!("1-{tasks}");
    // A kill is not the task's fault: it may happen to one task many times.
    let retry = json!({"attempts": 20, "base": "100ms", "cap": "1s", "attempts-by-class": {"lost-worker": 100}});
    let stage = if process {
        json!({"array": array, "command": ["sh", "-c", "echo $(( $1 * $1 )) > \"$2\"", "sh", "{index}", "{out}"], "output": "square", "retry": retry})
    } else {
        json!({"array": array, "noop": true, "retry": retry})
    };
    let job: Value = json!({"name": format!("round-{round}"), "stage": [stage]});
    let watch = Stopwatch::start();
    loop {
        match mill.client.submit(job.clone(), Some(format!("round-{round}"))).await {
            Ok(answer) => return Ok(Open { id: answer.id, process, tasks, since: watch }),
            Err(e) if e.kind() == ErrorKind::Unavailable && watch.elapsed() < STALL => sleep(POLL).await,
            Err(e) => return Err(e.into()),
        }
    }
}

/// Kills the manager or one worker, and waits until all are there again.
async fn strike(mill: &mut Mill, rng: &mut fastrand::Rng, tally: &mut Tally) -> Result<()> {
    let workers = mill.workers();
    if rng.bool() || workers.is_empty() {
        tally.manager_ms.push(mill.restart().await?.as_secs_f64() * 1e3);
        return Ok(());
    }
    kill(workers[rng.usize(..workers.len())])?;
    let watch = Stopwatch::start();
    while mill.workers().len() < WORKERS as usize {
        ensure!(watch.elapsed() < STALL, "no worker took the place of the one that was killed");
        sleep(Duration::from_millis(10)).await;
    }
    tally.worker_ms.push(watch.elapsed().as_secs_f64() * 1e3);
    Ok(())
}

/// Checks the jobs that have ended.
async fn settle(mill: &Mill, open: &mut Vec<Open>, tally: &mut Tally) -> Result<()> {
    for job in std::mem::take(open) {
        let now = match mill.client.job(&job.id).await {
            Ok(now) => now,
            Err(e) if e.kind() == ErrorKind::Unavailable => {
                open.push(job);
                continue;
            }
            Err(e) => return Err(e).context(format!("job {} was accepted and is not there", job.id)),
        };
        if !is_final(&now.state) {
            if job.since.elapsed() > STALL {
                let why = mill.client.explain(&job.id, None, None).await?;
                bail!("job {} has stalled: {:?}, {:?}", job.id, now.tasks, why.because);
            }
            open.push(job);
            continue;
        }
        tally.job_s.push(job.since.elapsed().as_secs_f64());
        verify::settled(mill, &now, job.tasks).await?;
        if job.process {
            tally.results += results(mill, &job).await?;
        }
        tally.jobs += 1;
        tally.tasks += job.tasks;
        tally.attempts += now.attempts;
    }
    Ok(())
}

/// Every task's file is there once and holds what the model says.
async fn results(mill: &Mill, job: &Open) -> Result<u64> {
    let (mut after, mut seen) = (None, 0);
    loop {
        let page = mill.client.results(&job.id, None, after.as_deref()).await?;
        for file in &page.files {
            let index = seen + 1;
            ensure!(file.task == seen, "job {}: the result of task {seen} is missing or there twice, found that of {}", job.id, file.task);
            let content = mill.client.get_href(&file.href).await?;
            let want = format!("{}\n", index * index);
            ensure!(content == want.as_bytes(), "job {}, task {seen}: {content:?} instead of {want:?}", job.id);
            seen += 1;
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    ensure!(seen == job.tasks, "job {}: {seen} results of {} tasks", job.id, job.tasks);
    Ok(seen)
}
