//! Looking into a session: how it went, why tasks failed, and which engines it has.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, Query, State};
use serde::Deserialize;
use tidemill_api::{FailureGroup, SessionEngine, SessionEngines, SessionFailures, SessionProgress, TaskFailureDetail};
use tidemill_base::{Error, Result, Timestamp};
use tidemill_batch::protocol::{EngineBeat, EnginesBeat, PoolBeat, TaskError, decode};
use tidemill_batch::service::{DeadResult, Delivered, Manager, live_engines};
use tidemill_batch::store::course::{self, Ended};
use tidemill_batch::store::read::{self, ExceptionRow};

use super::sessions::may_look;
use crate::AppState;
use crate::auth::Principal;
use crate::error::ApiResult;

/// Deliveries that a course is drawn from: a session that has had more is drawn from the last of them.
const DELIVERIES: u64 = 10_000;
/// Failures that are grouped.
const FAILURES: u64 = 10_000;
/// Tasks of a group that are named.
const EXAMPLES: usize = 5;
/// Deliveries with failures that are searched for one task's.
const SEARCHED: u32 = 10_000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ProgressQuery {
    /// Into how many steps the time is cut, 1 to 1,000.
    points: Option<u64>,
}

pub(super) async fn progress(
    State(state): State<AppState>,
    me: Principal,
    Path(id): Path<String>,
    Query(query): Query<ProgressQuery>,
) -> ApiResult<Json<SessionProgress>> {
    let row = may_look(&state, &me, &id).await?;
    let ledger = state.blocks.ledger.as_ref();
    let stages = read::stages(ledger, Some(&id)).await?;
    // A retried task has ended twice in its deliveries, and once in the counts.
    let total = stages.first().map_or(0, |s| s.succeeded + s.failed + s.skipped);
    let ended = course::ended(ledger, &id, DELIVERIES).await?;
    let all = (ended.len() as u64) < DELIVERIES;
    let from = row.started_at.filter(|_| all).or(ended.first().map(|e| e.at)).unwrap_or(row.submitted_at);
    let to = row.finished_at.unwrap_or_else(|| state.env.now());
    let mut cut = cut(&ended, from, to, query.points.unwrap_or(120).clamp(1, 1_000));
    let drawn: u64 = ended.iter().map(|e| e.succeeded + e.failed).sum();
    cut.before = if all { 0 } else { total.saturating_sub(drawn) };
    Ok(Json(cut))
}

/// Counts what ended in each of `points` equal steps between two moments.
fn cut(ended: &[Ended], from: Timestamp, to: Timestamp, points: u64) -> SessionProgress {
    let span = u64::try_from((to.micros() - from.micros()).max(1)).unwrap_or(1);
    let step_us = span.div_ceil(points).max(1);
    let steps = usize::try_from(span.div_ceil(step_us)).unwrap_or(1);
    let (mut succeeded, mut failed) = (vec![0; steps], vec![0; steps]);
    for e in ended {
        let at = u64::try_from(e.at.micros() - from.micros()).unwrap_or(0) / step_us;
        let at = usize::try_from(at).unwrap_or(usize::MAX).min(steps - 1);
        succeeded[at] += e.succeeded;
        failed[at] += e.failed;
    }
    SessionProgress { from: from.rfc3339(), step_us, before: 0, succeeded, failed }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FailuresQuery {
    limit: Option<usize>,
}

pub(super) async fn failures(
    State(state): State<AppState>,
    me: Principal,
    Path(id): Path<String>,
    Query(query): Query<FailuresQuery>,
) -> ApiResult<Json<SessionFailures>> {
    may_look(&state, &me, &id).await?;
    let rows = read::exceptions(state.blocks.ledger.as_ref(), &id, None, FAILURES).await?;
    let more = rows.len() as u64 == FAILURES;
    let dead: Vec<&ExceptionRow> = rows.iter().filter(|e| e.dead).collect();
    let mut groups = group(&dead);
    groups.truncate(query.limit.unwrap_or(50).clamp(1, 500));
    Ok(Json(SessionFailures { tasks: dead.len() as u64, more, groups }))
}

fn group(dead: &[&ExceptionRow]) -> Vec<FailureGroup> {
    let mut found: BTreeMap<(String, String), (FailureGroup, Timestamp)> = BTreeMap::new();
    for e in dead {
        let entry = found.entry((e.class.clone(), without_numbers(&e.message))).or_insert_with(|| {
            let group = FailureGroup {
                class: e.class.clone(),
                message: e.message.clone(),
                tasks: 0,
                examples: Vec::new(),
                worker: e.worker.clone(),
                last_at: String::new(),
            };
            (group, e.at)
        });
        entry.0.tasks += 1;
        entry.1 = entry.1.max(e.at);
        if entry.0.examples.len() < EXAMPLES {
            entry.0.examples.push(e.task);
        }
    }
    let mut groups: Vec<FailureGroup> =
        found.into_values().map(|(group, last)| FailureGroup { last_at: last.rfc3339(), ..group }).collect();
    groups.sort_by(|a, b| b.tasks.cmp(&a.tasks).then_with(|| a.examples.cmp(&b.examples)));
    groups
}

/// A message with every number in it made the same, so that "trade 17" and "trade 4" fail alike.
fn without_numbers(message: &str) -> String {
    let mut out = String::with_capacity(message.len());
    for c in message.chars() {
        if !c.is_ascii_digit() {
            out.push(c);
        } else if !out.ends_with('#') {
            out.push('#');
        }
    }
    out.replace("#.#", "#")
}

pub(super) async fn failure(
    State(state): State<AppState>,
    me: Principal,
    Path((id, task)): Path<(String, u64)>,
) -> ApiResult<Json<TaskFailureDetail>> {
    may_look(&state, &me, &id).await?;
    let manager = state.service::<Manager>()?;
    let mut before = u64::MAX >> 1;
    for _ in 0..SEARCHED {
        let Some((n, dead)) = course::failures_before(state.blocks.ledger.as_ref(), &id, before).await? else { break };
        if let Some(dead) = dead.into_iter().find(|d| d.task == task) {
            let delivered = manager.deliveries(&id, n - 1, 1).await?;
            return Ok(Json(told(delivered.first(), &dead)?));
        }
        before = n;
    }
    Err(Error::not_found(format!("task {task} of session {id} has not failed for good; `tidemill grid explain {id}` says how it stands"))
        .into())
}

/// What the delivery says of a task that failed in it.
fn told(delivered: Option<&Delivered>, dead: &DeadResult) -> Result<TaskFailureDetail> {
    let mut out = TaskFailureDetail {
        task: dead.task,
        kind: dead.class.map_or("dependency", |c| c.as_str()).to_owned(),
        message: dead.message.clone(),
        traceback: String::new(),
        attempt: 0,
        run_us: 0,
        made_by: String::new(),
    };
    let Some((page, body)) = delivered.and_then(|d| Some((d.page.as_ref()?, &d.body))) else { return Ok(out) };
    for (at, (task, bytes)) in page.split(body)?.into_iter().enumerate() {
        if task == dead.task && page.ok.get(at) == Some(&0) {
            let error: TaskError = decode("a task's error", &bytes)?;
            (out.kind, out.message, out.traceback) = (error.kind, error.message, error.traceback);
            (out.attempt, out.run_us) = (page.attempt, page.run_us.get(at).copied().unwrap_or(0));
            out.made_by.clone_from(&page.made_by);
        }
    }
    Ok(out)
}

pub(super) async fn engines(State(state): State<AppState>, me: Principal, Path(id): Path<String>) -> ApiResult<Json<SessionEngines>> {
    may_look(&state, &me, &id).await?;
    let beats = live_engines(state.blocks.table.as_ref(), state.env.now()).await?;
    Ok(Json(SessionEngines { engines: of_session(&beats, &id) }))
}

/// How many engines hold the state of a session, and how many of them run a task of it.
pub(super) fn warm(beats: &[EnginesBeat], id: &str) -> (u32, u64) {
    let engines = of_session(beats, id);
    let warm = engines.iter().filter(|e| e.state == "warm").count();
    (u32::try_from(warm).unwrap_or(u32::MAX), engines.iter().filter(|e| e.running.is_some()).count() as u64)
}

fn of_session(beats: &[EnginesBeat], id: &str) -> Vec<SessionEngine> {
    let mut out = Vec::new();
    for beat in beats {
        for pool in &beat.pools {
            let Some(place) = (0_u32..).zip(&pool.jobs).find(|(_, job)| *job == id).map(|(place, _)| place) else { continue };
            out.extend(pool.engines.iter().map(|engine| shown(beat, pool, engine, place)));
        }
    }
    out
}

fn shown(beat: &EnginesBeat, pool: &PoolBeat, engine: &EngineBeat, place: u32) -> SessionEngine {
    let warm = engine.warm.iter().find(|(job, _)| *job == place).map(|(_, version)| *version);
    let state = match warm {
        Some(_) => "warm",
        None if engine.pid == 0 => "starting",
        None => "cold",
    };
    let version = warm.or(engine.version).and_then(|at| pool.versions.get(at as usize));
    SessionEngine {
        worker: beat.worker.clone(),
        host: beat.host.clone(),
        id: engine.id.clone(),
        pid: engine.pid,
        state: state.to_owned(),
        versions: version.cloned().unwrap_or_default(),
        memory: engine.memory,
        running: engine.running.filter(|(job, _)| *job == place).map(|(_, task)| task),
        in_hand: engine.in_hand,
        finished: engine.finished,
        replaced: engine.replaced,
        last_loss: engine.last_loss.clone(),
        heard_at: beat.at.rfc3339(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ended_is_counted_in_equal_steps_and_nothing_falls_out_at_the_edges() {
        let at = |us: i64| Timestamp(1_000_000 + us);
        let one = |us, succeeded, failed| Ended { at: at(us), succeeded, failed };
        // Before the first release by another clock, on a border, and after the end.
        let ended = [one(-5, 1, 0), one(0, 2, 0), one(24, 4, 1), one(25, 8, 0), one(100, 16, 0), one(130, 32, 2)];
        let cut = cut(&ended, at(0), at(100), 4);
        assert_eq!((cut.step_us, cut.succeeded, cut.failed), (25, vec![7, 8, 0, 48], vec![1, 0, 0, 2]));
        let none = super::cut(&[], at(0), at(0), 120);
        assert_eq!((none.succeeded.as_slice(), none.step_us), ([0].as_slice(), 1));
    }

    fn failed(task: u64, class: &str, message: &str) -> ExceptionRow {
        ExceptionRow {
            stage: 0,
            task,
            attempts: 1,
            class: class.into(),
            exit: None,
            signal: None,
            message: message.into(),
            worker: "w1".into(),
            dead: true,
            due: None,
            at: Timestamp(task.cast_signed()),
        }
    }

    #[test]
    fn tasks_that_differ_in_numbers_alone_fail_alike() {
        let rows = [
            failed(7, "error", "ValueError: trade 17 has volatility -0.25"),
            failed(8, "error", "ValueError: trade 4 has volatility -3"),
            failed(9, "error", "KeyError: 'USD'"),
            failed(10, "timeout", "ValueError: trade 4 has volatility -3"),
        ];
        let groups = group(&rows.iter().collect::<Vec<_>>());
        let shown: Vec<(&str, u64, &[u64])> = groups.iter().map(|g| (g.message.as_str(), g.tasks, g.examples.as_slice())).collect();
        assert_eq!(
            shown,
            [
                ("ValueError: trade 17 has volatility -0.25", 2, [7, 8].as_slice()),
                ("KeyError: 'USD'", 1, &[9]),
                ("ValueError: trade 4 has volatility -3", 1, &[10]),
            ]
        );
        assert_eq!(groups[0].last_at, Timestamp(8).rfc3339());
    }

    #[test]
    fn engines_are_those_whose_pool_has_the_session_and_warm_when_they_have_opened_it() {
        let engine = |pid, warm: &[(u32, u32)]| EngineBeat { pid, warm: warm.to_vec(), version: Some(0), ..EngineBeat::default() };
        let pool = PoolBeat {
            kind: "python".into(),
            jobs: vec!["other".into(), "mine".into()],
            versions: vec!["python 3".into(), "python 3, curves 7".into()],
            engines: vec![
                EngineBeat { running: Some((1, 40)), ..engine(5, &[(0, 0), (1, 1)]) },
                EngineBeat { running: Some((0, 3)), ..engine(6, &[(0, 0)]) },
                engine(0, &[]),
            ],
        };
        let elsewhere = PoolBeat { jobs: vec!["other".into()], ..pool.clone() };
        let beats = [EnginesBeat {
            worker: "w1".into(),
            host: "h".into(),
            at: Timestamp(0),
            pools: vec![elsewhere, pool],
            counts: Default::default(),
        }];
        let found = of_session(&beats, "mine");
        let shown: Vec<_> = found.iter().map(|e| (e.state.as_str(), e.versions.as_str(), e.running)).collect();
        assert_eq!(shown, [("warm", "python 3, curves 7", Some(40)), ("cold", "python 3", None), ("starting", "python 3", None)]);
        assert_eq!((warm(&beats, "mine"), warm(&beats, "other"), warm(&beats, "none")), ((1, 1), (4, 2), (0, 0)));
    }
}
