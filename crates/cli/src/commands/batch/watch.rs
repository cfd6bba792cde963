//! `tidemill batch watch`.

use clap::Args;
use tidemill_base::Result;

use super::closing::{Closing, close};
use crate::context::Context;
use crate::exit::Exit;
use crate::progress::Subject;
use crate::watch::{Watched, watch};

/// Watch a job until it ends; exits 1 when tasks failed.
#[derive(Debug, Args)]
pub(crate) struct Watch {
    /// The job's id.
    id: String,
}

impl Watch {
    pub(crate) async fn run(self, cx: &Context) -> Result<Exit> {
        let client = cx.client()?;
        // A job that is not there is an error at once and not after many tries.
        client.job(&self.id).await?;
        match watch(&client, Subject::Job(&self.id), cx.progress()).await? {
            Watched::Ended(job) => close(cx, &client, *job, None).await,
            Watched::Interrupted => Ok(Closing::interrupted(cx, &self.id)),
        }
    }
}
