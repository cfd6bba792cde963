//! What every request gets whatever it asks for: an id, security headers, a line in the log, and its place in the metrics.

use std::net::SocketAddr;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::middleware::Next;
use axum::response::Response;
use tidemill_base::Timestamp;
use tidemill_runtime::Stopwatch;

use crate::AppState;
use crate::telemetry::{Span, TRACEPARENT, TraceContext};

/// The header that carries a request's id both ways.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The request's id: the caller's own if it sent a decent one, otherwise made here. In the request's extensions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(pub String);

/// Who is at the other end of the connection. In the request's extensions; absent when a router is called without a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer(pub SocketAddr);

/// The outermost layer.
pub async fn outermost(State(state): State<AppState>, mut request: Request, next: Next) -> Response {
    let id = own_id(request.headers()).unwrap_or_else(|| state.env.id("r"));
    request.extensions_mut().insert(RequestId(id.clone()));
    let peer = request.extensions().get::<Peer>().map(|p| p.0);
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let clock = Stopwatch::start();
    let traced = if is_traced(&state, &path) { begin_span(&state, request.headers_mut()) } else { None };

    let mut response = next.run(request).await;

    let (took, status) = (clock.elapsed(), response.status().as_u16());
    tracing::debug!(request_id = id, peer = peer.map(tracing::field::display), %method, path, status, ?took, "request");
    let labels = [("method", method.as_str().to_owned()), ("route", route), ("status", status.to_string())];
    metrics::counter!("tidemill_http_requests_total", &labels).increment(1);
    metrics::histogram!("tidemill_http_request_seconds", &labels[..2]).record(took.as_secs_f64());
    if let Some((context, parent, started)) = traced {
        let attributes = vec![
            ("http.request.method", method.to_string()),
            ("http.route", labels[1].1.clone()),
            ("http.response.status_code", status.to_string()),
            ("tidemill.request", id.clone()),
        ];
        let (name, ended) = (format!("{method} {}", labels[1].1), state.env.now());
        state.traces.record(Span { context, parent, name, serves: true, started, ended, attributes, failed: status >= 500 });
    }
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    harden(response.headers_mut(), state.secure);
    response
}

/// What workers say all the time, and who only looks whether the server is there, would drown everything else.
fn is_traced(state: &AppState, path: &str) -> bool {
    state.traces.is_on() && (path.starts_with("/api/") && path != "/api/v1/overview")
}

type Begun = Option<(TraceContext, Option<[u8; 8]>, Timestamp)>;

/// Goes on with the caller's trace, or begins one. Handlers find the request's own span in the header.
fn begin_span(state: &AppState, headers: &mut HeaderMap) -> Begun {
    let caller = headers.get(TRACEPARENT).and_then(|v| v.to_str().ok()).and_then(TraceContext::parse);
    let context = caller.map_or_else(|| TraceContext::root(&state.env), |c| c.child(&state.env));
    headers.insert(TRACEPARENT, HeaderValue::from_str(&context.to_string()).ok()?);
    Some((context, caller.map(|c| c.span), state.env.now()))
}

/// An id of the caller's is taken over when it can stand in a log line as it is.
fn own_id(headers: &HeaderMap) -> Option<String> {
    let id = headers.get(REQUEST_ID)?.to_str().ok()?;
    let decent = (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    decent.then(|| id.to_owned())
}

/// Headers that keep a browser from being used against its user. A handler's own choice stands.
fn harden(headers: &mut HeaderMap, secure: bool) {
    const CSP: &str = "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; \
                       form-action 'self'; frame-ancestors 'none'";
    let fixed = [
        (header::CONTENT_SECURITY_POLICY, CSP),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ];
    for (name, value) in fixed {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    if secure {
        headers.entry(header::STRICT_TRANSPORT_SECURITY).or_insert(HeaderValue::from_static("max-age=31536000"));
    }
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ids_fit_for_a_log_line_are_taken_over() {
        let with = |v: &'static str| HeaderMap::from_iter([(REQUEST_ID, HeaderValue::from_static(v))]);
        assert_eq!(own_id(&with("abc-1.2")), Some("abc-1.2".to_owned()));
        assert_eq!(own_id(&with("a b\" level=error")), None);
        assert_eq!(own_id(&HeaderMap::new()), None);
    }
}
