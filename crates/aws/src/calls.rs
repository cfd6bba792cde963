//! What was asked of AWS, and what it costs by list price.
//!
//! Every attempt of every request passes an interceptor of the SDK, so that retries and throttles are counted as well: AWS charges
//! for many of them, and a driver that is throttled should be seen to be. Prices are those of `us-east-1` as listed in November
//! 2026; other regions are up to half dearer.
//!
//! - SQS standard queues, <https://aws.amazon.com/sqs/pricing/>: 0.40 USD a million requests, each 64 KiB of payload being one.
//! - DynamoDB on demand, <https://aws.amazon.com/dynamodb/pricing/on-demand/>: 0.625 USD a million write request units of 1 KB,
//!   0.125 USD a million read request units of 4 KB; transactions take two units where a single write takes one. Reading a
//!   stream: 0.02 USD per 100,000 calls of `GetRecords`.
//! - S3 Standard, <https://aws.amazon.com/s3/pricing/>: 0.005 USD a thousand PUT, COPY, POST and LIST requests, 0.0004 USD a
//!   thousand GET and HEAD requests; deletes are free.
//!
//! Left out: storage, traffic, the free tier, and STS and Auto Scaling, which cost nothing by the request.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::{BeforeTransmitInterceptorContextRef, FinalizerInterceptorContextRef};
use aws_smithy_runtime_api::client::orchestrator::Metadata;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::config_bag::ConfigBag;

const SQS_REQUEST: f64 = 0.40 / 1e6;
const SQS_CHUNK: u64 = 64 * 1024;
const WRITE_UNIT: f64 = 0.625 / 1e6;
const READ_UNIT: f64 = 0.125 / 1e6;
const STREAM_READ: f64 = 0.02 / 1e5;
const S3_WRITE: f64 = 0.005 / 1e3;
const S3_READ: f64 = 0.0004 / 1e3;

/// Attempts of one operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Count {
    /// Attempts made, those that failed included.
    pub attempts: u64,
    /// Of those, answered with throttling.
    pub throttled: u64,
    /// Of those, failed otherwise: errors, and no answer at all. Conditions that did not hold are among them.
    pub failed: u64,
    /// Units that are charged for: SQS requests of 64 KiB, DynamoDB request units, S3 requests.
    pub units: u64,
}

/// What was asked of one service.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Bill {
    /// Attempts made, those that failed included.
    pub attempts: u64,
    /// Of those, answered with throttling.
    pub throttled: u64,
    /// US dollars by list price.
    pub usd: f64,
}

/// Counts of requests by service and operation. Clones share their counts.
#[derive(Debug, Clone, Default)]
pub struct Calls {
    counts: Arc<Mutex<BTreeMap<(&'static str, String), Count>>>,
}

impl Calls {
    /// All counts, by service (`sqs`, `dynamodb`, `dynamodbstreams`, `s3`, `sts`, `autoscaling`) and operation (`SendMessageBatch`).
    pub fn counts(&self) -> BTreeMap<(&'static str, String), Count> {
        self.lock().clone()
    }

    /// Attempts, throttles and price of each service.
    pub fn by_service(&self) -> BTreeMap<&'static str, Bill> {
        let mut out: BTreeMap<&'static str, Bill> = BTreeMap::new();
        for ((service, operation), count) in self.lock().iter() {
            let bill = out.entry(service).or_default();
            bill.attempts += count.attempts;
            bill.throttled += count.throttled;
            bill.usd += to_f64(count.units) * price(service, operation);
        }
        out
    }

    /// Attempts of one operation; zero when it was never called.
    pub fn attempts(&self, service: &str, operation: &str) -> u64 {
        self.lock().iter().filter(|((s, o), _)| *s == service && o == operation).map(|(_, c)| c.attempts).sum()
    }

    /// Attempts of all operations.
    pub fn total(&self) -> u64 {
        self.lock().values().map(|c| c.attempts).sum()
    }

    /// What all of it costs in US dollars by list price; see the module's documentation for what is left out.
    pub fn list_price_usd(&self) -> f64 {
        self.lock().iter().map(|((service, operation), count)| to_f64(count.units) * price(service, operation)).sum()
    }

    /// Notes an attempt that a client outside the SDK made (S3 goes through `object_store`). `throttled` and `failed` exclude
    /// each other.
    pub(crate) fn note(&self, service: &'static str, operation: &str, throttled: bool, failed: bool) {
        let mut counts = self.lock();
        let count = counts.entry((service, operation.to_owned())).or_default();
        count.attempts += 1;
        count.throttled += u64::from(throttled);
        count.failed += u64::from(failed);
        count.units += u64::from(service == "s3");
    }

    /// Adds what is charged for an operation, in the units of [`Count::units`].
    pub(crate) fn charge(&self, service: &'static str, operation: &str, units: u64) {
        self.lock().entry((service, operation.to_owned())).or_default().units += units;
    }

    /// What a service's client is given to have its requests counted under `service`.
    pub(crate) fn counting(&self, service: &'static str) -> Counting {
        Counting { service, calls: self.clone() }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<(&'static str, String), Count>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn price(service: &str, operation: &str) -> f64 {
    match (service, operation) {
        ("sqs", _) => SQS_REQUEST,
        ("dynamodb", "GetItem" | "BatchGetItem" | "Query") => READ_UNIT,
        ("dynamodb", _) => WRITE_UNIT,
        ("dynamodbstreams", "GetRecords") => STREAM_READ,
        ("s3", "PutObject" | "CopyObject" | "ListObjectsV2" | "CreateMultipartUpload" | "UploadPart" | "CompleteMultipartUpload") => {
            S3_WRITE
        }
        ("s3", "GetObject" | "HeadObject") => S3_READ,
        _ => 0.0,
    }
}

#[expect(clippy::cast_precision_loss, reason = "a bill of 2^53 requests need not be exact")]
fn to_f64(units: u64) -> f64 {
    units as f64
}

/// Whether AWS says with this that it was asked too often.
pub(crate) fn is_throttling(code: &str) -> bool {
    ["Throttl", "ThroughputExceeded", "RequestLimitExceeded", "TooManyRequests", "SlowDown", "BandwidthLimit"]
        .iter()
        .any(|w| code.contains(w))
}

/// Counts the requests of one service's client.
#[derive(Debug)]
pub(crate) struct Counting {
    service: &'static str,
    calls: Calls,
}

impl Counting {
    fn count(&self, cfg: &ConfigBag, f: impl FnOnce(&mut Count)) {
        let operation = cfg.load::<Metadata>().map_or("unknown", Metadata::name).to_owned();
        f(self.calls.lock().entry((self.service, operation)).or_default());
    }

    /// What a message of `bytes` is charged as; SQS alone charges by size here.
    fn chunks(&self, bytes: u64) -> u64 {
        match self.service {
            "sqs" => bytes.div_ceil(SQS_CHUNK).max(1),
            "dynamodb" => 0,
            _ => 1,
        }
    }
}

#[aws_smithy_runtime_api::client::interceptors::dyn_dispatch_hint]
impl Intercept for Counting {
    fn name(&self) -> &'static str {
        "TidemillCounting"
    }

    fn read_before_transmit(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        cfg: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let bytes = context.request().body().content_length().unwrap_or(0);
        self.count(cfg, |c| {
            c.attempts += 1;
            c.units += self.chunks(bytes);
        });
        Ok(())
    }

    fn read_after_attempt(
        &self,
        context: &FinalizerInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        cfg: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let body = context.response().map(|r| r.body().bytes().unwrap_or_default());
        let failed = !matches!(context.output_or_error(), Some(Ok(_)));
        let throttled = failed && body.is_some_and(|b| is_throttling(&String::from_utf8_lossy(b)));
        self.count(cfg, |c| {
            c.throttled += u64::from(throttled);
            c.failed += u64::from(failed && !throttled);
            // A received payload is charged by its size, as a sent one is.
            let bytes = body.map_or(0, |b| b.len() as u64);
            c.units += self.chunks(bytes).saturating_sub(1);
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_are_by_service_and_operation() {
        let calls = Calls::default();
        calls.charge("sqs", "SendMessageBatch", 1_000_000);
        assert!((calls.list_price_usd() - 0.40).abs() < 1e-9);
        calls.charge("dynamodb", "PutItem", 1_000_000);
        calls.charge("dynamodb", "Query", 1_000_000);
        assert!((calls.list_price_usd() - 1.15).abs() < 1e-9);
        calls.charge("sts", "AssumeRole", 1_000_000);
        assert!((calls.list_price_usd() - 1.15).abs() < 1e-9, "STS costs nothing");
        calls.note("s3", "PutObject", false, false);
        calls.note("s3", "GetObject", true, false);
        assert_eq!(calls.counts()[&("s3", "GetObject".to_owned())], Count { attempts: 1, throttled: 1, failed: 0, units: 1 });
        assert!((calls.list_price_usd() - 1.15 - 0.000_005_4).abs() < 1e-9);
        let s3 = calls.by_service()["s3"];
        assert_eq!((s3.attempts, s3.throttled), (2, 1));
        assert!((s3.usd - 0.000_005_4).abs() < 1e-9);
    }

    #[test]
    fn payloads_are_charged_in_chunks() {
        let sqs = Calls::default().counting("sqs");
        assert_eq!([0, 1, 65_536, 65_537, 262_144].map(|b| sqs.chunks(b)), [1, 1, 1, 2, 4]);
    }

    #[test]
    fn the_words_for_throttling_are_known() {
        for code in ["ThrottlingException", "Throttling", "RequestThrottled", "ProvisionedThroughputExceededException", "SlowDown"] {
            assert!(is_throttling(code), "{code}");
        }
        assert!(!is_throttling("ConditionalCheckFailedException"));
    }
}
