//! `tidemill batch`: one file each command.

mod closing;
mod control;
mod delete;
mod explain;
mod job;
mod list;
mod logs;
mod report;
mod results;
mod run;
mod show;
mod submit;
mod tasks;
mod watch;

use clap::Subcommand;
use tidemill_base::Result;

pub(super) use delete::until_gone;
pub(super) use explain::Explained;
pub(super) use list::progress;

use crate::context::Context;
use crate::exit::Exit;

/// Run commands over many inputs.
#[derive(Debug, Subcommand)]
pub(crate) enum Batch {
    /// Run a command over files, lines or numbers, and wait for it.
    Run(Box<run::Run>),
    /// Submit a job file and print the job's id.
    Submit(submit::Submit),
    /// List jobs, newest first.
    List(list::List),
    /// Show a job.
    Show(show::Show),
    /// Watch a job until it ends.
    Watch(watch::Watch),
    /// List a job's attempts: running, failed, or all.
    Tasks(tasks::Tasks),
    /// List or download a job's result files.
    Results(results::Results),
    /// Show what tasks wrote to standard output and error.
    Logs(logs::Logs),
    /// Try failed tasks again.
    Retry(control::Retry),
    /// End a job; what runs is stopped.
    Cancel(control::Named),
    /// Delete a job that has ended: results, logs, statistics and what was uploaded for it alone.
    Delete(delete::Delete),
    /// Release no more tasks of a job; those that run go on.
    Pause(control::Named),
    /// Go on with a paused job.
    Resume(control::Named),
    /// Set a job's priority.
    Priority(control::Priority),
    /// Why a job or a task is as it is, and what would change that.
    Explain(explain::Explain),
    /// Times, waste and cost of a job.
    Report(report::Report),
}

impl Batch {
    pub(crate) async fn run(self, cx: &Context) -> Result<Exit> {
        match self {
            Self::Run(c) => c.run(cx).await,
            Self::Submit(c) => c.run(cx).await,
            Self::List(c) => c.run(cx).await,
            Self::Show(c) => c.run(cx).await,
            Self::Watch(c) => c.run(cx).await,
            Self::Tasks(c) => c.run(cx).await,
            Self::Results(c) => c.run(cx).await,
            Self::Logs(c) => c.run(cx).await,
            Self::Retry(c) => c.run(cx).await,
            Self::Cancel(c) => c.cancel(cx).await,
            Self::Delete(c) => c.run(cx).await,
            Self::Pause(c) => c.pause(cx).await,
            Self::Resume(c) => c.resume(cx).await,
            Self::Priority(c) => c.run(cx).await,
            Self::Explain(c) => c.run(cx).await,
            Self::Report(c) => c.run(cx).await,
        }
    }
}
