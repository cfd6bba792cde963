//! PostgreSQL's binary form of `numeric`: digits to the base 10,000 (`src/backend/utils/adt/numeric.c`, `numeric_send`).

use bytes::{BufMut, BytesMut};

const POSITIVE: u16 = 0;
const NEGATIVE: u16 = 0x4000;
const NOT_A_NUMBER: u16 = 0xC000;
/// The most digits after the point that a value may announce.
const MAX_SCALE: usize = 16_383;

/// Writes a decimal such as `-12.50` in binary. `None` for text that is no decimal.
pub(crate) fn write(out: &mut BytesMut, text: &str) -> Option<()> {
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let plain = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if !plain(whole) || !plain(fraction) || (whole.is_empty() && fraction.is_empty()) || fraction.len() > MAX_SCALE {
        return None;
    }
    let whole = whole.trim_start_matches('0');
    let before = whole.len().div_ceil(4);
    let mut padded = "0".repeat(before * 4 - whole.len());
    padded.push_str(whole);
    padded.push_str(fraction);
    padded.push_str(&"0".repeat(fraction.len().div_ceil(4) * 4 - fraction.len()));
    let mut groups: Vec<u16> = padded.as_bytes().chunks(4).map(|c| c.iter().fold(0, |n, b| n * 10 + u16::from(b - b'0'))).collect();
    let mut weight = i16::try_from(before).ok()? - 1;
    while groups.last() == Some(&0) {
        groups.pop();
    }
    let leading = groups.iter().take_while(|g| **g == 0).count();
    groups.drain(..leading);
    weight -= i16::try_from(leading).ok()?;
    if groups.is_empty() {
        weight = 0;
    }
    out.put_u16(u16::try_from(groups.len()).ok()?);
    out.put_i16(weight);
    out.put_u16(if negative && !groups.is_empty() { NEGATIVE } else { POSITIVE });
    out.put_u16(u16::try_from(fraction.len()).ok()?);
    groups.iter().for_each(|g| out.put_u16(*g));
    Some(())
}

/// The decimal, or `NaN`, that a binary form holds. `None` for bytes that are none.
pub(crate) fn read(bytes: &[u8]) -> Option<String> {
    let words: Vec<u16> = bytes.chunks_exact(2).map(|c| u16::from_be_bytes([c[0], c[1]])).collect();
    let [count, weight, sign, scale, groups @ ..] = words.as_slice() else { return None };
    if !bytes.len().is_multiple_of(2) || groups.len() != usize::from(*count) || groups.iter().any(|g| *g > 9_999) {
        return None;
    }
    let negative = match *sign {
        POSITIVE => false,
        NEGATIVE => true,
        NOT_A_NUMBER => return Some("NaN".to_owned()),
        _ => return None,
    };
    let (weight, scale) = (i32::from(weight.cast_signed()), usize::from(*scale));
    if scale > MAX_SCALE || weight.abs() > 4_096 {
        return None;
    }
    let group = |at: i32| usize::try_from(weight - at).ok().and_then(|i| groups.get(i)).copied().unwrap_or(0);
    let mut whole = String::new();
    for at in (0..=weight.max(0)).rev() {
        whole.push_str(&format!("{:04}", group(at)));
    }
    let mut fraction = String::new();
    let mut at = -1;
    while fraction.len() < scale {
        fraction.push_str(&format!("{:04}", group(at)));
        at -= 1;
    }
    fraction.truncate(scale);
    let whole = whole.trim_start_matches('0');
    let whole = if whole.is_empty() { "0" } else { whole };
    let sign = if negative { "-" } else { "" };
    Some(if fraction.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn binary(text: &str) -> Vec<u8> {
        let mut out = BytesMut::new();
        write(&mut out, text).unwrap();
        out.to_vec()
    }

    #[test]
    fn the_form_is_postgresql_s() {
        // 12345.678 is 1 2345 . 6780 with weight 1 and three digits after the point.
        assert_eq!(binary("12345.678"), [0, 3, 0, 1, 0, 0, 0, 3, 0, 1, 0x09, 0x29, 0x1a, 0x7c]);
        assert_eq!(binary("0.0001"), [0, 1, 255, 255, 0, 0, 0, 4, 0, 1]);
        assert_eq!(binary("-0.00"), [0, 0, 0, 0, 0, 0, 0, 2]);
        assert_eq!(binary("100000000"), [0, 1, 0, 2, 0, 0, 0, 0, 0, 1]);
        for wrong in ["", "-", "1e5", "abc", "1.2.3", "--1"] {
            assert!(write(&mut BytesMut::new(), wrong).is_none(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(value in any::<i128>(), scale in 0_usize..40) {
            let digits = format!("{:0>width$}", value.unsigned_abs(), width = scale + 1);
            let (whole, fraction) = digits.split_at(digits.len() - scale);
            let sign = if value < 0 { "-" } else { "" };
            let text = if scale == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") };
            prop_assert_eq!(read(&binary(&text)), Some(text));
        }

        #[test]
        fn no_bytes_make_reading_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = read(&bytes);
        }
    }
}
