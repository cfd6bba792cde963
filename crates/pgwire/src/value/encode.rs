//! Columns of an answer as values on the wire.

use std::fmt::Write as _;
use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use tidemill_base::{Error, Result};
use tidemill_query::arrow::array::{
    Array, ArrayRef, AsArray, BinaryViewArray, BooleanArray, Date32Array, Decimal128Array, DurationMicrosecondArray, Float32Array,
    Float64Array, Int16Array, Int32Array, Int64Array, IntervalMonthDayNanoArray, ListArray, RecordBatch, StringViewArray,
    Time64MicrosecondArray, TimestampMicrosecondArray,
};
use tidemill_query::arrow::compute::CastOptions;
use tidemill_query::arrow::compute::cast_with_options;
use tidemill_query::arrow::datatypes::{DataType, Field, IntervalUnit, TimeUnit};
use tidemill_query::arrow::error::ArrowError;
use tidemill_query::arrow::util::display::{ArrayFormatter, FormatOptions};

use super::calendar::{self, EPOCH_DAYS, EPOCH_MICROS};
use super::types::of_arrow;
use super::{Format, numeric};

/// A column brought to one of the few types that values are written from.
pub(crate) struct Column {
    /// Which values are null.
    nulls: ArrayRef,
    values: Values,
}

enum Values {
    Bool(BooleanArray),
    Int2(Int16Array),
    Int4(Int32Array),
    Int8(Int64Array),
    Float4(Float32Array),
    Float8(Float64Array),
    Text(StringViewArray),
    Bytes(BinaryViewArray),
    Date(Date32Array),
    Time(Time64MicrosecondArray),
    /// With whether it is an instant.
    Timestamp(TimestampMicrosecondArray, bool),
    Interval(IntervalMonthDayNanoArray),
    Duration(DurationMicrosecondArray),
    Decimal(Decimal128Array, i8),
    /// Decimals too wide for the plain path, as text.
    Wide(StringViewArray),
    /// The list, its elements, and their type's number.
    List(ListArray, Box<Column>, u32),
}

/// The columns of a batch.
pub(crate) fn columns(batch: &RecordBatch) -> Result<Vec<Column>> {
    batch.columns().iter().map(|array| Column::new(array).map_err(|e| unfit(&e))).collect()
}

fn unfit(e: &ArrowError) -> Error {
    Error::invalid(format!("a value does not fit the type that it is sent as, cast the column to DECIMAL or TEXT: {e}"))
}

fn to(array: &ArrayRef, kind: &DataType) -> Result<ArrayRef, ArrowError> {
    cast_with_options(array, kind, &CastOptions { safe: false, format_options: FormatOptions::default() })
}

impl Column {
    fn new(array: &ArrayRef) -> Result<Self, ArrowError> {
        let nulls = Arc::clone(array);
        let values = match array.data_type() {
            DataType::Dictionary(_, value) => return Self::new(&to(array, value)?),
            DataType::List(item) => Self::list(array.as_list::<i32>().clone(), item)?,
            DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
                return Self::new(&to(array, &DataType::List(Arc::clone(item)))?);
            }
            kind => Self::plain(array, kind)?,
        };
        Ok(Self { nulls, values })
    }

    fn list(list: ListArray, item: &Field) -> Result<Values, ArrowError> {
        let nested = item.data_type().is_nested();
        let elements = if nested { Arc::new(as_text(list.values())?) as ArrayRef } else { Arc::clone(list.values()) };
        let oid = of_arrow(elements.data_type()).0;
        Ok(Values::List(list, Box::new(Self::new(&elements)?), oid))
    }

    fn plain(array: &ArrayRef, kind: &DataType) -> Result<Values, ArrowError> {
        let micros = TimeUnit::Microsecond;
        Ok(match kind {
            DataType::Boolean => Values::Bool(array.as_boolean().clone()),
            DataType::Int8 | DataType::UInt8 | DataType::Int16 => Values::Int2(to(array, &DataType::Int16)?.as_primitive().clone()),
            DataType::UInt16 | DataType::Int32 => Values::Int4(to(array, &DataType::Int32)?.as_primitive().clone()),
            DataType::UInt32 | DataType::Int64 | DataType::UInt64 => Values::Int8(to(array, &DataType::Int64)?.as_primitive().clone()),
            DataType::Float16 | DataType::Float32 => Values::Float4(to(array, &DataType::Float32)?.as_primitive().clone()),
            DataType::Float64 => Values::Float8(array.as_primitive().clone()),
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
                Values::Text(to(array, &DataType::Utf8View)?.as_string_view().clone())
            }
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView => {
                Values::Bytes(to(array, &DataType::BinaryView)?.as_binary_view().clone())
            }
            DataType::FixedSizeBinary(_) => {
                Values::Bytes(to(&to(array, &DataType::Binary)?, &DataType::BinaryView)?.as_binary_view().clone())
            }
            DataType::Date32 | DataType::Date64 => Values::Date(to(array, &DataType::Date32)?.as_primitive().clone()),
            DataType::Time32(_) | DataType::Time64(_) => Values::Time(to(array, &DataType::Time64(micros))?.as_primitive().clone()),
            DataType::Timestamp(_, zone) => {
                let values = to(array, &DataType::Timestamp(micros, zone.clone()))?;
                Values::Timestamp(values.as_primitive().clone(), zone.is_some())
            }
            DataType::Interval(_) => Values::Interval(to(array, &DataType::Interval(IntervalUnit::MonthDayNano))?.as_primitive().clone()),
            DataType::Duration(_) => Values::Duration(to(array, &DataType::Duration(micros))?.as_primitive().clone()),
            DataType::Decimal32(_, scale) | DataType::Decimal64(_, scale) | DataType::Decimal128(_, scale) if *scale >= 0 => {
                Values::Decimal(to(array, &DataType::Decimal128(38, *scale))?.as_primitive().clone(), *scale)
            }
            DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..) | DataType::Decimal256(..) => {
                Values::Wide(as_text(array)?)
            }
            _ => Values::Text(as_text(array)?),
        })
    }

    pub(crate) fn is_null(&self, row: usize) -> bool {
        self.nulls.is_null(row) || matches!(self.nulls.data_type(), DataType::Null)
    }

    /// Writes a value with its length before it, or the length -1 for null.
    pub(crate) fn write_sized(&self, row: usize, format: Format, out: &mut BytesMut) -> Result<()> {
        if self.is_null(row) {
            out.put_i32(-1);
            return Ok(());
        }
        let at = out.len();
        out.put_i32(0);
        self.write(row, format, out)?;
        let length = i32::try_from(out.len() - at - 4)
            .map_err(|e| Error::exhausted("a value is longer than the protocol can carry, 2 GiB").with_source(e))?;
        out[at..at + 4].copy_from_slice(&length.to_be_bytes());
        Ok(())
    }

    /// Writes a value that is not null.
    pub(crate) fn write(&self, row: usize, format: Format, out: &mut BytesMut) -> Result<()> {
        match format {
            // Writing into memory does not fail.
            Format::Text => self.text(row, out).map_err(|e| Error::internal("a value cannot be written").with_source(e)),
            Format::Binary => self.binary(row, out),
        }
    }

    fn text(&self, row: usize, out: &mut BytesMut) -> std::fmt::Result {
        match &self.values {
            Values::Bool(v) => out.write_str(if v.value(row) { "t" } else { "f" }),
            Values::Int2(v) => write!(out, "{}", v.value(row)),
            Values::Int4(v) => write!(out, "{}", v.value(row)),
            Values::Int8(v) => write!(out, "{}", v.value(row)),
            Values::Float4(v) => float(out, f64::from(v.value(row)), &v.value(row)),
            Values::Float8(v) => float(out, v.value(row), &v.value(row)),
            Values::Text(v) | Values::Wide(v) => out.write_str(v.value(row)),
            Values::Bytes(v) => {
                out.write_str("\\x")?;
                v.value(row).iter().try_for_each(|b| write!(out, "{b:02x}"))
            }
            Values::Date(v) => calendar::date(out, v.value(row)),
            Values::Time(v) => calendar::time(out, v.value(row)),
            Values::Timestamp(v, zone) => calendar::timestamp(out, v.value(row), *zone),
            Values::Interval(v) => {
                let value = v.value(row);
                calendar::interval(out, value.months, value.days, value.nanoseconds / 1_000)
            }
            Values::Duration(v) => calendar::interval(out, 0, 0, v.value(row)),
            Values::Decimal(v, scale) => out.write_str(&decimal(v.value(row), *scale)),
            Values::List(list, elements, _) => list_text(list, elements, row, out),
        }
    }

    fn binary(&self, row: usize, out: &mut BytesMut) -> Result<()> {
        match &self.values {
            Values::Bool(v) => out.put_u8(u8::from(v.value(row))),
            Values::Int2(v) => out.put_i16(v.value(row)),
            Values::Int4(v) => out.put_i32(v.value(row)),
            Values::Int8(v) => out.put_i64(v.value(row)),
            Values::Float4(v) => out.put_f32(v.value(row)),
            Values::Float8(v) => out.put_f64(v.value(row)),
            Values::Text(v) => out.put_slice(v.value(row).as_bytes()),
            Values::Bytes(v) => out.put_slice(v.value(row)),
            Values::Date(v) => out.put_i32(v.value(row).saturating_sub(EPOCH_DAYS)),
            Values::Time(v) => out.put_i64(v.value(row)),
            Values::Timestamp(v, _) => out.put_i64(v.value(row).saturating_sub(EPOCH_MICROS)),
            Values::Interval(v) => {
                let value = v.value(row);
                out.put_i64(value.nanoseconds / 1_000);
                out.put_i32(value.days);
                out.put_i32(value.months);
            }
            Values::Duration(v) => {
                out.put_i64(v.value(row));
                out.put_u64(0);
            }
            Values::Decimal(v, scale) => put_numeric(out, &decimal(v.value(row), *scale))?,
            Values::Wide(v) => put_numeric(out, v.value(row))?,
            Values::List(list, elements, oid) => {
                let (from, to) = bounds(list, row);
                out.put_i32(i32::from(to > from));
                out.put_i32(i32::from((from..to).any(|i| elements.is_null(i))));
                out.put_u32(*oid);
                if to > from {
                    out.put_u32(u32::try_from(to - from).unwrap_or(u32::MAX));
                    out.put_i32(1);
                    (from..to).try_for_each(|i| elements.write_sized(i, Format::Binary, out))?;
                }
            }
        }
        Ok(())
    }
}

fn put_numeric(out: &mut BytesMut, text: &str) -> Result<()> {
    numeric::write(out, text).ok_or_else(|| Error::internal(format!("`{text}` is no decimal")))
}

/// Shortest text that reads back as the same number, with PostgreSQL's words for what is none.
fn float(out: &mut BytesMut, value: f64, shown: &dyn std::fmt::Debug) -> std::fmt::Result {
    if value.is_nan() {
        return out.write_str("NaN");
    }
    if value.is_infinite() {
        return out.write_str(if value > 0.0 { "Infinity" } else { "-Infinity" });
    }
    // Debug writes large and small numbers with an exponent, and whole ones with `.0`.
    let text = format!("{shown:?}");
    out.write_str(text.strip_suffix(".0").unwrap_or(&text))
}

fn decimal(value: i128, scale: i8) -> String {
    let scale = usize::try_from(scale).unwrap_or(0);
    let digits = format!("{:0>width$}", value.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    let sign = if value < 0 { "-" } else { "" };
    if scale == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") }
}

fn as_text(array: &ArrayRef) -> Result<StringViewArray, ArrowError> {
    const OPTIONS: &FormatOptions<'static> = &FormatOptions::new();
    let shown = ArrayFormatter::try_new(array, OPTIONS)?;
    Ok((0..array.len()).map(|i| (!array.is_null(i)).then(|| shown.value(i).to_string())).collect())
}

fn bounds(list: &ListArray, row: usize) -> (usize, usize) {
    let offsets = list.value_offsets();
    let at = |i: usize| usize::try_from(offsets[i]).unwrap_or(0);
    (at(row), at(row + 1))
}

/// `{1,NULL,"a b"}`.
fn list_text(list: &ListArray, elements: &Column, row: usize, out: &mut BytesMut) -> std::fmt::Result {
    let (from, to) = bounds(list, row);
    out.write_char('{')?;
    for i in from..to {
        if i > from {
            out.write_char(',')?;
        }
        if elements.is_null(i) {
            out.write_str("NULL")?;
            continue;
        }
        let mut element = BytesMut::new();
        elements.text(i, &mut element)?;
        let element = String::from_utf8_lossy(&element);
        let special = |c: char| matches!(c, '{' | '}' | ',' | '"' | '\\') || c.is_whitespace();
        if element.is_empty() || element.eq_ignore_ascii_case("null") || element.contains(special) {
            write!(out, "\"{}\"", element.replace('\\', "\\\\").replace('"', "\\\""))?;
        } else {
            out.write_str(&element)?;
        }
    }
    out.write_char('}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_query::arrow::array::{Int64Builder, ListBuilder, StringBuilder, StringDictionaryBuilder, UInt64Array};
    use tidemill_query::arrow::datatypes::Int32Type;

    fn text(array: ArrayRef) -> Vec<Option<String>> {
        let column = Column::new(&array).unwrap();
        let one = |row| {
            let mut out = BytesMut::new();
            column.write(row, Format::Text, &mut out).unwrap();
            String::from_utf8(out.to_vec()).unwrap()
        };
        (0..array.len()).map(|row| (!column.is_null(row)).then(|| one(row))).collect()
    }

    fn binary(array: ArrayRef, row: usize) -> Vec<u8> {
        let mut out = BytesMut::new();
        Column::new(&array).unwrap().write(row, Format::Binary, &mut out).unwrap();
        out.to_vec()
    }

    #[test]
    fn text_is_postgresql_s_text() {
        let floats = Float64Array::from(vec![1.0, 0.1, -1e300, f64::NAN, f64::NEG_INFINITY, 1e-7]);
        let shown: Vec<String> = text(Arc::new(floats)).into_iter().flatten().collect();
        assert_eq!(shown, ["1", "0.1", "-1e300", "NaN", "-Infinity", "1e-7"]);
        assert_eq!(text(Arc::new(BooleanArray::from(vec![Some(true), None]))), [Some("t".to_owned()), None]);
        let decimals = Decimal128Array::from(vec![-5, 1250]).with_precision_and_scale(10, 2).unwrap();
        assert_eq!(text(Arc::new(decimals)), [Some("-0.05".to_owned()), Some("12.50".to_owned())]);
        let bytes = BinaryViewArray::from(vec![&[0_u8, 255][..]]);
        assert_eq!(text(Arc::new(bytes)), [Some("\\x00ff".to_owned())]);
        let mut words = StringDictionaryBuilder::<Int32Type>::new();
        words.append_value("a");
        words.append_null();
        assert_eq!(text(Arc::new(words.finish())), [Some("a".to_owned()), None]);
    }

    #[test]
    fn lists_are_arrays_in_both_formats() {
        let mut list = ListBuilder::new(StringBuilder::new());
        list.append_value([Some("a b"), None, Some("x\"y"), Some(""), Some("null")]);
        list.append_value(Vec::<Option<&str>>::new());
        list.append_null();
        let list: ArrayRef = Arc::new(list.finish());
        assert_eq!(text(Arc::clone(&list)), [Some(r#"{"a b",NULL,"x\"y","","null"}"#.to_owned()), Some("{}".to_owned()), None]);
        let mut numbers = ListBuilder::new(Int64Builder::new());
        numbers.append_value([Some(7), None]);
        let expected =
            [&[0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 20, 0, 0, 0, 2, 0, 0, 0, 1][..], &[0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 7], &[255; 4]];
        assert_eq!(binary(Arc::new(numbers.finish()), 0), expected.concat());
        assert_eq!(binary(list, 1), [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 25]);
    }

    #[test]
    fn binary_counts_from_the_year_2000() {
        assert_eq!(binary(Arc::new(Date32Array::from(vec![EPOCH_DAYS + 1])), 0), [0, 0, 0, 1]);
        let instants = TimestampMicrosecondArray::from(vec![EPOCH_MICROS - 1]).with_timezone("+00:00");
        assert_eq!(binary(Arc::new(instants), 0), [255; 8]);
    }

    #[test]
    fn a_number_that_does_not_fit_is_refused_and_not_changed() {
        let fits: ArrayRef = Arc::new(UInt64Array::from(vec![u64::MAX / 2]));
        assert_eq!(text(fits), [Some(i64::MAX.to_string())]);
        let wide: ArrayRef = Arc::new(UInt64Array::from(vec![u64::MAX]));
        assert!(Column::new(&wide).is_err());
    }
}
