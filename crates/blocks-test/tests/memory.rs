//! The in-memory drivers keep the promises of their traits.

use std::sync::Arc;

use tidemill_blocks::fleet::Fleet;
use tidemill_blocks::grants::Grants;
use tidemill_blocks::ledger::Ledger;
use tidemill_blocks::memory::{self, MemoryFleet, MemoryGrants, MemoryQueue, MemoryTable};
use tidemill_blocks::objects::Objects;
use tidemill_blocks::queue::Queue;
use tidemill_blocks::table::Table;
use tidemill_blocks_test::{Harness, SqliteMemoryLedger};

async fn make_queue(h: &Harness) -> Arc<dyn Queue> {
    Arc::new(MemoryQueue::new(h.env().clone()))
}

async fn make_table(h: &Harness) -> Arc<dyn Table> {
    Arc::new(MemoryTable::new(h.env().clone()))
}

async fn make_objects(_: &Harness) -> Objects {
    memory::objects()
}

async fn make_ledger(_: &Harness) -> Arc<dyn Ledger> {
    Arc::new(SqliteMemoryLedger::open().expect("SQLite opens in memory"))
}

async fn make_grants(h: &Harness) -> Arc<dyn Grants> {
    Arc::new(MemoryGrants::new(h.env().clone()))
}

async fn make_fleet(h: &Harness) -> Arc<dyn Fleet> {
    Arc::new(MemoryFleet::new(h.env().clone()))
}

mod queue {
    tidemill_blocks_test::queue_suite!(simulated, super::make_queue);
}

mod table {
    tidemill_blocks_test::table_suite!(simulated, super::make_table);
}

mod objects {
    tidemill_blocks_test::objects_suite!(simulated, super::make_objects);
}

mod ledger {
    tidemill_blocks_test::ledger_suite!(simulated, super::make_ledger);
}

mod grants {
    tidemill_blocks_test::grants_suite!(simulated, super::make_grants);
}

mod fleet {
    tidemill_blocks_test::fleet_suite!(simulated, super::make_fleet);
}
