//! Submits copies of jobs on their cron lines: once per tick, however many managers run. Ticks missed while no manager ran are made
//! up for by one.

use tidemill_base::{Result, Timestamp};

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
        if let Some(job) = leader.core.jobs.get_mut(&id) {
            job.last_tick = tick;
        }
        if !shared.schedule.take_tick(&format!("batch/{id}"), tick).await? {
            continue;
        }
        copy.cron = None;
        copy.at = None;
        let token = format!("cron/{id}/{}", tick.millis());
        match shared.submit(Submit { user, spec: copy, client_token: Some(token) }, Some(&id)).await {
            Ok(made) => tracing::info!(job = id, copy = made.id, "cron line fired"),
            Err(e) => tracing::error!(job = id, error = %e.chain(), "cron line fired and the job was refused"),
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
