//! The engine's one catalog: schemas of tables, in order of their names, changed while statements run.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use datafusion::catalog::{CatalogProvider, SchemaProvider, TableProvider};
use datafusion::common::DataFusionError;
use tidemill_base::Error;
use tokio::runtime::Handle;

use crate::table::{SourceTable, external};
use crate::{Family, TableSchema};

/// Schemas with names that begin so can be read and are listed nowhere: they are for programs, in another dialect's words.
const UNLISTED: &str = "pg_";

/// Tables by schema and name.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    schemas: RwLock<BTreeMap<String, Arc<Tables>>>,
}

#[derive(Default)]
struct Tables {
    named: RwLock<BTreeMap<String, Arc<SourceTable>>>,
    /// Makes tables of other names, and the runtime on which it is asked.
    family: RwLock<Option<(Arc<dyn Family>, Handle)>>,
}

impl fmt::Debug for Tables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tables").field("named", &self.named).finish_non_exhaustive()
    }
}

impl Catalog {
    /// Puts a table in, over one of the same name.
    pub(crate) fn insert(&self, schema: &str, name: &str, table: SourceTable) {
        let mut schemas = self.schemas.write().unwrap_or_else(PoisonError::into_inner);
        let tables = schemas.entry(schema.to_owned()).or_default();
        tables.named.write().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), Arc::new(table));
    }

    /// Has tables of a schema made when they are named, beside those that are put in.
    pub(crate) fn insert_family(&self, schema: &str, family: Arc<dyn Family>, home: Handle) {
        let mut schemas = self.schemas.write().unwrap_or_else(PoisonError::into_inner);
        let tables = schemas.entry(schema.to_owned()).or_default();
        *tables.family.write().unwrap_or_else(PoisonError::into_inner) = Some((family, home));
    }

    /// Takes a table out; a schema without tables and without a family goes with its last one.
    pub(crate) fn remove(&self, schema: &str, name: &str) -> bool {
        let mut schemas = self.schemas.write().unwrap_or_else(PoisonError::into_inner);
        let Some(tables) = schemas.get(schema) else { return false };
        let mut named = tables.named.write().unwrap_or_else(PoisonError::into_inner);
        let removed = named.remove(name).is_some();
        let empty = named.is_empty() && tables.family.read().unwrap_or_else(PoisonError::into_inner).is_none();
        drop(named);
        if empty {
            schemas.remove(schema);
        }
        removed
    }

    /// All listed tables as `schema.name`, in order.
    pub(crate) fn names(&self) -> Vec<String> {
        self.each(|schema, name, _| format!("{schema}.{name}"))
    }

    /// All listed tables with their columns, in order.
    pub(crate) fn described(&self) -> Vec<(String, String, TableSchema)> {
        self.each(|schema, name, table| (schema.to_owned(), name.to_owned(), table.described()))
    }

    fn each<T>(&self, f: impl Fn(&str, &str, &SourceTable) -> T) -> Vec<T> {
        let schemas = self.schemas.read().unwrap_or_else(PoisonError::into_inner);
        let mut out = Vec::new();
        for (schema, tables) in schemas.iter().filter(|(schema, _)| !schema.starts_with(UNLISTED)) {
            let tables = tables.named.read().unwrap_or_else(PoisonError::into_inner);
            out.extend(tables.iter().map(|(name, table)| f(schema, name, table)));
        }
        out
    }

    /// Whether there is such a table, listed or not.
    pub(crate) fn contains(&self, schema: &str, name: &str) -> bool {
        let schemas = self.schemas.read().unwrap_or_else(PoisonError::into_inner);
        schemas.get(schema).is_some_and(|tables| tables.table_exist(name))
    }
}

impl CatalogProvider for Catalog {
    fn schema_names(&self) -> Vec<String> {
        let schemas = self.schemas.read().unwrap_or_else(PoisonError::into_inner);
        schemas.keys().filter(|schema| !schema.starts_with(UNLISTED)).cloned().collect()
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        let schemas = self.schemas.read().unwrap_or_else(PoisonError::into_inner);
        schemas.get(name).map(|tables| Arc::clone(tables) as _)
    }
}

#[async_trait]
impl SchemaProvider for Tables {
    fn table_names(&self) -> Vec<String> {
        self.named.read().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        let named = self.named.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        if let Some(table) = named {
            return Ok(Some(table));
        }
        let family = self.family.read().unwrap_or_else(PoisonError::into_inner).clone();
        let Some((family, home)) = family else { return Ok(None) };
        let word = name.to_owned();
        let asked = home.spawn(async move { family.table(&word).await }).await;
        let made = asked.unwrap_or_else(|e| Err(Error::internal(format!("making table `{name}` failed")).with_source(e)));
        let source = made.map_err(external)?;
        Ok(Some(Arc::new(SourceTable::new(name.to_owned(), source, home))))
    }

    /// Whether there may be one: what a family has is known when it is asked, and then it says itself what is missing.
    fn table_exist(&self, name: &str) -> bool {
        self.named.read().unwrap_or_else(PoisonError::into_inner).contains_key(name)
            || self.family.read().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}
