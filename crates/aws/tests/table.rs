//! The table on DynamoDB against the conformance suite on both stand-ins, and what it promises beyond it.

#![allow(clippy::unwrap_used, reason = "a test ends where something fails")]

mod support;

use std::sync::Arc;

use tidemill_blocks::table::Table;
use tidemill_blocks_test::{Harness, Skip, table_suite};

mod ministack {
    use super::*;

    async fn make(h: &Harness) -> Result<Arc<dyn Table>, Skip> {
        Ok(support::connect(h, support::MINISTACK).await?.table())
    }

    table_suite!(real, make);
}

mod moto {
    use super::*;

    async fn make(h: &Harness) -> Result<Arc<dyn Table>, Skip> {
        Ok(support::connect(h, support::MOTO).await?.table())
    }

    table_suite!(real, make);
}
