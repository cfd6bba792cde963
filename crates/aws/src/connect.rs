//! Where AWS is and who we are there; the clients that all drivers share.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{AppName, BehaviorVersion, Region, SdkConfig};
use aws_sdk_sqs::config::Credentials;
use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use tidemill_base::{Env, Error, HumanDuration, Result, RetryPolicy};
use tidemill_runtime::sleep;

use crate::calls::Calls;

/// Attempts that the SDK makes of one request, the first included, with pauses between them that double from 0.1 s on.
const ATTEMPTS: u32 = 7;
/// A connection that is not there by then is not coming.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// One attempt: the longest poll of SQS (20 s) and what it takes to carry ten large messages.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(30);
/// One request with all its attempts.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(90);
/// Tries that a driver makes of what the SDK does not repeat by itself: unprocessed entries of a batch, transactions that met
/// another.
const TRIES: u32 = 9;
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Of our queues and tables, unless set otherwise.
const DEFAULT_PREFIX: &str = "tidemill";

/// Where AWS is and what is ours there.
#[derive(Clone, PartialEq, Eq)]
pub struct AwsSettings {
    /// The region, as in `eu-central-1`. `None`: what the environment, the profile or the instance says.
    pub region: Option<String>,
    /// Another endpoint for all services, for compatible ones: `http://127.0.0.1:4566`. `None`: those of the region.
    pub endpoint: Option<String>,
    /// What names of queues and tables begin with, 1 to 20 characters of `a-z 0-9`; a hyphen follows. Two installations in
    /// one account and region need two.
    pub prefix: String,
    /// The bucket that holds all objects.
    pub bucket: String,
    /// What keys of objects begin with in the bucket, as in `team/tidemill`; empty: nothing. For a bucket shared with others.
    pub key_prefix: String,
    /// Whether `endpoint` may be spoken to without encryption although it is not on this machine.
    pub allow_http: bool,
    /// The role that grants are made from; needed by [`Aws::grants`] alone.
    pub role_arn: Option<String>,
    /// For tests. `None`: the SDK's usual chain (environment, profile, container, instance).
    pub access_key: Option<String>,
    /// For tests; goes with `access_key`.
    pub secret_key: Option<String>,
}

impl Default for AwsSettings {
    fn default() -> Self {
        Self {
            region: None,
            endpoint: None,
            prefix: DEFAULT_PREFIX.to_owned(),
            bucket: String::new(),
            key_prefix: String::new(),
            allow_http: false,
            role_arn: None,
            access_key: None,
            secret_key: None,
        }
    }
}

impl fmt::Debug for AwsSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AwsSettings")
            .field("region", &self.region)
            .field("endpoint", &self.endpoint)
            .field("prefix", &self.prefix)
            .field("bucket", &self.bucket)
            .field("key_prefix", &self.key_prefix)
            .field("allow_http", &self.allow_http)
            .field("role_arn", &self.role_arn)
            .field("access_key", &self.access_key)
            .finish_non_exhaustive()
    }
}

/// Clients of one account and region. Clones are cheap and share clients and counts.
#[derive(Debug, Clone)]
pub struct Aws {
    pub(crate) inner: Arc<Inner>,
}

/// What all drivers share.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) settings: AwsSettings,
    pub(crate) env: Env,
    /// Region, credentials, endpoint, retries and timeouts: what a service's client is made from.
    pub(crate) config: SdkConfig,
    pub(crate) calls: Calls,
    pub(crate) sqs: aws_sdk_sqs::Client,
    pub(crate) dynamo: aws_sdk_dynamodb::Client,
    /// The same without the SDK's retries, for writes whose second attempt must know of the first.
    pub(crate) dynamo_once: aws_sdk_dynamodb::Client,
    pub(crate) streams: aws_sdk_dynamodbstreams::Client,
    pub(crate) table: crate::table::Shared,
}

impl Inner {
    fn new(settings: AwsSettings, env: Env, config: SdkConfig) -> Self {
        let calls = Calls::default();
        let sqs = aws_sdk_sqs::config::Builder::from(&config).interceptor(calls.counting("sqs")).build();
        let dynamo = aws_sdk_dynamodb::config::Builder::from(&config).interceptor(calls.counting("dynamodb"));
        let once = dynamo.clone().retry_config(RetryConfig::disabled()).build();
        let streams = aws_sdk_dynamodbstreams::config::Builder::from(&config).interceptor(calls.counting("dynamodbstreams")).build();
        Self {
            sqs: aws_sdk_sqs::Client::from_conf(sqs),
            dynamo: aws_sdk_dynamodb::Client::from_conf(dynamo.build()),
            dynamo_once: aws_sdk_dynamodb::Client::from_conf(once),
            streams: aws_sdk_dynamodbstreams::Client::from_conf(streams),
            table: crate::table::Shared::new(&env),
            settings,
            env,
            config,
            calls,
        }
    }

    /// The pause before what failed in part, or for a passing reason, is tried again for the `attempt`-th time, from 1. `false`:
    /// it has been tried often enough.
    pub(crate) async fn pause(&self, attempt: u32) -> bool {
        let policy = RetryPolicy { attempts: TRIES, base: HumanDuration(FIRST_PAUSE), cap: HumanDuration(LONGEST_PAUSE) };
        if !policy.allows_another(attempt) {
            return false;
        }
        sleep(policy.delay(attempt, &self.env)).await;
        true
    }
}

impl Aws {
    /// Makes the clients. Nothing is asked of AWS yet, except for credentials where the chain needs the network for them;
    /// [`Aws::check`] does that.
    ///
    /// # Errors
    /// `Invalid` when the settings contradict themselves or no region is known.
    pub async fn connect(settings: AwsSettings, env: Env) -> Result<Self> {
        check(&settings)?;
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .http_client(Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https())
            .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS).with_initial_backoff(FIRST_PAUSE * 2))
            .timeout_config(timeouts())
            // A long poll has nothing to say for 20 s, which is no stall; the attempt's timeout covers the real ones.
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
        if let Ok(name) = AppName::new("tidemill") {
            loader = loader.app_name(name);
        }
        if let Some(region) = &settings.region {
            loader = loader.region(Region::new(region.clone()));
        }
        if let Some(endpoint) = &settings.endpoint {
            loader = loader.endpoint_url(endpoint.clone());
        }
        if let (Some(key), Some(secret)) = (&settings.access_key, &settings.secret_key) {
            loader = loader.credentials_provider(Credentials::new(key.clone(), secret.clone(), None, None, "settings"));
        }
        let config = loader.load().await;
        if config.region().is_none() {
            return Err(Error::invalid("no AWS region is known; set `region` in the settings, or AWS_REGION"));
        }
        Ok(Self { inner: Arc::new(Inner::new(settings, env, config)) })
    }

    /// Every request made so far, throttled and repeated ones included.
    pub fn calls(&self) -> Calls {
        self.inner.calls.clone()
    }
}

fn timeouts() -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(ATTEMPT_TIMEOUT)
        .operation_attempt_timeout(ATTEMPT_TIMEOUT)
        .operation_timeout(OPERATION_TIMEOUT)
        .build()
}

fn check(settings: &AwsSettings) -> Result<()> {
    let prefix = &settings.prefix;
    let fits = (1..=20).contains(&prefix.len()) && prefix.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    if !fits {
        return Err(Error::invalid(format!("prefix `{prefix}` of queues and tables must be 1 to 20 characters of a-z 0-9")));
    }
    if settings.access_key.is_some() != settings.secret_key.is_some() {
        return Err(Error::invalid("an access key needs its secret key, and the other way round; set both or neither"));
    }
    Ok(())
}
