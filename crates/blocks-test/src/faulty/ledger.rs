//! A ledger whose calls go wrong.

use std::sync::Arc;

use async_trait::async_trait;
use tidemill_base::Result;
use tidemill_blocks::ledger::{Ledger, Migration, Row, Statement, Value};

use super::Component;

#[derive(Debug)]
pub(super) struct FaultyLedger {
    pub(super) inner: Arc<dyn Ledger>,
    pub(super) component: Component,
}

#[async_trait]
impl Ledger for FaultyLedger {
    async fn migrate(&self, migrations: &[Migration]) -> Result<()> {
        self.component.call("ledger.migrate", self.inner.migrate(migrations)).await
    }

    async fn transact(&self, statements: Vec<Statement>) -> Result<Vec<u64>> {
        self.component.call("ledger.transact", self.inner.transact(statements)).await
    }

    async fn query(&self, sql: &str, params: Vec<Value>) -> Result<Vec<Row>> {
        self.component.call("ledger.query", self.inner.query(sql, params)).await
    }
}
