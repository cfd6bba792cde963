//! Explanations and reports of a real job over HTTP, with a worker that is played by hand.
#![allow(clippy::unwrap_used, reason = "a failure is a failed test")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use reqwest::Client;
use serde_json::{Value, json};
use tidemill_base::{Env, Timestamp};
use tidemill_batch::model::{FailureClass, TaskColumns, TaskFailure, TaskStat};
use tidemill_batch::protocol::{Claim, Done, Heartbeat, Report, RunningTask, WorkItem, WorkerPhase, claim, decode, encode, keys};
use tidemill_batch::service::{BatchSettings, Manager};
use tidemill_blocks::Blocks;
use tidemill_blocks::fleet::Offers;
use tidemill_blocks::queue::{NewMessage, Receive};
use tidemill_blocks::table::{Condition, Write};
use tidemill_blocks_test::run_real;
use tidemill_query::EngineSettings;
use tidemill_runtime::{Kind, Shutdown, Tasks};
use tidemill_server::assembly::edges;
use tidemill_server::auth::Role;
use tidemill_server::config::ServerConfig;
use tidemill_server::sql::{self, ParquetSink};
use tidemill_server::{AppState, listen, router};

struct Mill {
    url: String,
    admin: String,
    blocks: Blocks,
    env: Env,
}

/// A server with a manager that leads, and no worker.
async fn mill() -> Mill {
    let (env, tasks) = (Env::system(), Tasks::new("server", Shutdown::new()));
    let blocks = support::blocks(&env);
    let manager = Manager::new(blocks.clone(), env.clone(), BatchSettings::default(), Arc::new(ParquetSink { price: 0.0 })).await.unwrap();
    let engine = sql::engine(&blocks, &manager, env.clone(), EngineSettings::default(), 0.0).unwrap();
    let state = AppState::new(blocks.clone(), env.clone(), tasks.clone(), ServerConfig::default(), false).await.unwrap();
    let state = state.with_service(manager.clone()).with_service(engine);
    state.auth.create_user("root", Role::Admin).await.unwrap();
    let (_, admin) = state.auth.create_token("root", Role::Admin, &[], None).await.unwrap();
    manager.start(&tasks);
    let app = router(state.clone(), edges(&state));
    let listener = listen::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tasks.spawn("http", Kind::Essential, async move { listen::serve(listener, app, None, &state).await });
    Mill { url, admin: admin.expose().to_owned(), blocks, env }
}

impl Mill {
    async fn get(&self, path: &str) -> Value {
        let response = Client::new().get(format!("{}/api/v1/batch/jobs/{path}", self.url)).bearer_auth(&self.admin).send().await.unwrap();
        response.json().await.unwrap()
    }

    async fn submit(&self) -> String {
        let stage = json!({ "name": "a", "array": "0-9", "command": ["true"], "retry": { "attempts": 1 } });
        let body = json!({ "job": { "name": "n", "stage": [stage] } });
        let post = Client::new().post(format!("{}/api/v1/batch/jobs", self.url)).bearer_auth(&self.admin).json(&body);
        let made: Value = post.send().await.unwrap().json().await.unwrap();
        made["id"].as_str().unwrap_or_else(|| panic!("{made}")).to_owned()
    }

    /// Explains until one of the reasons says `what`.
    async fn explained(&self, path: &str, what: &str) -> Value {
        let mut last = Value::Null;
        for _ in 0..250 {
            last = self.get(path).await;
            if last["because"].as_array().is_some_and(|b| b.iter().any(|b| b.as_str().unwrap().contains(what))) {
                return last;
            }
            tidemill_runtime::sleep(Duration::from_millis(20)).await;
        }
        panic!("no reason says `{what}`: {last:#}");
    }

    /// A sign of life of the worker `w1`, which has two slots.
    async fn heartbeat(&self, running: Vec<RunningTask>) {
        let now = self.env.now();
        let beat = Heartbeat {
            worker: "w1".into(),
            class: "default".into(),
            host: "h".into(),
            version: "1".into(),
            offers: Offers { slots: 2, memory: 1 << 30, named: Default::default() },
            started_at: now,
            at: now,
            phase: WorkerPhase::Ready,
            running,
            ranges: 1,
            waiting: 0,
            idle: 0,
            tasks_done: 0,
            busy_us: 0,
            cpu_us: 0,
            tools: vec![],
        };
        let write = Write::put(keys::worker("w1"), encode(&beat).unwrap(), Condition::Any);
        self.blocks.table.write_many(keys::WORKER_TABLE, vec![write]).await.unwrap();
    }

    /// Takes every range there is, lets odd tasks fail, and reports.
    async fn work(&self) -> u64 {
        let queue = keys::work_queue("default");
        let how = Receive::up_to(100, Duration::from_secs(30));
        let mut tasks = 0;
        for d in self.blocks.queue.receive(&queue, how).await.unwrap() {
            let item: WorkItem = decode("item", &d.body).unwrap();
            let Claim::Take(mut fence) = claim(None, "w1", self.env.now(), Duration::from_secs(30)) else { panic!("nobody has it") };
            (fence.seq, fence.finished) = (1, true);
            fence.settled.insert_run(item.start, item.len);
            let report = report(&item, self.env.now());
            let writes = vec![
                Write::put(keys::fence(&item.job, item.stage, item.range), encode(&fence).unwrap(), Condition::Absent),
                Write::put(keys::report(&item.job, item.stage, item.range, 1), encode(&report).unwrap(), Condition::Absent),
            ];
            self.blocks.table.transact(keys::STATE_TABLE, writes).await.unwrap();
            let done = Done { job: item.job, stage: item.stage, range: item.range, seq: 1 };
            self.blocks.queue.send(keys::DONE_QUEUE, vec![NewMessage::now(encode(&done).unwrap())]).await.unwrap();
            self.blocks.queue.ack(&queue, &[d.receipt]).await.unwrap();
            tasks += item.len;
        }
        tasks
    }
}

/// Task n runs for n + 1 seconds and uses the processor for half of that.
fn report(item: &WorkItem, at: Timestamp) -> Report {
    let (mut succeeded, mut failed, mut columns) = (vec![], vec![], TaskColumns::default());
    for task in item.start..item.start + item.len {
        let run_us = (task + 1) * 1_000_000;
        let class = if task % 2 == 1 { FailureClass::Timeout.code() } else { 0 };
        columns.push(TaskStat {
            task,
            attempt: 1,
            class,
            run_us,
            cpu_us: run_us / 2,
            wait_us: 10,
            started_us: at.micros(),
            ..TaskStat::default()
        });
        if class == 0 {
            succeeded.push((task, 1));
        } else {
            failed.push(TaskFailure { task, class: FailureClass::Timeout, exit: None, signal: None, message: "took too long".into() });
        }
    }
    let columns = columns.pack().unwrap();
    Report {
        worker: "w1".into(),
        epoch: 1,
        attempt: 1,
        succeeded,
        failed,
        returned: vec![],
        cancelled: vec![],
        finished: true,
        columns,
        at,
    }
}

#[test]
fn a_job_is_explained_and_reported_from_its_beginning_to_its_end() {
    run_real(async |_| {
        let mill = mill().await;
        let id = mill.submit().await;
        let e = mill.explained(&format!("{id}/explain"), "no worker that takes class `default`, and no group").await;
        assert_eq!(e["state"], "running");
        assert!(e["next"].as_array().unwrap().iter().any(|n| n.as_str().unwrap().contains("tidemill worker")), "{e:#}");
        mill.explained(&format!("{id}/explain?stage=0&task=9"), "no worker that takes class `default`").await;

        let report = mill.get(&format!("{id}/report")).await;
        assert_eq!(
            (report["slowest"].as_array().unwrap().len(), report["stages"][0]["run_us"]["max"].as_f64()),
            (0, Some(0.0)),
            "{report:#}"
        );

        let running = RunningTask { job: id.clone(), stage: 0, task: 0, attempt: 1, started_at: mill.env.now(), memory: 5 };
        mill.heartbeat(vec![running]).await;
        mill.explained(&format!("{id}/explain?stage=0&task=0"), "worker w1 runs attempt 1").await;
        mill.heartbeat(vec![]).await;
        mill.explained(&format!("{id}/explain?stage=0"), "2 slots free").await;

        let mut done = 0;
        while done < 10 {
            done += mill.work().await;
            tidemill_runtime::sleep(Duration::from_millis(20)).await;
        }
        let e = mill.explained(&format!("{id}/explain"), "5 tasks of stage 0 `a` failed with timeout").await;
        assert!(e["next"].to_string().contains(&format!("tidemill batch retry {id}")), "{e:#}");
        let e = mill.explained(&format!("{id}/explain?stage=0&task=1"), "took too long").await;
        assert_eq!(e["state"], "failed");
        let e = mill.explained(&format!("{id}/explain?stage=0&task=2"), "attempt 1 succeeded on worker w1 after 3s").await;
        assert_eq!((e["state"].as_str(), e["next"].as_array().unwrap().len()), (Some("succeeded"), 0));

        let report = mill.get(&format!("{id}/report")).await;
        let stage = &report["stages"][0];
        assert_eq!((stage["attempts"].as_u64(), stage["run_us"]["max"].as_f64()), (Some(10), Some(10e6)), "{report:#}");
        let p50 = stage["run_us"]["p50"].as_f64().unwrap();
        assert!((5e6..=6e6).contains(&p50), "{p50}");
        assert_eq!((stage["cpu_efficiency"].as_f64(), stage["wait_us"]["p99"].as_f64()), (Some(0.5), Some(10.0)));
        assert!(stage["rate"].as_f64().unwrap() > 0.0);
        let slowest: Vec<u64> = report["slowest"].as_array().unwrap().iter().map(|s| s["task"].as_u64().unwrap()).collect();
        assert_eq!(slowest, (0..10).rev().collect::<Vec<_>>());
        assert_eq!(report["waste"], json!([{ "cause": "timeout", "attempts": 5, "slot_us": 30_000_000 }]));
        let (hours, price) = (55.0 / 3600.0, ServerConfig::default().fleet.price_per_slot_hour);
        assert!((report["cost"]["total"].as_f64().unwrap() - hours * price).abs() < 1e-9, "{report:#}");
        assert!((report["cost"]["wasted"].as_f64().unwrap() - 30.0 / 3600.0 * price).abs() < 1e-9);
    });
}

#[test]
fn what_there_is_not_is_refused_in_words() {
    run_real(async |_| {
        let mill = mill().await;
        let id = mill.submit().await;
        for (path, message) in [
            ("jnone/explain".to_owned(), "there is no job `jnone`".to_owned()),
            (format!("{id}/explain?task=3"), "`task=3` needs its stage".to_owned()),
            (format!("{id}/explain?stage=7"), format!("job {id} has no stage 7; its stages are 0 `a`")),
            (format!("{id}/explain?stage=0&task=10"), "its tasks are 0 to 9".to_owned()),
            ("jnone/report".to_owned(), "there is no job `jnone`".to_owned()),
        ] {
            let body = mill.get(&path).await;
            assert!(body["error"]["message"].as_str().unwrap_or_default().contains(&message), "{path}: {body}");
        }
    });
}
