//! What runs tasks. The lease loop, claims, reports and control are the same whichever it is.

mod process;
mod simulated;

use std::fmt;
use std::sync::Arc;

use tidemill_base::{Env, Result};
use tidemill_batch::protocol::{EngineCounts, PoolBeat};
use tidemill_runtime::Tasks;

use crate::floor::Floor;
use crate::range::OpenRange;
use crate::settings::{WorkerBlocks, WorkerSettings};

pub(crate) use process::{LiveLog, LiveLogs, Programs, engine, engines, is_archive, load_archive, remove_all};
pub use simulated::{Draw, SimOutcome, simulated_result};

/// Takes tasks from the floor and settles them in their range.
pub(crate) trait Runner: Send + Sync + fmt::Debug {
    /// There may be something to take.
    fn nudge(&self);

    /// Kills the running tasks of `range`, whose [`OpenRange::set_kill`] has been called.
    fn kill(&self, range: &Arc<OpenRange>);

    /// Whether tasks read files, so that inputs must be fetched and task folders made.
    fn uses_files(&self) -> bool;

    /// The engines that are warm, by pool.
    fn engines(&self) -> Vec<PoolBeat> {
        Vec::new()
    }

    /// What has become of engines since the start.
    fn engine_counts(&self) -> EngineCounts {
        EngineCounts::default()
    }

    /// Tasks of the range are to be stopped: see [`OpenRange::take_recalled`]. Whoever looks for that by himself need not be told.
    fn recall(&self, _range: &Arc<OpenRange>) {}

    /// Takes nothing more; what runs is not waited for.
    fn stop(&self);
}

/// Which kind of runner a worker has.
#[derive(Clone)]
pub struct Runners(Choice);

#[derive(Clone)]
enum Choice {
    Processes,
    Simulated(Draw),
}

impl fmt::Debug for Runners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Choice::Processes => "Runners::processes",
            Choice::Simulated(_) => "Runners::simulated",
        })
    }
}

impl Runners {
    /// Real processes and containers on this machine, each slot an operating system thread.
    pub fn processes() -> Self {
        Self(Choice::Processes)
    }

    /// No processes: `draw` says of each task how long it takes and how it ends. Runs on tokio's clock alone, for the simulator.
    pub fn simulated(draw: Draw) -> Self {
        Self(Choice::Simulated(draw))
    }

    pub(crate) fn start(
        &self,
        settings: &WorkerSettings,
        blocks: &WorkerBlocks,
        floor: &Arc<Floor>,
        env: &Env,
        tasks: &Tasks,
        live: LiveLogs,
    ) -> Result<Arc<dyn Runner>> {
        Ok(match &self.0 {
            Choice::Processes => Arc::new(process::Processes::start(settings, blocks, floor.clone(), env, tasks, live)?),
            Choice::Simulated(draw) => Arc::new(simulated::Simulated::new(draw.clone(), floor.clone(), env.clone(), tasks.clone())),
        })
    }
}
