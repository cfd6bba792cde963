//! Objects on PostgreSQL: the conformance suite, and what is promised beyond it.

mod support;

mod suite {
    use object_store::ObjectStore;
    use std::sync::Arc;

    use tidemill_blocks_test::{Harness, Skip, objects_suite};

    async fn make(h: &Harness) -> Result<Arc<dyn ObjectStore>, Skip> {
        super::support::postgres(h).await.map(|postgres| postgres.objects())
    }

    objects_suite!(real, make);
}
