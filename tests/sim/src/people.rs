//! What people do: submit jobs, more than once at times, and ask things of them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tidemill_base::{Env, Error, ErrorKind, Result};
use tidemill_batch::model::{JobState, Wanted};
use tidemill_batch::service::{Manager, Submit};
use tidemill_batch::store::read;
use tidemill_blocks::Blocks;
use tidemill_runtime::{Shutdown, sleep};

use crate::world::settings;
use crate::{JobPlan, Plan, RowSink, Wish};

/// A cron line is left alone for so long after everything has become calm: two ticks and a little.
const TICKS: Duration = Duration::from_secs(150);

/// The ids of the jobs that have been submitted, by number.
pub(crate) type Ids = Arc<Mutex<BTreeMap<usize, String>>>;

/// The person who submits job number `n`.
pub(crate) struct Person {
    pub plan: Arc<Plan>,
    pub n: usize,
    /// As this person sees them.
    pub blocks: Blocks,
    pub env: Env,
    pub calm: Shutdown,
    pub ids: Ids,
}

/// Asks until it is answered; what may have happened is asked again. `None` when the answer is that it cannot be.
pub(crate) async fn insist<T, F: Future<Output = Result<T>>>(mut ask: impl FnMut() -> F) -> Result<Option<T>> {
    for _ in 0..2000 {
        match ask().await {
            Ok(v) => return Ok(Some(v)),
            Err(e) if e.kind() == ErrorKind::Unavailable => sleep(Duration::from_millis(250)).await,
            Err(e) if matches!(e.kind(), ErrorKind::Conflict | ErrorKind::NotFound) => return Ok(None),
            Err(e) => return Err(e),
        }
    }
    Err(Error::unavailable("asked two thousand times"))
}

impl Person {
    fn job(&self) -> &JobPlan {
        &self.plan.jobs[self.n]
    }

    /// Submits the job and asks of it what the plan says.
    pub(crate) async fn live(self) -> Result<()> {
        sleep(self.job().submitted).await;
        let made = insist(|| Manager::new(self.blocks.clone(), self.env.clone(), settings(), Arc::new(RowSink))).await?;
        let manager = made.ok_or_else(|| Error::internal("no manager for a person"))?;
        let id = self.submit(&manager).await?;
        self.ids.lock().unwrap_or_else(PoisonError::into_inner).insert(self.n, id.clone());
        for (wait, wish) in self.job().wishes.clone() {
            sleep(wait).await;
            self.ask(&manager, &id, wish).await?;
        }
        if self.job().spec.cron.is_some() {
            while self.calm.phase().is_running() {
                sleep(Duration::from_secs(1)).await;
            }
            sleep(TICKS).await;
            self.ask(&manager, &id, Wish::Cancel).await?;
        }
        Ok(())
    }

    async fn submit(&self, manager: &Manager) -> Result<String> {
        let mut spec = self.job().spec.clone();
        if let Some(before) = self.job().after {
            spec.after.push(self.id_of(before).await);
        }
        spec.at = self.job().delayed.map(|delay| self.env.now() + delay);
        let submit = Submit { user: self.job().user.clone(), spec, client_token: Some(self.job().name.clone()) };
        let made = insist(|| manager.submit(submit.clone())).await?.ok_or_else(|| Error::internal("a submit was refused"))?;
        let again = insist(|| manager.submit(submit.clone())).await?.ok_or_else(|| Error::internal("a second submit was refused"))?;
        if again.id != made.id || !again.existing {
            return Err(Error::internal(format!("submitted twice with one token: {made:?} and {again:?}")));
        }
        Ok(made.id)
    }

    async fn id_of(&self, n: usize) -> String {
        loop {
            let known = self.ids.lock().unwrap_or_else(PoisonError::into_inner).get(&n).cloned();
            match known {
                Some(id) => return id,
                None => sleep(Duration::from_millis(100)).await,
            }
        }
    }

    async fn ask(&self, manager: &Manager, id: &str, wish: Wish) -> Result<()> {
        let user = &self.job().user;
        match wish {
            Wish::Cancel => drop(insist(|| manager.want(id, Wanted::Cancel, user)).await?),
            Wish::Pause => drop(insist(|| manager.want(id, Wanted::Pause, user)).await?),
            Wish::Resume => drop(insist(|| manager.want(id, Wanted::Run, user)).await?),
            Wish::Priority(priority) => drop(insist(|| manager.set_priority(id, priority, user)).await?),
            Wish::Retry { all } => {
                while !insist(|| manager.state_of(id)).await?.is_some_and(JobState::is_final) {
                    sleep(Duration::from_secs(5)).await;
                }
                let dead = insist(|| read::exceptions(self.blocks.ledger.as_ref(), id, None, 100_000)).await?.unwrap_or_default();
                let one = dead.iter().find(|e| e.dead).map(|e| vec![(e.stage, e.task)]);
                let only = if all { None } else { one };
                insist(|| manager.retry(id, only.clone(), user)).await?;
            }
        }
        Ok(())
    }
}
