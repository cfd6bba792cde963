//! Every metric, and what it means.

use std::fmt::Write as _;

use metrics::{describe_counter, describe_gauge, describe_histogram};

/// What kind of number it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, and begins at 0 with the process, or when another manager leads.
    Counter,
    /// As it is now.
    Gauge,
    /// How values are distributed: `_bucket`, `_sum`, `_count`.
    Histogram,
}

/// A metric.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// Its name, which ends in its unit.
    pub name: &'static str,
    /// What kind of number it is.
    pub kind: Kind,
    /// Its labels with the values that they may have.
    pub labels: &'static str,
    /// What it means.
    pub about: &'static str,
}

const fn counter(name: &'static str, labels: &'static str, about: &'static str) -> Metric {
    Metric { name, kind: Kind::Counter, labels, about }
}

const fn gauge(name: &'static str, labels: &'static str, about: &'static str) -> Metric {
    Metric { name, kind: Kind::Gauge, labels, about }
}

const fn histogram(name: &'static str, labels: &'static str, about: &'static str) -> Metric {
    Metric { name, kind: Kind::Histogram, labels, about }
}

/// All of them, by system.
pub const METRICS: &[Metric] = &[
    counter("tidemill_http_requests_total", "`method`, `route` (as the router has it), `status`", "HTTP requests that were answered."),
    histogram("tidemill_http_request_seconds", "`method`, `route`", "From a request's arrival to the first byte of its answer."),
    counter("tidemill_spans_dropped_total", "", "Spans of traces that did not reach the collector."),
    counter(
        "tidemill_engine_requests_total",
        "`service` (`s3`, `sqs`, `dynamodb`, `postgres.queue` ...)",
        "Requests to the engines behind blocks.",
    ),
    counter("tidemill_engine_throttled_total", "`service`", "Those of them that were told to come later."),
    gauge("tidemill_engine_list_price_usd", "`service`", "What those requests cost by list price, US dollars since the start."),
    gauge("tidemill_grid_sessions", "`state` (`waiting`, `running`, `paused`, `cancelling`)", "Sessions that have not ended."),
    counter("tidemill_grid_sessions_ended_total", "`state` (`succeeded`, `failed`, `cancelled`)", "Sessions that have ended."),
    counter("tidemill_grid_tasks_submitted_total", "", "Tasks that were taken in."),
    counter(
        "tidemill_grid_tasks_total",
        "`outcome` (`succeeded`, `failed`, `cancelled`, `skipped`, `returned`)",
        "What became of tasks. `failed`: for good. `skipped`: a result that they need is missing. `returned`: handed back by their worker \
         before they had begun, since it drains, pauses, or another has nothing to do; they run later and count again.",
    ),
    counter("tidemill_grid_tasks_stolen_total", "", "Tasks taken from an engine that was stuck in another one, for its neighbours."),
    counter(
        "tidemill_grid_results_delivered_total",
        "",
        "Results, and errors in their place, sent to clients. Who asks again gets them again.",
    ),
    counter("tidemill_grid_result_bytes_delivered_total", "", "Bytes of those, with their frames."),
    histogram("tidemill_grid_bundle_tasks", "", "Tasks in a bundle: what is leased to a worker at once."),
    histogram(
        "tidemill_grid_bundle_seconds",
        "",
        "The grid's own round trip: from the release of a bundle to its last result being counted.",
    ),
    histogram("tidemill_grid_task_run_seconds", "", "What tasks ran, by their engines' account, those that failed included."),
    gauge("tidemill_grid_engines", "`state` (`starting`, `warm`, `busy`)", "Engines of all workers; `warm` ones wait for tasks."),
    counter("tidemill_grid_engine_starts_total", "", "Engines that were ready for their first session."),
    counter(
        "tidemill_grid_engine_ends_total",
        "`reason` (`stopped`, `crash`, `timeout`, `memory`, `start`, `cancelled`)",
        "Engines that ended. `stopped`: as they were asked to. `start`: were never ready. `timeout`, `memory`, `cancelled`: killed, since a \
         task ran too long, took too much, or did not end when it was cancelled.",
    ),
    counter(
        "tidemill_grid_packages_total",
        "`outcome` (`hit`, `fetched`)",
        "Packages that engines were given: from the worker's disk, or fetched first.",
    ),
    counter("tidemill_grid_package_bytes_total", "", "Bytes of packages that workers fetched."),
    gauge("tidemill_pgwire_connections", "", "Connections over PostgreSQL's protocol that have signed in."),
    counter("tidemill_pgwire_sign_ins_total", "`outcome` (`ok`, `refused`, `full`)", "Attempts to sign in there."),
    counter("tidemill_pgwire_statements_total", "`outcome` (`ok`, `error`)", "Statements that were run there."),
    histogram("tidemill_pgwire_statement_seconds", "", "From such a statement to its last row."),
    counter("tidemill_pgwire_errors_total", "`state` (SQLSTATE)", "Errors that were answered there."),
];

impl Metric {
    /// Gives the recorder the line of help.
    pub(super) fn describe(&self) {
        match self.kind {
            Kind::Counter => describe_counter!(self.name, self.about),
            Kind::Gauge => describe_gauge!(self.name, self.about),
            Kind::Histogram => describe_histogram!(self.name, self.about),
        }
    }
}

/// The page of the reference.
pub fn reference() -> String {
    let mut page = "# Metrics\n\nMade by `cargo xtask generate` from the program.\n\n`GET /metrics` answers in Prometheus' text form: on loopback to anybody, elsewhere \
        to a viewer's token. Labels have few values and never an id: what is about one job, session, worker or user is in\n[SQL](grid-sql.md). The \
        metrics of sessions and their engines come from the manager that leads: of several managers ask all, and take sums.\n\n\
        | metric | kind | labels | meaning |\n| --- | --- | --- | --- |\n"
        .to_owned();
    for m in METRICS {
        let kind = match m.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        // Writing to a string does not fail.
        let _ = writeln!(page, "| `{}` | {kind} | {} | {} |", m.name, m.labels, m.about);
    }
    page.push_str(QUESTIONS);
    page
}

const QUESTIONS: &str = r#"
## What to watch

| question | expression |
| --- | --- |
| How fast is the grid? | `sum(rate(tidemill_grid_tasks_total{outcome="succeeded"}[1m]))` |
| Do results reach clients as fast as they are made? | `sum(rate(tidemill_grid_results_delivered_total[1m]))` beside it |
| Is there work, and nobody to do it? | `sum(tidemill_grid_sessions{state="running"}) > 0 and sum(tidemill_grid_engines{state="busy"}) == 0` |
| Do engines die? | `sum by (reason) (increase(tidemill_grid_engine_ends_total{reason!="stopped"}[10m]))` |
| How long do tasks take, at the 99th percentile? | `histogram_quantile(0.99, sum by (le) (rate(tidemill_grid_task_run_seconds_bucket[5m])))` |
| Does the grid's own round trip grow? | `histogram_quantile(0.5, sum by (le) (rate(tidemill_grid_bundle_seconds_bucket[5m])))` |
"#;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::{Path, PathBuf};

    use super::*;

    /// The names in `counter!("name"` and its like.
    fn used(folder: &Path) -> BTreeSet<String> {
        let (mut found, mut files) = (BTreeSet::new(), vec![PathBuf::from(folder)]);
        while let Some(path) = files.pop() {
            if path.is_dir() {
                files.extend(std::fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()).filter(|p| !p.ends_with("target")));
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                for word in ["counter!(\"", "gauge!(\"", "histogram!(\""] {
                    found.extend(text.split(word).skip(1).filter_map(|rest| rest.split('"').next()).map(str::to_owned));
                }
            }
        }
        found.retain(|name| name.starts_with("tidemill_"));
        found
    }

    #[test]
    fn every_metric_in_the_sources_is_listed_and_the_other_way_round() {
        let used = used(&Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
        let listed: BTreeSet<String> = METRICS.iter().map(|m| m.name.to_owned()).collect();
        assert_eq!(listed.len(), METRICS.len(), "a metric is listed twice");
        assert_eq!(used, listed);
    }

    #[test]
    fn names_end_as_prometheus_wants_them() {
        for m in METRICS {
            assert_eq!(m.name.ends_with("_total"), m.kind == Kind::Counter, "{}", m.name);
            assert!(m.kind != Kind::Histogram || m.name.ends_with("_seconds") || m.name.ends_with("_tasks"), "{}", m.name);
            assert!(m.about.ends_with('.'), "{}", m.name);
        }
        assert!(reference().contains("| `tidemill_grid_engines` | gauge | `state` (`starting`, `warm`, `busy`) |"));
    }
}
