//! How the routers of the edges become one.

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::middleware::{from_fn, from_fn_with_state};
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{DefaultPredicate, NotForContentType, Predicate};

use crate::{AppState, audit, auth, error, health, limits, metrics, request};

/// The routers of the edges, by what is asked of a request before they see it. Whatever has no token reaches `public` alone.
#[derive(Debug, Default)]
pub struct Edges {
    public: Router<AppState>,
    api: Router<AppState>,
    streams: Router<AppState>,
    workers: Router<AppState>,
}

impl Edges {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Routes that need no token: the console's files, health.
    #[must_use]
    pub fn public(mut self, routes: Router<AppState>) -> Self {
        self.public = self.public.merge(routes);
        self
    }

    /// Ordinary calls: a token, a limit on time and body, an audit line for what may change something.
    #[must_use]
    pub fn api(mut self, routes: Router<AppState>) -> Self {
        self.api = self.api.merge(routes);
        self
    }

    /// Calls that wait or carry large bodies (events, logs, up- and downloads): a token and an audit line, no limit on time or body. A
    /// handler here bounds what it reads and ends when `state.shutdown` drains.
    #[must_use]
    pub fn streams(mut self, routes: Router<AppState>) -> Self {
        self.streams = self.streams.merge(routes);
        self
    }

    /// Calls of workers, see [`crate::internal`]: a token, no audit line, since they are many and each is in the system's own records.
    #[must_use]
    pub fn workers(mut self, routes: Router<AppState>) -> Self {
        self.workers = self.workers.merge(routes);
        self
    }
}

/// One router of all edges and what the server itself offers: health, metrics, sessions, users, tokens, audit.
pub fn router(state: AppState, edges: Edges) -> Router {
    let (sign_in, own) = auth::routes();
    let timed = || from_fn_with_state(state.clone(), limits::time);
    let audited = || from_fn_with_state(state.clone(), audit::layer);
    let max_body = usize::try_from(state.config.limits.max_body.bytes()).unwrap_or(usize::MAX);

    let public = edges.public.merge(sign_in).merge(health::routes()).merge(metrics::routes());
    let public = public.layer(timed()).layer(DefaultBodyLimit::max(max_body));
    let api = edges.api.merge(own).merge(audit::routes()).layer(audited()).layer(from_fn(auth::signed_in));
    let api = api.layer(timed()).layer(DefaultBodyLimit::max(max_body));
    let streams = edges.streams.layer(audited()).layer(from_fn(auth::signed_in)).layer(DefaultBodyLimit::disable());
    let workers = edges.workers.layer(from_fn(auth::signed_in));

    // What workers and downloads carry is mostly compressed already, and its length must stay known.
    let worthwhile = DefaultPredicate::new()
        .and(NotForContentType::const_new("application/octet-stream"))
        .and(NotForContentType::const_new(tidemill_remote::wire::POSTCARD));

    // From the inside out: the rate needs the principal, the envelope needs the request's id.
    public
        .merge(api)
        .merge(streams)
        .merge(workers)
        .fallback(|| async { StatusCode::NOT_FOUND })
        .layer(from_fn_with_state(state.clone(), limits::rate))
        .layer(from_fn_with_state(state.clone(), auth::authenticate))
        .layer(from_fn(error::envelope))
        .layer(from_fn_with_state(state.clone(), request::outermost))
        .layer(CompressionLayer::new().gzip(true).compress_when(worthwhile))
        .with_state(state)
}
