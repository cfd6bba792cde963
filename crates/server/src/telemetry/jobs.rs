//! Jobs in traces: the job is a span below the request that submitted it, its stages are spans below the job, and its tasks find the
//! job's span in `TRACEPARENT`.

use std::time::Duration;

use tidemill_base::{Env, Error, Result, Timestamp};
use tidemill_batch::model::JobSpec;
use tidemill_batch::service::Manager;
use tidemill_blocks::ledger::Ledger;
use tidemill_runtime::Shutdown;

use super::{Span, TRACEPARENT, TraceContext, Traces};

/// The variable that tasks find.
const VARIABLE: &str = "TRACEPARENT";
/// A job with so many labels of its own has no room for one more.
const MAX_LABELS: usize = 64;
/// Between two looks for jobs that have ended.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A manager that does not lead looks so often whether it does.
const STANDBY: Duration = Duration::from_secs(1);

/// Puts a job into the trace of whoever submits it. The job keeps what it needs for that among its labels and its stages' variables.
///
/// A job on a cron line is left alone: its copies would all be one span.
pub(crate) fn join_trace(spec: &mut JobSpec, caller: &TraceContext, env: &Env) {
    if spec.cron.is_some() || spec.labels.len() >= MAX_LABELS {
        return;
    }
    let job = caller.child(env).to_string();
    spec.labels.insert(TRACEPARENT.to_owned(), caller.to_string());
    for stage in &mut spec.stages {
        stage.env.entry(VARIABLE.to_owned()).or_insert_with(|| job.clone());
    }
}

/// Records jobs as they end.
pub(crate) async fn follow_jobs(
    traces: Traces,
    manager: Manager,
    ledger: std::sync::Arc<dyn Ledger>,
    env: Env,
    shutdown: Shutdown,
) -> Result<()> {
    let mut changes = manager.changes();
    let mut seen = env.now();
    while shutdown.phase().is_running() {
        tokio::select! {
            biased;
            () = shutdown.draining() => {}
            changed = changes.changed() => if changed.is_err() { return Ok(()) },
            () = tidemill_runtime::sleep(STANDBY) => {}
        }
        // Of several managers the one that leads records what ends.
        if !manager.leads() {
            seen = env.now();
            continue;
        }
        match ended_since(ledger.as_ref(), &mut seen, &env).await {
            Ok(spans) => spans.into_iter().for_each(|span| traces.record(span)),
            Err(e) => tracing::debug!(error = %e.chain(), "cannot look for jobs to trace"),
        }
        shutdown.sleep(LOOK_EVERY).await;
    }
    Ok(())
}

async fn ended_since(ledger: &dyn Ledger, seen: &mut Timestamp, env: &Env) -> Result<Vec<Span>> {
    let sql =
        "SELECT id, name, state, spec, submitted_us, finished_us FROM batch_jobs WHERE finished_us > $1 ORDER BY finished_us LIMIT 500";
    let mut out = Vec::new();
    for row in ledger.query(sql, vec![(*seen).into()]).await? {
        let (id, finished) = (row.text(0)?, Timestamp(row.int(5)?));
        *seen = (*seen).max(finished);
        let spec: JobSpec =
            serde_json::from_str(row.text(3)?).map_err(|e| Error::corrupt(format!("job {id} does not decode")).with_source(e))?;
        let Some((context, parent)) = place_of(&spec) else { continue };
        let (started, failed) = (Timestamp(row.int(4)?), row.text(2)? == "failed");
        let attributes = vec![
            ("tidemill.job", id.to_owned()),
            ("tidemill.job.name", row.text(1)?.to_owned()),
            ("tidemill.state", row.text(2)?.to_owned()),
        ];
        out.push(Span {
            context,
            parent: Some(parent.span),
            name: "job".to_owned(),
            serves: false,
            started,
            ended: finished,
            attributes,
            failed,
        });
        out.extend(stages(ledger, id, &context, env).await?);
    }
    Ok(out)
}

/// The job's span and the caller's, if it was submitted within a trace.
fn place_of(spec: &JobSpec) -> Option<(TraceContext, TraceContext)> {
    let parent = TraceContext::parse(spec.labels.get(TRACEPARENT)?)?;
    let job = TraceContext::parse(spec.stages.iter().find_map(|s| s.env.get(VARIABLE))?)?;
    (job.trace == parent.trace).then_some((job, parent))
}

async fn stages(ledger: &dyn Ledger, job: &str, parent: &TraceContext, env: &Env) -> Result<Vec<Span>> {
    let sql = "SELECT name, started_us, finished_us, total, failed FROM batch_stages
               WHERE job = $1 AND started_us IS NOT NULL AND finished_us IS NOT NULL ORDER BY stage";
    let rows = ledger.query(sql, vec![job.into()]).await?;
    let span = |row: &tidemill_blocks::ledger::Row| {
        let attributes = vec![
            ("tidemill.job", job.to_owned()),
            ("tidemill.stage", row.text(0)?.to_owned()),
            ("tidemill.tasks", row.uint(3)?.to_string()),
        ];
        Ok(Span {
            context: parent.child(env),
            parent: Some(parent.span),
            name: "stage".to_owned(),
            serves: false,
            started: Timestamp(row.int(1)?),
            ended: Timestamp(row.int(2)?),
            attributes,
            failed: row.uint(4)? > 0,
        })
    };
    rows.iter().map(span).collect()
}
