//! Watching a job or a session until it ends.

use tidemill_api::JobDetail;
use tidemill_base::{Error, Result};
use tidemill_client::{Client, JobEvent, JobEvents, is_final};

use crate::progress::{JobProgress, Style, Subject};

/// How watching ended.
#[derive(Debug)]
pub(crate) enum Watched {
    /// It has ended.
    Ended(Box<JobDetail>),
    /// The person had enough; it goes on.
    Interrupted,
}

/// Shows progress until it ends or Ctrl-C is pressed.
pub(crate) async fn watch(client: &Client, subject: Subject<'_>, style: Style) -> Result<Watched> {
    let mut progress = JobProgress::new(style, subject.word());
    let outcome = tokio::select! {
        biased;
        end = follow(client.watch(subject.id()), &mut progress) => end.map(|job| Watched::Ended(Box::new(job))),
        _ = tokio::signal::ctrl_c() => Ok(Watched::Interrupted),
    };
    progress.finish();
    outcome
}

async fn follow(mut events: JobEvents, progress: &mut JobProgress) -> Result<JobDetail> {
    let mut last = None;
    while let Some(event) = events.next().await? {
        match event {
            JobEvent::Job(job) => {
                progress.update(&job);
                last = Some(*job);
            }
            JobEvent::Lost(e) => progress.lost(&e),
        }
    }
    last.filter(|job| is_final(&job.state)).ok_or_else(|| Error::unavailable("the stream of events ended before the job"))
}
