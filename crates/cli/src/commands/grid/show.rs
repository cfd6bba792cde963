//! `tidemill grid show`.

use clap::Args;
use serde_json::Value;
use tidemill_api::SessionDetail;
use tidemill_base::{Result, Timestamp};

use crate::context::Context;
use crate::exit::Exit;
use crate::human;
use crate::output::{View, fields, to_json};

/// Show a session.
#[derive(Debug, Args)]
pub(crate) struct Show {
    /// The session's id.
    id: String,
}

struct Shown {
    session: SessionDetail,
    now: Timestamp,
}

impl Show {
    pub(crate) async fn run(self, cx: &Context) -> Result<Exit> {
        let session = cx.client()?.grid_session(&self.id).await?;
        cx.show(&Shown { session, now: cx.env.now() }).map(|()| Exit::Success)
    }
}

/// Counts that are not zero: `10: 7 succeeded, 1 failed`.
fn tasks(s: &SessionDetail) -> String {
    let t = &s.tasks;
    let words = [
        (t.succeeded, "succeeded"),
        (t.failed, "failed"),
        (t.running, "running"),
        (t.waiting, "waiting"),
        (t.retrying, "retrying"),
        (t.skipped, "skipped"),
        (t.cancelled, "cancelled"),
    ];
    let parts: Vec<String> = words.iter().filter(|(n, _)| *n > 0).map(|(n, w)| format!("{} {w}", human::count(*n))).collect();
    if parts.is_empty() { human::count(t.total) } else { format!("{}: {}", human::count(t.total), parts.join(", ")) }
}

fn seconds(s: f64) -> String {
    if s > 0.0 { human::micros((s * 1e6) as u64) } else { String::new() }
}

impl View for Shown {
    fn table(&self) -> String {
        let s = &self.session;
        let at = |time: &Option<String>| time.as_ref().map(|t| format!("{t} ({})", human::ago(t, self.now))).unwrap_or_default();
        let labels: Vec<String> = s.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
        fields(&[
            ("session", s.id.clone()),
            ("name", human::one_line(&s.name, 100)),
            ("state", s.state.clone()),
            ("reason", human::one_line(&s.reason, 200)),
            ("takes tasks", if s.open { "yes, until it is closed" } else { "no" }.to_owned()),
            ("user", s.user.clone()),
            ("engine", s.engine.clone()),
            ("function", human::one_line(&s.function, 100)),
            ("class", s.class.clone()),
            ("priority", s.priority.to_string()),
            ("labels", human::one_line(&labels.join(" "), 200)),
            ("tasks", tasks(s)),
            ("attempts", human::count(s.attempts)),
            ("deliveries", human::count(s.deliveries)),
            ("opened", at(&Some(s.opened_at.clone()))),
            ("started", at(&s.started_at)),
            ("finished", at(&s.finished_at)),
            ("took", human::between(s.started_at.as_deref(), s.finished_at.as_deref(), self.now).map(human::span).unwrap_or_default()),
            ("in functions", seconds(s.run_seconds)),
            ("mean of a task", seconds(s.mean_seconds)),
            ("cost", if s.cost > 0.0 { format!("{:.4}", s.cost) } else { String::new() }),
        ])
    }

    fn json(&self) -> Value {
        to_json(&self.session)
    }

    fn quiet(&self) -> String {
        self.session.state.clone()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn session() -> SessionDetail {
        let json = r#"{"id":"s1","name":"risk","user":"ann","engine":"pricing","function":"value","class":"default","priority":0,"state":"running",
            "reason":"","open":true,"tasks":{"total":10,"succeeded":7,"failed":1,"running":2,"waiting":0,"retrying":0,"cancelled":0,"skipped":0},
            "attempts":8,"deliveries":3,"run_seconds":1.5,"mean_seconds":0.19,"cost":0.0,"labels":{"desk":"EQ"},
            "opened_at":"2026-01-01T00:00:00Z","started_at":"2026-01-01T00:00:01Z","finished_at":null}"#;
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_session_is_shown_in_each_form() {
        let shown = Shown { session: session(), now: human::parse_time("2026-01-01T00:00:11Z").unwrap() };
        let table = shown.table();
        for line in [
            "tasks           10: 7 succeeded, 1 failed, 2 running",
            "took            10s",
            "in functions    1.5s",
            "labels          desk=EQ",
        ] {
            assert!(table.contains(line), "{table}");
        }
        assert_eq!((shown.quiet().as_str(), shown.json()["open"].as_bool()), ("running", Some(true)));
    }
}
