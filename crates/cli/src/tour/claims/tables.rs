//! What treatments cost and plans pay. Money is whole cents.

/// The most that is allowed for one unit of each procedure.
pub(super) const FEES: [(&str, i64); 8] = [
    ("P100", 4_500),
    ("P110", 12_050),
    ("P200", 8_925),
    ("P210", 31_000),
    ("P300", 150_075),
    ("P310", 64_010),
    ("P400", 2_199),
    ("P500", 987_500),
];

/// What each plan pays of what is allowed, in per cent.
pub(super) const PLANS: [(&str, i64); 4] = [("bronze", 60), ("silver", 70), ("gold", 80), ("platinum", 90)];

/// The value for a name in a table.
pub(super) fn lookup(table: &[(&str, i64)], name: &str) -> Option<i64> {
    table.iter().find(|(n, _)| *n == name).map(|(_, value)| *value)
}

/// Cents as `12.05`.
pub(crate) fn money(cents: i64) -> String {
    format!("{}{}.{:02}", if cents < 0 { "-" } else { "" }, cents.unsigned_abs() / 100, cents.unsigned_abs() % 100)
}

/// Reads `12`, `12.5` or `12.05`. `None` for anything else, negative amounts included.
pub(super) fn parse_money(text: &str) -> Option<i64> {
    let (whole, cents) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(cents) || cents.len() > 2 {
        return None;
    }
    let scale = if cents.len() == 1 { 10 } else { 1 };
    whole.parse::<i64>().ok()?.checked_mul(100)?.checked_add(cents.parse::<i64>().ok()? * scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_is_read_and_written_to_the_cent() {
        for (text, cents) in [("12", 1200), ("12.5", 1250), ("12.05", 1205), ("0.00", 0)] {
            assert_eq!(parse_money(text), Some(cents), "{text}");
        }
        for text in ["", "-1", "1.234", "1.", ".5", "1e3", "99999999999999999999"] {
            assert_eq!(parse_money(text), None, "{text}");
        }
        assert_eq!((money(1205), money(7), money(-150)), ("12.05".into(), "0.07".into(), "-1.50".into()));
    }
}
