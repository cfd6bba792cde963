//! Engines for tests, and a proxy in front of them that misbehaves as told.

#![allow(dead_code, unreachable_pub, reason = "each test program uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test ends where something fails")]

pub mod proxy;

use tidemill_aws::{Aws, AwsSettings};
use tidemill_blocks_test::{Harness, Skip, engine};

/// The stand-ins that tests know, by the variable that holds their address.
pub const MINISTACK: &str = "TIDEMILL_TEST_MINISTACK";
pub const MOTO: &str = "TIDEMILL_TEST_MOTO";

/// Settings for a stand-in at `endpoint`. Both take the key `test` for everything.
pub fn settings(endpoint: &str) -> AwsSettings {
    AwsSettings {
        region: Some("us-east-1".to_owned()),
        endpoint: Some(endpoint.to_owned()),
        bucket: "tidemill-test".to_owned(),
        access_key: Some("test".to_owned()),
        secret_key: Some("test".to_owned()),
        ..AwsSettings::default()
    }
}

/// Clients of the engine that `variable` names.
pub async fn connect(h: &Harness, variable: &str) -> Result<Aws, Skip> {
    let endpoint = engine(variable)?;
    Ok(Aws::connect(settings(&endpoint), h.env().clone()).await.unwrap())
}

/// The same for moto, unless it is known to lie about the behaviour under test: `lies` has the behaviour and what moto does.
pub async fn connect_moto(h: &Harness, lies: &[(&str, &str)]) -> Result<Aws, Skip> {
    let aws = connect(h, MOTO).await?;
    match lies.iter().find(|(behaviour, _)| *behaviour == h.behaviour()) {
        Some((_, lie)) => Err(Skip(format!("moto {lie}"))),
        None => Ok(aws),
    }
}

/// Runs a test that is not part of a suite against ministack, through a proxy. It is skipped when ministack is not there.
pub fn through_proxy(name: &str, test: impl AsyncFnOnce(&Harness, &Aws, &proxy::Proxy)) {
    let endpoint = match engine(MINISTACK) {
        Ok(endpoint) => endpoint,
        Err(why) => return println!("SKIPPED {name}: {}", why.0),
    };
    tidemill_blocks_test::run_real(async |h: &Harness| {
        let proxy = proxy::Proxy::start(&endpoint).await;
        let aws = Aws::connect(settings(&proxy.endpoint()), h.env().clone()).await.unwrap();
        test(h, &aws, &proxy).await;
    });
}
