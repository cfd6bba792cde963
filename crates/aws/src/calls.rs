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
use aws_smithy_runtime_api::client::interceptors::context::{BeforeDeserializationInterceptorContextRef, FinalizerInterceptorContextRef};
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
