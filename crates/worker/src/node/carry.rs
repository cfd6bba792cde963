//! One range from its delivery to its end: claim, run, report, acknowledge.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tidemill_base::{ErrorKind, Result};
use tidemill_batch::model::FailureClass;
use tidemill_batch::protocol::keys::{self, DONE_QUEUE};
use tidemill_batch::protocol::{Control, Done, Heartbeat, RangeState, WorkItem, WorkerPhase, decode, encode};
use tidemill_batch::service::live_workers;
use tidemill_blocks::objects;
use tidemill_blocks::queue::{Delivery, NewMessage, ReceiptOutcome};
use tidemill_runtime::{Stopwatch, sleep};
use tokio::sync::Mutex;

use super::fence::{Claimed, Fence, Hold, claim, said};
use super::recall::Recalled;
use super::{Held, Node, Said, report};
use crate::range::{self, Kill, OpenRange};
use crate::work::{Draft, Failure};

/// A range that could not be started is left alone for so long.
const PUT_OFF: Duration = Duration::from_secs(5);
/// How long a range that only others can run is out of everybody's sight, so that those who cannot do not take it over and over.
const PASSED_ON: Duration = Duration::from_millis(250);
/// How long a worker asks for nothing after that. Longer, so that the others are asked before it.
const ASIDE: Duration = Duration::from_secs(1);
/// Added to the rest of another's claim, so that this worker does not come a moment too early.
const AFTER_OTHERS: Duration = Duration::from_secs(1);
/// A range of short tasks may end so soon after it came that its claim is never written: its report says all that the claim would.
const UNCLAIMED: Duration = Duration::from_millis(10);
/// How often results are reported that have come.
const RESULTS_EVERY: Duration = Duration::from_millis(250);
/// How long running tasks of a lost range may take to die.
const LOST_PATIENCE: Duration = Duration::from_secs(10);

/// Carries what a delivery brought.
pub(super) async fn carry(node: Arc<Node>, delivery: Delivery) {
    let item = match decode::<WorkItem>("work item", &delivery.body) {
        Ok(item) => item,
        // It comes back and ends among the dead letters, where people can look at it.
        Err(e) => return tracing::error!(error = %e.chain(), "passed over a message that is no work item"),
    };
    let Some(held) = node.hold(&item, delivery.receipt) else { return };
    let outcome = carry_held(&node, &held, &item, delivery.receives == 1).await;
    node.let_go(&item);
    if let Err(e) = outcome {
        tracing::warn!(job = item.job, stage = item.stage, range = item.range, error = %e.chain(), "put off a range");
        node.rest(&held, PUT_OFF).await;
    }
}

async fn carry_held(node: &Arc<Node>, held: &Held, item: &WorkItem, is_first: bool) -> Result<()> {
    if node.is_for_others(item).await? {
        return node.pass_on(held, item).await;
    }
    let claimed = if is_first && node.is_unhindered(&item.job) && node.stage(item).await.is_ok_and(|s| s.engine().is_some()) {
        Claimed::Mine(Box::new(Fence::unwritten(node, item)), Said { control: Control::Run, version: 0 }, Recalled::default())
    } else {
        claim(node, item).await?
    };
    let (fence, control, recalled) = match claimed {
        Claimed::Mine(fence, control, recalled) => (fence, control, recalled),
        Claimed::Other(wait) => {
            node.rest(held, wait + AFTER_OTHERS).await;
            return Ok(());
        }
        Claimed::Finished(seq) => {
            node.say_done(item, seq).await?;
            node.acknowledge(held).await;
            return Ok(());
        }
    };
    let (range, failure) = open(node, item, &fence.state).await?;
    let range = Arc::new(range);
    drop(held.range.set(range.clone()));
    if let Some(failure) = failure {
        range.fail_unstarted(&failure, node.env.now());
    }
    // What was said while this was under way has come by the feed; the later word counts.
    let said = [Some(control), node.heard(&item.job)].into_iter().flatten().max_by_key(|c| c.version);
    node.obey(&range, said.map_or(Control::Run, |c| c.control));
    node.obey_recall(&range, recalled);
    if !node.stop.phase().is_running() {
        range.stop(false);
    }
    node.floor.open(range.clone());
    node.runner.nudge();
    let carrier = Carrier { node, held, range: range.clone(), fence: Mutex::new(*fence) };
    let lost = tokio::select! {
        biased;
        lost = carrier.work() => lost,
        lost = carrier.keep() => Some(lost),
    };
    if let Some(counted) = lost {
        carrier.give_up(counted).await;
    }
    node.floor.close(&range);
    Ok(())
}

/// Prepares the range. What will never work becomes the failure of its tasks.
async fn open(node: &Arc<Node>, item: &WorkItem, claim: &RangeState) -> Result<(OpenRange, Option<Failure>)> {
    let mut tries = 0;
    loop {
        tries += 1;
        match node.prepare(item, claim).await {
            Ok(opened) => return Ok(opened),
            Err(e) if e.kind() == ErrorKind::Unavailable && node.settings.retry.allows_another(tries) => {
                sleep(node.settings.retry.delay(tries, &node.env)).await;
            }
            Err(e) if e.kind() == ErrorKind::Unavailable => return Err(e),
            Err(e) => {
                let class = if e.kind() == ErrorKind::NotFound { FailureClass::Input } else { FailureClass::Start };
                return Ok((OpenRange::broken(item.clone(), claim), Some(range::failure(class, &e))));
            }
        }
    }
}

impl Node {
    /// Lets the message be delivered anew after `wait`.
    async fn rest(&self, held: &Held, wait: Duration) {
        if let Err(e) = self.blocks.queue.extend(&keys::work_queue(&self.settings.class), &[held.receipt()], wait).await {
            tracing::debug!(error = %e.chain(), "could not put a message off, it returns when its lease ends");
        }
    }

    /// Whether the tasks can never run here, or nobody knows when, and another worker takes work that can run them.
    async fn is_for_others(&self, item: &WorkItem) -> Result<bool> {
        // What is wrong with a stage that cannot be had is said when its tasks are prepared.
        let Ok(stage) = self.stage(item).await else { return Ok(false) };
        let wants = &stage.definition.spec.resources;
        // A range that was asked for before the floor was stuck.
        if self.floor.misfit(wants).is_none() && !self.floor.is_stuck(self.env.now()) {
            return Ok(false);
        }
        let workers = live_workers(self.blocks.table.as_ref(), self.env.now()).await?;
        let other = |w: &Heartbeat| w.worker != self.settings.id && w.class == self.settings.class && w.phase == WorkerPhase::Ready;
        Ok(workers.iter().any(|w| other(w) && wants.fit(&w.offers)))
    }

    /// Leaves the range to another worker. A message of its own, since one that is delivered too often counts as lost.
    async fn pass_on(&self, held: &Held, item: &WorkItem) -> Result<()> {
        // Whoever asks again at once would get it again.
        self.stand_aside();
        let message = NewMessage::after(encode(item)?, PASSED_ON);
        self.blocks.queue.send(&keys::work_queue(&self.settings.class), vec![message]).await?;
        self.acknowledge(held).await;
        Ok(())
    }

    /// Asks for nothing for a while.
    pub(super) fn stand_aside(&self) {
        *self.aside_until.lock().unwrap_or_else(PoisonError::into_inner) = self.env.now() + ASIDE;
    }

    async fn say_done(&self, item: &WorkItem, seq: u64) -> Result<()> {
        let done = Done { job: item.job.clone(), stage: item.stage, range: item.range, seq };
        self.blocks.queue.send(DONE_QUEUE, vec![NewMessage::now(Bytes::from(encode(&done)?))]).await.map(drop)
    }

    async fn acknowledge(&self, held: &Held) {
        // If it fails the message comes back, the fence says that it is finished, and it is acknowledged then.
        if let Err(e) = self.blocks.queue.ack(&keys::work_queue(&self.settings.class), &[held.receipt()]).await {
            tracing::debug!(error = %e.chain(), "could not acknowledge a finished range");
        }
    }
}

struct Carrier<'a> {
    node: &'a Arc<Node>,
    held: &'a Held,
    range: Arc<OpenRange>,
    fence: Mutex<Fence>,
}

impl Carrier<'_> {
    /// Works until the range is finished (`None`) or lost (whether the last draft counted).
    async fn work(&self) -> Option<bool> {
        let (node, range) = (self.node, &self.range);
        let mut since = Stopwatch::start();
        // Whoever waits for results wants them while they come.
        let every = if range.stage.engine().is_some() { node.settings.report_every.min(RESULTS_EVERY) } else { node.settings.report_every };
        loop {
            node.fetch_ahead(range);
            node.store_all(range);
            let due = range.lock().work.is_due();
            if due || since.elapsed() >= every {
                since = Stopwatch::start();
                let draft = range.lock().work.draft();
                if let Some(draft) = draft {
                    match self.report(&draft).await {
                        Hold::Lost { counted } => return Some(counted),
                        Hold::Ours if draft.finished => {
                            node.acknowledge(self.held).await;
                            return None;
                        }
                        Hold::Ours => continue,
                    }
                }
            }
            let rest = every.saturating_sub(since.elapsed());
            tokio::select! {
                biased;
                () = range.wake.notified() => {}
                () = sleep(rest) => {}
            }
        }
    }

    /// Writes the draft and says so, however long it takes to get through.
    async fn report(&self, draft: &Draft) -> Hold {
        let mut tries = 0;
        loop {
            match self.try_report(draft).await {
                Ok(hold) => return hold,
                Err(e) if matches!(e.kind(), ErrorKind::Invalid | ErrorKind::Corrupt | ErrorKind::Internal) => {
                    tracing::error!(job = self.range.item.job, range = self.range.item.range, error = %e.chain(), "a report cannot be written");
                    return Hold::Lost { counted: false };
                }
                Err(e) => {
                    tries += 1;
                    tracing::warn!(job = self.range.item.job, range = self.range.item.range, error = %e.chain(), "reporting, trying again");
                    sleep(self.node.settings.retry.delay(tries, &self.node.env)).await;
                }
            }
        }
    }

    async fn try_report(&self, draft: &Draft) -> Result<Hold> {
        let (node, range) = (self.node, &self.range);
        let mut parcel = report::build(range, &node.settings.id, draft, node.env.now())?;
        // Else it has been written, which an extension of the claim has found out since the answer was lost.
        if self.fence.lock().await.state.seq < draft.seq {
            if let Some((path, bytes)) = parcel.pack.take() {
                range.lock().written.push(path.clone());
                // Not under the fence's lock: a large pack may take longer than the claim lasts without being extended.
                objects::put(node.blocks.objects.as_ref(), &path, bytes).await?;
            }
            let hold = self.fence.lock().await.report(draft.seq, &draft.settles(), draft.finished, parcel.writes).await?;
            if hold != Hold::Ours {
                return Ok(hold);
            }
        }
        let pack = parcel.pack_path;
        range.lock().written.retain(|p| Some(p) != pack.as_ref() && !parcel.named.contains(p));
        node.say_done(&range.item, draft.seq).await?;
        range.lock().work.acknowledge();
        Ok(Hold::Ours)
    }

    /// Writes a claim down that has not been, and does what is asked of the job. Returns whether a report counted when the range is
    /// another's.
    async fn claim_now(&self) -> Option<bool> {
        let mut tries = 0;
        loop {
            let mut fence = self.fence.lock().await;
            if fence.is_written() {
                return None;
            }
            match fence.extend().await {
                Ok(Hold::Lost { counted }) => return Some(counted),
                Ok(Hold::Ours) => break,
                Err(e) => {
                    drop(fence);
                    tries += 1;
                    tracing::warn!(error = %e.chain(), "could not write a claim, trying again");
                    sleep(self.node.settings.retry.delay(tries, &self.node.env)).await;
                }
            }
        }
        // Before the claim this was not asked; what is said after it, the feed brings.
        match said(&self.node.blocks.table, &self.range.item.job).await {
            Ok((said, recalled)) => {
                self.node.obey(&self.range, said.control);
                self.node.obey_recall(&self.range, recalled);
            }
            Err(e) => tracing::warn!(error = %e.chain(), "could not read what is asked of a job; the feed will say it when it changes"),
        }
        None
    }

    /// Keeps claim and message; returns when the range is lost.
    async fn keep(&self) -> bool {
        let node = self.node;
        let lease = node.settings.lease;
        if !self.fence.lock().await.is_written() {
            sleep(UNCLAIMED).await;
            if let Some(counted) = self.claim_now().await {
                return counted;
            }
        }
        loop {
            sleep(lease / 3).await;
            let mut fence = self.fence.lock().await;
            if fence.left() <= lease * 2 / 3 {
                match fence.extend().await {
                    Ok(Hold::Ours) => {}
                    Ok(Hold::Lost { counted }) => return counted,
                    Err(e) => tracing::warn!(error = %e.chain(), "could not extend a claim, trying again"),
                }
            }
            drop(fence);
            let queue = keys::work_queue(&node.settings.class);
            match node.blocks.queue.extend(&queue, &[self.held.receipt()], lease).await {
                Ok(outcomes) if outcomes.first() == Some(&ReceiptOutcome::Stale) => {
                    tracing::debug!(range = self.range.item.range, "the message was delivered anew; the fence decides");
                }
                Ok(_) => {}
                Err(e) => tracing::debug!(error = %e.chain(), "could not extend a message's lease"),
            }
        }
    }

    /// Somebody else owns the range: ends what runs of it and removes what it has written for nothing.
    async fn give_up(&self, counted: bool) {
        let (node, range) = (self.node, &self.range);
        tracing::warn!(job = range.item.job, range = range.item.range, epoch = range.epoch, "lost a range to another worker");
        node.kill(range, Kill::Lost);
        let watch = Stopwatch::start();
        while !range.lock().work.is_settled() && watch.elapsed() < LOST_PATIENCE {
            node.store_all(range);
            tokio::select! {
                biased;
                () = range.wake.notified() => {}
                () = sleep(Duration::from_millis(100)) => {}
            }
        }
        let known = self.fence.lock().await.state.seq;
        let draft = range.lock().work.draft().filter(|d| counted || known >= d.seq);
        let kept = draft.and_then(|d| report::build(range, &node.settings.id, &d, node.env.now()).ok());
        let kept: Vec<_> = kept.into_iter().flat_map(|p| p.named.into_iter().chain(p.pack.map(|(path, _)| path))).collect();
        let written = std::mem::take(&mut range.lock().written);
        for path in written.iter().filter(|p| !kept.contains(p)) {
            if let Err(e) = objects::delete(node.blocks.objects.as_ref(), path).await {
                tracing::debug!(error = %e.chain(), "could not sweep an output that does not count");
            }
        }
    }
}
