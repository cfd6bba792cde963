//! What must be true of every job that ended, whatever was measured with it.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tidemill_api::JobDetail;

use crate::mill::Mill;

/// Every task succeeded once, by the ledger and by the statistics, and both know of the same attempts.
pub(crate) async fn settled(mill: &Mill, job: &JobDetail, tasks: u64) -> Result<()> {
    let (id, t) = (&job.id, &job.tasks);
    ensure!(job.state == "succeeded", "job {id} is {}: {}", job.state, job.reason);
    ensure!((t.total, t.succeeded) == (tasks, tasks), "job {id}: {} of {} tasks succeeded, {tasks} were submitted", t.succeeded, t.total);
    let row = mill
        .sql(&format!(
            "SELECT count(*) AS attempts, sum(CASE WHEN class = 'ok' THEN 1 ELSE 0 END) AS ok,
             count(DISTINCT CASE WHEN class = 'ok' THEN task END) AS different FROM batch.tasks WHERE job = '{id}'"
        ))
        .await?;
    let number = |name: &str| row.get(name).and_then(Value::as_u64).unwrap_or(0);
    let (attempts, ok, different) = (number("attempts"), number("ok"), number("different"));
    ensure!(ok == tasks && different == tasks, "job {id}: statistics hold {ok} successes of {different} tasks, not of {tasks}");
    ensure!(attempts == job.attempts, "job {id}: statistics hold {attempts} attempts, the ledger {}", job.attempts);
    Ok(())
}

/// Seconds from the release of a job's first task to its end, by the server's clock.
pub(crate) fn seconds(job: &JobDetail) -> Result<f64> {
    let at = |text: &Option<String>| text.as_ref().and_then(|t| micros(t)).with_context(|| format!("job {} has no times", job.id));
    Ok((at(&job.finished_at)? - at(&job.started_at)?) as f64 / 1e6)
}

/// Microseconds since 1970 of a time on the wire.
pub(crate) fn micros(text: &str) -> Option<i64> {
    text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_microsecond)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_on_the_wire_are_read() {
        assert_eq!((micros("1970-01-01T00:00:01.5Z"), micros("soon")), (Some(1_500_000), None));
    }
}
