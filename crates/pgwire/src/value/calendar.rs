//! Days and microseconds as dates and times of day, for any year, as PostgreSQL writes them.

use std::fmt::{self, Write};

pub(crate) const DAY_MICROS: i64 = 86_400_000_000;
/// PostgreSQL counts from 2000-01-01, Arrow from 1970-01-01.
pub(crate) const EPOCH_DAYS: i32 = 10_957;
pub(crate) const EPOCH_MICROS: i64 = EPOCH_DAYS as i64 * DAY_MICROS;

/// Year, month and day of a day since 1970-01-01 in the proleptic Gregorian calendar. The arithmetic is Howard Hinnant's
/// (<https://howardhinnant.github.io/date_algorithms.html>, `civil_from_days`).
fn civil(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// `2026-11-21`; years before 1 get `BC` at the end, which the caller writes after a time.
fn date_part(out: &mut impl Write, days: i64) -> Result<bool, fmt::Error> {
    let (year, month, day) = civil(days);
    let (year, before) = if year > 0 { (year, false) } else { (1 - year, true) };
    write!(out, "{year:04}-{month:02}-{day:02}")?;
    Ok(before)
}

pub(crate) fn date(out: &mut impl Write, days: i32) -> fmt::Result {
    if date_part(out, i64::from(days))? { out.write_str(" BC") } else { Ok(()) }
}

/// `10:20:30.5`, without zeros at the end.
pub(crate) fn time(out: &mut impl Write, micros: i64) -> fmt::Result {
    let (seconds, rest) = (micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000));
    write!(out, "{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)?;
    if rest == 0 {
        return Ok(());
    }
    let digits = format!("{rest:06}");
    write!(out, ".{}", digits.trim_end_matches('0'))
}

/// `2026-11-21 10:20:30.5+00`, the zone only for instants.
pub(crate) fn timestamp(out: &mut impl Write, micros: i64, zone: bool) -> fmt::Result {
    let before = date_part(out, micros.div_euclid(DAY_MICROS))?;
    out.write_char(' ')?;
    time(out, micros.rem_euclid(DAY_MICROS))?;
    if zone {
        out.write_str("+00")?;
    }
    if before { out.write_str(" BC") } else { Ok(()) }
}

/// `1 year 2 mons 3 days 04:05:06`, zeros left out.
pub(crate) fn interval(out: &mut impl Write, months: i32, days: i32, micros: i64) -> fmt::Result {
    let mut sep = "";
    let mut part = |out: &mut dyn Write, n: i32, word: &str| {
        if n == 0 {
            return Ok(());
        }
        let plural = if n == 1 { "" } else { "s" };
        let outcome = write!(out, "{sep}{n} {word}{plural}");
        sep = " ";
        outcome
    };
    part(out, months / 12, "year")?;
    part(out, months % 12, "mon")?;
    part(out, days, "day")?;
    if micros == 0 && !sep.is_empty() {
        return Ok(());
    }
    out.write_str(sep)?;
    if micros < 0 {
        out.write_char('-')?;
    }
    let micros = i64::try_from(micros.unsigned_abs()).unwrap_or(i64::MAX);
    time(out, micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(f: impl Fn(&mut String) -> fmt::Result) -> String {
        let mut out = String::new();
        f(&mut out).unwrap();
        out
    }

    #[test]
    fn dates_and_times_are_written_as_postgresql_writes_them() {
        for (days, expected) in [
            (0, "1970-01-01"),
            (EPOCH_DAYS, "2000-01-01"),
            (20_778, "2026-11-21"),
            (-719_163, "0001-12-31 BC"),
            (2_932_897, "10000-01-01"),
            (19_782, "2024-02-29"),
        ] {
            assert_eq!(text(|o| date(o, days)), expected);
        }
        assert_eq!(text(|o| timestamp(o, -1, true)), "1969-12-31 23:59:59.999999+00");
        assert_eq!(text(|o| timestamp(o, EPOCH_MICROS + 500_000, false)), "2000-01-01 00:00:00.5");
        assert_eq!(text(|o| interval(o, 14, 3, 14_706_000_000)), "1 year 2 mons 3 days 04:05:06");
        assert_eq!(text(|o| interval(o, 0, 0, 0)), "00:00:00");
        assert_eq!(text(|o| interval(o, 0, -1, -1_500_000)), "-1 days -00:00:01.5");
    }
}
