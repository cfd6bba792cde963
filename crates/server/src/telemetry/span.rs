//! A span, and how it is written in OTLP's JSON.

use serde_json::{Value, json};
use tidemill_base::Timestamp;

use super::TraceContext;

/// Something that took its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Where in which trace.
    pub context: TraceContext,
    /// The span that it is part of.
    pub parent: Option<[u8; 8]>,
    /// What it is, of few kinds.
    pub name: String,
    /// Whether it answers a caller.
    pub serves: bool,
    /// When it began.
    pub started: Timestamp,
    /// When it ended.
    pub ended: Timestamp,
    /// What else is known.
    pub attributes: Vec<(&'static str, String)>,
    /// Whether it failed.
    pub failed: bool,
}

impl Span {
    fn json(&self) -> Value {
        let nanos = |t: Timestamp| (i128::from(t.micros()) * 1000).to_string();
        let attributes: Vec<Value> =
            self.attributes.iter().map(|(key, value)| json!({"key": key, "value": {"stringValue": value}})).collect();
        let mut span = json!({
            "traceId": hex::encode(self.context.trace),
            "spanId": hex::encode(self.context.span),
            "name": self.name,
            "kind": if self.serves { 2 } else { 1 },
            "startTimeUnixNano": nanos(self.started),
            "endTimeUnixNano": nanos(self.ended),
            "attributes": attributes,
            "status": {"code": if self.failed { 2 } else { 0 }},
        });
        if let Some(parent) = self.parent {
            span["parentSpanId"] = hex::encode(parent).into();
        }
        span
    }
}

/// The body of an export.
pub(super) fn request(spans: &[Span]) -> Value {
    let resource = json!({"attributes": [
        {"key": "service.name", "value": {"stringValue": "tidemill"}},
        {"key": "service.version", "value": {"stringValue": env!("CARGO_PKG_VERSION")}},
    ]});
    let spans: Vec<Value> = spans.iter().map(Span::json).collect();
    json!({"resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": {"name": "tidemill"}, "spans": spans}]}]})
}
