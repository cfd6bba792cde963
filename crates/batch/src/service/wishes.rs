//! What people ask of jobs that exist.

use std::time::Duration;

use tidemill_base::{Error, Result};
use tidemill_runtime::Stopwatch;

use super::Manager;
use crate::model::{JobState, Wanted};
use crate::store::{self, Command};

/// How long a caller waits for the leader to carry out what it has asked for. A leader that dies is replaced in less.
const PATIENCE: Duration = Duration::from_secs(15);
/// How often it is looked whether another manager has.
const LOOK_EVERY: Duration = Duration::from_millis(50);

impl Manager {
    /// Runs, pauses or cancels a job. `Conflict` when it has ended.
    pub async fn want(&self, job: &str, wanted: Wanted, user: &str) -> Result<()> {
        let state = self.state_of(job).await?;
        if state.is_final() || (state == JobState::Cancelling && wanted != Wanted::Cancel) {
            return Err(Error::conflict(format!("job {job} is {} and cannot be changed; submit it anew", state.as_str())));
        }
        let command = self.command(job, &Command::Want(wanted), user).await?;
        self.carried_out(&command).await
    }

    /// Changes a job's priority, -1000 to 1000. It takes effect on everything that is not yet in a work queue.
    pub async fn set_priority(&self, job: &str, priority: i32, user: &str) -> Result<()> {
        if !(-1000..=1000).contains(&priority) {
            return Err(Error::invalid(format!("priority {priority} is not between -1000 and 1000")));
        }
        let state = self.state_of(job).await?;
        if state.is_final() {
            return Err(Error::conflict(format!("job {job} is {}; its priority means nothing any more", state.as_str())));
        }
        let command = self.command(job, &Command::Priority(priority), user).await?;
        self.carried_out(&command).await
    }

    /// Tries tasks again that failed for good: all, or those named by `(stage, task)`. Returns how many there are; of a session that may be
    /// none. `Conflict` when the job was cancelled, or a session stopped by its budget.
    pub async fn retry(&self, job: &str, only: Option<Vec<(u32, u64)>>, user: &str) -> Result<u64> {
        let state = self.state_of(job).await?;
        if matches!(state, JobState::Cancelled | JobState::Cancelling) {
            return Err(Error::conflict(format!("job {job} was cancelled; submit it anew")));
        }
        let session = self.is_retryable_session(job).await?;
        let sql = "SELECT stage, task FROM batch_exceptions WHERE job = $1 AND state = 'dead'";
        let rows = self.shared().blocks.ledger.query(sql, vec![job.into()]).await?;
        let mut count = 0;
        for row in &rows {
            let at = (store::rows::narrow(row.uint(0)?), row.uint(1)?);
            count += u64::from(only.as_ref().is_none_or(|o| o.contains(&at)));
        }
        if count == 0 && session {
            // Somebody has asked before, or they have succeeded since.
            return Ok(0);
        }
        if count == 0 {
            return Err(Error::not_found(format!("job {job} has no such failed task; `tidemill batch show {job}` lists them")));
        }
        let command = self.command(job, &Command::Retry(only), user).await?;
        self.carried_out(&command).await?;
        Ok(count)
    }

    /// Waits until the leader has carried a command out. Whoever looks at the job next must not find it as it was before; a leader that
    /// does not come in time carries it out later all the same.
    async fn carried_out(&self, command: &str) -> Result<()> {
        self.is_carried_out(command).await.map(drop)
    }

    /// As [`Manager::carried_out`], and says whether it was.
    pub(super) async fn is_carried_out(&self, command: &str) -> Result<bool> {
        let (shared, watch) = (self.shared(), Stopwatch::start());
        while watch.elapsed() < PATIENCE {
            // From here on, so that a change in the moment of asking is not missed.
            let mut stirred = std::pin::pin!(shared.stirred.notified());
            stirred.as_mut().enable();
            let rows = shared.blocks.ledger.query("SELECT 1 FROM batch_commands WHERE id = $1", vec![command.into()]).await?;
            if rows.is_empty() {
                return Ok(true);
            }
            // Another manager may lead, and then nothing is heard of it here.
            tokio::select! {
                biased;
                () = stirred => {}
                () = tidemill_runtime::sleep(LOOK_EVERY) => {}
            }
        }
        Ok(false)
    }

    /// Where a job stands.
    pub async fn state_of(&self, job: &str) -> Result<JobState> {
        let rows = self.shared().blocks.ledger.query("SELECT state FROM batch_jobs WHERE id = $1", vec![job.into()]).await?;
        let row = rows
            .first()
            .ok_or_else(|| Error::not_found(format!("there is no job `{job}`; `tidemill batch list` shows those there are")))?;
        JobState::from_word(row.text(0)?).ok_or_else(|| Error::corrupt(format!("job {job} has an unknown state")))
    }

    /// Leaves the leader a command, and returns its id.
    pub(super) async fn command(&self, job: &str, command: &Command, user: &str) -> Result<String> {
        let shared = self.shared();
        let id = shared.env.id("c");
        let statement = store::command_insert(&id, job, command, user, shared.env.now())?;
        shared.blocks.ledger.transact(vec![statement]).await?;
        shared.nudge_to_look();
        Ok(id)
    }
}
