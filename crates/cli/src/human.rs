//! Numbers and times as people read them.

use std::time::Duration;

use tidemill_base::{ByteSize, HumanDuration, Timestamp};

/// `1,234,567`.
pub(crate) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `1 task`, `2 tasks`.
pub(crate) fn plural(n: u64, noun: &str) -> String {
    format!("{} {noun}{}", count(n), if n == 1 { "" } else { "s" })
}

/// `12.3 MiB`.
pub(crate) fn bytes(n: u64) -> String {
    ByteSize(n).to_string()
}

/// `40us`, `1.5ms`, `340ms`, `12.5s`, `3m05s`: calls of functions are often shorter than a millisecond.
pub(crate) fn micros(us: u64) -> String {
    match us {
        1..1_000 => format!("{us}us"),
        1_000..10_000 => format!("{}.{}ms", us / 1_000, us % 1_000 / 100),
        _ => HumanDuration(Duration::from_micros(us)).to_string(),
    }
}

/// The same.
pub(crate) fn span(d: Duration) -> String {
    HumanDuration(Duration::from_millis(u64::try_from(d.as_millis()).unwrap_or(u64::MAX))).to_string()
}

/// A whole number of seconds and coarser, for time left: `12s`, `3m05s`.
pub(crate) fn left(seconds: f64) -> String {
    let whole = if seconds.is_finite() { seconds.clamp(0.0, 3.2e9).ceil() as u64 } else { return "?".to_owned() };
    HumanDuration(Duration::from_secs(whole)).to_string()
}

/// Per second, with as many digits as mean something: `12,345/s`, `8.3/s`, `0.25/s`.
pub(crate) fn rate(per_second: f64) -> String {
    match per_second {
        r if !r.is_finite() || r <= 0.0 => "0/s".to_owned(),
        r if r >= 100.0 => format!("{}/s", count(r.round() as u64)),
        r if r >= 1.0 => format!("{r:.1}/s"),
        r => format!("{r:.2}/s"),
    }
}

/// Reads an RFC 3339 time of the interface.
pub(crate) fn parse_time(text: &str) -> Option<Timestamp> {
    text.parse::<jiff::Timestamp>().ok().map(|t| Timestamp(t.as_microsecond()))
}

/// How long ago a time of the interface was: `3m05s ago`; the text itself when it is no time.
pub(crate) fn ago(text: &str, now: Timestamp) -> String {
    match parse_time(text) {
        Some(at) if at > now => format!("in {}", left(at.since(now).as_secs_f64())),
        Some(at) if now.since(at) < Duration::from_secs(1) => "now".to_owned(),
        Some(at) => format!("{} ago", left(now.since(at).as_secs_f64().floor())),
        None => text.to_owned(),
    }
}

/// From a start to an end, or to now.
pub(crate) fn between(start: Option<&str>, end: Option<&str>, now: Timestamp) -> Option<Duration> {
    let start = parse_time(start?)?;
    Some(end.and_then(parse_time).unwrap_or(now).since(start))
}

/// Text that came from elsewhere, on one line and without control characters, at most `max` characters.
pub(crate) fn one_line(text: &str, max: usize) -> String {
    let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let clean = clean.trim();
    if clean.chars().count() <= max {
        return clean.to_owned();
    }
    clean.chars().take(max.saturating_sub(3)).chain("...".chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!([count(0), count(999), count(1000), count(1_234_567)], ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([plural(1, "task"), plural(1000, "task")], ["1 task", "1,000 tasks"]);
        assert_eq!([rate(0.0), rate(0.254), rate(8.33), rate(12_345.4), rate(f64::NAN)], ["0/s", "0.25/s", "8.3/s", "12,345/s", "0/s"]);
        let micros = [0, 40, 999, 1_000, 1_590, 9_999, 10_000, 12_500_000].map(micros);
        assert_eq!(micros, ["0ms", "40us", "999us", "1.0ms", "1.5ms", "9.9ms", "10ms", "12.5s"]);
        assert_eq!([left(0.2), left(185.0), left(f64::INFINITY)], ["1s", "3m05s", "?"]);
    }

    #[test]
    fn times_are_told_from_now() {
        let now = parse_time("2026-01-01T00:10:00Z").unwrap();
        assert_eq!(ago("2026-01-01T00:06:55Z", now), "3m05s ago");
        assert_eq!(ago("2026-01-01T00:10:30Z", now), "in 30s");
        assert_eq!(ago("2026-01-01T00:09:59.5Z", now), "now");
        assert_eq!(ago("yesterday", now), "yesterday");
        assert_eq!(between(Some("2026-01-01T00:09:00Z"), None, now), Some(Duration::from_secs(60)));
        assert_eq!(between(None, None, now), None);
    }

    #[test]
    fn foreign_text_stays_on_its_line() {
        assert_eq!(one_line("a\nb\u{1b}[31m", 20), "a b [31m");
        assert_eq!(one_line("abcdefgh", 6), "abc...");
    }
}
