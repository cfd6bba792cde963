//! Carries: reads blocks, feeds the reactor, applies its effects in an order that survives a crash.
//!
//! A [`Manager`] is a handle that any number of callers share. Submits and wishes go into the ledger, whichever manager they are
//! made at; one manager at a time *leads* (a lease in the ledger) and carries them out. The leader's order of work is
//!
//! 1. read reports and commands, feed them to the reactor;
//! 2. one ledger transaction with everything that follows from them, guarded by the leadership's fence;
//! 3. only then messages to the queues, control items, acknowledgements: all of them harmless when done twice.
//!
//! On any doubt (an error whose effect is unknown) the leader forgets its state and reads it back from ledger and table.

mod control;
mod cron;
mod delete;
mod direct;
mod grants;
mod hand_back;
mod inputs;
mod interim;
mod lead;
mod lifecycle;
mod live;
mod meter;
mod needs;
mod open;
mod overhear;
mod recover;
mod revoke;
mod segments;
mod session;
mod submit;
mod sweep;
mod tail;
mod uploads;
mod wishes;
mod workers;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tidemill_base::{Env, Result};
use tidemill_blocks::Blocks;
use tidemill_blocks::fleet::Offers;
use tidemill_blocks::schedule::{self, Schedule};
use tidemill_runtime::{Kind, Shutdown, Tasks};
use tokio::sync::{Notify, watch};

pub use crate::reactor::{Cancelled, DeadResult, LiveBatch, ReactorSettings};
pub use delete::Deletion;
pub use grants::{CREDENTIAL_WAIT, FencedGrants};
pub use inputs::OpenInputs;
pub use lifecycle::GivenUp;
pub use needs::Needs;
pub use session::{Accepted, Delivered, read_needed};
pub use submit::{Submit, Submitted};
pub use workers::{SILENT_AFTER, live_engines, live_workers};

use crate::store;

/// Turns statistics into a segment. The Parquet writer is heavy and lives in a crate that batch does not know.
#[async_trait]
pub trait SegmentSink: Send + Sync + std::fmt::Debug {
    /// The segment's bytes.
    async fn encode(&self, batches: Vec<LiveBatch>) -> Result<Bytes>;
}

/// What a manager goes by.
#[derive(Debug, Clone)]
pub struct BatchSettings {
    /// What the reactor goes by.
    pub reactor: ReactorSettings,
    /// How long leadership lasts without renewal; another manager takes over after it.
    pub lead_ttl: Duration,
    /// No other manager can be on these blocks, so a lease found at the start was left by one that is gone and is not waited for.
    pub sole: bool,
    /// A range delivered so often without being finished is taken apart, task by task.
    pub max_receives: u32,
    /// A job's statistics go into a segment when there are so many rows of it,
    pub segment_rows: usize,
    /// or when the oldest has waited for so long.
    pub segment_age: Duration,
    /// A job's leftovers are swept when it ends and once more so long after, when whoever was cut off has found out or is dead.
    pub sweep_again: Duration,
    /// Jobs that ended longer ago are deleted with all that is left of them; `None`: they are kept until somebody deletes them.
    pub keep: Option<Duration>,
    /// Classes whose queues are made at the start; others are made by the first job that names them.
    pub classes: Vec<String>,
    /// What workers of a class offer at most, for classes without a live worker. Empty: not known, nothing is refused.
    pub offers: Vec<(String, Offers)>,
}

impl Default for BatchSettings {
    fn default() -> Self {
        Self {
            reactor: ReactorSettings::default(),
            lead_ttl: Duration::from_secs(9),
            sole: false,
            max_receives: 5,
            segment_rows: 65_536,
            segment_age: Duration::from_secs(30),
            sweep_again: Duration::from_secs(600),
            keep: None,
            classes: vec!["default".to_owned()],
            offers: Vec::new(),
        }
    }
}

/// The batch system's handle.
#[derive(Debug, Clone)]
pub struct Manager {
    shared: Arc<Shared>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub blocks: Blocks,
    pub schedule: Schedule,
    pub env: Env,
    pub settings: BatchSettings,
    pub sink: Arc<dyn SegmentSink>,
    /// This manager's name as a holder of leases.
    pub holder: String,
    /// Wakes the leader.
    pub nudge: Notify,
    /// Counts changes to any job, for those who watch.
    pub changed: watch::Sender<u64>,
    /// Wakes those who wait for the same here, in the order in which they came; a watch channel wakes them in an order that follows from
    /// nothing, which the simulation could not repeat.
    pub stirred: Notify,
    pub live: live::LiveColumns,
    sessions: session::Sessions,
    direct: direct::Direct,
    overheard: overhear::Reports,
    tails: tail::Tails,
    /// There may be commands that the leader has not looked for.
    commanded: AtomicBool,
    heard: lifecycle::Heard,
    classes: Mutex<BTreeSet<String>>,
}

impl Manager {
    /// Prepares schema, queues and tables. `tasks` runs what [`Manager::start`] starts.
    pub async fn new(blocks: Blocks, env: Env, settings: BatchSettings, sink: Arc<dyn SegmentSink>) -> Result<Self> {
        blocks.ledger.migrate(schedule::MIGRATIONS).await?;
        blocks.ledger.migrate(store::MIGRATIONS).await?;
        let needs = Needs::shared();
        for table in needs.tables {
            blocks.table.ensure(table).await?;
        }
        for (queue, settings) in needs.queues {
            blocks.queue.ensure(&queue, settings).await?;
        }
        let shared = Shared {
            schedule: Schedule::new(Arc::clone(&blocks.ledger), env.clone()),
            holder: env.id("m"),
            nudge: Notify::new(),
            changed: watch::Sender::new(0),
            stirred: Notify::new(),
            live: live::LiveColumns::default(),
            sessions: session::Sessions::default(),
            direct: direct::Direct::default(),
            overheard: overhear::Reports::default(),
            tails: tail::Tails::default(),
            commanded: AtomicBool::new(false),
            heard: lifecycle::Heard::default(),
            classes: Mutex::default(),
            blocks,
            env,
            settings,
            sink,
        };
        for class in shared.settings.classes.clone() {
            shared.ensure_class(&class).await?;
        }
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Leads whenever nobody else does, until draining is asked for.
    pub fn start(&self, tasks: &Tasks) {
        let (shared, shutdown, inner) = (Arc::clone(&self.shared), tasks.shutdown().clone(), tasks.clone());
        tasks.spawn("batch-lead", Kind::Essential, async move { lead_when_possible(&shared, &inner, &shutdown).await });
    }

    /// Counts up whenever something about any job has changed. To be watched instead of asking again and again.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changed.subscribe()
    }

    /// Statistics that are not in a segment yet, with the segments that are, as one consistent picture.
    pub async fn statistics(&self, job: Option<&str>) -> Result<live::Picture> {
        if !self.leads() {
            return recover::picture(&self.shared, job).await;
        }
        self.shared.live.picture(self.shared.blocks.ledger.as_ref(), job).await
    }

    /// Whether this manager leads. What only the leader does is not seen twice by those who ask first.
    pub fn leads(&self) -> bool {
        self.shared.live.is_complete(self.shared.env.now())
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }
}

impl Shared {
    /// Makes a class's queues on its first use.
    pub(crate) async fn ensure_class(&self, class: &str) -> Result<()> {
        if self.classes.lock().unwrap_or_else(PoisonError::into_inner).contains(class) {
            return Ok(());
        }
        for (queue, settings) in Needs::queues_of(class, self.settings.max_receives) {
            self.blocks.queue.ensure(&queue, settings).await?;
        }
        self.classes.lock().unwrap_or_else(PoisonError::into_inner).insert(class.to_owned());
        Ok(())
    }

    pub(crate) fn known_classes(&self) -> Vec<String> {
        self.classes.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// Wakes the leader to look for commands. One that leads elsewhere looks now and then.
    pub(crate) fn nudge_to_look(&self) {
        self.commanded.store(true, Ordering::Release);
        self.nudge.notify_one();
    }

    pub(crate) fn mark_changed(&self) {
        self.changed.send_modify(|n| *n += 1);
        self.stirred.notify_waiters();
    }
}

/// So often within one term of the lease a manager asks for it that does not have it. A leader that dies has renewed at most a third of a
/// term ago: with 9 s, another leads within 9.5 s and the time that reading the state takes.
const STANDBY_ASKS: u32 = 18;

/// The name of the leadership lease.
pub(crate) const LEASE: &str = "batch";

async fn lead_when_possible(shared: &Arc<Shared>, tasks: &Tasks, shutdown: &Shutdown) -> Result<()> {
    let pause = shared.settings.lead_ttl / STANDBY_ASKS;
    if shared.settings.sole {
        shared.schedule.evict(LEASE).await?;
    }
    while shutdown.phase().is_running() {
        match shared.schedule.lead(LEASE, &shared.holder, shared.settings.lead_ttl).await {
            Ok(Some(fence)) => {
                tracing::info!(fence, "leading the batch system");
                let outcome = lead::lead(shared, tasks, shutdown, fence).await;
                shared.live.let_go();
                shared.direct.close();
                shared.overheard.close();
                shared.tails.close();
                shared.sessions.forget_all();
                if let Err(e) = outcome {
                    tracing::warn!(error = %e.chain(), "leadership interrupted, reading the state back");
                }
                if shutdown.phase().is_running() {
                    tidemill_runtime::sleep(Duration::from_millis(20)).await;
                }
            }
            Ok(None) => drop(shutdown.sleep(pause).await),
            Err(e) => {
                tracing::warn!(error = %e.chain(), "cannot ask for the leadership");
                shutdown.sleep(pause.min(Duration::from_secs(1))).await;
            }
        }
    }
    // Another manager need not wait for the lease to end; if this fails it just waits.
    if let Err(e) = shared.schedule.resign(LEASE, &shared.holder).await {
        tracing::debug!(error = %e.chain(), "cannot resign the leadership");
    }
    Ok(())
}
