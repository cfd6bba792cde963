//! What the batch system knows, in the words of the public interface.

use std::collections::BTreeMap;

use tidemill_api::{JobDetail, JobSummary, StageDetail, StageTimes, TaskCounts};
use tidemill_base::{Env, Error, Result, Timestamp};
use tidemill_batch::model::{InputSpec, JobSpec};
use tidemill_batch::service::live_workers;
use tidemill_batch::store::read::{JobKind, JobRow, StageRow};
use tidemill_blocks::table::Table;

/// Tasks running now, by job and stage.
#[derive(Debug, Clone, Default)]
pub(crate) struct Running(BTreeMap<(String, u32), u64>);

impl Running {
    fn of(&self, job: &str, stage: u32) -> u64 {
        self.0.get(&(job.to_owned(), stage)).copied().unwrap_or(0)
    }
}

/// What the workers say they are running.
pub(crate) async fn running(table: &dyn Table, env: &Env) -> Result<Running> {
    let mut out = Running::default();
    for task in live_workers(table, env.now()).await?.into_iter().flat_map(|w| w.running) {
        *out.0.entry((task.job, task.stage)).or_default() += 1;
    }
    Ok(out)
}

/// A stage's tasks by where they stand. A heartbeat is a moment old: it cannot make more run than there are out.
pub(crate) fn counts(s: &StageRow, running: &Running) -> TaskCounts {
    let now = running.of(&s.job, s.stage).min(s.outstanding);
    let settled = s.succeeded + s.failed + s.cancelled + s.skipped + s.retrying;
    TaskCounts {
        total: s.total,
        succeeded: s.succeeded,
        failed: s.failed,
        running: now,
        waiting: s.total.saturating_sub(settled + now),
        retrying: s.retrying,
        cancelled: s.cancelled,
        skipped: s.skipped,
    }
}

fn sum(counts: impl Iterator<Item = TaskCounts>) -> TaskCounts {
    counts.fold(TaskCounts::default(), |a, b| TaskCounts {
        total: a.total + b.total,
        succeeded: a.succeeded + b.succeeded,
        failed: a.failed + b.failed,
        running: a.running + b.running,
        waiting: a.waiting + b.waiting,
        retrying: a.retrying + b.retrying,
        cancelled: a.cancelled + b.cancelled,
        skipped: a.skipped + b.skipped,
    })
}

fn text(t: Option<Timestamp>) -> Option<String> {
    t.map(Timestamp::rfc3339)
}

/// A job in a list; `stages` are its own.
pub(crate) fn job_summary(job: &JobRow, stages: &[StageRow], running: &Running) -> JobSummary {
    JobSummary {
        id: job.id.clone(),
        name: job.name.clone(),
        user: job.user.clone(),
        class: job.class.clone(),
        priority: job.priority,
        state: job.state.as_str().to_owned(),
        reason: job.reason.clone(),
        tasks: sum(stages.iter().map(|s| counts(s, running))),
        submitted_at: job.submitted_at.rfc3339(),
        started_at: text(job.started_at),
        finished_at: text(job.finished_at),
    }
}

/// The table that holds the settled attempts of such a job.
pub(super) const fn attempts_table(kind: JobKind) -> &'static str {
    match kind {
        JobKind::Job => "batch.tasks",
        JobKind::Session => "grid.attempts",
    }
}

/// Slot time of a stage in hours.
pub(crate) fn slot_hours(s: &StageRow) -> f64 {
    (s.stage_in_us + s.run_us + s.stage_out_us) as f64 / 3_600e6
}

/// A job in full.
pub(super) fn job_detail(job: &JobRow, spec: &JobSpec, stages: &[StageRow], running: &Running, price: f64) -> Result<JobDetail> {
    let summary = job_summary(job, stages, running);
    Ok(JobDetail {
        id: summary.id,
        name: summary.name,
        user: summary.user,
        class: summary.class,
        priority: summary.priority,
        state: summary.state,
        reason: summary.reason,
        tasks: summary.tasks,
        attempts: stages.iter().map(|s| s.attempts).sum(),
        submitted_at: summary.submitted_at,
        started_at: summary.started_at,
        finished_at: summary.finished_at,
        after: spec.after.clone(),
        labels: spec.labels.clone(),
        cron: spec.cron.clone(),
        cron_parent: job.cron_parent.clone(),
        stages: stages.iter().map(|s| stage_detail(s, spec, running)).collect(),
        cost: stages.iter().map(slot_hours).sum::<f64>() * price,
        spec: serde_json::to_value(spec).map_err(|e| Error::internal("encode job").with_source(e))?,
    })
}

fn stage_detail(s: &StageRow, spec: &JobSpec, running: &Running) -> StageDetail {
    let from = match spec.stages.get(s.stage as usize).map(|s| &s.input) {
        Some(InputSpec::Stage { stage, .. }) => Some(stage.clone()),
        _ => None,
    };
    StageDetail {
        stage: s.stage,
        name: s.name.clone(),
        state: s.state.clone(),
        from,
        tasks: counts(s, running),
        attempts: s.attempts,
        failed_attempts: s.failed_attempts,
        times: StageTimes {
            wait_us: s.wait_us,
            stage_in_us: s.stage_in_us,
            run_us: s.run_us,
            stage_out_us: s.stage_out_us,
            wasted_us: s.wasted_us,
            cpu_us: s.cpu_us,
        },
        peak_memory: s.peak_memory,
        bytes_in: s.bytes_in,
        bytes_out: s.bytes_out,
        mean_us: s.mean_us,
        started_at: text(s.started_at),
        finished_at: text(s.finished_at),
    }
}
