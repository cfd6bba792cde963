//! The database, where the configuration names one. A program that was built without the drivers says so when it is asked for one.

use tidemill_base::{Env, Result};

use crate::config::ServerConfig;

#[cfg(feature = "postgres")]
pub(super) use tidemill_postgres::Postgres;

/// Connects, and makes the driver's own tables if they are not there. `Invalid` when this program has no such drivers, `Unavailable` when the
/// database cannot be reached.
#[cfg(feature = "postgres")]
pub(super) async fn connect(config: &ServerConfig, env: &Env) -> Result<Postgres> {
    Postgres::connect(settings(config)?, env.clone()).await
}

/// The same without making anything, to look at what is there.
#[cfg(feature = "postgres")]
pub(super) fn prepare(config: &ServerConfig, env: &Env) -> Result<Postgres> {
    Postgres::prepare(&settings(config)?, env.clone())
}

#[cfg(feature = "postgres")]
fn settings(config: &ServerConfig) -> Result<tidemill_postgres::PostgresSettings> {
    let section = &config.postgres;
    let read = |file: &std::path::Path| {
        std::fs::read(file).map_err(|e| tidemill_base::Error::from(e).context(format!("read postgres.ca {}", file.display())))
    };
    let ca = Some(section.ca.as_path()).filter(|file| !file.as_os_str().is_empty()).map(read).transpose()?;
    let (url, schema) = (section.url.expose().to_owned(), section.schema.clone());
    Ok(tidemill_postgres::PostgresSettings { url, pool: section.pool, schema, ca })
}

#[cfg(not(feature = "postgres"))]
pub(super) use without::{Postgres, connect, prepare};

#[cfg(not(feature = "postgres"))]
mod without {
    use std::sync::Arc;

    use tidemill_base::Error;
    use tidemill_blocks::check::Finding;
    use tidemill_blocks::ledger::Ledger;
    use tidemill_blocks::objects::Objects;
    use tidemill_blocks::queue::Queue;
    use tidemill_blocks::table::Table;

    use super::{Env, Result, ServerConfig};

    /// There is none in this program.
    #[derive(Debug, Clone, Copy)]
    pub(in super::super) enum Postgres {}

    pub(in super::super) async fn connect(_: &ServerConfig, _: &Env) -> Result<Postgres> {
        Err(absent())
    }

    pub(in super::super) fn prepare(_: &ServerConfig, _: &Env) -> Result<Postgres> {
        Err(absent())
    }

    fn absent() -> Error {
        Error::invalid(
            "a block's driver is `postgres` and this binary was built without the postgres drivers; build it with its default features",
        )
    }

    impl Postgres {
        pub(in super::super) fn ledger(&self) -> Arc<dyn Ledger> {
            match *self {}
        }

        pub(in super::super) fn queue(&self) -> Arc<dyn Queue> {
            match *self {}
        }

        pub(in super::super) fn table(&self) -> Arc<dyn Table> {
            match *self {}
        }

        pub(in super::super) fn objects(&self) -> Objects {
            match *self {}
        }

        pub(in super::super) async fn secret(&self, _: &str) -> Result<[u8; 32]> {
            match *self {}
        }

        pub(in super::super) async fn check(&self, _: bool) -> Vec<Finding> {
            match *self {}
        }
    }
}
