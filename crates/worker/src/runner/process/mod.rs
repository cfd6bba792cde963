//! Real processes. Each slot is an operating system thread that blocks; one more watches over them.

mod container;
mod family;
mod folder;
mod outputs;
mod plan;
mod slot;
mod sys;
mod watch;

use std::fs;
use std::sync::Arc;

use tidemill_base::{Env, Error, Result};
use tidemill_batch::protocol::{EngineCounts, PoolBeat};
use tidemill_runtime::Tasks;

use super::Runner;
use crate::engines::Engines;
use crate::floor::Floor;
use crate::range::OpenRange;
use crate::settings::{WorkerBlocks, WorkerSettings};
use slot::{Shared, Slot, SlotCell};
use watch::Watch;

pub(crate) use container::{engine, engines, is_archive, load_archive};
pub(crate) use folder::remove_all;
pub(crate) use plan::Programs;
pub(crate) use watch::{LiveLog, LiveLogs};

/// See the module.
#[derive(Debug)]
pub(crate) struct Processes {
    shared: Arc<Shared>,
    cells: Vec<Arc<SlotCell>>,
}

impl Processes {
    /// Makes the scratch folder anew and starts the threads.
    pub(crate) fn start(
        settings: &WorkerSettings,
        blocks: &WorkerBlocks,
        floor: Arc<Floor>,
        env: &Env,
        tasks: &Tasks,
        live: LiveLogs,
    ) -> Result<Self> {
        let scratch = &settings.scratch;
        let failed = |e: std::io::Error| Error::from(e).context(format!("prepare the scratch folder `{}`", scratch.display()));
        let uploads = scratch.join("uploads");
        if !sys::adopt_orphans() {
            tracing::warn!("the system does not let this worker adopt processes; a task's child with a session of its own outlives it");
        }
        if !sys::keep_descriptors() {
            tracing::warn!("the system cannot keep what this worker was started with from its tasks; they inherit its open files");
        }
        family::end_leftovers(scratch);
        let containers = scratch.join("containers");
        container::end_noted(&containers);
        for folder in ["slots", "staged", "uploads"] {
            remove_all(&scratch.join(folder));
            fs::create_dir_all(scratch.join(folder)).map_err(failed)?;
        }
        // What engines have worked in; the kit is compared when it is used.
        let engines = fs::read_dir(scratch.join("engines")).into_iter().flatten().flatten();
        engines.filter(|entry| entry.file_name() != "kit").for_each(|entry| remove_all(&entry.path()));
        let scratch = fs::canonicalize(scratch).map_err(failed)?;
        if let Some(user) = settings.engines.user {
            let engines = scratch.join("engines");
            fs::create_dir_all(&engines).map_err(failed)?;
            user.check(&engines)?;
        }
        let shared = Arc::new(Shared {
            engines: Engines::new(
                settings.engines.clone(),
                scratch.clone(),
                settings.package_bytes,
                settings.offers.slots,
                blocks.objects.clone(),
                env.clone(),
                tasks.clone(),
            ),
            floor,
            env: env.clone(),
            watch: Watch::new(settings.kill_grace, live),
            uploads,
            containers,
            inline_bytes: settings.inline_bytes,
            log_bytes: settings.log_bytes,
        });
        let cells: Vec<_> = (0..settings.offers.slots).map(|_| Arc::new(SlotCell::default())).collect();
        for (i, cell) in cells.iter().enumerate() {
            let mut slot = Slot::new(shared.clone(), cell.clone(), scratch.join("slots").join(i.to_string())).map_err(failed)?;
            thread(format!("slot-{i}"), move || slot.work())?;
        }
        let (me, watched) = (shared.clone(), cells.clone());
        thread("watch".to_owned(), move || me.watch.run(&me, &watched))?;
        Ok(Self { shared, cells })
    }
}

fn thread(name: String, run: impl FnOnce() + Send + 'static) -> Result<()> {
    let started = std::thread::Builder::new().name(name.clone()).spawn(run);
    started.map(drop).map_err(|e| Error::from(e).context(format!("start the thread `{name}`")))
}

impl Runner for Processes {
    fn nudge(&self) {
        self.shared.floor.nudge();
    }

    fn kill(&self, range: &Arc<OpenRange>) {
        self.shared.watch.kill(&self.cells, range);
    }

    fn uses_files(&self) -> bool {
        true
    }

    fn engines(&self) -> Vec<PoolBeat> {
        self.shared.engines.picture()
    }

    fn engine_counts(&self) -> EngineCounts {
        self.shared.engines.counts()
    }

    fn stop(&self) {
        self.shared.floor.stop();
        self.shared.watch.stop();
    }
}
