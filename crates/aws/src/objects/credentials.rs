//! The SDK's chain of credentials, as `object_store` asks for them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_sts::config::{ProvideCredentials as _, SharedCredentialsProvider};
use object_store::CredentialProvider;
use object_store::aws::AwsCredential;
use tidemill_base::{Env, Error, Result, Timestamp};

use crate::Aws;

/// Renewed so long before they end: a request keeps the credentials it began with through its retries.
const AHEAD: Duration = Duration::from_secs(300);
/// Those that name no end are asked for again after this, since a file or a variable may have changed.
const WITHOUT_END: Duration = Duration::from_secs(900);

/// Asks the chain when there are none or they are about to end.
#[derive(Debug)]
pub(super) struct Provider {
    chain: SharedCredentialsProvider,
    env: Env,
    kept: Mutex<Option<(Arc<AwsCredential>, Timestamp)>>,
}

impl Provider {
    pub(super) fn new(aws: &Aws) -> Result<Self> {
        let chain = aws.inner.config.credentials_provider();
        let chain = chain.ok_or_else(|| Error::internal("the AWS configuration was loaded without a chain of credentials"))?;
        Ok(Self { chain, env: aws.inner.env.clone(), kept: Mutex::new(None) })
    }

    fn kept(&self) -> Option<Arc<AwsCredential>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.as_ref().filter(|(_, renew_at)| self.env.now() < *renew_at).map(|(credential, _)| Arc::clone(credential))
    }
}

#[async_trait]
impl CredentialProvider for Provider {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        if let Some(kept) = self.kept() {
            return Ok(kept);
        }
        let found = self.chain.provide_credentials().await.map_err(|e| object_store::Error::Unauthenticated {
            path: "credentials".to_owned(),
            source: Box::new(
                Error::denied("no AWS credentials were found; set AWS_PROFILE, or run where a role is attached").with_source(e),
            ),
        })?;
        let ends_at = found.expiry().and_then(|t| t.duration_since(std::time::UNIX_EPOCH).ok()).map(|d| Timestamp::ZERO + d);
        let renew_at = ends_at.map_or(self.env.now() + WITHOUT_END, |at| at - AHEAD);
        let credential = Arc::new(AwsCredential {
            key_id: found.access_key_id().to_owned(),
            secret_key: found.secret_access_key().to_owned(),
            token: found.session_token().map(str::to_owned),
        });
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some((Arc::clone(&credential), renew_at));
        Ok(credential)
    }
}
