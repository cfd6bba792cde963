//! `tidemill grid delete`.

use clap::Args;
use serde_json::{Value, json};
use tidemill_base::Result;

use crate::commands::batch::until_gone;
use crate::context::Context;
use crate::exit::Exit;
use crate::output::View;

/// Delete sessions that have ended, with all their results.
#[derive(Debug, Args)]
pub(crate) struct Delete {
    /// The sessions' ids.
    #[arg(required = true, value_name = "SESSION")]
    ids: Vec<String>,
    /// Do not wait until all of it is gone.
    #[arg(long)]
    detach: bool,
}

struct Deleted {
    ids: Vec<String>,
    detached: bool,
}

impl Delete {
    pub(crate) async fn run(self, cx: &Context) -> Result<Exit> {
        let client = cx.client()?;
        for id in &self.ids {
            client.delete_session(id).await?;
            if !self.detach {
                until_gone(cx, &client, id).await?;
            }
        }
        cx.show(&Deleted { ids: self.ids, detached: self.detach }).map(|()| Exit::Success)
    }
}

impl View for Deleted {
    fn table(&self) -> String {
        let what = if self.detached { "is being deleted" } else { "is deleted" };
        self.ids.iter().map(|id| format!("session {id} {what}\n")).collect()
    }

    fn json(&self) -> Value {
        json!({"deleted": self.ids})
    }

    fn quiet(&self) -> String {
        String::new()
    }
}
