//! What the machine under a worker is told of its own end.

use tidemill_base::Result;

/// Returns, with the reason, when EC2 is about to take away the instance that this runs on. `Invalid` when this program has no such drivers.
#[cfg(feature = "aws")]
pub async fn instance_notice() -> Result<String> {
    Ok(tidemill_aws::fleet::Notices::new().told().await)
}

/// There is nobody to ask in this program.
#[cfg(not(feature = "aws"))]
#[expect(clippy::unused_async, reason = "as with the drivers")]
pub async fn instance_notice() -> Result<String> {
    Err(tidemill_base::Error::invalid(
        "--watch-notices asks EC2 and this binary was built without the aws drivers; build it with its default features",
    ))
}
