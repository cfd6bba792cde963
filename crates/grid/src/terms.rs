//! How long a session stays open by itself and how much may be done in it, as people write it.

use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use tidemill_base::{Error, HumanDuration, Result, Timestamp};
use tidemill_batch::model;
use tidemill_batch::spec::parse_at;

pub use tidemill_batch::model::{OnAbandon, OnBudget};

/// A session that nobody has said anything else of is closed when there was nothing to do in it, and nobody there, for so long.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(24 * 3600);
/// A client need not say oftener than a few times in so long that it is there.
const LEAST_KEEP_ALIVE: Duration = Duration::from_secs(10);

/// A limit of time, or none: `never`, or 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limit(pub Option<Duration>);

impl Serialize for Limit {
    fn serialize<S: serde::Serializer>(&self, s: S) -> std::result::Result<S::Ok, S::Error> {
        match self.0 {
            Some(limit) => HumanDuration(limit).serialize(s),
            None => s.serialize_str("never"),
        }
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Said {
            Seconds(f64),
            Text(String),
            Nothing(()),
        }
        let span = match Said::deserialize(from)? {
            Said::Nothing(()) => Duration::ZERO,
            Said::Seconds(s) => Duration::try_from_secs_f64(s).map_err(D::Error::custom)?,
            Said::Text(word) if word == "never" => Duration::ZERO,
            Said::Text(text) => text.parse::<HumanDuration>().map_err(D::Error::custom)?.0,
        };
        Ok(Self((!span.is_zero()).then_some(span)))
    }
}

/// How much may be done in a session. What is not said is not limited.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Budget {
    /// Tasks that may be submitted.
    pub tasks: Option<u64>,
    /// Seconds in engines, over all attempts of all tasks.
    pub engine_seconds: Option<f64>,
    /// With so many tasks that failed for good, the rest is not run.
    pub failures: Option<u64>,
    /// Time from its opening on.
    pub wall: Limit,
    /// It is over then: RFC 3339.
    pub deadline: Option<String>,
    /// What becomes of tasks that run when any of it but `tasks` is used up. What has not begun is not run.
    pub on_met: OnBudget,
}

impl Budget {
    fn to_model(&self) -> Result<model::Budget> {
        let wrong = |field: &str, why: String| Error::invalid(format!("session: `budget.{field}` {why}"));
        for (field, n) in [("tasks", self.tasks), ("failures", self.failures)] {
            if n == Some(0) {
                return Err(wrong(field, "is 0; give at least 1, or leave it out".to_owned()));
            }
        }
        let engine_time = match self.engine_seconds {
            None => None,
            Some(s) => {
                let span = Duration::try_from_secs_f64(s).ok().filter(|span| !span.is_zero()).and_then(HumanDuration::exact);
                Some(span.ok_or_else(|| wrong("engine_seconds", format!("is {s}; give seconds, more than 0")))?)
            }
        };
        let deadline = self.deadline.as_deref().map(|text| parse_at(text, Timestamp::ZERO)).transpose();
        Ok(model::Budget {
            tasks: self.tasks,
            engine_time,
            failures: self.failures,
            wall: self.wall.0.map(HumanDuration),
            deadline: deadline.map_err(|e| wrong("deadline", e.message().to_owned()))?,
            on_met: self.on_met,
        })
    }
}

/// The terms of a session. `Invalid` names the field.
pub(crate) fn terms(idle: Limit, keep_alive: Limit, on_abandon: OnAbandon, budget: &Budget) -> Result<model::Terms> {
    if let Some(span) = keep_alive.0.filter(|span| *span < LEAST_KEEP_ALIVE) {
        let (given, least) = (HumanDuration(span), HumanDuration(LEAST_KEEP_ALIVE));
        return Err(Error::invalid(format!("session: `keep_alive` is {given}; give at least {least}, or `never`")));
    }
    Ok(model::Terms {
        idle_timeout: idle.0.map(HumanDuration),
        keep_alive: keep_alive.0.map(HumanDuration),
        on_abandon,
        budget: budget.to_model()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SessionSpec;

    fn read(json: &str) -> SessionSpec {
        serde_json::from_str(json).unwrap()
    }

    fn terms_of(json: &str) -> model::Terms {
        read(json).to_job(&Default::default()).terms().unwrap().clone()
    }

    #[test]
    fn a_session_that_says_nothing_is_closed_after_a_day_of_nothing_and_has_no_other_limit() {
        let plain = terms_of("{}");
        assert_eq!(plain, model::Terms { idle_timeout: Some(IDLE_TIMEOUT.into()), ..model::Terms::default() });
        for never in [r#""never""#, "0", r#""0s""#, "null"] {
            assert_eq!(terms_of(&format!(r#"{{"idle_timeout": {never}}}"#)).idle_timeout, None, "{never}");
        }
        assert_eq!(terms_of(r#"{"idle_timeout": 90}"#).idle_timeout.unwrap().0.as_secs(), 90);
        assert_eq!(serde_json::to_value(read(r#"{"idle_timeout": 0}"#)).unwrap()["idle_timeout"], "never");
    }

    #[test]
    fn what_is_said_is_what_counts() {
        let all = terms_of(
            r#"{"keep_alive": "60s", "on_abandon": "close", "budget": {"tasks": 7, "engine_seconds": 1.5, "failures": 2, "wall": "8h",
                "deadline": "2026-01-30T06:00:00Z", "on_met": "cancel"}}"#,
        );
        assert_eq!((all.keep_alive.unwrap().0.as_secs(), all.on_abandon), (60, OnAbandon::Close));
        let b = &all.budget;
        assert_eq!((b.tasks, b.engine_time.unwrap().0.as_millis(), b.failures, b.on_met), (Some(7), 1500, Some(2), OnBudget::Cancel));
        assert_eq!(b.ends_at(Timestamp::ZERO), Some(Timestamp::ZERO + Duration::from_secs(8 * 3600)));
        assert_eq!(b.deadline.unwrap().rfc3339(), "2026-01-30T06:00:00Z");
        assert_eq!(b.ends_at(b.deadline.unwrap()), b.deadline);
    }

    #[test]
    fn mistakes_are_named() {
        for (json, field) in [
            (r#"{"keep_alive": "1s"}"#, "`keep_alive` is 1s"),
            (r#"{"budget": {"tasks": 0}}"#, "`budget.tasks`"),
            (r#"{"budget": {"failures": 0}}"#, "`budget.failures`"),
            (r#"{"budget": {"engine_seconds": -1}}"#, "`budget.engine_seconds` is -1"),
            (r#"{"budget": {"deadline": "tomorrow"}}"#, "`budget.deadline` `tomorrow` is not a moment"),
        ] {
            let error = read(json).check().unwrap_err().to_string();
            assert!(error.contains(field), "{error}");
        }
        assert!(serde_json::from_str::<SessionSpec>(r#"{"budget": {"taks": 1}}"#).unwrap_err().to_string().contains("taks"));
    }
}
