//! Limits that keep one caller from taking the server from the others: time per request and requests per second.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tidemill_base::{Env, Error, Timestamp};
use tidemill_runtime::timeout;

use crate::AppState;
use crate::auth::{Principal, Role};
use crate::error::ApiError;
use crate::request::Peer;

/// Callers remembered at once; beyond it those with nothing to remember are dropped.
const MAX_CALLERS: usize = 10_000;

/// Token buckets, one a caller, that hold two seconds' worth.
#[derive(Debug, Clone)]
pub struct RateLimit {
    env: Env,
    per_second: f64,
    buckets: Arc<Mutex<BTreeMap<String, Bucket>>>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    level: f64,
    at: Timestamp,
}

impl RateLimit {
    /// `per_second` requests a second for each caller; zero: no limit.
    pub fn new(env: Env, per_second: u32) -> Self {
        Self { env, per_second: f64::from(per_second), buckets: Arc::default() }
    }

    /// Whether `caller` may make a request now; if so, it is counted.
    pub fn allows(&self, caller: &str) -> bool {
        if self.per_second == 0.0 {
            return true;
        }
        let (now, full) = (self.env.now(), self.per_second * 2.0);
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= MAX_CALLERS && !buckets.contains_key(caller) {
            buckets.retain(|_, b| b.refilled(now, self.per_second, full).level < full);
        }
        let bucket = buckets.entry(caller.to_owned()).or_insert(Bucket { level: full, at: now });
        *bucket = bucket.refilled(now, self.per_second, full);
        let allowed = bucket.level >= 1.0;
        if allowed {
            bucket.level -= 1.0;
        }
        allowed
    }
}

impl Bucket {
    fn refilled(self, now: Timestamp, per_second: f64, full: f64) -> Self {
        let gained = now.since(self.at).as_secs_f64() * per_second;
        Self { level: (self.level + gained).min(full), at: self.at.max(now) }
    }
}

/// The layer that counts requests by token, and those without one by address. Workers are not counted: their calls are the
/// system's own and few.
pub async fn rate(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let caller = match request.extensions().get::<Principal>() {
        Some(p) if p.role == Role::Worker => return next.run(request).await,
        Some(p) => p.token_id.clone(),
        None => request.extensions().get::<Peer>().map_or_else(|| "unknown".to_owned(), |p| p.0.ip().to_string()),
    };
    if state.rate.allows(&caller) { next.run(request).await } else { too_many(state.config.limits.requests_per_second) }
}

fn too_many(per_second: u32) -> Response {
    ApiError::from(Error::new(tidemill_base::ErrorKind::Exhausted, format!("more than {per_second} requests a second")))
        .with_status(StatusCode::TOO_MANY_REQUESTS)
        .with_hint("slow down, send more in each request, or raise `limits.requests-per-second`")
        .into_response()
}

/// The layer that ends requests which take too long. Bodies that stream are not counted, once they have begun.
pub async fn time(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let limit = state.config.limits.request_timeout.0;
    match timeout(limit, "the request", next.run(request)).await {
        Ok(response) => response,
        Err(e) => ApiError::from(e).with_hint("ask for less at once, or raise `limits.request-timeout`").into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn two_seconds_worth_at_once_then_the_rate_and_callers_do_not_share() {
        let (env, clock) = Env::manual(Timestamp::from_millis(1_000), 1);
        let limit = RateLimit::new(env, 5);
        assert_eq!((0..20).filter(|_| limit.allows("a")).count(), 10);
        assert!(limit.allows("b"));
        clock.advance(Duration::from_secs(1));
        assert_eq!((0..20).filter(|_| limit.allows("a")).count(), 5);
    }
}
