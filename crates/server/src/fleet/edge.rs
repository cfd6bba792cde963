//! Workers, groups and the overview over HTTP.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use tidemill_api::{Group, GroupList, Overview, Worker, WorkerList, WorkerTask};
use tidemill_base::{Error, Timestamp};
use tidemill_batch::protocol::{Control, EnginesBeat, Heartbeat, WorkerPhase, encode, keys};
use tidemill_batch::service::{SILENT_AFTER, live_engines, live_workers};
use tidemill_batch::store::read::{self, JobFilter, JobKind};
use tidemill_blocks::table::{Condition, Write};

use super::Scaler;
use crate::AppState;
use crate::auth::{Principal, Role};
use crate::batch::{job_summary, running};
use crate::error::ApiResult;

/// The routes.
pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/api/v1/fleet/workers", get(workers))
        .route("/api/v1/fleet/workers/{id}/drain", post(drain))
        .route("/api/v1/fleet/groups", get(groups))
        .route("/api/v1/overview", get(overview))
}

async fn workers(State(state): State<AppState>, me: Principal) -> ApiResult<Json<WorkerList>> {
    me.require(Role::Viewer)?;
    let now = state.env.now();
    let found = live_workers(state.blocks.table.as_ref(), now).await?;
    let engines = live_engines(state.blocks.table.as_ref(), now).await?;
    Ok(Json(WorkerList { workers: found.into_iter().map(|w| worker(w, &engines, now)).collect() }))
}

/// Slots in use. A worker names a task of a session only when it runs by itself; of those that travel together an engine runs one at a time.
fn busy(w: &Heartbeat, engines: &[EnginesBeat]) -> u32 {
    let pools = || engines.iter().filter(|e| e.worker == w.worker).flat_map(|e| &e.pools);
    let in_engines = pools().flat_map(|p| &p.engines).filter(|e| e.running.is_some()).count();
    let (named, others): (Vec<_>, Vec<_>) = w.running.iter().partition(|t| pools().any(|p| p.jobs.contains(&t.job)));
    u32::try_from(others.len() + named.len().max(in_engines)).unwrap_or(u32::MAX)
}

fn worker(w: Heartbeat, engines: &[EnginesBeat], now: Timestamp) -> Worker {
    let silent = now.since(w.at) > SILENT_AFTER;
    let phase = match w.phase {
        _ if silent => "silent",
        WorkerPhase::Ready => "ready",
        WorkerPhase::Draining => "draining",
        WorkerPhase::Gone => "gone",
    };
    let task = |t: tidemill_batch::protocol::RunningTask| WorkerTask {
        job: t.job,
        stage: t.stage,
        task: t.task,
        attempt: t.attempt,
        started_at: t.started_at.rfc3339(),
        memory: t.memory,
    };
    Worker {
        busy: busy(&w, engines),
        id: w.worker,
        class: w.class,
        host: w.host,
        version: w.version,
        state: phase.to_owned(),
        slots: w.offers.slots,
        memory: w.offers.memory,
        named: w.offers.named,
        started_at: w.started_at.rfc3339(),
        heard_at: w.at.rfc3339(),
        running: w.running.into_iter().map(task).collect(),
        tasks_done: w.tasks_done,
        busy_us: w.busy_us,
        cpu_us: w.cpu_us,
        tools: w.tools,
    }
}

/// A member of a group is drained by its group, so that another takes its place; any other worker is asked to go.
async fn drain(State(state): State<AppState>, me: Principal, Path(id): Path<String>) -> ApiResult<(StatusCode, Json<serde_json::Value>)> {
    me.require(Role::Operator)?;
    let known = live_workers(state.blocks.table.as_ref(), state.env.now()).await?.iter().any(|w| w.worker == id);
    let group = state.blocks.fleet.groups().await?.into_iter().find(|g| g.members.iter().any(|m| m.id == id));
    if let Some(group) = group {
        state.blocks.fleet.drain(&group.spec.name, &id, true).await?;
    } else if known {
        let write = Write::put(keys::control_worker(&id), encode(&Control::Drain)?, Condition::Any);
        state.blocks.table.write_many(keys::CONTROL_TABLE, vec![write]).await?;
    } else {
        return Err(Error::not_found(format!("there is no worker `{id}`; `tidemill fleet list` shows those there are")).into());
    }
    Ok((StatusCode::ACCEPTED, Json(serde_json::json!({}))))
}

async fn groups(State(state): State<AppState>, me: Principal) -> ApiResult<Json<GroupList>> {
    me.require(Role::Viewer)?;
    let scaler = state.service::<Scaler>()?;
    let mut groups = Vec::new();
    for g in state.blocks.fleet.groups().await? {
        let (decided, history) = scaler.picture(&g.spec.name).await?;
        let members = u32::try_from(g.members.len()).unwrap_or(u32::MAX);
        // What the manager that scales has written down is newer than what another one's driver remembers.
        let elsewhere = history.last().filter(|_| !scaler.is_in_charge()).map(|p| (p.desired, p.members));
        let (desired, members) = elsewhere.unwrap_or((g.desired, members));
        let reason = state.blocks.fleet.trouble(&g.spec.name).await?.unwrap_or(decided);
        groups.push(Group { name: g.spec.name, min: g.spec.min, max: g.spec.max, desired, members, reason, history });
    }
    Ok(Json(GroupList { groups }))
}

async fn overview(State(state): State<AppState>, me: Principal) -> ApiResult<Json<Overview>> {
    me.require(Role::Viewer)?;
    let ledger = state.blocks.ledger.as_ref();
    let now = state.env.now();
    let workers = live_workers(state.blocks.table.as_ref(), now).await?;
    let engines = live_engines(state.blocks.table.as_ref(), now).await?;
    let running = running(state.blocks.table.as_ref(), &state.env).await?;
    let mut recent = Vec::new();
    for job in read::jobs(ledger, &JobFilter { kind: Some(JobKind::Job), limit: 10, ..JobFilter::default() }).await? {
        recent.push(job_summary(&job, &read::stages(ledger, Some(&job.id)).await?, &running));
    }
    let counts = ledger.query("SELECT state, COUNT(*) FROM batch_jobs WHERE kind = 'job' GROUP BY state ORDER BY state", vec![]).await?;
    let mut jobs = std::collections::BTreeMap::new();
    for row in &counts {
        jobs.insert(row.text(0)?.to_owned(), row.uint(1)?);
    }
    let waiting = "SELECT CAST(COALESCE(SUM(s.total - s.succeeded - s.failed - s.cancelled - s.skipped), 0) AS BIGINT) FROM batch_stages s JOIN batch_jobs j ON j.id = s.job
                   WHERE j.state IN ('running', 'paused', 'waiting')";
    let open = ledger.query(waiting, vec![]).await?.first().map(|r| r.int(0)).transpose()?.unwrap_or(0);
    let dead = ledger.query("SELECT COUNT(*) FROM batch_exceptions WHERE state = 'dead'", vec![]).await?;
    let tasks_running = workers.iter().map(|w| u64::from(busy(w, &engines))).sum::<u64>();
    let slots = workers.iter().map(|w| w.offers.slots).sum();
    Ok(Json(Overview {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started_at: state.service::<crate::assembly::Started>()?.0.rfc3339(),
        jobs,
        tasks_waiting: u64::try_from(open).unwrap_or(0).saturating_sub(tasks_running),
        tasks_running,
        workers: u32::try_from(workers.len()).unwrap_or(u32::MAX),
        slots,
        slots_busy: u32::try_from(tasks_running).unwrap_or(u32::MAX).min(slots),
        dead: dead.first().map(|r| r.uint(0)).transpose()?.unwrap_or(0),
        recent,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_batch::protocol::{EngineBeat, PoolBeat, RunningTask};
    use tidemill_blocks::fleet::Offers;

    #[test]
    fn a_slot_counts_once_whether_its_task_is_named_or_travels_with_others() {
        let task = |job: &str| RunningTask { job: job.into(), stage: 0, task: 1, attempt: 1, started_at: Timestamp(0), memory: 0 };
        let beat = |worker: &str, jobs: &[&str]| Heartbeat {
            worker: worker.into(),
            class: "default".into(),
            host: "h".into(),
            version: "1".into(),
            offers: Offers { slots: 4, memory: 0, named: std::collections::BTreeMap::new() },
            started_at: Timestamp(0),
            at: Timestamp(0),
            phase: WorkerPhase::Ready,
            running: jobs.iter().map(|j| task(j)).collect(),
            ranges: 0,
            waiting: 0,
            idle: 0,
            tasks_done: 0,
            busy_us: 0,
            cpu_us: 0,
            tools: Vec::new(),
        };
        let engine = |running| EngineBeat { running, ..EngineBeat::default() };
        let pool = PoolBeat {
            jobs: vec!["session".into()],
            engines: vec![engine(Some((0, 5))), engine(Some((0, 9))), engine(None)],
            ..PoolBeat::default()
        };
        let engines =
            [EnginesBeat { worker: "w1".into(), host: "h".into(), at: Timestamp(0), pools: vec![pool], counts: Default::default() }];
        assert_eq!(busy(&beat("w1", &["job", "job", "session"]), &engines), 4);
        assert_eq!(busy(&beat("w1", &[]), &engines), 2);
        assert_eq!(busy(&beat("w2", &["job"]), &engines), 1);
    }
}
