//! The ledger on PostgreSQL: the conformance suite, and what is promised beyond it.

mod support;

mod suite {
    use std::sync::Arc;

    use tidemill_blocks::ledger::Ledger;
    use tidemill_blocks_test::{Harness, Skip, ledger_suite};

    async fn make(h: &Harness) -> Result<Arc<dyn Ledger>, Skip> {
        super::support::postgres(h).await.map(|postgres| postgres.ledger())
    }

    ledger_suite!(real, make);
}
