//! Traces of requests and jobs, sent to an OpenTelemetry collector over HTTP in its JSON form.
//!
//! Why not the OpenTelemetry crates: what is sent is a handful of spans of one shape, a page of code says it, and nothing has to be built for those
//! who do not want it. Spans wait in a bounded queue; when the collector does not keep up they are dropped and counted, and no request waits.

mod context;
mod jobs;
mod span;

use std::time::Duration;

use tidemill_base::{Error, Result};
use tidemill_runtime::{Kind, Shutdown, Tasks};
use tokio::sync::mpsc;

pub use context::{TRACEPARENT, TraceContext};
pub(crate) use jobs::{follow_jobs, join_trace};
pub use span::Span;

/// Spans that wait for the collector at most.
const QUEUE: usize = 4096;
/// Spans in one call.
const BATCH: usize = 512;
/// A span waits for others for so long.
const LINGER: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(10);

/// Where spans go. Clones share one queue; without a collector everything is dropped at once.
#[derive(Debug, Clone, Default)]
pub struct Traces(Option<mpsc::Sender<Span>>);

impl Traces {
    /// Sends to the collector at `url` (its root, such as `http://collector:4318`); empty: nowhere. `Invalid` when it is no URL.
    pub fn start(url: &str, tasks: &Tasks) -> Result<Self> {
        if url.is_empty() {
            return Ok(Self(None));
        }
        let url = endpoint(url)?;
        let client =
            reqwest::Client::builder().timeout(TIMEOUT).build().map_err(|e| Error::internal("make an HTTP client").with_source(e))?;
        let (sender, spans) = mpsc::channel(QUEUE);
        let shutdown = tasks.shutdown().clone();
        tasks.spawn("traces", Kind::Request, async move { export(spans, client, url, shutdown).await });
        Ok(Self(Some(sender)))
    }

    /// Whether anybody wants spans.
    pub const fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Takes a span, or drops it when too many wait.
    pub fn record(&self, span: Span) {
        if let Some(sender) = &self.0
            && span.context.sampled
            && sender.try_send(span).is_err()
        {
            metrics::counter!("tidemill_spans_dropped_total").increment(1);
        }
    }
}

/// Where a collector takes traces.
pub(crate) fn endpoint(url: &str) -> Result<String> {
    let wrong = || Error::invalid(format!("telemetry.otlp `{url}` is not a URL; write it like http://127.0.0.1:4318"));
    let parsed = reqwest::Url::parse(url).map_err(|e| wrong().with_source(e))?;
    if !matches!(parsed.scheme(), "http" | "https") || parsed.host_str().is_none() {
        return Err(wrong());
    }
    let root = url.trim_end_matches('/');
    Ok(if root.ends_with("/v1/traces") { root.to_owned() } else { format!("{root}/v1/traces") })
}

async fn export(mut spans: mpsc::Receiver<Span>, client: reqwest::Client, url: String, shutdown: Shutdown) -> Result<()> {
    let mut batch = Vec::with_capacity(BATCH);
    let mut failing = false;
    loop {
        tokio::select! {
            biased;
            () = shutdown.closing() => spans.close(),
            n = spans.recv_many(&mut batch, BATCH) => if n == 0 { return Ok(()) },
        }
        if batch.is_empty() {
            continue;
        }
        if batch.len() < BATCH && !spans.is_closed() {
            tokio::select! {
                biased;
                () = shutdown.closing() => {}
                () = tidemill_runtime::sleep(LINGER) => {}
            }
            while batch.len() < BATCH
                && let Ok(span) = spans.try_recv()
            {
                batch.push(span);
            }
        }
        let outcome = send(&client, &url, &batch).await;
        if let Err(e) = &outcome {
            metrics::counter!("tidemill_spans_dropped_total").increment(batch.len() as u64);
            // Once for each time that it begins to fail, not for each batch.
            if !failing {
                tracing::warn!(error = %e.chain(), "spans do not reach the collector");
            }
        }
        failing = outcome.is_err();
        batch.clear();
    }
}

async fn send(client: &reqwest::Client, url: &str, batch: &[Span]) -> Result<()> {
    let answer = client.post(url).json(&span::request(batch)).send().await;
    let answer = answer.map_err(|e| Error::unavailable("reach the collector of telemetry.otlp").with_source(e.without_url()))?;
    let status = answer.status();
    if status.is_success() { Ok(()) } else { Err(Error::unavailable(format!("the collector of telemetry.otlp answered {status}"))) }
}
