//! `tidemill grid explain`.

use clap::Args;
use tidemill_base::Result;

use crate::commands::batch::Explained;
use crate::context::Context;
use crate::exit::Exit;

/// Why a session or a task is as it is, and what would change that.
#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// The session's id.
    id: String,
    /// One of its tasks.
    #[arg(long, value_name = "N")]
    task: Option<u64>,
}

impl Explain {
    pub(crate) async fn run(self, cx: &Context) -> Result<Exit> {
        // A session is a job of one stage.
        let explanation = cx.client()?.explain(&self.id, self.task.map(|_| 0), self.task).await?;
        cx.show(&Explained(explanation)).map(|()| Exit::Success)
    }
}
