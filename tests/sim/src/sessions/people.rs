//! Who uses a session: a client that does what the plan says, and a reader that follows from wherever it left off.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use tidemill_base::{Env, Error, Result};
use tidemill_batch::model::{JobState, Wanted};
use tidemill_batch::protocol::submission::OWN;
use tidemill_batch::service::{Manager, Submit};
use tidemill_batch::store::read;
use tidemill_blocks::Blocks;
use tidemill_runtime::{Shutdown, sleep};

use super::plan::Ending;
use super::{SessionPlan, Shared, Step, words};
use crate::RowSink;
use crate::doors::Doors;
use crate::people::insist;
use crate::world::settings;

/// Whoever has opened a session.
pub(crate) struct Client {
    pub plan: SessionPlan,
    pub n: usize,
    pub blocks: Blocks,
    pub env: Env,
    pub story: Shared,
    pub doors: Doors,
}

impl Client {
    fn user(&self) -> String {
        format!("user{}", self.n % 2)
    }

    pub(crate) async fn live(self) -> Result<()> {
        sleep(self.plan.opened).await;
        let made = insist(|| Manager::new(self.blocks.clone(), self.env.clone(), settings(), Arc::new(RowSink))).await?;
        let manager = made.ok_or_else(|| Error::internal("no manager for a client"))?;
        let (user, spec) = (self.user(), self.plan.spec.clone());
        let submit = Submit { user: user.clone(), client_token: Some(spec.name.clone()), spec };
        let opened = insist(|| manager.submit(submit.clone())).await?.ok_or_else(|| Error::internal("a session was refused"))?;
        self.story.lock().id.clone_from(&opened.id);
        for (at, (wait, step)) in self.plan.steps.iter().enumerate() {
            self.rest(&manager, &opened.id, *wait).await?;
            self.take(&manager, &opened.id, at, step).await?;
        }
        if self.plan.ending == Ending::Closed {
            insist(|| {
                let (door, id, user) = (self.doors.any(&manager, &self.env), opened.id.clone(), user.clone());
                async move { door.close_session(&id, &user).await }
            })
            .await?;
        }
        Ok(())
    }

    /// Waits, and says that it is there if that was promised.
    async fn rest(&self, manager: &Manager, id: &str, wait: Duration) -> Result<()> {
        sleep(wait).await;
        if self.plan.ending == Ending::Abandoned {
            insist(|| manager.heard_of(id)).await?;
        }
        Ok(())
    }

    async fn take(&self, manager: &Manager, id: &str, at: usize, step: &Step) -> Result<()> {
        let user = self.user();
        match step {
            Step::Submit(tasks) => self.submit(manager, id, at, tasks).await?,
            Step::Cancel { from, most, running } => self.cancel(manager, id, *from, *most, *running).await?,
            Step::Pause => drop(insist(|| manager.want(id, Wanted::Pause, &user)).await?),
            Step::Resume => drop(insist(|| manager.want(id, Wanted::Run, &user)).await?),
            Step::CancelAll => drop(insist(|| manager.want(id, Wanted::Cancel, &user)).await?),
            Step::Retry => drop(insist(|| manager.retry(id, None, &user)).await?),
        }
        Ok(())
    }

    async fn submit(&self, manager: &Manager, id: &str, at: usize, tasks: &[Vec<u64>]) -> Result<()> {
        let (user, token) = (self.user(), format!("{id}-{at}"));
        let base = self.story.lock().tasks.len() as u64;
        let body = submission(self.n, at, base, tasks);
        let submit = || {
            let door = self.doors.any(manager, &self.env);
            let (id, token, body, user) = (id.to_owned(), token.clone(), body.clone(), user.clone());
            async move { door.submit_tasks(&id, Some(&token), body, &user).await }
        };
        let taken = insist(submit).await?;
        // Refused: it is closed, cancelled, or has all the tasks that it may have.
        let Some(taken) = taken else { return Ok(()) };
        if taken.first != base || taken.count != tasks.len() as u64 {
            return Err(Error::internal(format!("tasks are numbered from {} on, and {base} were there", taken.first)));
        }
        let of = |(own, needs): (usize, &Vec<u64>)| {
            let task = base + own as u64;
            (payload(self.n, at, own), needs.iter().filter(|back| **back <= task).map(|back| task - back).collect())
        };
        self.story.lock().tasks.extend(tasks.iter().enumerate().map(of));
        let again = insist(submit).await?;
        if again.is_some_and(|again| again.first != taken.first || !again.existing) {
            return Err(Error::internal(format!("submitted twice with one token: {taken:?} and {again:?}")));
        }
        Ok(())
    }

    async fn cancel(&self, manager: &Manager, id: &str, from: u64, most: u64, running: bool) -> Result<()> {
        let (user, total) = (self.user(), self.story.lock().tasks.len() as u64);
        if total == 0 {
            return Ok(());
        }
        let first = total * from / 100;
        let count = most.min(total - first);
        let tasks = [(first, count)];
        let answered = insist(|| {
            let (door, id, user) = (self.doors.any(manager, &self.env), id.to_owned(), user.clone());
            async move { door.cancel_tasks(&id, &tasks, running, &user).await }
        })
        .await?;
        let Some(answer) = answered else { return Ok(()) };
        if answer.cancelled + answer.asked + answer.ended != count {
            return Err(Error::internal(format!("of {count} tasks {answer:?}")));
        }
        if running {
            let (_, last) = insist(|| read::session(self.blocks.ledger.as_ref(), id)).await?.unwrap_or_default();
            self.story.lock().cancelled.push((first, count, last));
        }
        Ok(())
    }
}

fn payload(n: usize, at: usize, own: usize) -> Bytes {
    Bytes::from(format!("{n}/{at}/{own}"))
}

/// Tasks as columns, `base` being the number of the first. What lies before all tasks is not needed after all.
fn submission(n: usize, at: usize, base: u64, tasks: &[Vec<u64>]) -> Bytes {
    let payloads: Vec<Bytes> = (0..tasks.len()).map(|own| payload(n, at, own)).collect();
    let needs: Vec<Vec<u64>> = tasks
        .iter()
        .enumerate()
        .map(|(own, needs)| needs.iter().filter_map(|back| dependency(base, own as u64, *back)).collect())
        .collect();
    let total: usize = needs.iter().map(Vec::len).sum();
    let mut out = BytesMut::new();
    let word = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    out.put_slice(b"TMS1");
    out.put_u32_le(word(tasks.len()));
    out.put_u32_le(word(total));
    payloads.iter().for_each(|p| out.put_u32_le(word(p.len())));
    if total > 0 {
        needs.iter().for_each(|n| out.put_u32_le(word(n.len())));
        needs.iter().flatten().for_each(|d| out.put_u64_le(*d));
    }
    payloads.iter().for_each(|p| out.put_slice(p));
    out.freeze()
}

/// A task that is so far before the submission's task `own`: counted from the submission's first, or if it lies before that by its number.
fn dependency(base: u64, own: u64, back: u64) -> Option<u64> {
    own.checked_sub(back).map(|at| OWN | at).or_else(|| (base + own).checked_sub(back))
}

/// Whoever follows a session's results, and begins again at some earlier place now and then.
pub(crate) struct Reader {
    pub blocks: Blocks,
    pub env: Env,
    pub calm: Shutdown,
    pub story: Shared,
    /// Whether it counts as somebody who reads: a session that is to be idle has none.
    pub silent: bool,
    pub doors: Doors,
}

impl Reader {
    pub(crate) async fn live(self) -> Result<()> {
        let made = insist(|| Manager::new(self.blocks.clone(), self.env.clone(), settings(), Arc::new(RowSink))).await?;
        let manager = made.ok_or_else(|| Error::internal("no manager for a reader"))?;
        let mut after = 0;
        loop {
            sleep(Duration::from_millis(200 + self.env.random_below(4_000))).await;
            let id = self.story.lock().id.clone();
            if id.is_empty() {
                continue;
            }
            if !self.silent {
                insist(|| manager.heard_of(&id)).await?;
            }
            let state = insist(|| manager.state_of(&id)).await?;
            let delivered = insist(|| {
                let (door, id) = (self.doors.any(&manager, &self.env), id.clone());
                async move { door.deliveries(&id, after, 7).await }
            })
            .await?
            .unwrap_or_default();
            self.look_early(&self.doors.any(&manager, &self.env), &id)?;
            for d in &delivered {
                if d.n != after + 1 {
                    return Err(Error::internal(format!("session {id}: delivery {} came after {after}", d.n)));
                }
                after = d.n;
                let said = words(d)?;
                let mut story = self.story.lock();
                let before = story.read.insert(d.n, said.clone());
                if before.as_ref().is_some_and(|before| *before != said) {
                    return Err(Error::internal(format!("session {id}: delivery {after} was {before:?}, and is {said:?}")));
                }
            }
            let over = delivered.is_empty() && state.is_some_and(JobState::is_final) && !self.calm.phase().is_running();
            if over {
                return Ok(());
            }
            if self.env.random_below(20) == 0 {
                after = self.env.random_below(after + 1);
            }
        }
    }

    /// Takes what is told ahead of its delivery.
    fn look_early(&self, manager: &Manager, id: &str) -> Result<()> {
        for d in manager.early_deliveries(id) {
            self.story.lock().early.extend(words(&d)?);
        }
        Ok(())
    }
}
