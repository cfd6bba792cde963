//! The ledger block: the tables of the systems themselves, in the schema of the drivers.
//!
//! A transaction is serialisable and goes to the server in one message, `BEGIN` to `COMMIT`. What it must find true is checked by the
//! server: a statement with an expectation is sent as `WITH touched AS (... RETURNING 1) SELECT tidemill_expect(...)`, which fails the
//! transaction. What cannot be wrapped so is counted here, which costs a second round trip. When the server finds that a transaction
//! cannot be put in an order with the others it undoes it, and it is sent again.
//!
//! Texts are ordered as the database was made to order them; one made with `LC_COLLATE 'C'` orders them by their bytes, as the embedded
//! ledger does.

pub(crate) mod migrate;
mod numeric;
mod run;
mod sql;
mod value;

use std::sync::Arc;

use async_trait::async_trait;
use tidemill_base::{Error, ErrorKind, Result};
use tidemill_blocks::ledger::{Ledger, Migration, Row, Statement, Value};

use crate::Shared;
use crate::error::NOT_AS_EXPECTED;
use crate::link::{Block, Tries};
use run::Failed;

/// The ledger in one schema.
#[derive(Debug, Clone)]
pub(crate) struct PostgresLedger {
    shared: Arc<Shared>,
}

impl PostgresLedger {
    pub(crate) const fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

#[async_trait]
impl Ledger for PostgresLedger {
    async fn migrate(&self, migrations: &[Migration]) -> Result<()> {
        migrate::apply(&self.shared.link, migrations).await
    }

    async fn transact(&self, statements: Vec<Statement>) -> Result<Vec<u64>> {
        if statements.is_empty() {
            return Ok(Vec::new());
        }
        for statement in &statements {
            sql::check_writable(&statement.sql)?;
        }
        let link = &self.shared.link;
        let mut tries = Tries::new(&link.env);
        loop {
            let client = link.client().await?;
            match run::transact(link, client, &statements).await {
                Ok(touched) => return Ok(touched),
                Err(Failed::Answer(e)) => return Err(e),
                Err(Failed::Server(at, client, e)) => {
                    let unexpected = e.as_db_error().filter(|db| db.code().code() == NOT_AS_EXPECTED).map(|db| db.message().to_owned());
                    if let Some(message) = unexpected {
                        return Err(Error::new(ErrorKind::Conflict, format!("statement {at} {message}")));
                    }
                    tries.again(client, e).await.map_err(|e| e.context(format!("statement {at}")))?;
                }
            }
        }
    }

    async fn query(&self, sql: &str, params: Vec<Value>) -> Result<Vec<Row>> {
        sql::check_query(sql)?;
        let link = &self.shared.link;
        let mut tries = Tries::new(&link.env).reading();
        loop {
            let client = link.client().await?;
            link.count(Block::Ledger);
            match run::query(link, client, sql, &params).await {
                Ok(rows) => return Ok(rows),
                Err(Failed::Answer(e)) => return Err(e),
                Err(Failed::Server(_, client, e)) => {
                    if crate::error::is_standby(&e) {
                        return Err(Error::invalid("a ledger query cannot change data; changes go through a transaction"));
                    }
                    tries.again(client, e).await?;
                }
            }
        }
    }
}
