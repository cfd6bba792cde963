//! Cron lines: five fields, read in a zone.

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::tz::TimeZone;
use tidemill_base::{Error, Result, Timestamp};

/// The first tick of `cron` later than `after`, in the zone of that IANA name. `Invalid` when either cannot be read, or when the
/// line never comes true. Where clocks go forward a tick in the gap fires right after it; where they go back a fixed hour fires once.
pub fn next_tick(cron: &str, timezone: &str, after: Timestamp) -> Result<Timestamp> {
    let line = parse(cron)?;
    let zone = zone(timezone)?;
    let from = jiff::Timestamp::from_microsecond(after.micros())
        .map_err(|e| Error::invalid(format!("{} is out of range", after.micros())).with_source(e))?;
    let next = line.find_next_occurrence(&from.to_zoned(zone), false);
    let next = next.map_err(|_| Error::invalid(format!("cron: `{cron}` never comes true; check day and month")))?;
    Ok(Timestamp(next.timestamp().as_microsecond()))
}

/// The zone of that IANA name.
pub(super) fn zone(name: &str) -> Result<TimeZone> {
    TimeZone::get(name).map_err(|_| {
        let name = name.escape_debug();
        Error::invalid(format!("timezone: `{name}` is not known; write an IANA name such as `Europe/Berlin` or `UTC`"))
    })
}

fn parse(cron: &str) -> Result<Cron> {
    let bad = |why: &str| {
        let (line, why) = (cron.escape_debug(), why.trim_end_matches('.'));
        Error::invalid(format!("cron: `{line}` cannot be read: {why}; write minute, hour, day, month and weekday like `30 2 * * 1-5`"))
    };
    let fields = cron.split_whitespace().count();
    if fields != 5 && !cron.starts_with('@') {
        return Err(bad(&format!("it has {fields} fields and not five")));
    }
    // The parser takes an empty item for a field that never comes true, and then looks for it through all years there are.
    if cron.split_whitespace().any(|field| field.split(',').any(str::is_empty)) {
        return Err(bad("a list has an empty item"));
    }
    let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
    parser.parse(cron).map_err(|e| bad(&e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(cron: &str, zone: &str, after: &str) -> String {
        let after: jiff::Timestamp = after.parse().unwrap();
        next_tick(cron, zone, Timestamp(after.as_microsecond())).unwrap().rfc3339()
    }

    #[test]
    fn ticks_follow_the_zone_through_both_changes_of_the_clock() {
        for (cron, zone, after, want) in [
            ("30 2 * * *", "UTC", "2026-01-01T02:30:00Z", "2026-01-02T02:30:00Z"),
            ("30 2 * * *", "Europe/Berlin", "2026-01-01T00:00:00Z", "2026-01-01T01:30:00Z"),
            ("*/5 * * * *", "UTC", "2026-01-01T00:00:01Z", "2026-01-01T00:05:00Z"),
            ("0 9 * * MON", "America/New_York", "2026-07-03T12:00:00Z", "2026-07-06T13:00:00Z"),
            ("0 0 29 2 *", "UTC", "2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z"),
            ("@daily", "UTC", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"),
            // Half past two does not exist on this day; and is there twice on that one.
            ("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", "2026-03-29T01:00:00Z"),
            ("30 2 * * *", "Europe/Berlin", "2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"),
        ] {
            assert_eq!(next(cron, zone, after), want, "{cron} {zone} {after}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        for (cron, zone, want) in [
            ("* * *", "UTC", "cron: `* * *` cannot be read: it has 3 fields and not five; write"),
            ("61 * * * *", "UTC", "cron: `61 * * * *` cannot be read: "),
            ("0 , * * *", "UTC", "cron: `0 , * * *` cannot be read: a list has an empty item; write"),
            ("0 0 * * *", "Mars/Olympus", "timezone: `Mars/Olympus` is not known; write an IANA name"),
            ("0 0 30 2 *", "UTC", "cron: `0 0 30 2 *` never comes true; check day and month"),
        ] {
            let e = next_tick(cron, zone, Timestamp::ZERO).unwrap_err();
            assert!(e.to_string().starts_with(want), "{e}");
        }
    }
}
