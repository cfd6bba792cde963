//! The queue on PostgreSQL: the conformance suite, and what is promised beyond it.

mod support;

mod suite {
    use std::sync::Arc;

    use tidemill_blocks::queue::Queue;
    use tidemill_blocks_test::{Harness, Skip, queue_suite};

    async fn make(h: &Harness) -> Result<Arc<dyn Queue>, Skip> {
        super::support::postgres(h).await.map(|postgres| postgres.queue())
    }

    queue_suite!(real, make);
}
