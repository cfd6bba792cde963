//! Business days.

use std::collections::BTreeSet;

use jiff::ToSpan;
use jiff::civil::{Date, Weekday};
use tidemill_base::{Error, Result};

use super::Tenor;

/// The business days of one place: all but weekends and the holidays given.
#[derive(Debug, Clone)]
pub struct Calendar {
    name: String,
    holidays: BTreeSet<Date>,
}

/// Where a date goes that is not a business day (2006 ISDA Definitions, section 4.12).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Roll {
    /// To the next business day.
    Following,
    /// To the next business day, unless that lies in the next month; then to the one before.
    ModifiedFollowing,
}

impl Calendar {
    /// A calendar with Saturdays, Sundays and `holidays` off. It ends with the year of the last holiday.
    pub fn new(name: impl Into<String>, holidays: impl IntoIterator<Item = Date>) -> Self {
        Self { name: name.into(), holidays: holidays.into_iter().collect() }
    }

    /// Whether business is done on `date`.
    pub fn is_business_day(&self, date: Date) -> bool {
        !matches!(date.weekday(), Weekday::Saturday | Weekday::Sunday) && !self.holidays.contains(&date)
    }

    /// `date`, or the business day it goes to.
    ///
    /// # Errors
    /// `Invalid` for a date after the last year with holidays: there the calendar knows nothing, and weekends alone would be wrong.
    pub fn adjust(&self, date: Date, roll: Roll) -> Result<Date> {
        let last = self.holidays.last().map_or(Date::MIN.year(), |d| d.year());
        if date.year() > last {
            return Err(Error::invalid(format!(
                "calendar `{}` has no holidays after {last}, and {date} was asked for; give a longer list of holidays",
                self.name
            )));
        }
        let next = self.walk(date, 1)?;
        if roll == Roll::ModifiedFollowing && next.month() != date.month() {
            return self.walk(date, -1);
        }
        Ok(next)
    }

    fn walk(&self, mut date: Date, step: i32) -> Result<Date> {
        while !self.is_business_day(date) {
            date = date.checked_add(step.days()).map_err(|e| Error::invalid("the date leaves the calendar").with_source(e))?;
        }
        Ok(date)
    }
}

/// Dates of a schedule from `start` on, every `step` until `end`, each adjusted by itself; a rest shorter than a step comes last.
///
/// # Errors
/// `Invalid` when `end` is not after `start` or dates leave the calendar.
pub fn schedule(start: Date, end: Date, step: Tenor, calendar: &Calendar, roll: Roll) -> Result<Vec<Date>> {
    if end <= start {
        return Err(Error::invalid(format!("a schedule cannot end on {end} when it starts on {start}")));
    }
    let mut dates = vec![calendar.adjust(start, roll)?];
    // Each date is counted from the start, so that the end of a short month does not shift the ones after it.
    for i in 1.. {
        let unadjusted = step.after(start, i)?;
        dates.push(calendar.adjust(unadjusted.min(end), roll)?);
        if unadjusted >= end {
            break;
        }
    }
    dates.dedup();
    Ok(dates)
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;

    fn calendar() -> Calendar {
        Calendar::new("X", [date(2019, 1, 1), date(2019, 4, 19), date(2019, 12, 25), date(2021, 1, 1)])
    }

    #[test]
    fn holidays_and_weekends_are_skipped() {
        let c = calendar();
        assert_eq!(c.adjust(date(2019, 1, 1), Roll::Following).unwrap(), date(2019, 1, 2));
        assert_eq!(c.adjust(date(2019, 4, 19), Roll::Following).unwrap(), date(2019, 4, 22));
        assert_eq!(c.adjust(date(2019, 4, 18), Roll::Following).unwrap(), date(2019, 4, 18));
    }

    #[test]
    fn modified_following_stays_in_the_month() {
        let c = calendar();
        assert_eq!(c.adjust(date(2019, 3, 30), Roll::ModifiedFollowing).unwrap(), date(2019, 3, 29));
        assert_eq!(c.adjust(date(2019, 3, 30), Roll::Following).unwrap(), date(2019, 4, 1));
        assert_eq!(c.adjust(date(2019, 6, 15), Roll::ModifiedFollowing).unwrap(), date(2019, 6, 17));
    }

    #[test]
    fn a_date_after_the_last_holiday_year_is_refused() {
        let error = calendar().adjust(date(2022, 5, 5), Roll::Following).unwrap_err();
        assert!(error.to_string().contains("`X` has no holidays after 2021"), "{error}");
    }

    #[test]
    fn schedules_count_from_the_start_and_end_with_the_rest() {
        let dates = schedule(date(2019, 1, 31), date(2019, 8, 15), Tenor::months(2), &calendar(), Roll::ModifiedFollowing).unwrap();
        assert_eq!(dates, [date(2019, 1, 31), date(2019, 3, 29), date(2019, 5, 31), date(2019, 7, 31), date(2019, 8, 15)]);
        let even = schedule(date(2019, 1, 31), date(2019, 4, 30), Tenor::months(3), &calendar(), Roll::ModifiedFollowing).unwrap();
        assert_eq!(even, [date(2019, 1, 31), date(2019, 4, 30)]);
        assert!(schedule(date(2019, 1, 31), date(2019, 1, 31), Tenor::months(3), &calendar(), Roll::Following).is_err());
    }
}
