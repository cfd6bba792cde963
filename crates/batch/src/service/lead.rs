//! The leader's loop.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tidemill_base::{Error, ErrorKind, Result, Timestamp};
use tidemill_blocks::ledger::Statement;
use tidemill_blocks::queue::{Delivery, NewMessage, Receipt, Receive};
use tidemill_blocks::schedule;
use tidemill_blocks::table::{Range, sort_u64, unsort_u64};
use tidemill_runtime::{Kind, Shutdown, Tasks};
use tokio::sync::mpsc;

use super::control::ControlFence;
use super::hand_back::HandBacks;
use super::meter::Meter;
use super::{LEASE, Shared, delete, open, recover, revoke, segments, submit, sweep, workers};
use crate::protocol::{Control, Done, Report, WorkItem, decode, encode, keys};
use crate::reactor::{CANCELLED, Core, StageEntry};
use crate::store::{self, Command};

/// How long the leader sleeps when nothing happens.
const IDLE: Duration = Duration::from_millis(250);
const WORKERS_EVERY: Duration = Duration::from_millis(500);
const REVOKE_EVERY: Duration = Duration::from_millis(300);
const AUDIT_EVERY: Duration = Duration::from_secs(5);
const CRON_EVERY: Duration = Duration::from_secs(1);
const SEEN_EVERY: Duration = Duration::from_secs(1);
const ENGINES_EVERY: Duration = Duration::from_secs(5);
/// What could not be read is read again after so long.
const PUT_OFF: Duration = Duration::from_secs(1);
/// Work messages in one call.
const SEND_BATCH: usize = 100;

/// What side tasks of the leader have found out.
#[derive(Debug)]
pub(super) enum News {
    Cut(String, Result<Vec<StageEntry>>),
    Opened(String, u32, Result<Vec<(u32, u64)>>),
    Deleted(String, Result<()>),
    Swept(String, sweep::Owed, Option<sweep::Owed>),
}

impl News {
    /// Whether it will be tried again, since only the way to it was blocked.
    fn is_put_off(&self) -> bool {
        let kind = match self {
            Self::Cut(_, outcome) => outcome.as_ref().err().map(Error::kind),
            Self::Opened(_, _, outcome) => outcome.as_ref().err().map(Error::kind),
            // It waits by itself, whatever it was.
            Self::Deleted(..) | Self::Swept(..) => None,
        };
        kind == Some(ErrorKind::Unavailable)
    }
}

/// One term of leadership.
#[derive(Debug)]
pub(super) struct Leader<'a> {
    pub shared: &'a Arc<Shared>,
    tasks: &'a Tasks,
    pub fence: u64,
    control: ControlFence,
    hand_backs: HandBacks,
    pub core: Core,
    /// The job that is being deleted.
    pub deleting: Option<String>,
    pub sweeps: sweep::Sweeps,
    renewed: Timestamp,
    unsent: Vec<(String, WorkItem)>,
    /// Deliveries that are dealt with once the effects are written: queue and receipt.
    pub to_acknowledge: Vec<(String, Receipt)>,
    /// Results that belong to what was folded in this round, as they were overheard.
    pub pages: BTreeMap<(String, u32, u64, u64), Bytes>,
    news: mpsc::UnboundedSender<News>,
    due: BTreeMap<&'static str, Timestamp>,
    meter: Meter,
}

/// Leads until the lease is lost, an error leaves a doubt, or draining is asked for.
pub(super) async fn lead(shared: &Arc<Shared>, tasks: &Tasks, shutdown: &Shutdown, fence: u64) -> Result<()> {
    let (news, mut found) = mpsc::unbounded_channel();
    let renewed = shared.env.now();
    let core = recover::core(shared).await?;
    shared.live.lead_until(renewed + shared.settings.lead_ttl);
    for job in core.jobs.values() {
        // What came back too often waits in queues of classes that this manager may never have heard of.
        shared.ensure_class(&job.class).await?;
    }
    let control = ControlFence::take(shared, fence).await?;
    control.recover(shared, &core).await?;
    let mut leader = Leader {
        shared,
        tasks,
        fence,
        control,
        hand_backs: HandBacks::default(),
        core,
        deleting: None,
        sweeps: sweep::Sweeps::load(shared).await?,
        renewed,
        unsent: Vec::new(),
        to_acknowledge: Vec::new(),
        pages: BTreeMap::new(),
        news,
        due: BTreeMap::new(),
        meter: Meter::default(),
    };
    leader.unsent = recover::unsent(shared, &leader.core).await?;
    let (tx, mut done) = mpsc::channel(4);
    let (puller, pull_shutdown) = (Arc::clone(shared), shutdown.clone());
    tasks.spawn("batch-completions", Kind::Request, async move { pull_done(&puller, &tx, &pull_shutdown).await });
    // Reports that came in while nobody led.
    leader.audit(true).await?;
    shared.direct.open();
    let mut deliveries: Vec<Delivery> = Vec::new();
    while shutdown.phase().is_running() {
        leader.renew().await?;
        leader.fold_overheard().await?;
        leader.fold(std::mem::take(&mut deliveries)).await?;
        leader.step().await?;
        leader.acknowledge().await;
        let pause = leader.pause();
        tokio::select! {
            biased;
            () = shutdown.draining() => {}
            Some(more) = done.recv() => deliveries = more,
            Some(news) = found.recv() => leader.hear(news),
            () = shared.nudge.notified() => {}
            () = tidemill_runtime::sleep(pause) => {}
        }
        while let Ok(more) = done.try_recv() {
            deliveries.extend(more);
        }
    }
    segments::flush(shared, fence, true).await
}

async fn pull_done(shared: &Shared, tx: &mpsc::Sender<Vec<Delivery>>, shutdown: &Shutdown) -> Result<()> {
    let how = Receive::up_to(200, Duration::from_secs(30)).waiting(Duration::from_secs(5));
    while !tx.is_closed() && shutdown.phase().is_running() {
        let got = tokio::select! {
            biased;
            () = tx.closed() => return Ok(()),
            () = shutdown.draining() => return Ok(()),
            got = shared.blocks.queue.receive(keys::DONE_QUEUE, how) => got,
        };
        match got {
            Ok(deliveries) if deliveries.is_empty() => tidemill_runtime::sleep(Duration::ZERO).await,
            Ok(deliveries) => {
                if tx.send(deliveries).await.is_err() {
                    return Ok(());
                }
            }
            Err(e) => {
                tracing::warn!(error = %e.chain(), "cannot read completions");
                tidemill_runtime::sleep(Duration::from_millis(200)).await;
            }
        }
    }
    Ok(())
}

impl Leader<'_> {
    fn now(&self) -> Timestamp {
        self.shared.env.now()
    }

    async fn renew(&mut self) -> Result<()> {
        let ttl = self.shared.settings.lead_ttl;
        if self.now().since(self.renewed) < ttl / 3 {
            return Ok(());
        }
        let asked = self.now();
        match self.shared.schedule.lead(LEASE, &self.shared.holder, ttl).await? {
            Some(fence) if fence == self.fence => {
                self.renewed = asked;
                self.shared.live.lead_until(asked + ttl);
                Ok(())
            }
            _ => Err(Error::conflict("another manager leads the batch system now")),
        }
    }

    /// Whether something that is done every `interval` is due.
    pub(super) fn is_due(&mut self, what: &'static str, interval: Duration) -> bool {
        let now = self.now();
        let due = self.due.get(what).is_none_or(|at| *at <= now);
        if due {
            self.due.insert(what, now + interval);
        }
        due
    }

    fn pause(&self) -> Duration {
        if !self.unsent.is_empty() {
            return Duration::from_millis(50);
        }
        self.core.next_due().map_or(IDLE, |due| due.since(self.now()).clamp(Duration::from_millis(1), IDLE))
    }

    fn hear(&mut self, news: News) {
        let now = self.now();
        match news {
            News::Cut(job, outcome) => self.core.on_job_cut(&job, outcome, now),
            News::Opened(job, _, Ok(totals)) => self.core.on_stage_opened(&job, &totals),
            News::Deleted(job, outcome) => {
                self.deleting = None;
                if let Err(e) = outcome {
                    tracing::warn!(job, error = %e.chain(), "could not delete a job, will try again");
                }
            }
            News::Swept(job, taken, next) => self.sweeps.swept(&job, taken, next),
            News::Opened(job, stage, Err(e)) => self.core.on_stage_unopenable(&job, stage, &e, now),
        }
    }

    /// One round: commands, workers, time, effects.
    async fn step(&mut self) -> Result<()> {
        // Another manager's commands are not heard of.
        let commands = if self.is_due("commands", IDLE) | self.shared.commanded.swap(false, Ordering::AcqRel) {
            store::commands(self.shared.blocks.ledger.as_ref()).await?
        } else {
            Vec::new()
        };
        for row in &commands {
            self.carry_out(&row.job, &row.command).await?;
        }
        if self.is_due("workers", WORKERS_EVERY) {
            let workers = workers::live_workers(self.shared.blocks.table.as_ref(), self.now()).await?;
            for worker in &workers {
                // A class becomes known by its first worker or its first job, whichever comes first.
                self.shared.ensure_class(&worker.class).await?;
            }
            self.core.on_workers(workers::capacity(&workers));
            Meter::states(&self.core);
            let wanted = self.hand_backs.wanted(&workers, self.now());
            self.control.ask_back(self.shared, &wanted).await?;
        }
        if self.core.listens() && self.is_due("seen", SEEN_EVERY) {
            for (session, at) in store::sessions::seen(self.shared.blocks.ledger.as_ref()).await? {
                self.core.on_seen(&session, at);
            }
        }
        if self.is_due("audit", AUDIT_EVERY) {
            self.audit(false).await?;
        }
        if self.is_due("revoke", REVOKE_EVERY) {
            revoke::cancelled(self).await?;
            revoke::unwanted(self).await?;
            revoke::lost(self).await?;
        }
        if self.is_due("engines", ENGINES_EVERY) {
            self.meter.engines(&workers::live_engines(self.shared.blocks.table.as_ref(), self.now()).await?);
        }
        if self.is_due("cron", CRON_EVERY) {
            super::cron::fire(self).await?;
        }
        let mut taken = self.take_in().await?;
        let now = self.now();
        self.core.tick(now);
        self.apply(commands.iter().map(|c| c.id.as_str()), std::mem::take(&mut taken.statements)).await?;
        taken.answer();
        segments::flush(self.shared, self.fence, false).await?;
        sweep::round(self);
        delete::round(self).await
    }

    async fn carry_out(&mut self, job: &str, command: &Command) -> Result<()> {
        let now = self.now();
        if !self.core.jobs.contains_key(job) {
            recover::adopt(self.shared, &mut self.core, job).await?;
        }
        match command {
            Command::Adopt => {}
            Command::Want(wanted) => self.core.on_wanted(job, *wanted, now),
            Command::Priority(priority) => self.core.on_priority(job, *priority),
            Command::Retry(only) => self.core.on_retry(job, only.as_deref(), now),
            Command::Submitted { first, count, needy } => {
                self.shared.direct.met(job, *first);
                let needs = if *needy { self.shared.needs(job, *first, *count).await? } else { Vec::new() };
                self.core.on_submitted(job, *first, *count, needs, now);
            }
            Command::Close => {
                // What was taken in before it was closed may not have been heard of yet.
                let (_, expected) = store::sessions::next_submission(self.shared.blocks.ledger.as_ref(), job).await?;
                self.core.on_closed(job, expected, now);
            }
            Command::CancelTasks { tasks, running } => self.core.on_cancelled_tasks(job, tasks, *running, CANCELLED, now),
        }
        Ok(())
    }

    /// Reads the reports that the deliveries speak of.
    async fn fold(&mut self, deliveries: Vec<Delivery>) -> Result<()> {
        let mut ranges: BTreeMap<(String, u32, u64), u64> = BTreeMap::new();
        for d in deliveries {
            match decode::<Done>("completion", &d.body) {
                Ok(done) => {
                    let seq = ranges.entry((done.job, done.stage, done.range)).or_default();
                    *seq = (*seq).max(done.seq);
                }
                Err(e) => tracing::error!(error = %e.chain(), "dropped a completion that does not decode"),
            }
            self.to_acknowledge.push((keys::DONE_QUEUE.to_owned(), d.receipt));
        }
        for ((job, stage, range), seq) in ranges {
            if self.core.folded_seq(&job, stage, range).is_some_and(|folded| folded < seq) {
                self.fold_range(&job, stage, range).await?;
            }
        }
        Ok(())
    }

    /// Folds every report of a range that has not been folded.
    pub(super) async fn fold_range(&mut self, job: &str, stage: u32, range: u64) -> Result<()> {
        let Some(folded) = self.core.folded_seq(job, stage, range) else { return Ok(()) };
        for (seq, report) in read_reports(self.shared, job, stage, range, folded).await? {
            self.on_report(job, stage, range, seq, &report);
        }
        Ok(())
    }

    pub(super) fn on_report(&mut self, job: &str, stage: u32, range: u64, seq: u64, report: &Report) {
        let now = self.now();
        if let Some(released) = self.core.released_at(job, stage, range) {
            Meter::reported(report, released, now);
        }
        self.core.on_report(job, stage, range, seq, report, now);
    }

    /// Looks at ranges that have been out for a while, in case the word of their report was lost.
    async fn audit(&mut self, all: bool) -> Result<()> {
        let old = self.now() - AUDIT_EVERY;
        let mut ranges = Vec::new();
        for (id, job) in &self.core.jobs {
            for (stage, s) in (0_u32..).zip(&job.stages) {
                ranges.extend(s.outstanding.iter().filter(|(_, r)| all || r.released_at < old).map(|(r, _)| (id.clone(), stage, *r)));
            }
        }
        for chunk in ranges.chunks(100) {
            let fences = recover::fences(self.shared, chunk).await?;
            for ((job, stage, range), fence) in chunk.iter().zip(fences) {
                let Some(fence) = fence else { continue };
                if self.core.folded_seq(job, *stage, *range).is_some_and(|folded| folded < fence.seq) {
                    self.fold_range(job, *stage, *range).await?;
                }
                // A manager took it over and died before it had written that down.
                let left = self.core.folded_seq(job, *stage, *range).is_some_and(|folded| folded >= fence.seq);
                if fence.finished && left {
                    let now = self.now();
                    self.core.on_range_revoked(job, *stage, *range, true, now);
                }
            }
        }
        Ok(())
    }

    /// Writes and sends what the reactor wants.
    async fn apply(&mut self, carried_out: impl Iterator<Item = &str>, mut taken_in: Vec<Statement>) -> Result<()> {
        self.meter.before(&self.core);
        let mut fx = self.core.take_effects()?;
        self.meter.effects(&fx);
        // Before the ledger: whoever dies in between folds the same report again and sends the letter twice; the other way round it
        // would never be sent.
        self.send_dead(&fx.dead).await?;
        let mut ledger: Vec<_> = carried_out.map(store::command_delete).collect();
        ledger.append(&mut taken_in);
        ledger.append(&mut fx.ledger);
        let now = self.now();
        for completion in &fx.completions {
            ledger.push(store::sessions::completion_insert(completion, now)?);
        }
        for session in &fx.closings {
            // As if somebody had closed it: what is submitted at this moment is either in before, or refused.
            ledger.push(store::sessions::close(session));
            ledger.push(store::command_insert(&self.shared.env.id("c"), session, &Command::Close, LEASE, now)?);
            self.shared.nudge_to_look();
        }
        ledger.extend(fx.finished_jobs.iter().map(|(job, _)| self.sweeps.job_ended(job, now)));
        self.tell_early(&fx.completions);
        if !ledger.is_empty() {
            ledger.insert(0, schedule::fenced(LEASE, &self.shared.holder, self.fence));
            self.shared.blocks.ledger.transact(ledger).await?;
        }
        let changed = !fx.is_empty() || !fx.sends.is_empty();
        let delivered = !fx.completions.is_empty();
        self.keep_tails(std::mem::take(&mut fx.completions));
        self.shared.live.add(std::mem::take(&mut fx.columns), std::mem::take(&mut fx.finished_ranges), self.now());
        for (job, state) in &fx.finished_jobs {
            tracing::info!(job, state = state.as_str(), "job ended");
            self.shared.live.job_ended(job);
            self.shared.sessions.forget(job);
            self.shared.direct.forget(job);
            self.shared.tails.forget(job);
        }
        if delivered {
            // Whoever waits for results need not wait until others have their work.
            self.shared.mark_changed();
        }
        self.unsent.append(&mut fx.sends);
        self.send_work().await;
        self.send_control(&fx.control).await?;
        for session in &fx.recalls {
            self.control.recall(self.shared, session, self.core.recall_of(session)).await?;
        }
        for (job, stage) in fx.open {
            self.side_task(open::open(Arc::clone(self.shared), job, stage));
        }
        for job in fx.cut {
            self.side_task(submit::cut_later(Arc::clone(self.shared), job));
        }
        if changed && !delivered {
            self.shared.mark_changed();
        }
        Ok(())
    }

    pub(super) fn side_task(&self, work: impl Future<Output = News> + Send + 'static) {
        let news = self.news.clone();
        self.tasks.spawn("batch-side", Kind::Request, async move {
            let found = work.await;
            if found.is_put_off() {
                tracing::warn!(?found, "trying again in a moment");
                tidemill_runtime::sleep(PUT_OFF).await;
            }
            // Nobody listens when the leadership has ended; the next leader asks again.
            drop(news.send(found));
            Ok(())
        });
    }

    /// Sends ranges; what cannot be sent now is kept. Sending twice is harmless: the second claim finds the fence.
    async fn send_work(&mut self) {
        let mut by_class: BTreeMap<String, Vec<WorkItem>> = BTreeMap::new();
        for (class, item) in std::mem::take(&mut self.unsent) {
            by_class.entry(class).or_default().push(item);
        }
        for (class, items) in by_class {
            for chunk in items.chunks(SEND_BATCH) {
                if let Err(e) = self.send_chunk(&class, chunk).await {
                    tracing::warn!(class, error = %e.chain(), "cannot send work, will try again");
                    self.unsent.extend(chunk.iter().map(|i| (class.clone(), i.clone())));
                }
            }
        }
    }

    async fn send_chunk(&self, class: &str, items: &[WorkItem]) -> Result<()> {
        self.shared.ensure_class(class).await?;
        let mut messages = Vec::with_capacity(items.len());
        for item in items {
            let session =
                self.core.jobs.get(&item.job).and_then(|j| j.stages.get(item.stage as usize)).is_some_and(|s| s.session.is_some());
            let pieces = if session { self.shared.pieces(item).await? } else { Vec::new() };
            messages.push(NewMessage::now(encode(&WorkItem { pieces, ..item.clone() })?));
        }
        self.shared.blocks.queue.send(&keys::work_queue(class), messages).await.map(drop)
    }

    async fn send_control(&self, wishes: &[(String, Control)]) -> Result<()> {
        // The later wish counts, and a transaction takes each key once.
        let latest: BTreeMap<&str, Control> = wishes.iter().map(|(job, c)| (job.as_str(), *c)).collect();
        self.control.say(self.shared, latest).await
    }

    async fn send_dead(&self, dead: &[crate::reactor::DeadTask]) -> Result<()> {
        for chunk in dead.chunks(SEND_BATCH) {
            let messages = chunk.iter().map(|d| {
                let body = serde_json::json!({
                    "job": d.job, "stage": d.stage, "task": d.failure.task, "attempts": d.attempts,
                    "class": d.failure.class.as_str(), "exit": d.failure.exit, "message": d.failure.message,
                });
                NewMessage::now(Bytes::from(body.to_string()))
            });
            self.shared.blocks.queue.send(keys::DEAD_QUEUE, messages.collect()).await?;
        }
        Ok(())
    }

    async fn acknowledge(&mut self) {
        let mut by_queue: BTreeMap<String, Vec<Receipt>> = BTreeMap::new();
        for (queue, receipt) in std::mem::take(&mut self.to_acknowledge) {
            by_queue.entry(queue).or_default().push(receipt);
        }
        for (queue, receipts) in by_queue {
            for chunk in receipts.chunks(SEND_BATCH) {
                // What comes again finds that it has been dealt with.
                if let Err(e) = self.shared.blocks.queue.ack(&queue, chunk).await {
                    tracing::debug!(queue, error = %e.chain(), "deliveries not acknowledged");
                }
            }
        }
    }
}

/// The reports of a range after number `after`, in order.
pub(super) async fn read_reports(shared: &Shared, job: &str, stage: u32, range: u64, after: u64) -> Result<Vec<(u64, Report)>> {
    let mut next = Some(Range::all(keys::report_partition(job, stage, range), 100).from(sort_u64(after + 1)));
    let mut out = Vec::new();
    while let Some(r) = next {
        let page = shared.blocks.table.range(keys::STATE_TABLE, r).await?;
        for item in page.items {
            let seq = unsort_u64(&item.key.sort).ok_or_else(|| Error::new(ErrorKind::Corrupt, "report key is not a number"))?;
            out.push((seq, decode("report", &item.value)?));
        }
        next = page.next;
    }
    Ok(out)
}
