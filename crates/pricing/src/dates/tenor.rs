//! Lengths of time as contracts write them.

use jiff::Span;
use jiff::civil::Date;
use tidemill_base::{Error, Result};

/// A whole number of days, weeks, months or years: `2W`, `18M`, `10Y`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tenor {
    months: i32,
    days: i32,
}

impl Tenor {
    /// So many months.
    pub const fn months(months: i32) -> Self {
        Self { months, days: 0 }
    }

    /// Reads `7D`, `2W`, `18M` or `10Y`.
    ///
    /// # Errors
    /// `Invalid` for anything else, and for zero or more than a thousand years.
    pub fn parse(text: &str) -> Result<Self> {
        let refuse = || Error::invalid(format!("`{text}` is no length of time; write a number and D, W, M or Y, as in 18M"));
        let unit = text.chars().last().ok_or_else(refuse)?;
        let number: i32 = text[..text.len() - unit.len_utf8()].parse().map_err(|_| refuse())?;
        let (months, days) = match unit {
            'D' => (0, 1),
            'W' => (0, 7),
            'M' => (1, 0),
            'Y' => (12, 0),
            _ => return Err(refuse()),
        };
        if !(1..=12_000).contains(&number) {
            return Err(refuse());
        }
        Ok(Self { months: months * number, days: days * number })
    }

    /// The date `times` of these after `start`; in a month too short for the day, its last day.
    ///
    /// # Errors
    /// `Invalid` when the date is beyond the year 9999.
    pub fn after(self, start: Date, times: i32) -> Result<Date> {
        let date = || {
            let span = Span::new().try_months(self.months.checked_mul(times)?).ok()?.try_days(self.days.checked_mul(times)?).ok()?;
            start.checked_add(span).ok()
        };
        date().ok_or_else(|| Error::invalid(format!("the date {times} times {self} after {start} is beyond the year 9999")))
    }
}

impl std::fmt::Display for Tenor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.months, self.days) {
            (0, days) => write!(f, "{days}D"),
            (months, _) if months % 12 == 0 => write!(f, "{}Y", months / 12),
            (months, _) => write!(f, "{months}M"),
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;

    #[test]
    fn the_end_of_a_short_month_is_its_last_day() {
        let start = date(2019, 1, 31);
        assert_eq!(Tenor::parse("1M").unwrap().after(start, 1).unwrap(), date(2019, 2, 28));
        assert_eq!(Tenor::parse("1M").unwrap().after(start, 2).unwrap(), date(2019, 3, 31));
        assert_eq!(Tenor::parse("2W").unwrap().after(start, 1).unwrap(), date(2019, 2, 14));
        assert_eq!(Tenor::parse("18M").unwrap(), Tenor::months(18));
        assert_eq!(Tenor::parse("10Y").unwrap().to_string(), "10Y");
        assert_eq!(Tenor::parse("30Y").unwrap().after(start, 0).unwrap(), start);
    }

    #[test]
    fn what_is_no_length_of_time_is_refused() {
        for text in ["", "M", "3", "3X", "-1M", "0Y", "1.5Y", "é"] {
            assert!(Tenor::parse(text).unwrap_err().to_string().contains(&format!("`{text}`")), "{text}");
        }
        assert!(Tenor::parse("9000Y").unwrap().after(date(2019, 1, 31), 1).unwrap_err().to_string().contains("9000Y"));
    }
}
