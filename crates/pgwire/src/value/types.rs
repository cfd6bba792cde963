//! PostgreSQL's types as far as values here have them, with the numbers that every PostgreSQL gives them
//! (`src/include/catalog/pg_type.dat` in its sources).

use tidemill_query::Type;
use tidemill_query::arrow::datatypes::DataType;

/// A type of PostgreSQL.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PgType {
    pub(crate) oid: u32,
    /// The type of arrays of it.
    pub(crate) array: u32,
    /// Bytes of a value, -1 when they vary.
    pub(crate) length: i16,
    pub(crate) name: &'static str,
    /// What `format_type` calls it.
    pub(crate) sql: &'static str,
    /// The kind of type: B boolean, D time, N number, S text, T interval, U other.
    pub(crate) category: &'static str,
    /// The function that reads the binary form, by which drivers know what the form is.
    pub(crate) receive: &'static str,
}

const fn row(
    oid: u32,
    array: u32,
    length: i16,
    name: &'static str,
    sql: &'static str,
    category: &'static str,
    receive: &'static str,
) -> PgType {
    PgType { oid, array, length, name, sql, category, receive }
}

/// Types of values here, and those that clients look for.
pub(crate) const TYPES: &[PgType] = &[
    row(16, 1000, 1, "bool", "boolean", "B", "boolrecv"),
    row(17, 1001, -1, "bytea", "bytea", "U", "bytearecv"),
    row(18, 1002, 1, "char", "\"char\"", "Z", "charrecv"),
    row(19, 1003, 64, "name", "name", "S", "namerecv"),
    row(20, 1016, 8, "int8", "bigint", "N", "int8recv"),
    row(21, 1005, 2, "int2", "smallint", "N", "int2recv"),
    row(23, 1007, 4, "int4", "integer", "N", "int4recv"),
    row(25, 1009, -1, "text", "text", "S", "textrecv"),
    row(26, 1028, 4, "oid", "oid", "N", "oidrecv"),
    row(114, 199, -1, "json", "json", "U", "json_recv"),
    row(700, 1021, 4, "float4", "real", "N", "float4recv"),
    row(701, 1022, 8, "float8", "double precision", "N", "float8recv"),
    row(1042, 1014, -1, "bpchar", "character", "S", "bpcharrecv"),
    row(1043, 1015, -1, "varchar", "character varying", "S", "varcharrecv"),
    row(1082, 1182, 4, "date", "date", "D", "date_recv"),
    row(1083, 1183, 8, "time", "time without time zone", "D", "time_recv"),
    row(1114, 1115, 8, "timestamp", "timestamp without time zone", "D", "timestamp_recv"),
    row(1184, 1185, 8, "timestamptz", "timestamp with time zone", "D", "timestamptz_recv"),
    row(1186, 1187, 16, "interval", "interval", "T", "interval_recv"),
    row(1700, 1231, -1, "numeric", "numeric", "N", "numeric_recv"),
    row(2950, 2951, 16, "uuid", "uuid", "U", "uuid_recv"),
    row(3802, 3807, -1, "jsonb", "jsonb", "U", "jsonb_recv"),
];

impl PgType {
    pub(crate) fn by_oid(oid: u32) -> Option<&'static Self> {
        TYPES.iter().find(|t| t.oid == oid)
    }

    /// The type of the elements, if this is the number of an array's type.
    pub(crate) fn by_array(oid: u32) -> Option<&'static Self> {
        TYPES.iter().find(|t| t.array == oid)
    }

    /// By any of its names, with a schema or without, such as `int4`, `integer` or `pg_catalog.int4`.
    pub(crate) fn by_name(name: &str) -> Option<&'static Self> {
        let name = name.trim().trim_start_matches("pg_catalog.").trim_matches('"').to_ascii_lowercase();
        let name = match name.as_str() {
            "int" => "integer",
            "decimal" => "numeric",
            "float" | "double" => "float8",
            "timestamp with time zone" => "timestamptz",
            "string" => "text",
            other => other,
        };
        TYPES.iter().find(|t| t.name == name || t.sql == name)
    }
}

/// The type that a column of a table has.
pub(crate) const fn of_declared(kind: Type) -> u32 {
    match kind {
        Type::Int | Type::UInt => 20,
        Type::Real => 701,
        Type::Text => 25,
        Type::Bool => 16,
        Type::Time => 1184,
    }
}

/// The number and length of the type that values of this Arrow type are sent as. Lists of plain values are arrays; what has no
/// counterpart is text. Unsigned 64-bit numbers are `bigint`: clients make `numeric` slow decimals, and no count reaches 2^63.
pub(crate) fn of_arrow(kind: &DataType) -> (u32, i16) {
    if let DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) = kind {
        let element = PgType::by_oid(scalar(item.data_type()));
        return (element.map_or(1009, |t| t.array), -1);
    }
    let oid = scalar(kind);
    (oid, PgType::by_oid(oid).map_or(-1, |t| t.length))
}

fn scalar(kind: &DataType) -> u32 {
    match kind {
        DataType::Boolean => 16,
        DataType::Int8 | DataType::UInt8 | DataType::Int16 => 21,
        DataType::UInt16 | DataType::Int32 => 23,
        DataType::UInt32 | DataType::Int64 | DataType::UInt64 => 20,
        DataType::Float16 | DataType::Float32 => 700,
        DataType::Float64 => 701,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => 17,
        DataType::Date32 | DataType::Date64 => 1082,
        DataType::Time32(_) | DataType::Time64(_) => 1083,
        DataType::Timestamp(_, None) => 1114,
        DataType::Timestamp(_, Some(_)) => 1184,
        DataType::Interval(_) | DataType::Duration(_) => 1186,
        DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..) | DataType::Decimal256(..) => 1700,
        DataType::Dictionary(_, value) => scalar(value),
        _ => 25,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tidemill_query::arrow::datatypes::{Field, TimeUnit};

    #[test]
    fn types_are_found_by_number_name_and_array() {
        assert_eq!(PgType::by_name("pg_catalog.int8").map(|t| t.oid), Some(20));
        assert_eq!(PgType::by_name("Double Precision").map(|t| t.oid), Some(701));
        assert_eq!(PgType::by_array(1009).map(|t| t.name), Some("text"));
        assert_eq!(PgType::by_name("hstore"), None);
    }

    #[test]
    fn arrow_s_types_have_their_counterparts() {
        let list = |kind| DataType::List(Arc::new(Field::new("item", kind, true)));
        for (kind, oid) in [
            (DataType::UInt64, 20),
            (DataType::Utf8View, 25),
            (DataType::Timestamp(TimeUnit::Nanosecond, Some("+00:00".into())), 1184),
            (DataType::Decimal128(10, 2), 1700),
            (DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8)), 25),
            (list(DataType::Int64), 1016),
            (list(list(DataType::Int64)), 1009),
        ] {
            assert_eq!(of_arrow(&kind).0, oid, "{kind}");
        }
    }
}
