//! Options that end a session before its tasks do.

use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};
use tidemill_base::HumanDuration;

/// How much a session may do, and how long it waits.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Limits {
    /// Stop when so many tasks have failed for good.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    max_failures: Option<u64>,
    /// Stop when functions have taken so long together, such as 100h.
    #[arg(long, value_name = "DURATION")]
    max_engine_time: Option<HumanDuration>,
    /// Stop so long after the session was opened, such as 8h.
    #[arg(long, value_name = "DURATION")]
    max_time: Option<HumanDuration>,
    /// Stop then: 2026-01-31T06:00:00Z.
    #[arg(long, value_name = "TIME")]
    deadline: Option<String>,
    /// What becomes of tasks that run when it stops [default: finish].
    #[arg(long, value_name = "WORD")]
    on_limit: Option<OnLimit>,
    /// Close the session when there was nothing to do in it, and nobody there, for so long; or `never` [default: 24h].
    #[arg(long, value_name = "DURATION")]
    idle_timeout: Option<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum OnLimit {
    /// They run to their end.
    Finish,
    /// They are stopped.
    Cancel,
}

impl Limits {
    /// Adds what was said to a session.
    pub(super) fn put(&self, session: &mut Map<String, Value>) {
        let mut budget = Map::new();
        let mut say = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                budget.insert(key.to_owned(), value);
            }
        };
        say("failures", self.max_failures.map(|n| json!(n)));
        say("engine_seconds", self.max_engine_time.map(|t| json!(t.0.as_secs_f64())));
        say("wall", self.max_time.map(|t| json!(t)));
        say("deadline", self.deadline.as_ref().map(|t| json!(t)));
        say("on_met", self.on_limit.map(|on| json!(if matches!(on, OnLimit::Cancel) { "cancel" } else { "finish" })));
        if !budget.is_empty() {
            session.insert("budget".to_owned(), Value::Object(budget));
        }
        if let Some(idle) = &self.idle_timeout {
            session.insert("idle_timeout".to_owned(), json!(idle));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_sent_and_nothing_else() {
        let mut session = Map::new();
        Limits::default().put(&mut session);
        assert!(session.is_empty());
        let limits = Limits {
            max_failures: Some(3),
            max_engine_time: Some("90s".parse().unwrap()),
            max_time: Some("8h".parse().unwrap()),
            deadline: Some("2026-01-31T06:00:00Z".into()),
            on_limit: Some(OnLimit::Cancel),
            idle_timeout: Some("never".into()),
        };
        limits.put(&mut session);
        let budget = json!({"failures": 3, "engine_seconds": 90.0, "wall": "8h", "deadline": "2026-01-31T06:00:00Z", "on_met": "cancel"});
        assert_eq!(Value::Object(session), json!({"budget": budget, "idle_timeout": "never"}));
    }
}
