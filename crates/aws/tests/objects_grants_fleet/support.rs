//! Stand-ins as the tests use them.

use tidemill_aws::{Aws, AwsSettings};
use tidemill_base::Env;
use tidemill_blocks_test::{Skip, engine};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

pub(crate) const MINISTACK: &str = "TIDEMILL_TEST_MINISTACK";
pub(crate) const MOTO: &str = "TIDEMILL_TEST_MOTO";
/// Stand-ins have this account; a role of another could not reach its buckets.
pub(crate) const ROLE: &str = "arn:aws:iam::000000000000:role/tidemill-test";

/// Settings for the stand-in at this variable, with a bucket name of the test's own.
pub(crate) fn settings(variable: &str, env: &Env) -> Result<AwsSettings, Skip> {
    Ok(AwsSettings {
        region: Some("us-east-1".to_owned()),
        endpoint: Some(engine(variable)?),
        prefix: format!("t{:x}", env.random_below(1 << 40)),
        bucket: format!("t-{}", env.id("b")),
        role_arn: Some(ROLE.to_owned()),
        access_key: Some("test".to_owned()),
        secret_key: Some("test".to_owned()),
        ..AwsSettings::default()
    })
}

pub(crate) async fn connect(settings: AwsSettings, env: &Env) -> Aws {
    Aws::connect(settings, env.clone()).await.unwrap()
}

/// A connection whose bucket is there.
pub(crate) async fn with_bucket(variable: &str, env: &Env) -> Result<Aws, Skip> {
    let aws = connect(settings(variable, env)?, env).await;
    let found = aws.check_objects(true).await;
    assert!(found.iter().all(|f| f.found.is_ready()), "{found:?}");
    Ok(aws)
}

/// The end of a test that needs an engine which is not here: says so, and counts as skipped.
macro_rules! or_skip {
    ($name:literal, $made:expr) => {
        match $made {
            Ok(made) => made,
            Err(why) => {
                println!("SKIPPED {}: {}", $name, why.0);
                return;
            }
        }
    };
}
pub(crate) use or_skip;

/// Asks a stand-in's IAM, which has no SDK here. Root's signature is not checked by ministack, so none is made.
pub(crate) async fn iam(endpoint: &str, form: &str) {
    let address = endpoint.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "POST / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\
         Authorization: AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/iam/aws4_request, SignedHeaders=host, Signature=none\r\n\r\n{form}",
        form.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let status = answer.lines().next().unwrap_or_default();
    assert!(status.contains(" 200") || answer.contains("EntityAlreadyExists"), "{form}: {answer}");
}
