//! `tidemill grid archive` and `tidemill grid restore`.

use clap::Args;
use serde_json::Value;
use tidemill_api::{ArchiveDetail, ArchiveRequest};
use tidemill_base::Result;

use crate::commands::batch::until_gone;
use crate::context::Context;
use crate::exit::Exit;
use crate::human;
use crate::output::{View, to_json};

/// Archive a session that has ended: results, inputs, function and set-up.
#[derive(Debug, Args)]
pub(crate) struct Archive {
    /// The session's id.
    id: String,
    /// Delete the session when its archive is there and has been read back.
    #[arg(long, conflicts_with = "remove")]
    delete: bool,
    /// Remove the session's archive instead.
    #[arg(long)]
    remove: bool,
}

/// Bring an archived session back, so that its results can be read.
#[derive(Debug, Args)]
pub(crate) struct Restore {
    /// The session's id.
    id: String,
    /// Run it once more, when it has been brought back: the same function over the same inputs, as a new session, whose id is written.
    #[arg(long)]
    rerun: bool,
}

struct Shown(ArchiveDetail);

impl Archive {
    pub(crate) async fn run(self, cx: &Context) -> Result<Exit> {
        let client = cx.client()?;
        if self.remove {
            client.delete_archive(&self.id).await?;
            return Ok(Exit::Success);
        }
        let archived = client.archive_session(&self.id, ArchiveRequest { delete: self.delete }).await?;
        if self.delete {
            until_gone(cx, &client, &self.id).await?;
        }
        cx.show(&Shown(archived)).map(|()| Exit::Success)
    }
}

struct Rerun(String);

impl Restore {
    pub(crate) async fn run(self, cx: &Context) -> Result<Exit> {
        let client = cx.client()?;
        if self.rerun {
            let opened = client.rerun_session(&self.id).await?;
            return cx.show(&Rerun(opened.id)).map(|()| Exit::Success);
        }
        let restored = client.restore_session(&self.id).await?;
        cx.show(&Shown(restored)).map(|()| Exit::Success)
    }
}

impl View for Shown {
    fn table(&self) -> String {
        let a = &self.0;
        let when = match (&a.due_at, &a.readable_until) {
            (Some(due), Some(until)) if a.state == "restoring" => format!(", to be read from {due} until {until}"),
            (_, Some(until)) => format!(", to be read until {until}"),
            _ => String::new(),
        };
        let (tasks, bytes) = (human::count(a.tasks), human::count(a.bytes));
        format!("session {} is {}: {tasks} tasks, {bytes} bytes in {} objects{when}\n", a.session, a.state, a.parts)
    }

    fn json(&self) -> Value {
        to_json(&self.0)
    }

    fn quiet(&self) -> String {
        self.0.state.clone()
    }
}

impl View for Rerun {
    fn table(&self) -> String {
        format!("session {} runs it once more\n", self.0)
    }

    fn json(&self) -> Value {
        serde_json::json!({"id": self.0})
    }

    fn quiet(&self) -> String {
        self.0.clone()
    }
}
