//! Submits copies of jobs on their cron lines: once per tick, however many managers run. Ticks missed while no manager ran are made
//! up for by one.

use tidemill_base::{ErrorKind, Result, Timestamp};

use super::lead::Leader;
use super::submit::Submit;
use crate::model::{JobSpec, JobState};
use crate::spec;

/// Fires what is due.
pub(super) async fn fire(leader: &mut Leader<'_>) -> Result<()> {
    let shared = leader.shared;
    let now = shared.env.now();
    let due: Vec<(String, String, JobSpec, Timestamp)> = leader
        .core
        .jobs
        .iter()
        .filter(|(_, j)| j.state == JobState::Waiting)
        .filter_map(|(id, j)| {
            Some((id.clone(), j.user.clone(), JobSpec::clone(&j.spec), latest_tick(&j.spec, j.submitted_at.max(j.last_tick), now)?))
        })
        .collect();
    for (id, user, mut copy, tick) in due {
        let name = format!("batch/{id}");
        if shared.schedule.last_tick(&name).await?.is_none_or(|taken| taken < tick) {
            copy.cron = None;
            copy.at = None;
            let token = format!("cron/{id}/{}", tick.millis());
            // First the copy, then the tick: whoever dies in between submits again, and the token finds the copy that there is.
            match shared.submit(Submit { user, spec: copy, client_token: Some(token) }, Some(&id)).await {
                Ok(made) => tracing::info!(job = id, copy = made.id, "cron line fired"),
                Err(e) if e.kind() == ErrorKind::Unavailable => return Err(e.context(format!("fire the cron line of job {id}"))),
                Err(e) => tracing::error!(job = id, error = %e.chain(), "cron line fired and the job was refused"),
            }
            shared.schedule.take_tick(&name, tick).await?;
        }
        if let Some(job) = leader.core.jobs.get_mut(&id) {
            job.last_tick = tick;
        }
    }
    Ok(())
}

/// The last tick after `after` and not after `now`, if there is one.
fn latest_tick(spec: &JobSpec, after: Timestamp, now: Timestamp) -> Option<Timestamp> {
    let line = spec.cron.as_deref()?;
    let mut latest = None;
    let mut from = after;
    while let Ok(tick) = spec::next_tick(line, &spec.timezone, from) {
        if tick > now || tick <= from {
            break;
        }
        latest = Some(tick);
        from = tick;
    }
    latest
}
