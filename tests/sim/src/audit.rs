//! What must hold at any time, looked at again and again while everything goes wrong.

use std::time::Duration;

use tidemill_base::{Env, Error, ErrorKind, Result};
use tidemill_batch::explain::{About, Facts, explain};
use tidemill_batch::store::read::{self, JobRow, StageRow};
use tidemill_blocks::Blocks;
use tidemill_runtime::sleep;

const EVERY: Duration = Duration::from_secs(13);

/// Looks until something is wrong. `blocks` are without faults.
pub(crate) async fn audit(blocks: &Blocks, env: &Env) -> Error {
    loop {
        sleep(EVERY).await;
        if let Err(e) = look(blocks, env).await {
            return e;
        }
    }
}

async fn look(blocks: &Blocks, env: &Env) -> Result<()> {
    // Before the first manager has made its tables there is nothing to see.
    let Ok(rows) = blocks.ledger.query("SELECT id FROM batch_jobs ORDER BY id", vec![]).await else { return Ok(()) };
    no_tick_is_taken_for_nothing(blocks).await?;
    for row in rows {
        let id = row.text(0)?;
        let job = read::job(blocks.ledger.as_ref(), id).await?;
        let stages = read::stages(blocks.ledger.as_ref(), Some(id)).await?;
        for s in &stages {
            nothing_in_two_places(s)?;
        }
        if !job.state.is_final() {
            waiting_is_explained(blocks, env, &job, &stages).await?;
        }
    }
    Ok(())
}

/// A tick that is marked as taken has its copy, whoever died in between.
async fn no_tick_is_taken_for_nothing(blocks: &Blocks) -> Result<()> {
    for tick in blocks.ledger.query("SELECT name, last_us FROM schedule_ticks", vec![]).await? {
        let Some(id) = tick.text(0)?.strip_prefix("batch/") else { continue };
        let token = format!("cron/{id}/{}", tick.time(1)?.millis());
        let copies = blocks.ledger.query("SELECT id FROM batch_jobs WHERE client_token = $1", vec![token.as_str().into()]).await?;
        if copies.len() != 1 {
            return Err(Error::internal(format!("tick `{token}` is taken, and there are {} copies of the job", copies.len())));
        }
    }
    Ok(())
}

fn nothing_in_two_places(s: &StageRow) -> Result<()> {
    let sum = s.succeeded + s.failed + s.cancelled + s.skipped + s.retrying + s.outstanding;
    if sum > s.total {
        return Err(Error::internal(format!("of {} tasks {sum} are somewhere: {s:?}", s.total)));
    }
    Ok(())
}

/// No silent stall: whoever asks is told what is waited for, and what would free it.
async fn waiting_is_explained(blocks: &Blocks, env: &Env, job: &JobRow, stages: &[StageRow]) -> Result<()> {
    let mut questions = vec![About::Job];
    for s in stages {
        questions.push(About::Stage(s.stage));
        questions.extend((s.total > 0).then_some(About::Task(s.stage, s.total / 2)));
    }
    for about in questions {
        let facts = match Facts::gather(blocks, &job.id, about, env.now()).await {
            Ok(facts) => facts,
            // A queue or a group that is not there yet.
            Err(e) if e.kind() == ErrorKind::NotFound => continue,
            Err(e) => return Err(e),
        };
        let told = explain(&facts, about)?;
        let is_open = !facts.job.state.is_final();
        let silent = told.because.is_empty() || (about == About::Job && is_open && told.next.is_empty());
        if silent {
            return Err(Error::internal(format!("job {} waits, and that is not explained: {told:?}", job.id)));
        }
    }
    Ok(())
}
