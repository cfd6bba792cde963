//! Values of parameters, as clients send them, into SQL literals.
//!
//! A value becomes a node of the parsed statement and never text that is parsed: nothing in it can be taken for SQL.

use tidemill_query::sqlparser::ast::{Array, CastKind, DataType, Expr, Value};

use super::calendar::{self, EPOCH_DAYS, EPOCH_MICROS};
use super::types::PgType;
use super::{Format, numeric};
use crate::error::{SqlError, SqlResult};

/// The most elements in an array. Only flat arrays are taken.
const MAX_ELEMENTS: usize = 100_000;

/// A value bound to a parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parameter {
    /// The type's number, 0 when nobody said.
    pub(crate) oid: u32,
    pub(crate) format: Format,
    pub(crate) value: Option<bytes::Bytes>,
}

/// The literal for a value of parameter `number`.
pub(crate) fn literal(number: usize, parameter: &Parameter) -> SqlResult<Expr> {
    let wrong = |what: &str| {
        let kind = PgType::by_oid(parameter.oid).map_or_else(|| format!("type {}", parameter.oid), |t| t.sql.to_owned());
        SqlError::new("22P02", format!("the value of parameter ${number} is no {kind}: {what}"))
    };
    let Some(bytes) = &parameter.value else { return Ok(typed_null(parameter.oid)) };
    if let Some(element) = PgType::by_array(parameter.oid) {
        let values = match parameter.format {
            Format::Text => text_array(as_text(bytes).ok_or_else(|| wrong("it is not UTF-8"))?),
            Format::Binary => binary_array(bytes),
        };
        let values = values.ok_or_else(|| wrong("it is no flat array"))?;
        let elem: Result<Vec<Expr>, &'static str> = values
            .iter()
            .map(|value| match value {
                None => Ok(null()),
                Some(bytes) => scalar(element.oid, parameter.format, bytes),
            })
            .collect();
        let array = Expr::Array(Array { elem: elem.map_err(wrong)?, named: true });
        return Ok(array);
    }
    scalar(parameter.oid, parameter.format, bytes).map_err(wrong)
}

fn as_text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

fn null() -> Expr {
    Expr::Value(Value::Null.into())
}

fn typed_null(oid: u32) -> Expr {
    sql_type(oid).map_or_else(null, |kind| cast(null(), kind))
}

fn string(text: impl Into<String>) -> Expr {
    Expr::Value(Value::SingleQuotedString(text.into()).into())
}

fn number(text: impl Into<String>) -> Expr {
    Expr::Value(Value::Number(text.into(), false).into())
}

fn cast(expr: Expr, data_type: DataType) -> Expr {
    Expr::Cast { kind: CastKind::Cast, expr: Box::new(expr), data_type, array: false, format: None }
}

/// The type as the parser has it; `None` where a plain text does.
fn sql_type(oid: u32) -> Option<DataType> {
    use tidemill_query::sqlparser::ast::{ExactNumberInfo, TimezoneInfo};
    Some(match oid {
        16 => DataType::Boolean,
        17 => DataType::Bytea,
        21 => DataType::SmallInt(None),
        23 => DataType::Integer(None),
        20 | 26 => DataType::BigInt(None),
        700 => DataType::Real,
        701 => DataType::DoublePrecision,
        1700 => DataType::Decimal(ExactNumberInfo::PrecisionAndScale(38, 10)),
        1082 => DataType::Date,
        1083 => DataType::Time(None, TimezoneInfo::None),
        1114 => DataType::Timestamp(None, TimezoneInfo::None),
        1184 => DataType::Timestamp(None, TimezoneInfo::WithTimeZone),
        _ => return None,
    })
}

/// A literal for a value that is not null.
fn scalar(oid: u32, format: Format, bytes: &[u8]) -> Result<Expr, &'static str> {
    let text = match format {
        Format::Text => as_text(bytes).ok_or("it is not UTF-8")?.to_owned(),
        Format::Binary => binary_text(oid, bytes)?,
    };
    Ok(match oid {
        16 => match text.trim().to_ascii_lowercase().as_str() {
            "t" | "true" | "1" | "on" | "yes" | "y" => Expr::Value(Value::Boolean(true).into()),
            "f" | "false" | "0" | "off" | "no" | "n" => Expr::Value(Value::Boolean(false).into()),
            _ => return Err("write true or false"),
        },
        20 | 21 | 23 | 26 => {
            let value: i64 = text.trim().parse().map_err(|_| "it is no whole number of this size")?;
            if value < 0 { cast(string(value.to_string()), DataType::BigInt(None)) } else { number(value.to_string()) }
        }
        700 | 701 => {
            let value: f64 = text.trim().parse().map_err(|_| "it is no number")?;
            cast(string(format!("{value:?}")), DataType::DoublePrecision)
        }
        1700 => decimal(text.trim()).ok_or("it is no decimal of up to 38 digits")?,
        17 => {
            let hex = text.strip_prefix("\\x").ok_or("write bytes as \\x and hexadecimal digits")?;
            if !hex.len().is_multiple_of(2) || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err("write bytes as \\x and hexadecimal digits");
            }
            Expr::Value(Value::HexStringLiteral(hex.to_owned()).into())
        }
        _ => match sql_type(oid) {
            Some(kind) => cast(string(text), kind),
            None => string(text),
        },
    })
}

fn decimal(text: &str) -> Option<Expr> {
    use tidemill_query::sqlparser::ast::ExactNumberInfo;
    if text.eq_ignore_ascii_case("nan") {
        return Some(cast(string("NaN"), DataType::DoublePrecision));
    }
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let plain = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if !plain(whole) || !plain(fraction) || whole.len() + fraction.len() > 38 || digits.len() < 2 && whole.is_empty() {
        return None;
    }
    let scale = i64::try_from(fraction.len()).ok()?;
    Some(cast(string(text), DataType::Decimal(ExactNumberInfo::PrecisionAndScale(38, scale))))
}

/// The text of a value in binary.
fn binary_text(oid: u32, bytes: &[u8]) -> Result<String, &'static str> {
    const LENGTH: &str = "it has the wrong length";
    fn exact<const N: usize>(bytes: &[u8]) -> Result<[u8; N], &'static str> {
        bytes.try_into().map_err(|_| LENGTH)
    }
    let mut out = String::new();
    match oid {
        16 => out.push_str(if exact::<1>(bytes)? == [0] { "f" } else { "t" }),
        21 => out = i16::from_be_bytes(exact(bytes)?).to_string(),
        23 => out = i32::from_be_bytes(exact(bytes)?).to_string(),
        26 => out = u32::from_be_bytes(exact(bytes)?).to_string(),
        20 => out = i64::from_be_bytes(exact(bytes)?).to_string(),
        700 => out = format!("{:?}", f32::from_be_bytes(exact(bytes)?)),
        701 => out = format!("{:?}", f64::from_be_bytes(exact(bytes)?)),
        1700 => out = numeric::read(bytes).ok_or("its digits are none")?,
        17 => {
            out.push_str("\\x");
            bytes.iter().for_each(|b| out.push_str(&format!("{b:02x}")));
        }
        1082 => {
            let days = i32::from_be_bytes(exact(bytes)?).saturating_add(EPOCH_DAYS);
            calendar::date(&mut out, days).map_err(|_| LENGTH)?;
        }
        1083 => calendar::time(&mut out, i64::from_be_bytes(exact(bytes)?)).map_err(|_| LENGTH)?,
        1114 | 1184 => {
            let micros = i64::from_be_bytes(exact(bytes)?).saturating_add(EPOCH_MICROS);
            calendar::timestamp(&mut out, micros, oid == 1184).map_err(|_| LENGTH)?;
        }
        2950 => {
            let hex: String = exact::<16>(bytes)?.iter().map(|b| format!("{b:02x}")).collect();
            out = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-");
        }
        // The first byte of jsonb is the version of its form.
        3802 => out.push_str(as_text(bytes.strip_prefix(&[1]).ok_or(LENGTH)?).ok_or("it is not UTF-8")?),
        _ => out.push_str(as_text(bytes).ok_or("it is not UTF-8")?),
    }
    Ok(out)
}

type Elements = Vec<Option<Vec<u8>>>;

/// The elements of `{1,"a b",NULL}`; `None` for nested arrays and what is no array.
fn text_array(text: &str) -> Option<Elements> {
    let inner = text.trim().strip_prefix('{')?.strip_suffix('}')?;
    if inner.trim().is_empty() {
        return Some(Vec::new());
    }
    let mut out = Vec::new();
    let mut chars = inner.chars().peekable();
    loop {
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        let mut element = String::new();
        let quoted = chars.next_if_eq(&'"').is_some();
        loop {
            match chars.peek() {
                Some('"') if quoted => {
                    chars.next();
                    break;
                }
                Some(',') | None if !quoted => break,
                Some('{' | '}' | '"') if !quoted => return None,
                Some('\\') => {
                    chars.next();
                    element.push(chars.next()?);
                }
                Some(c) => {
                    element.push(*c);
                    chars.next();
                }
                None => return None,
            }
        }
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        let element = if quoted { element.as_str() } else { element.trim_end() };
        if element.is_empty() && !quoted || out.len() >= MAX_ELEMENTS {
            return None;
        }
        let is_null = !quoted && element.eq_ignore_ascii_case("null");
        out.push((!is_null).then(|| element.as_bytes().to_vec()));
        match chars.next() {
            Some(',') => {}
            None => return Some(out),
            Some(_) => return None,
        }
    }
}

/// The elements of an array in binary.
fn binary_array(bytes: &[u8]) -> Option<Elements> {
    let word = |at: usize| bytes.get(at..at + 4)?.first_chunk::<4>().map(|w| i32::from_be_bytes(*w));
    match word(0)? {
        0 => return (bytes.len() == 12).then(Vec::new),
        1 => {}
        _ => return None,
    }
    let count = usize::try_from(word(12)?).ok().filter(|n| *n <= MAX_ELEMENTS)?;
    let mut at = 20;
    let mut out = Vec::new();
    for _ in 0..count {
        let length = word(at)?;
        at += 4;
        if length == -1 {
            out.push(None);
            continue;
        }
        let length = usize::try_from(length).ok()?;
        out.push(Some(bytes.get(at..at.checked_add(length)?)?.to_vec()));
        at += length;
    }
    (at == bytes.len()).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use proptest::prelude::*;

    fn shown(oid: u32, format: Format, value: &[u8]) -> SqlResult<String> {
        literal(1, &Parameter { oid, format, value: Some(Bytes::copy_from_slice(value)) }).map(|e| e.to_string())
    }

    #[test]
    fn values_become_literals_of_their_type() {
        for (oid, value, expected) in [
            (0, "O'Brien; DROP", "'O''Brien; DROP'"),
            (23, "5", "5"),
            (20, "-5", "CAST('-5' AS BIGINT)"),
            (701, "1e3", "CAST('1000.0' AS DOUBLE PRECISION)"),
            (1700, "-1.50", "CAST('-1.50' AS DECIMAL(38,2))"),
            (16, "t", "true"),
            (17, "\\x00ff", "X'00ff'"),
            (1007, "{1,NULL,3}", "ARRAY[1, NULL, 3]"),
            (1009, r#"{a,"b \"c\"",""}"#, r#"ARRAY['a', 'b "c"', '']"#),
            (1184, "2026-01-01 00:00:00+00", "CAST('2026-01-01 00:00:00+00' AS TIMESTAMP WITH TIME ZONE)"),
        ] {
            assert_eq!(shown(oid, Format::Text, value.as_bytes()).unwrap(), expected);
        }
        for (oid, value) in
            [(23, "five"), (23, "1; DROP"), (1700, "1e5"), (1700, "."), (17, "\\xzz"), (1007, "{{1},{2}}"), (1007, "{1"), (1009, "{a,}")]
        {
            assert_eq!(shown(oid, Format::Text, value.as_bytes()).unwrap_err().state, "22P02", "{value}");
        }
    }

    #[test]
    fn binary_values_are_read_by_their_type() {
        for (oid, value, expected) in [
            (21, &[255, 254][..], "CAST('-2' AS BIGINT)"),
            (1082, &[0, 0, 0, 1], "CAST('2000-01-02' AS DATE)"),
            (1184, &[0; 8], "CAST('2000-01-01 00:00:00+00' AS TIMESTAMP WITH TIME ZONE)"),
            (25, b"x", "'x'"),
            (1700, &[0, 1, 0, 0, 0x40, 0, 0, 1, 0, 1], "CAST('-1.0' AS DECIMAL(38,1))"),
            (1016, &[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 20, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 7], "ARRAY[7]"),
        ] {
            assert_eq!(shown(oid, Format::Binary, value).unwrap(), expected);
        }
        assert!(shown(23, Format::Binary, &[0, 1]).unwrap_err().message.contains("parameter $1 is no integer"));
        let null = Parameter { oid: 23, format: Format::Binary, value: None };
        assert_eq!(literal(1, &null).unwrap().to_string(), "CAST(NULL AS INTEGER)");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            oid in proptest::sample::select(vec![0_u32, 16, 17, 20, 21, 23, 25, 700, 701, 1007, 1009, 1016, 1082, 1114, 1184, 1231, 1700, 2950, 3802]),
            binary: bool,
            value in proptest::collection::vec(any::<u8>(), 0..60),
        ) {
            let _ = shown(oid, if binary { Format::Binary } else { Format::Text }, &value);
        }

        #[test]
        fn a_text_array_comes_back(values in proptest::collection::vec(proptest::option::of("[ -~äß]{0,8}"), 0..6)) {
            let quoted = |v: &Option<String>| match v {
                None => "NULL".to_owned(),
                Some(v) => format!("\"{}\"", v.replace('\\', "\\\\").replace('"', "\\\"")),
            };
            let text = format!("{{{}}}", values.iter().map(quoted).collect::<Vec<_>>().join(","));
            let back: Vec<Option<String>> = text_array(&text).unwrap().into_iter().map(|v| v.map(|b| String::from_utf8(b).unwrap())).collect();
            prop_assert_eq!(back, values);
        }
    }
}
