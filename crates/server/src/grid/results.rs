//! Results as they come, from wherever the caller left off.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::stream;
use serde::Deserialize;
use tidemill_base::{Error, Result};
use tidemill_batch::service::{Delivered, Manager};
use tidemill_batch::store::read;
use tidemill_grid::stream as frames;
use tidemill_runtime::Stopwatch;

use super::sessions::may_look;
use crate::AppState;
use crate::auth::Principal;
use crate::error::ApiResult;

/// The longest that one call follows a session.
const LONGEST: Duration = Duration::from_secs(300);
/// With no word from the leader, which may be another manager, the ledger is asked so often.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// A sign of life when nothing comes.
const ALIVE_EVERY: Duration = Duration::from_secs(5);
/// Results given ahead of their deliveries, at most.
const EARLY: usize = 256;
/// Deliveries read at once.
const AT_ONCE: u64 = 64;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FollowQuery {
    /// Deliveries after this one.
    #[serde(default)]
    after: u64,
    /// Follow for so many seconds; 0: what there is.
    #[serde(default)]
    wait: u64,
    /// Give results of single calls as soon as they are durable, ahead of their delivery, under the number of the delivery before.
    #[serde(default)]
    early: bool,
}

pub(super) async fn follow(
    State(state): State<AppState>,
    me: Principal,
    Path(id): Path<String>,
    Query(query): Query<FollowQuery>,
) -> ApiResult<Response> {
    may_look(&state, &me, &id).await?;
    let manager = state.service::<Manager>()?;
    let follow = Follow {
        changes: manager.changes(),
        state,
        manager,
        id,
        after: query.after,
        until: Duration::from_secs(query.wait).min(LONGEST),
        watch: Stopwatch::start(),
        said: Stopwatch::start(),
        ready: VecDeque::new(),
        early: query.early.then(BTreeSet::new),
        over: false,
    };
    let body = stream::try_unfold(follow, |mut follow| async move { Ok::<_, Error>(follow.next().await?.map(|frame| (frame, follow))) });
    Ok(([(header::CONTENT_TYPE, frames::MEDIA_TYPE)], Body::from_stream(body)).into_response())
}

struct Follow {
    state: AppState,
    manager: Manager,
    id: String,
    changes: tokio::sync::watch::Receiver<u64>,
    after: u64,
    until: Duration,
    watch: Stopwatch,
    /// Since the last frame.
    said: Stopwatch,
    ready: VecDeque<Bytes>,
    /// What was given ahead of its delivery: range and report. `None`: nobody asked for that.
    early: Option<BTreeSet<(u64, u64)>>,
    over: bool,
}

impl Follow {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            if let Some(frame) = self.ready.pop_front() {
                self.said = Stopwatch::start();
                return Ok(Some(frame));
            }
            if self.over {
                return Ok(None);
            }
            self.changes.mark_unchanged();
            if self.read().await? {
                continue;
            }
            if self.watch.elapsed() >= self.until || !self.state.shutdown.phase().is_running() {
                return Ok(None);
            }
            if self.said.elapsed() >= ALIVE_EVERY {
                self.ready.push_back(frames::nothing(self.after));
                continue;
            }
            tokio::select! {
                biased;
                () = self.state.shutdown.draining() => return Ok(None),
                _ = self.changes.changed() => {}
                () = tidemill_runtime::sleep(LOOK_EVERY) => {}
            }
        }
    }

    /// Reads on; whether there was anything.
    async fn read(&mut self) -> Result<bool> {
        let mut delivered = self.manager.deliveries(&self.id, self.after, AT_ONCE).await?;
        let mut ended = None;
        if delivered.is_empty() && !self.manager.goes_on(&self.id) {
            // The state, and then once more what there is: nothing comes after the end.
            let job = read::job(self.state.blocks.ledger.as_ref(), &self.id).await?;
            if job.state.is_final() {
                delivered = self.manager.deliveries(&self.id, self.after, AT_ONCE).await?;
                ended = Some(job.state);
            }
        }
        if ended.is_none()
            && let Err(e) = self.manager.heard_of(&self.id).await
        {
            // Whoever reads on is heard of the next time.
            tracing::debug!(session = self.id, error = %e.chain(), "could not write down that somebody reads");
        }
        for d in &delivered {
            self.after = d.n;
            let was_given = self.early.as_mut().zip(d.page.as_ref()).is_some_and(|(given, page)| given.remove(&(page.range, page.seq)));
            if !was_given {
                self.give(d)?;
            }
        }
        self.give_early()?;
        if delivered.is_empty()
            && let Some(state) = ended
        {
            self.ready.push_back(frames::end(self.after, state.as_str()));
            self.over = true;
        }
        Ok(!self.ready.is_empty())
    }

    fn give(&mut self, d: &Delivered) -> Result<()> {
        let frame = frames::results(d)?;
        let cancelled = d.cancelled.iter().flat_map(|c| &c.tasks);
        let results = d.succeeded.iter().chain(cancelled).map(|(_, len)| len).sum::<u64>() + d.dead.len() as u64;
        metrics::counter!("tidemill_grid_results_delivered_total").increment(results);
        metrics::counter!("tidemill_grid_result_bytes_delivered_total").increment(frame.len() as u64);
        self.ready.push_back(frame);
        Ok(())
    }

    /// What is on its way into the ledger goes under the number of the last delivery, so that whoever asks again from there gets it again.
    fn give_early(&mut self) -> Result<()> {
        let Some(given) = &mut self.early else { return Ok(()) };
        let mut fresh = self.manager.early_deliveries(&self.id);
        fresh.retain(|d| d.n > self.after && d.page.as_ref().is_some_and(|p| given.len() < EARLY && given.insert((p.range, p.seq))));
        for mut d in fresh {
            d.n = self.after;
            self.give(&d)?;
        }
        Ok(())
    }
}
