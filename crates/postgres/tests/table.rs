//! The table on PostgreSQL: the conformance suite, and what is promised beyond it.

mod support;

mod suite {
    use std::sync::Arc;

    use tidemill_blocks::table::Table;
    use tidemill_blocks_test::{Harness, Skip, table_suite};

    async fn make(h: &Harness) -> Result<Arc<dyn Table>, Skip> {
        super::support::postgres(h).await.map(|postgres| postgres.table())
    }

    table_suite!(real, make);
}
