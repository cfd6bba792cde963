//! The in-memory drivers keep the promises of their traits.

use std::sync::Arc;

use tidemill_blocks::memory::{MemoryQueue, MemoryTable};
use tidemill_blocks::queue::Queue;
use tidemill_blocks::table::Table;
use tidemill_blocks_test::Harness;

async fn make_queue(h: &Harness) -> Arc<dyn Queue> {
    Arc::new(MemoryQueue::new(h.env().clone()))
}

async fn make_table(h: &Harness) -> Arc<dyn Table> {
    Arc::new(MemoryTable::new(h.env().clone()))
}

mod queue {
    tidemill_blocks_test::queue_suite!(simulated, super::make_queue);
}

mod table {
    tidemill_blocks_test::table_suite!(simulated, super::make_table);
}
