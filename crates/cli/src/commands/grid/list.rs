//! `tidemill grid list`.

use clap::Args;
use serde_json::Value;
use tidemill_api::SessionList;
use tidemill_base::{Result, Timestamp};
use tidemill_client::SessionFilter;

use crate::commands::batch::progress;
use crate::context::Context;
use crate::exit::Exit;
use crate::human;
use crate::output::{Align, TextTable, View, note, to_json};

/// List sessions, newest first.
#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only sessions in this state: waiting, running, paused, cancelling, succeeded, failed or cancelled.
    #[arg(long)]
    state: Option<String>,
    /// Only sessions of this user.
    #[arg(long)]
    user: Option<String>,
    /// No more than this.
    #[arg(long, default_value_t = 50, value_name = "N")]
    limit: u32,
    /// From here on: what the page before named.
    #[arg(long, value_name = "CURSOR")]
    after: Option<String>,
}

struct Sessions {
    list: SessionList,
    now: Timestamp,
}

impl List {
    pub(crate) async fn run(self, cx: &Context) -> Result<Exit> {
        let filter = SessionFilter { state: self.state, user: self.user, after: self.after, limit: Some(self.limit) };
        let list = cx.client()?.grid_sessions(&filter).await?;
        let next = list.next.clone();
        cx.show(&Sessions { list, now: cx.env.now() })?;
        if let Some(next) = next {
            note(&format!("there are more: --after {next}"));
        }
        Ok(Exit::Success)
    }
}

impl View for Sessions {
    fn table(&self) -> String {
        let columns = [
            ("SESSION", Align::Left),
            ("NAME", Align::Left),
            ("USER", Align::Left),
            ("ENGINE", Align::Left),
            ("STATE", Align::Left),
            ("DONE", Align::Right),
            ("PRIORITY", Align::Right),
            ("OPENED", Align::Right),
            ("TOOK", Align::Right),
        ];
        let mut table = TextTable::new("no sessions", &columns);
        for s in &self.list.sessions {
            let took = human::between(s.started_at.as_deref(), s.finished_at.as_deref(), self.now).map(human::span);
            table.row([
                s.id.clone(),
                human::one_line(&s.name, 30),
                s.user.clone(),
                s.engine.clone(),
                if s.open { format!("{}, open", s.state) } else { s.state.clone() },
                progress(&s.tasks),
                s.priority.to_string(),
                human::ago(&s.opened_at, self.now),
                took.unwrap_or_default(),
            ]);
        }
        table.render()
    }

    fn json(&self) -> Value {
        to_json(&self.list)
    }

    fn quiet(&self) -> String {
        self.list.sessions.iter().map(|s| s.id.clone()).collect::<Vec<_>>().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::super::show::tests::session;
    use super::*;

    #[test]
    fn a_list_is_shown_in_each_form() {
        let now = human::parse_time("2026-01-01T00:05:00Z").unwrap();
        let sessions = Sessions { list: SessionList { sessions: vec![session()], next: None }, now };
        let table = sessions.table();
        let row: Vec<&str> = table.lines().nth(1).unwrap().split("  ").map(str::trim).filter(|c| !c.is_empty()).collect();
        assert_eq!(row, ["s1", "risk", "ann", "pricing", "running, open", "7/10 (1 failed)", "0", "5m00s ago", "4m59s"]);
        assert_eq!((sessions.quiet().as_str(), sessions.json()["sessions"][0]["deliveries"].as_u64()), ("s1", Some(3)));
    }
}
