//! `tidemill batch delete`.

use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use tidemill_base::Result;
use tidemill_client::Client;

use crate::context::Context;
use crate::exit::Exit;
use crate::human;
use crate::output::{View, note};
use crate::progress::Style;

/// Between two looks at how far it has come.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Between two lines about it.
const TELL_EVERY: u32 = 25;

/// Delete jobs that have ended.
#[derive(Debug, Args)]
pub(crate) struct Delete {
    /// The jobs' ids.
    #[arg(required = true, value_name = "JOB")]
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
            client.delete_job(id).await?;
            if !self.detach {
                until_gone(cx, &client, id).await?;
            }
        }
        cx.show(&Deleted { ids: self.ids, detached: self.detach }).map(|()| Exit::Success)
    }
}

/// Waits until a job that is being deleted is gone, and says how far that has come.
pub(in super::super) async fn until_gone(cx: &Context, client: &Client, id: &str) -> Result<()> {
    let mut looks = 0;
    while let Some(progress) = client.deletion(id).await? {
        looks += 1;
        if cx.progress() != Style::Silent && looks % TELL_EVERY == 0 && progress.total > 0 {
            note(&format!("job {id}: {} of {} objects are gone", human::count(progress.removed), human::count(progress.total)));
        }
        tidemill_runtime::sleep(LOOK_EVERY).await;
    }
    Ok(())
}

impl View for Deleted {
    fn table(&self) -> String {
        let what = if self.detached { "is being deleted" } else { "is deleted" };
        self.ids.iter().map(|id| format!("job {id} {what}\n")).collect()
    }

    fn json(&self) -> Value {
        json!({"deleted": self.ids})
    }

    fn quiet(&self) -> String {
        String::new()
    }
}
