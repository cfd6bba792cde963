//! What the drivers ask of their engines, as metrics: engines are paid for by the request.

use std::time::Duration;

use tidemill_base::Result;
use tidemill_runtime::{Shutdown, sleep};

use super::engines::Engines;

const EVERY: Duration = Duration::from_secs(1);

/// Requests to one service of an engine since the start.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Requests {
    /// `sqs`, `dynamodb`, `s3`; `postgres.queue` and the like count round trips to the database.
    service: String,
    attempts: u64,
    throttled: u64,
    /// US dollars by list price.
    usd: f64,
}

/// Shows the counts as metrics until the end.
pub(super) async fn publish(engines: &Engines, shutdown: &Shutdown) -> Result<()> {
    loop {
        for r in count(engines) {
            let labels = [("service", r.service)];
            metrics::counter!("tidemill_engine_requests_total", &labels).absolute(r.attempts);
            metrics::counter!("tidemill_engine_throttled_total", &labels).absolute(r.throttled);
            metrics::gauge!("tidemill_engine_list_price_usd", &labels).set(r.usd);
        }
        tokio::select! {
            biased;
            () = shutdown.closing() => return Ok(()),
            () = sleep(EVERY) => {}
        }
    }
}

fn count(engines: &Engines) -> Vec<Requests> {
    let mut out = Vec::new();
    of_aws(engines, &mut out);
    of_postgres(engines, &mut out);
    out
}

#[cfg(feature = "aws")]
fn of_aws(engines: &Engines, out: &mut Vec<Requests>) {
    let Some(aws) = &engines.aws else { return };
    for (service, bill) in aws.calls().by_service() {
        out.push(Requests { service: service.to_owned(), attempts: bill.attempts, throttled: bill.throttled, usd: bill.usd });
    }
}

#[cfg(not(feature = "aws"))]
fn of_aws(_: &Engines, _: &mut Vec<Requests>) {}

#[cfg(feature = "postgres")]
fn of_postgres(engines: &Engines, out: &mut Vec<Requests>) {
    let Some(postgres) = &engines.postgres else { return };
    let calls = postgres.calls();
    for (block, attempts) in [("ledger", calls.ledger), ("queue", calls.queue), ("table", calls.table), ("objects", calls.objects)] {
        out.push(Requests { service: format!("postgres.{block}"), attempts, throttled: 0, usd: 0.0 });
    }
}

#[cfg(not(feature = "postgres"))]
fn of_postgres(_: &Engines, _: &mut Vec<Requests>) {}
