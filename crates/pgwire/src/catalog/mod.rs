//! PostgreSQL's own tables about tables, as far as there is something to say: `pg_catalog` and `information_schema`.
//!
//! They are ordinary sources of the engine, in schemas that it does not list. Most are always empty, since there are no indexes, constraints,
//! triggers, rules or extensions here; they exist so that the statements which tools send can be understood. The columns of all of
//! them are in `columns.txt`, those of PostgreSQL 15 (<https://www.postgresql.org/docs/15/catalogs.html>), a table a line.

mod rows;
mod source;

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Weak};

use tidemill_query::{Engine, TableSchema, Type};

use self::rows::Rows;

/// The schema in the engine that holds `information_schema`; the engine has one of its own under that name, in its own words.
pub(crate) const INFORMATION: &str = "pg_information_schema";
pub(crate) const PG_CATALOG: &str = "pg_catalog";
/// The one database, and the owner of everything in it.
pub(crate) const DATABASE: &str = "tidemill";
pub(crate) const OWNER: &str = "tidemill";
const OWNER_OID: i64 = 10;

/// Numbers below this are PostgreSQL's own.
const FIRST_OID: u32 = 16_384;

/// Every table here by its schema in the engine and its name.
static TABLES: LazyLock<BTreeMap<(&'static str, &'static str), TableSchema>> = LazyLock::new(|| {
    let table = |line: &'static str| {
        let (name, columns) = line.split_once(' ')?;
        let (schema, name) = name.split_once('.').map_or((PG_CATALOG, name), |(_, name)| (INFORMATION, name));
        let columns: Vec<(String, Type)> = columns.split(' ').filter_map(column).collect();
        Some(((schema, name), TableSchema::new(&columns)))
    };
    include_str!("columns.txt").lines().filter_map(table).collect()
});

fn column(text: &str) -> Option<(String, Type)> {
    let (name, kind) = text.split_once(':')?;
    let kind = match kind {
        "i" => Type::Int,
        "b" => Type::Bool,
        "r" => Type::Real,
        "t" => Type::Time,
        _ => Type::Text,
    };
    Some((name.to_owned(), kind))
}

/// What these tables speak of: the engine's tables, and the numbers that they have here.
#[derive(Debug, Clone)]
pub(crate) struct Relation {
    pub(crate) schema: String,
    pub(crate) name: String,
    pub(crate) columns: TableSchema,
}

impl Relation {
    pub(crate) fn oid(&self) -> u32 {
        table_oid(&self.schema, &self.name)
    }
}

/// The engine's tables.
pub(crate) fn relations(engine: &Engine) -> Vec<Relation> {
    engine.described().into_iter().map(|(schema, name, columns)| Relation { schema, name, columns }).collect()
}

/// Makes the catalog's tables tables of the engine.
pub(crate) fn register(engine: &Arc<Engine>, version: &str) {
    let weak: Weak<Engine> = Arc::downgrade(engine);
    for ((schema, name), columns) in TABLES.iter() {
        let rows = Rows::of(schema, name);
        let source =
            source::Catalog::new(columns.clone(), rows, (*schema == PG_CATALOG).then_some(0), Weak::clone(&weak), version.to_owned());
        engine.register(schema, name, Arc::new(source));
    }
}

/// Whether there is such a table in a schema of the engine's.
pub(crate) fn exists(schema: &str, name: &str) -> bool {
    TABLES.contains_key(&(schema, name))
}

/// Whether there is such a table and it never has a row.
pub(crate) fn is_always_empty(schema: &str, name: &str) -> bool {
    exists(schema, name) && Rows::of(schema, name) == Rows::None
}

/// The number of a table: always the same for the same name, on every server.
pub(crate) fn table_oid(schema: &str, name: &str) -> u32 {
    number(&["table", schema, name])
}

/// The number of a schema.
pub(crate) fn schema_oid(name: &str) -> u32 {
    match name {
        PG_CATALOG => 11,
        "public" => 2_200,
        "information_schema" => 13_000,
        other => number(&["schema", other]),
    }
}

/// FNV-1a (RFC 9923) over the parts, brought above PostgreSQL's own numbers and below the sign.
fn number(parts: &[&str]) -> u32 {
    let mut hash: u32 = 0x811c_9dc5;
    for byte in parts.join("\0").bytes() {
        hash = (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    }
    FIRST_OID + hash % (u32::MAX / 2 - FIRST_OID)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_columns_are_read() {
        assert!(TABLES.len() > 80, "{}", TABLES.len());
        let class = &TABLES[&(PG_CATALOG, "pg_class")];
        assert!(class.columns().any(|c| c == ("relhasindex", Type::Bool)));
        assert!(is_always_empty(PG_CATALOG, "pg_index") && !is_always_empty(PG_CATALOG, "pg_class"));
        assert!(is_always_empty(INFORMATION, "triggers") && !is_always_empty(INFORMATION, "columns"));
        assert!(!is_always_empty(PG_CATALOG, "jobs"));
    }

    #[test]
    fn numbers_stay_what_they_are() {
        assert_eq!(table_oid("batch", "jobs"), table_oid("batch", "jobs"));
        assert_ne!(table_oid("batch", "jobs"), table_oid("batch", "tasks"));
        assert!(table_oid("a", "b") >= FIRST_OID && i32::try_from(table_oid("a", "b")).is_ok());
    }
}
