//! The engines that a configuration names, connected, and the blocks that each of them gives.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use tidemill_base::{Env, Error, Result};
use tidemill_blocks::fleet::Fleet;
use tidemill_blocks::grants::Grants;
use tidemill_blocks::ledger::Ledger;
use tidemill_blocks::objects::Objects;
use tidemill_blocks::queue::Queue;
use tidemill_blocks::table::Table;
use tidemill_embedded::Embedded;
use tidemill_embedded::grants::{EmbeddedGrants, load_or_create_key};
use tidemill_embedded::ledger::SqliteLedger;

use super::aws::{self, Aws};
use super::postgres::{self, Postgres};
use crate::config::{Driver, ServerConfig};

/// What the database keeps the key of temporary credentials under.
const GRANTS_KEY: &str = "grants";

/// The engines that are used.
#[derive(Debug)]
pub(super) struct Engines {
    pub(super) embedded: Option<Embedded>,
    pub(super) postgres: Option<Postgres>,
    pub(super) aws: Option<Aws>,
}

impl Engines {
    /// Connects to the engines behind `drivers`, and opens the data folder's store if that is among them.
    pub(super) async fn connect(config: &ServerConfig, env: &Env, drivers: &[Driver]) -> Result<Self> {
        let names: BTreeSet<&str> = drivers.iter().map(|d| d.as_str()).collect();
        let wanted = |d: Driver| names.contains(d.as_str());
        Ok(Self {
            embedded: if wanted(Driver::Embedded) { Some(Embedded::open(&config.server.data, env.clone())?) } else { None },
            postgres: if wanted(Driver::Postgres) { Some(postgres::connect(config, env).await?) } else { None },
            aws: if wanted(Driver::Aws) { Some(aws::connect(config, env).await?) } else { None },
        })
    }

    /// One engine, to look at: nothing is made on it.
    pub(super) async fn only(config: &ServerConfig, env: &Env, driver: Driver) -> Result<Self> {
        let (mut postgres, mut aws) = (None, None);
        match driver {
            Driver::Postgres => postgres = Some(postgres::prepare(config, env)?),
            Driver::Aws => aws = Some(aws::connect(config, env).await?),
            Driver::Embedded => {}
        }
        Ok(Self { embedded: None, postgres, aws })
    }

    fn embedded(&self) -> Result<&Embedded> {
        self.embedded.as_ref().ok_or_else(|| not_connected(Driver::Embedded))
    }

    fn postgres(&self) -> Result<&Postgres> {
        self.postgres.as_ref().ok_or_else(|| not_connected(Driver::Postgres))
    }

    fn aws(&self) -> Result<&Aws> {
        self.aws.as_ref().ok_or_else(|| not_connected(Driver::Aws))
    }

    /// Objects.
    pub(super) fn objects(&self, driver: Driver) -> Result<Objects> {
        match driver {
            Driver::Embedded => self.embedded().map(Embedded::objects),
            Driver::Postgres => self.postgres().map(Postgres::objects),
            Driver::Aws => self.aws()?.objects(),
        }
    }

    /// Queues.
    pub(super) fn queue(&self, driver: Driver) -> Result<Arc<dyn Queue>> {
        match driver {
            Driver::Embedded => self.embedded().map(Embedded::queue),
            Driver::Postgres => self.postgres().map(Postgres::queue),
            Driver::Aws => self.aws().map(Aws::queue),
        }
    }

    /// The table.
    pub(super) fn table(&self, driver: Driver) -> Result<Arc<dyn Table>> {
        match driver {
            Driver::Embedded => self.embedded().map(Embedded::table),
            Driver::Postgres => self.postgres().map(Postgres::table),
            Driver::Aws => self.aws().map(Aws::table),
        }
    }

    /// The ledger.
    pub(super) fn ledger(&self, driver: Driver, data: &Path, env: &Env) -> Result<Arc<dyn Ledger>> {
        match driver {
            Driver::Embedded => Ok(Arc::new(SqliteLedger::open(data.join("ledger.sqlite"), env.clone())?)),
            Driver::Postgres => self.postgres().map(Postgres::ledger),
            Driver::Aws => Err(not_connected(driver)),
        }
    }

    /// Who issues credentials. `s3` is the URL of the endpoint that takes those that we sign ourselves.
    pub(super) async fn grants(&self, driver: Driver, data: &Path, env: &Env, s3: Option<String>) -> Result<Arc<dyn Grants>> {
        match driver {
            Driver::Embedded => Ok(Arc::new(EmbeddedGrants::new(load_or_create_key(data.join("grants.key"), env)?, env.clone(), s3))),
            Driver::Postgres => Ok(Arc::new(EmbeddedGrants::new(self.postgres()?.secret(GRANTS_KEY).await?, env.clone(), s3))),
            Driver::Aws => self.aws()?.grants(),
        }
    }

    /// Groups of EC2 Auto Scaling, whose members are told through `table` when they are to go.
    pub(super) fn fleet(&self, table: Arc<dyn Table>, env: &Env) -> Result<Arc<dyn Fleet>> {
        Ok(aws::fleet(self.aws()?, table, env))
    }

    /// Answers what has been asked and lets the data folder go.
    pub(super) fn close(&self) {
        if let Some(embedded) = &self.embedded {
            embedded.close();
        }
    }
}

fn not_connected(driver: Driver) -> Error {
    Error::internal(format!("no connection to the engine `{}` was made", driver.as_str()))
}

#[cfg(all(test, not(any(feature = "postgres", feature = "aws"))))]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_program_without_drivers_says_so() {
        let config = ServerConfig::default();
        for driver in [Driver::Postgres, Driver::Aws] {
            let e = Engines::connect(&config, &Env::system(), &[driver]).await.unwrap_err();
            let want = format!("this binary was built without the {} drivers", driver.as_str());
            assert!(e.kind() == tidemill_base::ErrorKind::Invalid && e.message().contains(&want), "{e}");
        }
    }
}
