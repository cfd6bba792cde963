//! `tidemill grid watch`.

use clap::Args;
use tidemill_base::Result;

use super::closing::{Closing, failures, interrupted};
use crate::context::Context;
use crate::exit::Exit;
use crate::output::note;
use crate::progress::Subject;
use crate::watch::{Watched, watch};

/// Watch a session until it ends; exits 1 when tasks failed.
#[derive(Debug, Args)]
pub(crate) struct Watch {
    /// The session's id.
    id: String,
}

impl Watch {
    pub(crate) async fn run(self, cx: &Context) -> Result<Exit> {
        let client = cx.client()?;
        // A session that is not there is an error at once and not after many tries.
        let session = client.grid_session(&self.id).await?;
        if session.open {
            note(&format!("the session is open and ends when it is closed: `{}`", cx.command(&format!("grid close {}", self.id))));
        }
        match watch(&client, Subject::Session(&self.id), cx.progress()).await? {
            Watched::Ended(job) => {
                let failures = failures(&client, &job).await?;
                Closing::new(cx, *job, failures, None).show(cx, false)
            }
            Watched::Interrupted => Ok(interrupted(cx, &self.id)),
        }
    }
}
