//! The rows of the catalog's tables that have some.

use std::collections::BTreeSet;

use tidemill_query::Type;

use super::source::{Cell, Row};
use super::{DATABASE, INFORMATION, OWNER, OWNER_OID, PG_CATALOG, Relation, schema_oid};
use crate::session::SETTINGS;
use crate::value::{PgType, TYPES, of_declared};

/// What rows are made from.
pub(super) struct Context {
    pub(super) relations: Vec<Relation>,
    pub(super) version: String,
}

/// Which rows a table has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rows {
    None,
    AccessMethods,
    Attributes,
    Classes,
    Databases,
    Namespaces,
    Roles,
    Settings,
    Tables,
    Tablespaces,
    Types,
    Users,
    InfoColumns,
    InfoSchemata,
    InfoTables,
    InfoRoles,
}

macro_rules! row {
    ($($name:literal: $value:expr),* $(,)?) => { Row::from([$(($name, Cell::from($value))),*]) };
}

impl Rows {
    pub(super) fn of(schema: &str, name: &str) -> Self {
        match (schema, name) {
            (PG_CATALOG, "pg_am") => Self::AccessMethods,
            (PG_CATALOG, "pg_attribute") => Self::Attributes,
            (PG_CATALOG, "pg_class") => Self::Classes,
            (PG_CATALOG, "pg_database") => Self::Databases,
            (PG_CATALOG, "pg_namespace") => Self::Namespaces,
            (PG_CATALOG, "pg_roles") => Self::Roles,
            (PG_CATALOG, "pg_settings") => Self::Settings,
            (PG_CATALOG, "pg_tables") => Self::Tables,
            (PG_CATALOG, "pg_tablespace") => Self::Tablespaces,
            (PG_CATALOG, "pg_type") => Self::Types,
            (PG_CATALOG, "pg_user") => Self::Users,
            (INFORMATION, "columns") => Self::InfoColumns,
            (INFORMATION, "schemata") => Self::InfoSchemata,
            (INFORMATION, "tables") => Self::InfoTables,
            (INFORMATION, "enabled_roles" | "applicable_roles") => Self::InfoRoles,
            _ => Self::None,
        }
    }

    pub(super) fn make(self, context: &Context) -> Vec<Row> {
        let relations = &context.relations;
        match self {
            Self::None => Vec::new(),
            Self::AccessMethods => vec![row! {"oid": 2_i64, "amname": "heap", "amtype": "t", "amhandler": "heap_tableam_handler"}],
            Self::Attributes => relations.iter().flat_map(attributes).collect(),
            Self::Classes => relations.iter().map(class).collect(),
            Self::Databases => vec![database()],
            Self::Namespaces => schemas(relations)
                .iter()
                .map(|name| row! {"oid": schema_oid(name), "nspname": name.as_str(), "nspowner": OWNER_OID})
                .collect(),
            Self::Roles => vec![row! {
                "oid": OWNER_OID, "rolname": OWNER, "rolinherit": true, "rolcanlogin": true, "rolconnlimit": -1_i64, "rolpassword": "********",
            }],
            Self::Settings => SETTINGS.iter().map(|s| setting(s.name, s.initial(&context.version))).collect(),
            Self::Tables => relations
                .iter()
                .map(|r| row! {"schemaname": r.schema.as_str(), "tablename": r.name.as_str(), "tableowner": OWNER})
                .collect(),
            Self::Tablespaces => vec![row! {"oid": 1663_i64, "spcname": "pg_default", "spcowner": OWNER_OID}],
            Self::Types => TYPES.iter().flat_map(|t| [plain_type(t), array_type(t)]).collect(),
            Self::Users => vec![row! {"usename": OWNER, "usesysid": OWNER_OID, "passwd": "********"}],
            Self::InfoColumns => relations.iter().flat_map(info_columns).collect(),
            Self::InfoSchemata => schemas(relations)
                .iter()
                .map(|name| row! {"catalog_name": DATABASE, "schema_name": name.as_str(), "schema_owner": OWNER})
                .collect(),
            Self::InfoTables => relations.iter().map(info_table).collect(),
            Self::InfoRoles => vec![row! {"role_name": OWNER}],
        }
    }
}

/// Schemas that hold tables, and those that every client expects.
fn schemas(relations: &[Relation]) -> BTreeSet<String> {
    let fixed = [PG_CATALOG, "information_schema"].map(str::to_owned);
    relations.iter().map(|r| r.schema.clone()).chain(fixed).collect()
}

fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn class(relation: &Relation) -> Row {
    row! {
        "oid": relation.oid(), "relname": relation.name.as_str(), "relnamespace": schema_oid(&relation.schema), "relowner": OWNER_OID,
        "relam": 2_i64, "relpersistence": "p", "relkind": "r", "relreplident": "d", "relispopulated": true, "reltuples": -1_i64,
        "relnatts": count(relation.columns.columns().count()),
    }
}

fn kind(declared: Type) -> Option<&'static PgType> {
    PgType::by_oid(of_declared(declared))
}

fn attributes(relation: &Relation) -> Vec<Row> {
    let oid = relation.oid();
    let columns = relation.columns.columns().enumerate();
    let one = |(i, (name, declared)): (usize, (&str, Type))| {
        let length = kind(declared).map_or(-1, |t| i64::from(t.length));
        row! {
            "attrelid": oid, "attname": name, "atttypid": of_declared(declared), "attlen": length, "attnum": count(i + 1),
            "atttypmod": -1_i64, "attstattarget": -1_i64, "attcacheoff": -1_i64, "attbyval": length > 0, "attidentity": "", "attgenerated": "",
            "attislocal": true, "attstorage": if length > 0 { "p" } else { "x" }, "attalign": if length > 4 { "d" } else { "i" },
            "attcompression": "",
        }
    };
    columns.map(one).collect()
}

fn database() -> Row {
    row! {
        "oid": 5_i64, "datname": DATABASE, "datdba": OWNER_OID, "encoding": 6_i64, "datlocprovider": "c", "datallowconn": true,
        "datconnlimit": -1_i64, "dattablespace": 1663_i64, "datcollate": "C.UTF-8", "datctype": "C.UTF-8",
    }
}

fn setting(name: &str, value: &str) -> Row {
    row! {
        "name": name, "setting": value, "category": "Tidemill", "context": "user", "vartype": "string", "source": "default", "boot_val": value,
        "reset_val": value,
    }
}

fn plain_type(t: &PgType) -> Row {
    let input = t.receive.replace("recv", "in");
    row! {
        "oid": t.oid, "typname": t.name, "typnamespace": schema_oid(PG_CATALOG), "typowner": OWNER_OID, "typlen": i64::from(t.length),
        "typbyval": t.length > 0 && t.length <= 8, "typtype": "b", "typcategory": t.category, "typisdefined": true, "typdelim": ",",
        "typarray": t.array, "typinput": input.as_str(), "typoutput": t.receive.replace("recv", "out").as_str(), "typreceive": t.receive,
        "typsend": t.receive.replace("recv", "send").as_str(), "typtypmod": -1_i64, "typmodin": "-", "typmodout": "-", "typanalyze": "-",
        "typsubscript": "-", "typalign": if t.length == 8 { "d" } else { "i" }, "typstorage": if t.length > 0 { "p" } else { "x" },
        "typispreferred": matches!(t.name, "text" | "float8" | "bool" | "timestamptz" | "oid" | "interval"),
    }
}

fn array_type(t: &PgType) -> Row {
    let name = format!("_{}", t.name);
    row! {
        "oid": t.array, "typname": name.as_str(), "typnamespace": schema_oid(PG_CATALOG), "typowner": OWNER_OID, "typlen": -1_i64, "typtype": "b",
        "typcategory": "A", "typisdefined": true, "typdelim": ",", "typelem": t.oid, "typinput": "array_in", "typoutput": "array_out",
        "typreceive": "array_recv", "typsend": "array_send", "typtypmod": -1_i64, "typmodin": "-", "typmodout": "-", "typanalyze": "-",
        "typsubscript": "array_subscript_handler", "typalign": "d", "typstorage": "x",
    }
}

fn info_table(relation: &Relation) -> Row {
    row! {
        "table_catalog": DATABASE, "table_schema": relation.schema.as_str(), "table_name": relation.name.as_str(), "table_type": "BASE TABLE",
        "is_insertable_into": "NO", "is_typed": "NO",
    }
}

fn info_columns(relation: &Relation) -> Vec<Row> {
    let one = |(i, (name, declared)): (usize, (&str, Type))| {
        let (udt, sql) = kind(declared).map_or(("text", "text"), |t| (t.name, t.sql));
        let mut row = row! {
            "table_catalog": DATABASE, "table_schema": relation.schema.as_str(), "table_name": relation.name.as_str(), "column_name": name,
            "ordinal_position": count(i + 1), "is_nullable": "YES", "data_type": sql, "udt_catalog": DATABASE, "udt_schema": PG_CATALOG,
            "udt_name": udt, "dtd_identifier": (i + 1).to_string().as_str(), "is_self_referencing": "NO", "is_identity": "NO",
            "is_generated": "NEVER", "is_updatable": "NO", "identity_cycle": "NO",
        };
        if matches!(declared, Type::Int | Type::UInt) {
            row.extend(row! {"numeric_precision": 64_i64, "numeric_precision_radix": 2_i64});
        }
        row
    };
    relation.columns.columns().enumerate().map(one).collect()
}
