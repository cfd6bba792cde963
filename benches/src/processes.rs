//! 10,000 `/bin/true` on two slots: what of the machine's own rate of starting processes is left when each is a durable task with
//! statistics and logs.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::json;
use tidemill_runtime::Stopwatch;

use crate::mill::{Mill, program};
use crate::recorder::{Goal, Recorder, Role, Row, median};
use crate::{floor, memory, peers, verify};

/// Floor and ours take turns so often: what else the machine does falls on both.
const TURNS: usize = 5;
const SLOTS: u32 = 2;
const SHARE_OF_FLOOR: f64 = 0.75;

pub(crate) async fn run(recorder: &mut Recorder, count: u64) -> Result<()> {
    let mill = Mill::start(1, SLOTS).await?;
    let warm = json!({"name": "warm-up", "stage": [{"array": "1-200", "command": ["/bin/true"]}]});
    verify::settled(&mill, &mill.run(warm, Duration::from_millis(50)).await?, 200).await?;
    floor::spawns(count / 10)?;
    let (mut floors, mut served, mut waited, mut ratios, mut cpu) = (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..TURNS {
        let bare = floor::spawns(count)?;
        let before = used(&mill);
        let (server, client) = turn(&mill, count).await?;
        let spent = used(&mill);
        cpu.push((1e3 * (spent.0 - before.0) / count as f64, 1e3 * (spent.1 - before.1) / count as f64));
        floors.push(bare);
        served.push(server);
        waited.push(client);
        ratios.push(server / bare);
    }
    recorder.add(Row::new(Role::Floor, "bare posix_spawn, two threads", median(&floors), "tasks/s").note(&format!("median of {TURNS}")));
    peers::run(recorder, count);
    let (managers, workers): (Vec<f64>, Vec<f64>) = cpu.into_iter().unzip();
    let note = format!(
        "median of {TURNS}, by the job's own times; CPU a task {:.2} ms in the manager, {:.2} ms in the worker and its tasks",
        median(&managers),
        median(&workers)
    );
    recorder.add(Row::new(Role::Ours, "tidemill, first task released to job ended", median(&served), "tasks/s").note(&note));
    let note = "median, from the start of `tidemill batch run` to its end";
    recorder.add(Row::new(Role::Ours, "tidemill, as the user waits", median(&waited), "tasks/s").note(note));
    let note = "median of the ratios of neighbouring runs";
    recorder.add(Row::new(Role::Ours, "tidemill's share of the floor", median(&ratios), "").goal(Goal::Least(SHARE_OF_FLOOR)).note(note));
    let note = "after all of the above";
    recorder.add(Row::new(Role::Ours, "peak memory of the manager", memory::peak_mib(mill.manager()), "MiB").note(note));
    let worker = mill.workers().first().map_or(0.0, |pid| memory::peak_mib(*pid));
    recorder.add(Row::new(Role::Ours, "peak memory of the worker", worker, "MiB").note(note));
    Ok(())
}

/// One run by the command line. Tasks a second by the server's times, and by the time that the user waits.
async fn turn(mill: &Mill, count: u64) -> Result<(f64, f64)> {
    let watch = Stopwatch::start();
    let data = mill.data().to_string_lossy();
    let array = format!("1-{count}");
    let mut command = Command::new(program()?);
    command.args(["--data", &data, "--output", "quiet", "batch", "run", "--array", &array, "--", "/bin/true"]);
    let output = command.env_remove("TIDEMILL_TOKEN").stdin(Stdio::null()).output()?;
    let waited = watch.elapsed().as_secs_f64();
    if !output.status.success() {
        bail!("batch run failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    let newest = mill.client.jobs(&tidemill_client::JobFilter { limit: Some(1), ..Default::default() }).await?;
    let Some(newest) = newest.jobs.first() else { bail!("the job is not in the list") };
    let job = mill.client.job(&newest.id).await?;
    verify::settled(mill, &job, count).await?;
    Ok((count as f64 / verify::seconds(&job)?, count as f64 / waited))
}

/// CPU seconds used so far by the manager, and by the worker with its tasks.
fn used(mill: &Mill) -> (f64, f64) {
    (memory::cpu_seconds(mill.manager()), mill.workers().into_iter().map(memory::cpu_seconds).sum())
}
