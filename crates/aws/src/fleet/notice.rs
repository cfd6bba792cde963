//! What an EC2 instance is told of its own end: by Auto Scaling when it is scaled in, and by EC2 two minutes before it takes a spot
//! instance back.
//!
//! Both stand in the instance metadata service (version 2, with session tokens):
//! <https://docs.aws.amazon.com/autoscaling/ec2/userguide/retrieving-target-lifecycle-state-through-imds.html> and
//! <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html>.
//! A worker that reads them drains in time, also where no manager could have told it.

use std::time::Duration;

use aws_config::imds;
use aws_config::imds::client::error::ImdsError;
use aws_config::provider_config::ProviderConfig;
use aws_smithy_http_client::Builder;
use tidemill_base::{Error, Result};
use tidemill_runtime::sleep;

const LIFECYCLE: &str = "/latest/meta-data/autoscaling/target-lifecycle-state";
const SPOT: &str = "/latest/meta-data/spot/instance-action";
/// AWS asks for a look every five seconds.
const LOOK_EVERY: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(2);

/// The instance's metadata.
#[derive(Debug)]
pub struct Notices {
    imds: imds::Client,
}

impl Notices {
    /// Over the metadata service of this instance, or the one that `AWS_EC2_METADATA_SERVICE_ENDPOINT` names.
    pub fn new() -> Self {
        Self::with(imds::Client::builder())
    }

    fn with(builder: imds::client::Builder) -> Self {
        // It is on the instance itself and has no encryption to speak of.
        let config = ProviderConfig::without_region().with_http_client(Builder::new().build_http());
        let imds = builder.configure(&config).max_attempts(2).connect_timeout(TIMEOUT).read_timeout(TIMEOUT).build();
        Self { imds }
    }

    /// Why the instance will be taken away, if it will. `Unavailable` when there is no metadata service, as outside EC2.
    pub async fn look(&self) -> Result<Option<String>> {
        // Anything but these two goes on living: standby and warm pools come back.
        let state = self.get(LIFECYCLE).await?;
        if let Some(state) = state.filter(|s| matches!(s.trim(), "Terminated" | "Detached")) {
            return Ok(Some(format!("Auto Scaling takes this instance away ({})", state.trim())));
        }
        let action = self.get(SPOT).await?;
        Ok(action.map(|action| format!("EC2 takes this spot instance back ({})", action.trim())))
    }

    /// Returns when there is such a reason. An instance without a metadata service is said once, and looked at again.
    pub async fn told(&self) -> String {
        let mut silent = false;
        loop {
            match self.look().await {
                Ok(Some(reason)) => return reason,
                Ok(None) => silent = false,
                Err(e) if !silent => {
                    tracing::warn!(error = %e.chain(), "the instance's own notices cannot be read, trying again");
                    silent = true;
                }
                Err(_) => {}
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// A value, or `None` when there is none.
    async fn get(&self, path: &str) -> Result<Option<String>> {
        match self.imds.get(path).await {
            Ok(value) => Ok(Some(String::from(value.as_ref()))),
            Err(ImdsError::ErrorResponse(e)) if e.response().status().as_u16() == 404 => Ok(None),
            Err(e) => Err(Error::unavailable(format!("cannot read {path} from the instance metadata service")).with_source(e)),
        }
    }
}

impl Default for Notices {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tidemill_base::ErrorKind;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// A metadata service that gives tokens and, to those who have one, the two values.
    async fn service(values: Arc<Mutex<[Option<&'static str>; 2]>>) -> Notices {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let serve = async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let mut request = vec![0; 4096];
                let n = socket.read(&mut request).await.unwrap_or(0);
                let request = String::from_utf8_lossy(&request[..n]).into_owned();
                let value = if request.starts_with("PUT /latest/api/token ") {
                    Some("a-token")
                } else if !request.to_lowercase().contains("x-aws-ec2-metadata-token: a-token") {
                    None
                } else {
                    let values = *values.lock().unwrap();
                    [LIFECYCLE, SPOT].iter().position(|p| request.starts_with(&format!("GET {p} "))).and_then(|at| values[at])
                };
                let status = if value.is_some() { "200 OK" } else { "404 Not Found" };
                let body = value.unwrap_or("");
                let answer = format!(
                    "HTTP/1.1 {status}\r\nx-aws-ec2-metadata-token-ttl-seconds: 21600\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                    body.len()
                );
                drop(socket.write_all(answer.as_bytes()).await);
            }
        };
        #[expect(clippy::disallowed_methods, reason = "a service beside the test")]
        drop(tokio::spawn(serve));
        Notices::with(imds::Client::builder().endpoint(endpoint).unwrap())
    }

    #[tokio::test]
    async fn an_instance_is_told_of_its_end_and_of_nothing_else() {
        let values = Arc::new(Mutex::new([None, None]));
        let notices = service(Arc::clone(&values)).await;
        assert_eq!(notices.look().await.unwrap(), None);
        *values.lock().unwrap() = [Some("InService"), None];
        assert_eq!(notices.look().await.unwrap(), None);
        *values.lock().unwrap() = [Some("Warmed:Stopped"), None];
        assert_eq!(notices.look().await.unwrap(), None);
        *values.lock().unwrap() = [Some("Terminated"), None];
        assert!(notices.told().await.contains("Auto Scaling"));
        *values.lock().unwrap() = [None, Some(r#"{"action": "terminate", "time": "2026-11-21T12:00:00Z"}"#)];
        let told = notices.told().await;
        assert!(told.contains("spot") && told.contains("12:00:00"), "{told}");
    }

    #[tokio::test]
    async fn outside_ec2_there_is_nobody_to_ask() {
        let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let notices = Notices::with(imds::Client::builder().endpoint(format!("http://{gone}")).unwrap());
        assert_eq!(notices.look().await.unwrap_err().kind(), ErrorKind::Unavailable);
    }
}
