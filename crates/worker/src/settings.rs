//! What a worker is told when it starts.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tidemill_base::{Error, HumanDuration, Result, RetryPolicy};
use tidemill_batch::protocol::TaskGrants;
use tidemill_blocks::fleet::Offers;
use tidemill_blocks::objects::Objects;
use tidemill_blocks::queue::Queue;
use tidemill_blocks::table::Table;

use crate::engines::EnginePrograms;

/// The blocks a worker needs. It never sees the ledger.
#[derive(Debug, Clone)]
pub struct WorkerBlocks {
    /// Work and completions.
    pub queue: Arc<dyn Queue>,
    /// Fences, reports, heartbeats, control.
    pub table: Arc<dyn Table>,
    /// Inputs, outputs, stage definitions.
    pub objects: Objects,
    /// Gives out credentials for tasks that ask for them; without it such tasks fail to start.
    pub grants: Option<Arc<dyn TaskGrants>>,
}

/// How a worker behaves.
#[derive(Debug, Clone)]
pub struct WorkerSettings {
    /// Unique among all workers of the installation; a member of a fleet group uses the member's id.
    pub id: String,
    /// The class of work it takes.
    pub class: String,
    /// The machine it is on, for people.
    pub host: String,
    /// What it offers to tasks.
    pub offers: Offers,
    /// Its own folder for task folders; what a dead predecessor left in it is removed at the start.
    pub scratch: PathBuf,
    /// How long a range stays leased without a sign of life.
    pub lease: Duration,
    /// How much unstarted work is held in advance, as running time on all slots.
    pub prefetch: Duration,
    /// The most ranges held at once.
    pub max_ranges: usize,
    /// How often settled tasks of a range are reported.
    pub report_every: Duration,
    /// How often it says that it lives.
    pub heartbeat_every: Duration,
    /// From SIGTERM to SIGKILL.
    pub kill_grace: Duration,
    /// How long running tasks may go on after a drain was asked for.
    pub drain_grace: Duration,
    /// Files up to this many bytes are packed with others of their report.
    pub inline_bytes: u64,
    /// The end of a task's log that is kept, bytes.
    pub log_bytes: u64,
    /// How many tasks are fetched for or stored at once.
    pub transfers: usize,
    /// The pauses between tries when a block cannot be reached.
    pub retry: RetryPolicy,
    /// The region that tasks with credentials are told, for S3 clients; an endpoint of our own takes any.
    pub region: String,
    /// What engines are started from.
    pub engines: EnginePrograms,
    /// Bytes of packages that are kept for the next session; those in use are kept whatever they need.
    pub package_bytes: u64,
    /// Variables that begin with one of these are the worker's own: no job gets them as a secret.
    pub own_variables: Vec<String>,
}

impl WorkerSettings {
    /// Settings with the usual values.
    pub fn new(id: impl Into<String>, class: impl Into<String>, scratch: impl Into<PathBuf>, offers: Offers) -> Self {
        let slots = usize::try_from(offers.slots).unwrap_or(usize::MAX);
        Self {
            id: id.into(),
            class: class.into(),
            host: String::new(),
            offers,
            scratch: scratch.into(),
            lease: Duration::from_secs(30),
            prefetch: Duration::from_secs(2),
            max_ranges: slots.saturating_mul(2).saturating_add(8),
            report_every: Duration::from_secs(1),
            heartbeat_every: Duration::from_secs(2),
            kill_grace: Duration::from_millis(500),
            drain_grace: Duration::from_secs(60),
            inline_bytes: 8 << 10,
            log_bytes: 8 << 20,
            transfers: 16,
            retry: RetryPolicy { attempts: 8, base: HumanDuration(Duration::from_millis(100)), cap: HumanDuration(Duration::from_secs(5)) },
            region: "us-east-1".to_owned(),
            engines: EnginePrograms::default(),
            package_bytes: 10 << 30,
            own_variables: vec!["TIDEMILL_".to_owned()],
        }
    }

    pub(crate) fn check(&self) -> Result<()> {
        let wrong = |what: &str| Err(Error::invalid(format!("worker `{}`: {what}", self.id)));
        if self.id.is_empty() {
            return wrong("the id must not be empty");
        }
        if self.offers.slots == 0 || self.max_ranges == 0 || self.transfers == 0 {
            return wrong("slots, max_ranges and transfers must be at least 1");
        }
        if self.lease < Duration::from_secs(3) || self.report_every.is_zero() {
            return wrong("the lease must be at least 3 s and report_every more than nothing");
        }
        Ok(())
    }
}
