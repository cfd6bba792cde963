//! How long a period is, as a fraction of a year.

use jiff::civil::Date;
use tidemill_base::{Error, Result};

/// Day count fractions (2006 ISDA Definitions, section 4.16).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DayCount {
    /// Days over 360.
    Actual360,
    /// Days over 365, in leap years too.
    Actual365Fixed,
    /// Months of 30 days and years of 360; "bond basis".
    Thirty360,
}

impl DayCount {
    /// The day count of that name, as written in conventions: `Act/360`, `Act/365F`, `30/360`.
    ///
    /// # Errors
    /// `Invalid` for another name.
    pub fn parse(name: &str) -> Result<Self> {
        match name {
            "Act/360" => Ok(Self::Actual360),
            "Act/365F" => Ok(Self::Actual365Fixed),
            "30/360" => Ok(Self::Thirty360),
            other => Err(Error::invalid(format!("`{other}` is no day count known here; there are Act/360, Act/365F and 30/360"))),
        }
    }

    /// The time from `start` to `end` in years.
    pub fn fraction(self, start: Date, end: Date) -> f64 {
        let days = || f64::from(days_between(start, end));
        match self {
            Self::Actual360 => days() / 360.0,
            Self::Actual365Fixed => days() / 365.0,
            Self::Thirty360 => f64::from(thirty_360_days(start, end)) / 360.0,
        }
    }
}

/// Days on the calendar from `start` to `end`.
fn days_between(start: Date, end: Date) -> i32 {
    (start.duration_until(end).as_hours() / 24) as i32
}

fn thirty_360_days(start: Date, end: Date) -> i32 {
    let first = i32::from(start.day()).min(30);
    let last = if end.day() == 31 && first == 30 { 30 } else { i32::from(end.day()) };
    360 * i32::from(end.year() - start.year()) + 30 * i32::from(end.month() - start.month()) + last - first
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;

    #[test]
    fn actual_days_over_a_fixed_year() {
        let (start, end) = (date(2019, 12, 28), date(2020, 12, 28));
        assert_eq!(DayCount::Actual365Fixed.fraction(start, end), 366.0 / 365.0);
        assert_eq!(DayCount::Actual360.fraction(start, end), 366.0 / 360.0);
        assert_eq!(DayCount::Actual360.fraction(end, start), -366.0 / 360.0);
    }

    #[test]
    fn months_of_thirty_days() {
        let days = |a: Date, b: Date| (DayCount::Thirty360.fraction(a, b) * 360.0).round();
        assert_eq!(days(date(2007, 1, 15), date(2007, 7, 15)), 180.0);
        assert_eq!(days(date(2007, 1, 31), date(2007, 3, 31)), 60.0);
        assert_eq!(days(date(2007, 1, 30), date(2007, 3, 31)), 60.0);
        assert_eq!(days(date(2007, 1, 29), date(2007, 3, 31)), 62.0);
        assert_eq!(days(date(2007, 2, 28), date(2007, 3, 31)), 33.0);
        assert_eq!(days(date(2018, 12, 28), date(2038, 12, 28)), 7_200.0);
    }

    #[test]
    fn names_are_those_of_conventions() {
        assert_eq!(DayCount::parse("30/360").unwrap(), DayCount::Thirty360);
        assert!(DayCount::parse("Bus/252").unwrap_err().to_string().contains("`Bus/252`"));
    }
}
