//! Casts to types that only PostgreSQL has.

use tidemill_query::sqlparser::ast::{ArrayElemTypeDef, DataType, Expr, ObjectNamePart};

use super::{Facts, build};
use crate::catalog::{PG_CATALOG, schema_oid};
use crate::value::{self, Format, Parameter, PgType, TYPES};

/// Rewrites a cast whose type is one of PostgreSQL's alone.
pub(super) fn cast(expr: &mut Expr, facts: &Facts) {
    let Expr::Cast { expr: inner, data_type, .. } = expr else { return };
    if let DataType::Array(element) = data_type {
        array_literal(inner);
        array_of_known(element);
        return;
    }
    let Some(name) = own_name(data_type) else { return };
    let value = std::mem::replace(&mut **inner, build::null());
    *expr = match name.as_str() {
        "regclass" => regclass(value, facts),
        "regtype" => regtype(value),
        "regnamespace" => regnamespace(value),
        "regproc" | "regprocedure" | "regoper" => regproc(value),
        "regrole" => build::text(crate::catalog::OWNER),
        name => match known_as(name) {
            Some(kind) => build::cast(value, kind),
            None => {
                **inner = value;
                return;
            }
        },
    };
}

/// The name of a type that the engine does not know, without `pg_catalog`.
fn own_name(kind: &DataType) -> Option<String> {
    match kind {
        DataType::Regclass => Some("regclass".to_owned()),
        DataType::JSON => Some("json".to_owned()),
        DataType::JSONB => Some("jsonb".to_owned()),
        DataType::Uuid => Some("uuid".to_owned()),
        DataType::Custom(name, _) => {
            let parts: Vec<&ObjectNamePart> = name.0.iter().collect();
            match parts.as_slice() {
                [ObjectNamePart::Identifier(one)] => Some(one.value.to_lowercase()),
                [ObjectNamePart::Identifier(schema), ObjectNamePart::Identifier(one)] if schema.value.eq_ignore_ascii_case(PG_CATALOG) => {
                    Some(one.value.to_lowercase())
                }
                _ => None,
            }
        }
        _ => None,
    }
}

/// Gives an array's elements a type that the engine knows.
fn array_of_known(element: &mut ArrayElemTypeDef) {
    let (ArrayElemTypeDef::AngleBracket(kind) | ArrayElemTypeDef::SquareBracket(kind, _) | ArrayElemTypeDef::Parenthesis(kind)) = element
    else {
        return;
    };
    if let Some(name) = own_name(kind) {
        **kind = known_as(&name).unwrap_or(DataType::Text);
    }
}

/// The engine's type for one of PostgreSQL's names that it does not know.
fn known_as(name: &str) -> Option<DataType> {
    Some(match name {
        "oid" | "xid" | "cid" | "xid8" | "int8" => DataType::BigInt(None),
        "int2" => DataType::SmallInt(None),
        "int4" => DataType::Integer(None),
        "bool" => DataType::Boolean,
        "float4" => DataType::Real,
        "float8" => DataType::DoublePrecision,
        "name" | "text" | "char" | "bpchar" | "varchar" | "json" | "jsonb" | "uuid" | "inet" | "cidr" | "citext" | "unknown" => {
            DataType::Text
        }
        _ => return None,
    })
}

/// `'{a,b}'`, where an array is wanted, as an array.
pub(super) fn array_literal(expr: &mut Expr) {
    let Some(text) = build::literal(expr).filter(|t| t.starts_with('{')) else { return };
    let parameter = Parameter { oid: 1009, format: Format::Text, value: Some(bytes::Bytes::copy_from_slice(text.as_bytes())) };
    if let Ok(array) = value::literal(1, &parameter) {
        *expr = array;
    }
}

/// The number of a table for its name; the name for anything else, which is a number.
fn regclass(value: Expr, facts: &Facts) -> Expr {
    if let Some(text) = build::literal(&value) {
        return text.parse::<i64>().map_or_else(|_| build::number(facts.names.oid_of(text)), build::number);
    }
    if is_parameter(&value) {
        return build::call("length", vec![build::cast(value, DataType::Text)]);
    }
    let names = facts.names.all();
    build::case(
        value.clone(),
        names.into_iter().map(|(oid, name)| (build::number(oid), build::text(&name))),
        build::cast(value, DataType::Text),
    )
}

/// Whether it is a parameter that has no value yet, with or without a cast.
pub(super) fn is_parameter(value: &Expr) -> bool {
    use tidemill_query::sqlparser::ast::Value;
    match value {
        Expr::Value(v) => matches!(v.value, Value::Placeholder(_)),
        Expr::Cast { expr, .. } => is_parameter(expr),
        _ => false,
    }
}

fn regtype(value: Expr) -> Expr {
    match build::literal(&value) {
        Some(text) => type_number(text).unwrap_or_else(build::null),
        None if is_parameter(&value) => build::call("length", vec![build::cast(value, DataType::Text)]),
        None => format_type(value),
    }
}

/// The number of a type as a literal.
pub(super) fn type_number(name: &str) -> Option<Expr> {
    if let Some(element) = name.trim().strip_suffix("[]") {
        return PgType::by_name(element).map(|t| build::number(t.array));
    }
    PgType::by_name(name).map(|t| build::number(t.oid))
}

/// What a type is called, for an expression that gives its number.
pub(super) fn format_type(oid: Expr) -> Expr {
    let plain = TYPES.iter().map(|t| (t.oid, t.sql.to_owned()));
    let arrays = TYPES.iter().map(|t| (t.array, format!("{}[]", t.sql)));
    let whens = plain.chain(arrays).map(|(oid, name)| (build::number(oid), build::text(&name)));
    build::case(oid, whens, build::text("???"))
}

fn regnamespace(value: Expr) -> Expr {
    match build::literal(&value) {
        Some(text) => build::number(schema_oid(text.trim_matches('"'))),
        None => build::cast(value, DataType::Text),
    }
}

/// Functions are known by their names here.
fn regproc(value: Expr) -> Expr {
    match build::literal(&value) {
        Some(text) => build::text(text.rsplit('.').next().unwrap_or(text)),
        None => build::cast(value, DataType::Text),
    }
}
