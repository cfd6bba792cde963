//! `tidemill grid`: one file each command.

mod archive;
mod cancel;
mod closing;
mod collect;
mod control;
mod delete;
mod explain;
mod from;
mod limits;
mod list;
mod options;
mod outcome;
mod package;
mod python;
mod results;
mod run;
mod show;
mod sink;
mod tasks;
mod watch;

use clap::Subcommand;
use tidemill_base::Result;

use crate::context::Context;
use crate::exit::Exit;

/// Call functions on many small tasks, on warm engines.
#[derive(Debug, Subcommand)]
pub(crate) enum Grid {
    /// Call a function once for each value, line, row or number, and wait for the results.
    Run(Box<run::Run>),
    /// List sessions, newest first.
    List(list::List),
    /// Show a session.
    Show(show::Show),
    /// Watch a session until it ends.
    Watch(watch::Watch),
    /// Show a session's results, or write them to files, from any point on.
    Results(results::Results),
    /// Write a session's results, or what a query finds in them, to objects.
    Collect(collect::Collect),
    /// Put a session that has ended into the archive.
    Archive(archive::Archive),
    /// Bring an archived session back.
    Restore(archive::Restore),
    /// Take no more tasks: the session ends with the last of those that it has.
    Close(control::Named),
    /// Release no more tasks of a session; those that run go on.
    Pause(control::Named),
    /// Go on with a paused session.
    Resume(control::Named),
    /// End a session, running tasks included; or give up some of its tasks.
    Cancel(cancel::Cancel),
    /// Try failed tasks again.
    Retry(control::Retry),
    /// Set a session's priority.
    Priority(control::Priority),
    /// Delete sessions that have ended, with all their results.
    Delete(delete::Delete),
    /// Why a session or a task is as it is, and what would change that.
    Explain(explain::Explain),
    /// Folders of files that engines get: calendars, curves, libraries, whole engines.
    #[command(subcommand)]
    Package(package::Package),
    /// Make the Python that local workers start engines with.
    Python(python::Python),
}

impl Grid {
    pub(crate) async fn run(self, cx: &Context) -> Result<Exit> {
        match self {
            Self::Run(c) => c.run(cx).await,
            Self::List(c) => c.run(cx).await,
            Self::Show(c) => c.run(cx).await,
            Self::Watch(c) => c.run(cx).await,
            Self::Results(c) => c.run(cx).await,
            Self::Collect(c) => c.run(cx).await,
            Self::Archive(c) => c.run(cx).await,
            Self::Restore(c) => c.run(cx).await,
            Self::Close(c) => c.close(cx).await,
            Self::Pause(c) => c.pause(cx).await,
            Self::Resume(c) => c.resume(cx).await,
            Self::Cancel(c) => c.run(cx).await,
            Self::Retry(c) => c.run(cx).await,
            Self::Priority(c) => c.run(cx).await,
            Self::Delete(c) => c.run(cx).await,
            Self::Explain(c) => c.run(cx).await,
            Self::Package(c) => c.run(cx).await,
            Self::Python(c) => c.run(cx),
        }
    }
}
