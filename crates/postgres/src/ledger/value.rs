//! Values between the block's few types and the many that PostgreSQL infers for parameters and columns.

use std::error::Error as StdError;

use bytes::{BufMut, BytesMut};
use tidemill_base::{Error, Result};
use tidemill_blocks::ledger::{Row, Value};
use tokio_postgres::types::{FromSql, IsNull, Kind, ToSql, Type, to_sql_checked};

use super::numeric;

type Foreign = Box<dyn StdError + Sync + Send>;

/// A parameter, written as whatever type the server has inferred for it.
#[derive(Debug)]
pub(super) struct Bound<'v>(pub(super) &'v Value);

fn unfit(what: &str, ty: &Type) -> Foreign {
    format!("the parameter is {what} and the statement wants {ty}; write CAST($1 AS BIGINT) and so on where it is not clear").into()
}

fn narrow<T: TryFrom<i64>>(v: i64, ty: &Type) -> Result<T, Foreign> {
    T::try_from(v).map_err(|_| unfit("an integer that is too large", ty))
}

/// The number without a fraction.
fn whole(v: f64) -> Option<i64> {
    // Up to 2^53 every whole number has a value of its own; beyond, the caller cannot have meant this one rather than its neighbour.
    (v.fract() == 0.0 && v.abs() <= 9_007_199_254_740_992.0).then_some(v as i64)
}

fn write_int(v: i64, ty: &Type, out: &mut BytesMut) -> Result<(), Foreign> {
    match *ty {
        Type::INT8 => out.put_i64(v),
        Type::INT4 => out.put_i32(narrow(v, ty)?),
        Type::INT2 => out.put_i16(narrow(v, ty)?),
        Type::OID => out.put_u32(narrow(v, ty)?),
        Type::BOOL => out.put_u8(u8::from(v != 0)),
        Type::FLOAT8 => out.put_f64(v as f64),
        Type::FLOAT4 => out.put_f32(v as f32),
        Type::NUMERIC => numeric::write(&v.to_string(), out),
        _ => return Err(unfit("an integer", ty)),
    }
    Ok(())
}

fn write_real(v: f64, ty: &Type, out: &mut BytesMut) -> Result<(), Foreign> {
    match *ty {
        Type::FLOAT8 => out.put_f64(v),
        Type::FLOAT4 => out.put_f32(v as f32),
        Type::NUMERIC if v.is_finite() => numeric::write(&v.to_string(), out),
        Type::INT8 | Type::INT4 | Type::INT2 => match whole(v) {
            Some(n) => write_int(n, ty, out)?,
            None => return Err(unfit("a number with a fraction", ty)),
        },
        _ => return Err(unfit("a number", ty)),
    }
    Ok(())
}

/// The type that a value has by itself; NULL has none.
pub(super) const fn natural(value: &Value) -> Type {
    match value {
        Value::Null => Type::UNKNOWN,
        Value::Int(_) => Type::INT8,
        Value::Real(_) => Type::FLOAT8,
        Value::Text(_) => Type::TEXT,
        Value::Blob(_) => Type::BYTEA,
    }
}

/// Whether the value is an integer too large for a type that was inferred from something small beside it, as in `$1 + 1`.
pub(super) fn overflows(value: &Value, ty: &Type) -> bool {
    match (value, ty) {
        (Value::Int(v), &Type::INT4) => i32::try_from(*v).is_err(),
        (Value::Int(v), &Type::INT2) => i16::try_from(*v).is_err(),
        _ => false,
    }
}

fn is_text(ty: &Type) -> bool {
    matches!(*ty, Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME | Type::UNKNOWN | Type::JSON | Type::XML)
        || matches!(ty.kind(), Kind::Enum(_))
}

impl ToSql for Bound<'_> {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Foreign> {
        match self.0 {
            Value::Null => return Ok(IsNull::Yes),
            Value::Int(v) => write_int(*v, ty, out)?,
            Value::Real(v) => write_real(*v, ty, out)?,
            Value::Text(v) if is_text(ty) => out.extend_from_slice(v.as_bytes()),
            Value::Text(_) => return Err(unfit("a text", ty)),
            Value::Blob(v) if *ty == Type::BYTEA => out.extend_from_slice(v),
            Value::Blob(_) => return Err(unfit("bytes", ty)),
        }
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        // Whether it fits depends on the value too.
        true
    }

    to_sql_checked!();
}

/// A column, read as whatever type it has.
struct Column(Value);

impl<'a> FromSql<'a> for Column {
    fn from_sql(ty: &Type, raw: &'a [u8]) -> Result<Self, Foreign> {
        Ok(Self(match *ty {
            Type::INT8 => Value::Int(i64::from_sql(ty, raw)?),
            Type::INT4 => Value::Int(i32::from_sql(ty, raw)?.into()),
            Type::INT2 => Value::Int(i16::from_sql(ty, raw)?.into()),
            Type::OID => Value::Int(u32::from_sql(ty, raw)?.into()),
            Type::BOOL => Value::Int(bool::from_sql(ty, raw)?.into()),
            Type::FLOAT8 => Value::Real(f64::from_sql(ty, raw)?),
            Type::FLOAT4 => Value::Real(f32::from_sql(ty, raw)?.into()),
            Type::NUMERIC => numeric::read(raw)?,
            Type::BYTEA => Value::Blob(raw.to_vec()),
            Type::TIMESTAMPTZ => Value::Int(crate::time::Time::from_sql(ty, raw)?.0.micros()),
            Type::VOID => Value::Null,
            _ if is_text(ty) => Value::Text(std::str::from_utf8(raw)?.to_owned()),
            _ => return Err(format!("a column of type {ty} has no value in the ledger; cast it to TEXT or BIGINT").into()),
        }))
    }

    fn from_sql_null(_: &Type) -> Result<Self, Foreign> {
        Ok(Self(Value::Null))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

/// A row as the block has it.
pub(super) fn read(row: &tokio_postgres::Row) -> Result<Row> {
    let column = |at| row.try_get::<_, Column>(at).map(|c| c.0);
    (0..row.len()).map(column).collect::<Result<_, _>>().map(Row).map_err(|e| Error::invalid("a column cannot be read").with_source(e))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(value: Value, ty: &Type) -> Option<Vec<u8>> {
        let mut out = BytesMut::new();
        Bound(&value).to_sql(ty, &mut out).ok().map(|_| out.to_vec())
    }

    #[test]
    fn integers_fit_every_type_of_number() {
        for ty in [Type::INT8, Type::INT4, Type::INT2, Type::OID] {
            let raw = written(Value::Int(7), &ty).unwrap();
            assert_eq!(Column::from_sql(&ty, &raw).unwrap().0, Value::Int(7), "{ty}");
        }
        let raw = written(Value::Int(7), &Type::FLOAT8).unwrap();
        assert_eq!(Column::from_sql(&Type::FLOAT8, &raw).unwrap().0, Value::Real(7.0));
        assert_eq!(written(Value::Int(1), &Type::BOOL), Some(vec![1]));
        assert_eq!(written(Value::Int(1 << 40), &Type::INT4), None, "what is too large is refused and not cut");
        assert_eq!(written(Value::Int(7), &Type::TEXT), None);
    }

    #[test]
    fn reals_are_never_rounded_in_silence() {
        assert_eq!(written(Value::Real(3.0), &Type::INT8), written(Value::Int(3), &Type::INT8));
        assert_eq!(written(Value::Real(3.5), &Type::INT8), None);
        assert_eq!(written(Value::Real(1e300), &Type::INT8), None);
    }

    #[test]
    fn nulls_and_bytes() {
        for ty in [Type::INT8, Type::TEXT, Type::BYTEA, Type::NUMERIC, Type::UNKNOWN] {
            let mut out = BytesMut::new();
            assert!(matches!(Bound(&Value::Null).to_sql(&ty, &mut out), Ok(IsNull::Yes)), "{ty}");
        }
        assert_eq!(written(Value::Blob(vec![1]), &Type::TEXT), None);
        assert_eq!(written(Value::Text("x".into()), &Type::BYTEA), None);
    }
}
