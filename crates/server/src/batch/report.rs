//! Times, waste and cost of a job, from the statistics of its attempts. A job without any gives a report of zeros.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde_json::Value;
use tidemill_api::{CostReport, JobReport, Percentiles, SlowTask, StageReport, WasteRow};
use tidemill_base::{Result, Timestamp};
use tidemill_batch::store::read::{self, StageRow};
use tidemill_query::{Engine, Limits};

use super::view;
use crate::AppState;
use crate::auth::{Principal, Role};
use crate::error::ApiResult;

/// How many of the slowest attempts are named.
const SLOWEST: u32 = 10;
/// Slot time of an attempt.
const BUSY: &str = "stage_in_us + run_us + stage_out_us";

pub(super) async fn report(State(state): State<AppState>, me: Principal, Path(id): Path<String>) -> ApiResult<Json<JobReport>> {
    me.require(Role::Viewer)?;
    let ledger = state.blocks.ledger.as_ref();
    let job = read::job(ledger, &id).await?;
    let stages = read::stages(ledger, Some(&id)).await?;
    let running = view::running(state.blocks.table.as_ref(), &state.env).await?;
    let (engine, table) = (state.service::<Arc<Engine>>()?, view::attempts_table(job.kind));
    let statistics = Statistics { engine, table, job: job.id.replace('\'', "''") };
    let measured = statistics.stages().await?;
    let now = state.env.now();
    let report = JobReport {
        job: view::job_summary(&job, &stages, &running),
        stages: stages.iter().map(|s| stage(s, measured.get(&s.stage), &running, now)).collect(),
        slowest: statistics.slowest(&stages).await?,
        waste: statistics.waste().await?,
        cost: cost(&stages, state.config.fleet.price_per_slot_hour),
    };
    Ok(Json(report))
}

/// What the statistics say of a stage.
#[derive(Debug, Clone, Copy, Default)]
struct Measured {
    wait_us: Percentiles,
    run_us: Percentiles,
    peak_memory: Percentiles,
    cpu_efficiency: f64,
}

struct Statistics {
    engine: Arc<Engine>,
    table: &'static str,
    job: String,
}

impl Statistics {
    async fn ask(&self, sql: &str) -> Result<Vec<Value>> {
        self.engine.query(sql, Limits::default()).await?.to_json_rows().await
    }

    async fn stages(&self) -> Result<BTreeMap<u32, Measured>> {
        let mut columns = Vec::new();
        for name in ["wait_us", "run_us", "peak_memory"] {
            for p in [50, 90, 99] {
                columns.push(format!("approx_percentile_cont(0.{p}) WITHIN GROUP (ORDER BY CAST({name} AS DOUBLE)) AS {name}_p{p}"));
            }
            columns.push(format!("CAST(MAX({name}) AS DOUBLE) AS {name}_max"));
        }
        let sql = format!(
            "SELECT stage_number, {}, CAST(SUM(CASE WHEN class = 'ok' THEN cpu_us ELSE 0 END) AS DOUBLE) AS cpu,
             CAST(SUM(CASE WHEN class = 'ok' THEN run_us ELSE 0 END) AS DOUBLE) AS run
             FROM {} WHERE job = '{}' GROUP BY stage_number",
            columns.join(", "),
            self.table,
            self.job
        );
        let rows = self.ask(&sql).await?;
        Ok(rows.iter().filter_map(|row| Some((u32::try_from(row["stage_number"].as_u64()?).ok()?, measured(row)))).collect())
    }

    async fn slowest(&self, stages: &[StageRow]) -> Result<Vec<SlowTask>> {
        let sql = format!(
            "SELECT stage_number, task, attempt, run_us, worker FROM {} WHERE job = '{}'
             ORDER BY run_us DESC, stage_number, task, attempt LIMIT {SLOWEST}",
            self.table, self.job
        );
        let name = |n: u64| stages.iter().find(|s| u64::from(s.stage) == n).map_or_else(|| n.to_string(), |s| s.name.clone());
        let slow = |row: &Value| SlowTask {
            stage: name(whole(row, "stage_number")),
            task: whole(row, "task"),
            attempt: u32::try_from(whole(row, "attempt")).unwrap_or(u32::MAX),
            run_us: whole(row, "run_us"),
            worker: row["worker"].as_str().unwrap_or_default().to_owned(),
        };
        Ok(self.ask(&sql).await?.iter().map(slow).collect())
    }

    async fn waste(&self) -> Result<Vec<WasteRow>> {
        let sql = format!(
            "SELECT class, COUNT(*) AS attempts, SUM({BUSY}) AS slot_us FROM {} WHERE job = '{}' AND class <> 'ok'
             GROUP BY class ORDER BY slot_us DESC, class",
            self.table, self.job
        );
        let waste = |row: &Value| WasteRow {
            cause: row["class"].as_str().unwrap_or_default().to_owned(),
            attempts: whole(row, "attempts"),
            slot_us: whole(row, "slot_us"),
        };
        Ok(self.ask(&sql).await?.iter().map(waste).collect())
    }
}

fn whole(row: &Value, name: &str) -> u64 {
    row[name].as_u64().unwrap_or(0)
}

fn real(row: &Value, name: &str) -> f64 {
    row[name].as_f64().unwrap_or(0.0)
}

fn measured(row: &Value) -> Measured {
    let percentiles = |name: &str| {
        let at = |p: &str| real(row, &format!("{name}_{p}"));
        Percentiles { p50: at("p50"), p90: at("p90"), p99: at("p99"), max: at("max") }
    };
    let run = real(row, "run");
    Measured {
        wait_us: percentiles("wait_us"),
        run_us: percentiles("run_us"),
        peak_memory: percentiles("peak_memory"),
        cpu_efficiency: if run > 0.0 { real(row, "cpu") / run } else { 0.0 },
    }
}

fn stage(s: &StageRow, measured: Option<&Measured>, running: &view::Running, now: Timestamp) -> StageReport {
    let m = measured.copied().unwrap_or_default();
    let lived = s.started_at.map_or(0.0, |from| s.finished_at.unwrap_or(now).since(from).as_secs_f64());
    StageReport {
        name: s.name.clone(),
        tasks: view::counts(s, running),
        attempts: s.attempts,
        wait_us: m.wait_us,
        run_us: m.run_us,
        peak_memory: m.peak_memory,
        cpu_efficiency: m.cpu_efficiency,
        rate: if lived > 0.0 { (s.succeeded + s.failed) as f64 / lived } else { 0.0 },
    }
}

fn cost(stages: &[StageRow], price: f64) -> CostReport {
    let slot_hours: f64 = stages.iter().map(view::slot_hours).sum();
    let wasted_hours = stages.iter().map(|s| s.wasted_us).sum::<u64>() as f64 / 3_600e6;
    CostReport { price_per_slot_hour: price, slot_hours, total: slot_hours * price, wasted: wasted_hours * price }
}
