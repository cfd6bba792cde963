//! Sizes and durations as people write them: `256KiB`, `1.5GB`, `90s`, `1h30m`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Error, Result};

/// A number of bytes. Reads `10`, `10B`, `10KB` (thousands), `10KiB` or `10K` (1024s), with a fraction if one likes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ByteSize(pub u64);

impl ByteSize {
    /// The number of bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for ByteSize {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (number, unit) = split_unit(text);
        let factor: u64 = match unit.to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "kb" => 1000,
            "k" | "kib" => 1 << 10,
            "mb" => 1_000_000,
            "m" | "mib" => 1 << 20,
            "gb" => 1_000_000_000,
            "g" | "gib" => 1 << 30,
            "tb" => 1_000_000_000_000,
            "t" | "tib" => 1 << 40,
            _ => return Err(Error::invalid(format!("size `{text}` has an unknown unit; write it like `512MiB`"))),
        };
        scaled(number, factor).map(Self).ok_or_else(|| Error::invalid(format!("`{text}` is not a size; write it like `512MiB`")))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
        let mut value = self.0 as f64;
        let mut unit = 0;
        while value >= 1024.0 && unit + 1 < UNITS.len() {
            value /= 1024.0;
            unit += 1;
        }
        if unit == 0 || value.fract() == 0.0 { write!(f, "{value:.0} {}", UNITS[unit]) } else { write!(f, "{value:.1} {}", UNITS[unit]) }
    }
}

impl fmt::Debug for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_u64(self.0)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = ByteSize;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size such as 1048576 or \"1MiB\"")
            }
            fn visit_u64<E: serde::de::Error>(self, v: u64) -> Result<ByteSize, E> {
                Ok(ByteSize(v))
            }
            fn visit_i64<E: serde::de::Error>(self, v: i64) -> Result<ByteSize, E> {
                u64::try_from(v).map(ByteSize).map_err(|_| E::custom("a size cannot be negative"))
            }
            fn visit_str<E: serde::de::Error>(self, v: &str) -> Result<ByteSize, E> {
                v.parse().map_err(E::custom)
            }
        }
        if d.is_human_readable() { d.deserialize_any(Visitor) } else { u64::deserialize(d).map(ByteSize) }
    }
}

/// A span of time. Reads `250ms`, `90s`, `5m`, `1h30m`, `2d`; a bare number is seconds. What is read is whole microseconds, at most
/// `u64::MAX` of them. It serialises as microseconds to compact formats and as text to JSON and TOML.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct HumanDuration(pub Duration);

/// Reads a span of time; see [`HumanDuration`].
pub fn parse_duration(text: &str) -> Result<Duration> {
    text.parse::<HumanDuration>().map(|d| d.0)
}

impl HumanDuration {
    /// In whole microseconds, as it is stored; `None` when it is longer than half a million years.
    pub fn exact(span: Duration) -> Option<Self> {
        u64::try_from(span.as_micros()).ok().map(|us| Self(Duration::from_micros(us)))
    }
}

impl FromStr for HumanDuration {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad = || Error::invalid(format!("`{text}` is not a duration; write it like `90s` or `1h30m`"));
        let mut rest = text.trim();
        if rest.is_empty() {
            return Err(bad());
        }
        let mut total = Duration::ZERO;
        while !rest.is_empty() {
            let number_len = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
            let (number, tail) = rest.split_at(number_len);
            let unit_len = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
            let (unit, next) = tail.split_at(unit_len);
            let micros: u64 = match unit.trim() {
                "us" => 1,
                "ms" => 1000,
                "" | "s" => 1_000_000,
                "m" | "min" => 60_000_000,
                "h" => 3_600_000_000,
                "d" => 86_400_000_000,
                _ => return Err(bad()),
            };
            total = total.checked_add(Duration::from_micros(scaled(number, micros).ok_or_else(bad)?)).ok_or_else(bad)?;
            rest = next;
        }
        Self::exact(total).ok_or_else(bad)
    }
}

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.as_millis();
        if ms < 1000 {
            return write!(f, "{ms}ms");
        }
        let (d, h, m) = (ms / 86_400_000, ms / 3_600_000 % 24, ms / 60_000 % 60);
        let s = (ms % 60_000) as f64 / 1000.0;
        match (d, h, m) {
            (0, 0, 0) if ms.is_multiple_of(1000) => write!(f, "{s:.0}s"),
            (0, 0, 0) => write!(f, "{s:.1}s"),
            (0, 0, _) => write!(f, "{m}m{s:02.0}s"),
            (0, _, _) => write!(f, "{h}h{m:02}m"),
            _ => write!(f, "{d}d{h:02}h"),
        }
    }
}

impl fmt::Debug for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for HumanDuration {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let us = u64::try_from(self.0.as_micros()).unwrap_or(u64::MAX);
        match s.is_human_readable() {
            true => {
                // The largest unit that says it exactly.
                let units = [("h", 3_600_000_000), ("m", 60_000_000), ("s", 1_000_000), ("ms", 1000), ("us", 1)];
                let fits = |(_, len): &&(&str, u64)| us.is_multiple_of(*len) && (us > 0 || *len == 1_000_000);
                let (unit, len) = units.iter().find(fits).unwrap_or(&units[4]);
                s.collect_str(&format_args!("{}{unit}", us / len))
            }
            false => s.serialize_u64(us),
        }
    }
}

impl<'de> Deserialize<'de> for HumanDuration {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = HumanDuration;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration such as \"90s\" or a number of seconds")
            }
            fn visit_u64<E: serde::de::Error>(self, v: u64) -> Result<HumanDuration, E> {
                HumanDuration::exact(Duration::from_secs(v)).ok_or_else(|| E::custom("a duration of more than half a million years"))
            }
            fn visit_i64<E: serde::de::Error>(self, v: i64) -> Result<HumanDuration, E> {
                u64::try_from(v).map_err(|_| E::custom("a duration cannot be negative")).and_then(|seconds| self.visit_u64(seconds))
            }
            fn visit_f64<E: serde::de::Error>(self, v: f64) -> Result<HumanDuration, E> {
                let span = Duration::try_from_secs_f64(v).map_err(E::custom)?;
                HumanDuration::exact(span).ok_or_else(|| E::custom("a duration of more than half a million years"))
            }
            fn visit_str<E: serde::de::Error>(self, v: &str) -> Result<HumanDuration, E> {
                v.parse().map_err(E::custom)
            }
        }
        if d.is_human_readable() { d.deserialize_any(Visitor) } else { u64::deserialize(d).map(|us| Self(Duration::from_micros(us))) }
    }
}

impl From<Duration> for HumanDuration {
    fn from(d: Duration) -> Self {
        Self(d)
    }
}

fn split_unit(text: &str) -> (&str, &str) {
    let text = text.trim();
    let at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    (&text[..at], text[at..].trim())
}

fn scaled(number: &str, factor: u64) -> Option<u64> {
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(factor);
    }
    let value = number.parse::<f64>().ok()? * factor as f64;
    (value.is_finite() && value >= 0.0 && value < u64::MAX as f64).then_some(value as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_sizes() {
        for (text, bytes) in [("0", 0), ("10KB", 10_000), ("1.5KiB", 1536), ("2 G", 2 << 30)] {
            assert_eq!(text.parse::<ByteSize>().unwrap().bytes(), bytes, "{text}");
        }
        assert_eq!(ByteSize(1536).to_string(), "1.5 KiB");
        for bad in ["", "x", "-1", "1QB", "99999999999T"] {
            assert!(bad.parse::<ByteSize>().is_err(), "{bad}");
        }
    }

    #[test]
    fn reads_and_writes_durations() {
        for (text, ms) in [("250ms", 250), ("90", 90_000), ("1h30m", 5_400_000), ("0.5s", 500), ("2d", 172_800_000)] {
            assert_eq!(parse_duration(text).unwrap().as_millis(), ms, "{text}");
        }
        assert_eq!(HumanDuration(Duration::from_secs(95)).to_string(), "1m35s");
        let json = |d: &str| serde_json::to_string(&HumanDuration(parse_duration(d).unwrap())).unwrap();
        assert_eq!((json("1.5s"), json("500us")), ("\"1500ms\"".to_owned(), "\"500us\"".to_owned()), "nothing is lost when it is stored");
        assert!(serde_json::from_str::<HumanDuration>("9223372036854775807").is_err(), "what could not be stored is refused");
        for bad in ["", "soon", "1y", "-3s", "1h-2m", "213503982d 1d"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }
}
