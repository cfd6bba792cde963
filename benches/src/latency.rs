//! From submit to the first task started, with a worker that has nothing to do. One machine, so one clock.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::json;
use tidemill_base::Env;
use tidemill_runtime::{Stopwatch, sleep};

use crate::mill::{Mill, scratch};
use crate::recorder::{Goal, Recorder, Role, Row, median, quantile};
use crate::{floor, verify};

const MEDIAN_MS: f64 = 20.0;
const P99_MS: f64 = 100.0;

pub(crate) async fn run(recorder: &mut Recorder, submits: usize) -> Result<()> {
    let mill = Mill::start(1, 2).await?;
    let folder = scratch()?;
    let mut rng = fastrand::Rng::with_seed(1);
    let (mut seen, mut told, mut answered) = (Vec::new(), Vec::new(), Vec::new());
    for n in 0..submits + 5 {
        let file = folder.path().join(n.to_string());
        // The task writes down when it runs: that is later than when it was started, by what `sh` and `date` take.
        let script = format!("date +%s%N > {}", file.display());
        let job = json!({"name": "latency", "stage": [{"array": "1-1", "command": ["sh", "-c", script]}]});
        let sent = Env::system().now().micros();
        let watch = Stopwatch::start();
        let id = mill.client.submit(job, None).await?.id;
        let answer = watch.elapsed().as_secs_f64() * 1e3;
        let job = mill.end_of(&id, Duration::from_millis(5)).await?;
        verify::settled(&mill, &job, 1).await?;
        let tasks = mill.client.tasks(&id, &tidemill_client::TaskFilter { state: Some("all".to_owned()), ..Default::default() }).await?;
        let started = tasks.tasks.first().and_then(|t| verify::micros(t.started_at.as_deref()?)).context("the task has no start")?;
        let text = std::fs::read_to_string(&file).context("the task wrote no time")?;
        let ran: i64 = text.trim().parse()?;
        // The first few warm up connections and caches.
        if n >= 5 {
            seen.push((ran / 1000 - sent) as f64 / 1e3);
            told.push((started - sent) as f64 / 1e3);
            answered.push(answer);
        }
        sleep(Duration::from_millis(rng.u64(20..120))).await;
    }
    let sync = 1e3 / floor::syncs(folder.path())?;
    recorder.add(Row::new(Role::Floor, "one fdatasync on this disk", sync, "ms").note("a submit makes a job durable before it answers"));
    let how = format!("{submits} submits, one after another, with a pause of 20 to 120 ms");
    let add = |recorder: &mut Recorder, what: &str, values: &[f64], goals: bool| {
        let half = Row::new(Role::Ours, &format!("{what}: median"), median(values), "ms").note(&how);
        let most = Row::new(Role::Ours, &format!("{what}: 99th percentile"), quantile(values, 0.99), "ms");
        recorder.add(if goals { half.goal(Goal::Most(MEDIAN_MS)) } else { half });
        recorder.add(if goals { most.goal(Goal::Most(P99_MS)) } else { most });
    };
    add(recorder, "submit sent to the time that the task itself reads", &seen, true);
    add(recorder, "submit sent to the start in the statistics", &told, true);
    add(recorder, "submit sent to its answer", &answered, false);
    Ok(())
}
