//! The settings of a session: those that mean something here, and those that tools expect.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::error::{SqlError, SqlResult};

/// A setting.
#[derive(Debug)]
pub(crate) struct Setting {
    /// As PostgreSQL writes it.
    pub(crate) name: &'static str,
    value: &'static str,
    effect: Effect,
    /// Whether clients are told of it when they sign in and when it changes.
    pub(crate) reported: bool,
}

/// What setting it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    /// What it says.
    Obeyed,
    /// Nothing, and nobody minds.
    Kept,
    /// Nothing but a notice with these words: it stays as it is.
    Stays(&'static str),
    /// An error.
    Fixed,
}

const fn setting(name: &'static str, value: &'static str, effect: Effect) -> Setting {
    Setting { name, value, effect, reported: false }
}

const fn told(name: &'static str, value: &'static str, effect: Effect) -> Setting {
    Setting { name, value, effect, reported: true }
}

const UTC: Effect = Effect::Stays("times are shown in UTC, which clients convert");
const READS: Effect = Effect::Stays("SQL here only reads, whatever this says");

/// All settings that are known by name.
pub(crate) const SETTINGS: &[Setting] = &[
    told("application_name", "", Effect::Obeyed),
    setting("backslash_quote", "safe_encoding", Effect::Kept),
    setting("bytea_output", "hex", Effect::Stays("bytes are shown in hexadecimal")),
    told("client_encoding", "UTF8", Effect::Stays("text is UTF-8")),
    setting("client_min_messages", "notice", Effect::Kept),
    told("DateStyle", "ISO, MDY", Effect::Stays("dates are shown as ISO 8601 has them")),
    told("default_transaction_read_only", "on", READS),
    setting("default_transaction_isolation", "read committed", Effect::Kept),
    setting("default_transaction_deferrable", "off", Effect::Kept),
    setting("extra_float_digits", "1", Effect::Kept),
    setting("geqo", "off", Effect::Kept),
    setting("idle_in_transaction_session_timeout", "0", Effect::Kept),
    setting("idle_session_timeout", "0", Effect::Kept),
    told("in_hot_standby", "off", Effect::Fixed),
    told("integer_datetimes", "on", Effect::Fixed),
    told("IntervalStyle", "postgres", Effect::Stays("intervals are shown in PostgreSQL's own style")),
    told("is_superuser", "off", Effect::Fixed),
    setting("jit", "off", Effect::Kept),
    setting("lc_collate", "C.UTF-8", Effect::Fixed),
    setting("lc_ctype", "C.UTF-8", Effect::Fixed),
    setting("lc_messages", "C.UTF-8", Effect::Kept),
    setting("lc_monetary", "C.UTF-8", Effect::Kept),
    setting("lock_timeout", "0", Effect::Kept),
    setting("max_identifier_length", "63", Effect::Fixed),
    setting("max_index_keys", "32", Effect::Fixed),
    setting("quote_all_identifiers", "off", Effect::Kept),
    setting("row_security", "on", Effect::Kept),
    setting("search_path", "", Effect::Obeyed),
    told("server_encoding", "UTF8", Effect::Fixed),
    told("server_version", "", Effect::Fixed),
    setting("server_version_num", "150000", Effect::Fixed),
    told("session_authorization", "tidemill", Effect::Fixed),
    told("standard_conforming_strings", "on", Effect::Stays("a backslash in a text is a backslash")),
    setting("statement_timeout", "0", Effect::Obeyed),
    setting("synchronize_seqscans", "on", Effect::Kept),
    setting("tcp_keepalives_idle", "0", Effect::Kept),
    told("TimeZone", "UTC", UTC),
    setting("transaction_deferrable", "off", Effect::Kept),
    setting("transaction_isolation", "read committed", Effect::Kept),
    setting("transaction_read_only", "on", READS),
    setting("work_mem", "4MB", Effect::Kept),
    setting("xmloption", "content", Effect::Kept),
];

impl Setting {
    fn key(&self) -> String {
        self.name.to_lowercase()
    }

    /// What it is before anybody sets it.
    pub(crate) fn initial<'a>(&'a self, version: &'a str) -> &'a str {
        if self.name == "server_version" { version } else { self.value }
    }
}

/// A session's settings.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    initial: BTreeMap<String, String>,
    values: BTreeMap<String, String>,
}

/// What came of setting something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Words for a notice.
    pub(crate) notice: Option<String>,
    /// Name and value, if clients are to be told.
    pub(crate) report: Option<(&'static str, String)>,
}

impl Settings {
    pub(crate) fn new(version: &str, user: &str) -> Self {
        let mut values: BTreeMap<String, String> = SETTINGS.iter().map(|s| (s.key(), s.initial(version).to_owned())).collect();
        values.insert("session_authorization".to_owned(), user.to_owned());
        Self { initial: values.clone(), values }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.values.get(&name.to_lowercase()).map(String::as_str)
    }

    /// All by name.
    pub(crate) const fn all(&self) -> &BTreeMap<String, String> {
        &self.values
    }

    /// Values in this moment become what RESET goes back to: those that a client signs in with.
    pub(crate) fn settle(&mut self) {
        self.initial = self.values.clone();
    }

    pub(crate) fn reset_all(&mut self) {
        self.values = self.initial.clone();
    }

    /// Sets `name`, or back to what it was at first.
    pub(crate) fn set(&mut self, name: &str, value: Option<&str>) -> SqlResult<Outcome> {
        let key = name.to_lowercase();
        let quiet = Outcome { notice: None, report: None };
        let Some(setting) = SETTINGS.iter().find(|s| s.key() == key) else {
            if !key.contains('.') && value.is_some() {
                let notice = format!("\"{key}\" has no effect here");
                return Ok(Outcome { notice: Some(notice), ..quiet });
            }
            match value.or_else(|| self.initial.get(&key).map(String::as_str)) {
                Some(value) => drop(self.values.insert(key, value.to_owned())),
                None => drop(self.values.remove(&key)),
            }
            return Ok(quiet);
        };
        let value = value.or_else(|| self.initial.get(&key).map(String::as_str)).unwrap_or(setting.value).trim().to_owned();
        let same = |a: &str| plain(a) == plain(self.values.get(&key).map_or("", String::as_str));
        match setting.effect {
            Effect::Fixed if same(&value) => return Ok(quiet),
            Effect::Fixed => return Err(SqlError::new("55P02", format!("parameter \"{}\" cannot be changed", setting.name))),
            Effect::Stays(_) if same(&value) || stays_in_effect(&key, &value) => return Ok(quiet),
            Effect::Stays(why) => {
                let notice = format!("\"{}\" stays \"{}\": {why}", setting.name, self.values.get(&key).map_or("", String::as_str));
                return Ok(Outcome { notice: Some(notice), ..quiet });
            }
            Effect::Obeyed | Effect::Kept => {}
        }
        if key == "statement_timeout" {
            duration(&value)?;
        }
        let report = setting.reported.then(|| (setting.name, value.clone()));
        self.values.insert(key, value);
        Ok(Outcome { notice: None, report })
    }

    /// The session's own limit on a statement's time; `None`: the server's alone.
    pub(crate) fn statement_timeout(&self) -> Option<Duration> {
        self.get("statement_timeout").and_then(|v| duration(v).ok()).filter(|d| !d.is_zero())
    }

    /// Schemas in the order that the session asked for.
    pub(crate) fn search_path(&self) -> Vec<String> {
        let named = self.get("search_path").unwrap_or_default().split(',').map(|s| s.trim().trim_matches('"').to_owned());
        named.filter(|s| !s.is_empty()).collect()
    }
}

/// Names of encodings and zones are written in many ways.
fn plain(text: &str) -> String {
    text.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_lowercase()
}

/// Other words for what is the case anyway.
fn stays_in_effect(key: &str, value: &str) -> bool {
    let value = plain(value);
    match key {
        "timezone" => ["utc", "etcutc", "gmt", "gmt0", "z", "0", "zulu", "etcgmt", "000000"].contains(&value.as_str()),
        "client_encoding" => ["utf8", "unicode", "utf", "auto"].contains(&value.as_str()),
        "datestyle" => value.starts_with("iso"),
        "standard_conforming_strings" | "transaction_read_only" | "default_transaction_read_only" => {
            ["on", "true", "1", "yes"].contains(&value.as_str())
        }
        _ => false,
    }
}

/// `250`, `250ms`, `2s`, `1min`, `1h`, `1d`; a number alone is milliseconds.
fn duration(text: &str) -> SqlResult<Duration> {
    let text = text.trim();
    let at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let factor = match unit.trim() {
        "us" => 1e-6,
        "" | "ms" => 1e-3,
        "s" => 1.0,
        "min" => 60.0,
        "h" => 3_600.0,
        "d" => 86_400.0,
        _ => f64::NAN,
    };
    let seconds = number.parse::<f64>().unwrap_or(f64::NAN) * factor;
    Duration::try_from_secs_f64(seconds)
        .map_err(|_| SqlError::new("22023", format!("\"{text}\" is no duration")).with_hint("write it like 250ms, 2s, 1min, 1h or 1d"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_postgresql_s_units() {
        for (text, millis) in [("250", 250), ("250ms", 250), ("2s", 2_000), ("1 min", 60_000), ("0.5s", 500), ("0", 0)] {
            assert_eq!(duration(text).unwrap(), Duration::from_millis(millis), "{text}");
        }
        for wrong in ["", "-1", "2 weeks", "s", "1e999d"] {
            assert_eq!(duration(wrong).unwrap_err().state, "22023", "{wrong}");
        }
    }

    #[test]
    fn settings_are_obeyed_kept_or_refused() {
        let mut settings = Settings::new("15.0", "ada");
        assert_eq!(settings.get("server_version"), Some("15.0"));
        let told = settings.set("Application_Name", Some("x")).unwrap().report;
        assert_eq!(told, Some(("application_name", "x".to_owned())));
        settings.set("statement_timeout", Some("2s")).unwrap();
        assert_eq!(settings.statement_timeout(), Some(Duration::from_secs(2)));
        settings.set("statement_timeout", None).unwrap();
        assert_eq!(settings.statement_timeout(), None);
        assert_eq!(settings.set("TimeZone", Some("Etc/UTC")).unwrap().notice, None);
        assert!(settings.set("timezone", Some("Europe/Berlin")).unwrap().notice.unwrap().contains("UTC"));
        assert_eq!(settings.set("server_version", Some("9")).unwrap_err().state, "55P02");
        assert!(settings.set("no_such_thing", Some("1")).unwrap().notice.is_some());
        settings.set("my.own", Some("1")).unwrap();
        assert_eq!(settings.get("my.own"), Some("1"));
        settings.reset_all();
        assert_eq!(settings.get("my.own"), None);
    }
}
