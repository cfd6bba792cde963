//! The tour: real jobs on real input, against a private server with a fleet of its own.

pub(crate) mod claims;
mod claims_step;
mod image;
mod media_step;
mod poison_step;
mod private;
mod risk_step;

pub(crate) use claims_step::run as claims;
pub(crate) use media_step::run as media;
pub(crate) use poison_step::run as poison;
pub(crate) use private::PrivateServer;
pub(crate) use risk_step::run as risk;

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use tidemill_api::JobDetail;
use tidemill_base::{Env, Error, Result};
use tidemill_client::Client;
use tidemill_runtime::Stopwatch;

use crate::human;
use crate::output::note;
use crate::progress::{Style, Subject};
use crate::watch::{Watched, watch};

/// What every step of the tour is given.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) client: Client,
    pub(crate) env: Env,
    pub(crate) style: Style,
    /// Where inputs are made and results are downloaded to.
    pub(crate) folder: PathBuf,
    /// This program, for tasks to run.
    pub(crate) program: String,
}

/// What came of a step.
#[derive(Debug, Clone)]
pub(crate) struct Done {
    /// What was done.
    pub(crate) what: String,
    /// Its job.
    pub(crate) job: JobDetail,
    /// From submitting to the end.
    pub(crate) took: Duration,
    /// What went through it, in words.
    pub(crate) amount: String,
    /// Where its results are.
    pub(crate) results: Option<PathBuf>,
}

impl Stage {
    /// Submits a job and watches it to its end.
    pub(crate) async fn run(&self, job: Value) -> Result<(JobDetail, Duration)> {
        let started = Stopwatch::start();
        let id = self.client.submit(job, Some(self.env.id("tour-"))).await?.id;
        match watch(&self.client, Subject::Job(&id), self.style).await? {
            Watched::Ended(job) => Ok((*job, started.elapsed())),
            Watched::Interrupted => Err(Error::conflict("the tour was interrupted")),
        }
    }

    /// `Internal` unless every task of the job succeeded.
    pub(crate) fn expect_success(&self, job: &JobDetail) -> Result<()> {
        if job.state == "succeeded" {
            return Ok(());
        }
        let what = format!("the job {} ended as {} with {} failed", job.id, job.state, human::plural(job.tasks.failed, "task"));
        Err(Error::internal(if job.reason.is_empty() { what } else { format!("{what}: {}", job.reason) }))
    }

    /// Says what comes now.
    pub(crate) fn title(&self, text: &str) {
        if self.style != Style::Silent {
            note(&format!("\n{text}"));
        }
    }

    /// Says something about it.
    pub(crate) fn say(&self, text: &str) {
        if self.style != Style::Silent {
            note(&format!("  {text}"));
        }
    }
}
