//! The engine's one catalog: schemas of tables, in order of their names, changed while statements run.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use datafusion::catalog::{CatalogProvider, SchemaProvider, TableProvider};
use datafusion::common::DataFusionError;

use crate::table::SourceTable;

/// Tables by schema and name.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    schemas: RwLock<BTreeMap<String, Arc<Tables>>>,
}

#[derive(Debug, Default)]
struct Tables(RwLock<BTreeMap<String, Arc<SourceTable>>>);

impl Catalog {
    /// Puts a table in, over one of the same name.
    pub(crate) fn insert(&self, schema: &str, name: &str, table: SourceTable) {
        let mut schemas = self.schemas.write().unwrap_or_else(PoisonError::into_inner);
        let tables = schemas.entry(schema.to_owned()).or_default();
        tables.0.write().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), Arc::new(table));
    }

    /// Takes a table out; a schema without tables goes with its last one.
    pub(crate) fn remove(&self, schema: &str, name: &str) -> bool {
        let mut schemas = self.schemas.write().unwrap_or_else(PoisonError::into_inner);
        let Some(tables) = schemas.get(schema) else { return false };
        let mut tables = tables.0.write().unwrap_or_else(PoisonError::into_inner);
        let removed = tables.remove(name).is_some();
        let empty = tables.is_empty();
        drop(tables);
        if empty {
            schemas.remove(schema);
        }
        removed
    }

    /// All tables as `schema.name`, in order.
    pub(crate) fn names(&self) -> Vec<String> {
        let schemas = self.schemas.read().unwrap_or_else(PoisonError::into_inner);
        schemas.iter().flat_map(|(schema, tables)| tables.table_names().into_iter().map(move |t| format!("{schema}.{t}"))).collect()
    }
}

impl CatalogProvider for Catalog {
    fn schema_names(&self) -> Vec<String> {
        self.schemas.read().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        let schemas = self.schemas.read().unwrap_or_else(PoisonError::into_inner);
        schemas.get(name).map(|tables| Arc::clone(tables) as _)
    }
}

#[async_trait]
impl SchemaProvider for Tables {
    fn table_names(&self) -> Vec<String> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        let tables = self.0.read().unwrap_or_else(PoisonError::into_inner);
        Ok(tables.get(name).map(|table| Arc::clone(table) as _))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).contains_key(name)
    }
}
