//! The queue on SQS against the conformance suite on both stand-ins, and what it promises beyond it.

#![allow(clippy::unwrap_used, reason = "a test ends where something fails")]

mod support;

use std::sync::Arc;

use tidemill_blocks::queue::Queue;
use tidemill_blocks_test::{Harness, Skip, queue_suite};

mod ministack {
    use super::*;

    async fn make(h: &Harness) -> Result<Arc<dyn Queue>, Skip> {
        Ok(support::connect(h, support::MINISTACK).await?.queue())
    }

    queue_suite!(real, make);
}

mod moto {
    use super::*;

    async fn make(h: &Harness) -> Result<Arc<dyn Queue>, Skip> {
        Ok(support::connect(h, support::MOTO).await?.queue())
    }

    queue_suite!(real, make);
}
