//! The databases that tasks are made from. Nothing is connected before somebody asks.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidemill_base::Result;

use crate::config::{GridSection, SourceSection};
use crate::grid::{DataSource, DataSources};

/// Those of the configuration. `Invalid` when this program has no driver for them.
pub(super) fn sources(grid: &GridSection) -> Result<DataSources> {
    let named = grid.source.iter().map(|s| Ok((s.name.clone(), source(s)?)));
    Ok(DataSources(Arc::new(named.collect::<Result<BTreeMap<_, _>>>()?)))
}

#[cfg(not(feature = "postgres"))]
fn source(section: &SourceSection) -> Result<Arc<dyn DataSource>> {
    Err(tidemill_base::Error::invalid(format!(
        "grid.source `{}` is a PostgreSQL database, and this binary was built without the postgres drivers",
        section.name
    )))
}

#[cfg(feature = "postgres")]
fn source(section: &SourceSection) -> Result<Arc<dyn DataSource>> {
    use tidemill_base::Error;
    let read = |file: &std::path::Path| {
        std::fs::read(file).map_err(|e| Error::from(e).context(format!("grid.source `{}`: read ca {}", section.name, file.display())))
    };
    let ca = Some(section.ca.as_path()).filter(|file| !file.as_os_str().is_empty()).map(read).transpose()?;
    let settings = tidemill_postgres::PostgresSettings { ca, ..tidemill_postgres::PostgresSettings::new(section.url.expose()) };
    Ok(Arc::new(postgres::Database { settings, timeout: section.statement_timeout.0 }))
}

#[cfg(feature = "postgres")]
mod postgres {
    use std::time::Duration;

    use async_trait::async_trait;
    use tidemill_base::Result;
    use tidemill_postgres::{PostgresSettings, SourceKind};
    use tidemill_query::payloads::ColumnKind;

    use crate::grid::{DataSource, SourceRows};

    #[derive(Debug)]
    pub(super) struct Database {
        pub(super) settings: PostgresSettings,
        pub(super) timeout: Duration,
    }

    struct Rows(tidemill_postgres::SourceRows);

    #[async_trait]
    impl DataSource for Database {
        async fn open(&self, query: &str) -> Result<Box<dyn SourceRows>> {
            let rows = tidemill_postgres::SourceRows::open(&self.settings, query, self.timeout).await?;
            Ok(Box::new(Rows(rows)))
        }
    }

    #[async_trait]
    impl SourceRows for Rows {
        fn columns(&self) -> Vec<(String, ColumnKind)> {
            let kind = |kind| match kind {
                SourceKind::Bool => ColumnKind::Bool,
                SourceKind::Int => ColumnKind::Int,
                SourceKind::Real => ColumnKind::Real,
                SourceKind::Date => ColumnKind::Date,
                SourceKind::LocalTime => ColumnKind::LocalTime,
                SourceKind::Time => ColumnKind::Time,
                SourceKind::Text => ColumnKind::Text,
            };
            self.0.columns().iter().map(|(name, k)| (name.clone(), kind(*k))).collect()
        }

        async fn next(&mut self) -> Result<Vec<String>> {
            self.0.next().await
        }
    }
}
