//! PostgreSQL's NUMERIC on the wire: what `SUM` of a BIGINT answers, and what a parameter beside one becomes.
//!
//! Digits are of base 10,000; the first stands for `10000^weight`.

use std::error::Error as StdError;

use bytes::{Buf, BufMut, BytesMut};
use tidemill_blocks::ledger::Value;

const NEGATIVE: u16 = 0x4000;
const NAN: u16 = 0xC000;
const INFINITY: u16 = 0xD000;
const MINUS_INFINITY: u16 = 0xF000;

/// Writes a number given in decimal, such as `-12.5`. It must be digits with at most one point, as Rust shows finite numbers.
pub(super) fn write(decimal: &str, out: &mut BytesMut) {
    let (negative, digits) = decimal.strip_prefix('-').map_or((false, decimal), |rest| (true, rest));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let before = whole.len().div_ceil(4);
    let mut padded = "0".repeat(before * 4 - whole.len());
    padded.push_str(whole);
    padded.push_str(fraction);
    padded.push_str(&"0".repeat(fraction.len().next_multiple_of(4) - fraction.len()));
    let groups: Vec<i16> = padded.as_bytes().chunks(4).map(|g| g.iter().fold(0, |n, d| n * 10 + i16::from(d - b'0'))).collect();
    let first = groups.iter().position(|g| *g != 0).unwrap_or(groups.len());
    let last = groups.iter().rposition(|g| *g != 0).map_or(first, |at| at + 1);
    let count = |n: usize| i16::try_from(n).unwrap_or(i16::MAX);
    out.put_i16(count(last - first));
    out.put_i16(count(before) - 1 - count(first));
    out.put_u16(if negative { NEGATIVE } else { 0 });
    out.put_i16(count(fraction.len()));
    groups[first..last].iter().for_each(|g| out.put_i16(*g));
}

/// Reads a number: an integer when it is whole and fits, otherwise the nearest real.
pub(super) fn read(mut raw: &[u8]) -> Result<Value, Box<dyn StdError + Sync + Send>> {
    if raw.len() < 8 {
        return Err("a number is cut off".into());
    }
    let (count, weight, sign, _scale) = (raw.get_i16(), i32::from(raw.get_i16()), raw.get_u16(), raw.get_u16());
    match sign {
        NAN => return Ok(Value::Real(f64::NAN)),
        INFINITY => return Ok(Value::Real(f64::INFINITY)),
        MINUS_INFINITY => return Ok(Value::Real(f64::NEG_INFINITY)),
        _ => {}
    }
    let count = usize::try_from(count)?;
    if raw.len() != count * 2 {
        return Err("a number is cut off".into());
    }
    let digits: Vec<i64> = (0..count).map(|_| i64::from(raw.get_i16())).collect();
    Ok(integer(&digits, weight, sign == NEGATIVE).map_or_else(|| real(&digits, weight, sign == NEGATIVE), Value::Int))
}

fn integer(digits: &[i64], weight: i32, negative: bool) -> Option<i64> {
    if digits.is_empty() {
        return Some(0);
    }
    let places = usize::try_from(weight + 1).ok()?;
    if places > 5 || digits.iter().skip(places).any(|d| *d != 0) {
        return None;
    }
    let all = (0..places).try_fold(0_i128, |n, at| Some(n.checked_mul(10_000)? + i128::from(digits.get(at).copied().unwrap_or(0))))?;
    i64::try_from(if negative { -all } else { all }).ok()
}

fn real(digits: &[i64], weight: i32, negative: bool) -> Value {
    let mut text = String::from(if negative { "-" } else { "" });
    digits.iter().for_each(|d| text.push_str(&format!("{d:04}")));
    let exponent = (weight + 1 - i32::try_from(digits.len()).unwrap_or(i32::MAX)).saturating_mul(4);
    text.push_str(&format!("e{exponent}"));
    Value::Real(text.parse().unwrap_or(f64::NAN))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(decimal: &str) -> Value {
        let mut out = BytesMut::new();
        write(decimal, &mut out);
        read(&out).unwrap()
    }

    #[test]
    fn whole_numbers_are_integers() {
        for n in [0, 1, -1, 9999, 10_000, 10_001, 123_456_789, 100_000_000, i64::MAX, i64::MIN] {
            assert_eq!(round(&n.to_string()), Value::Int(n));
        }
        assert_eq!(round("2.000"), Value::Int(2));
    }

    #[test]
    fn others_are_the_nearest_real() {
        for x in [0.5, -2.25, 0.1, 1e-10, 123_456.789, 1e300, f64::MIN_POSITIVE, 0.000_12] {
            assert_eq!(round(&x.to_string()), Value::Real(x));
        }
        assert_eq!(round("9223372036854775808"), Value::Real(9_223_372_036_854_775_808.0));
    }

    #[test]
    fn what_is_cut_off_is_an_error() {
        let mut out = BytesMut::new();
        write("123456789", &mut out);
        for len in 0..out.len() {
            assert!(read(&out[..len]).is_err(), "{len}");
        }
    }

    #[test]
    fn the_bytes_are_those_of_the_server() {
        // select '-12345.678'::numeric, as a server sends it.
        let mut out = BytesMut::new();
        write("-12345.678", &mut out);
        assert_eq!(out[..], [0, 3, 0, 1, 0x40, 0, 0, 3, 0, 1, 0x09, 0x29, 0x1A, 0x7C]);
    }
}
