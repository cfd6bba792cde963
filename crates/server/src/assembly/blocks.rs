//! The blocks of a manager, as the configuration has them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tidemill_base::{Env, Error, Result};
use tidemill_blocks::Blocks;
use tidemill_blocks::fleet::Fleet;
use tidemill_embedded::fleet::command::{CommandFleet, CommandFleetSettings};
use tidemill_embedded::fleet::{LocalFleet, LocalFleetSettings, MemberCommand};

use super::engines::Engines;
use super::no_fleet::NoFleet;
use super::tokens::WORKER_TOKEN_FILE;
use crate::config::{Driver, FleetDriver, GridSection, Plan, ServerConfig};

/// May hold the database's password.
const DATABASE_VARIABLE: &str = "TIDEMILL_POSTGRES_URL";

/// The drivers, and the parts of them that are stopped by name.
pub(super) struct Drivers {
    pub blocks: Blocks,
    pub plan: Plan,
    engines: Arc<Engines>,
    local: Option<Arc<LocalFleet>>,
}

impl Drivers {
    /// Connects to every engine and opens what is in the data folder. `url` is where workers find this manager, `ca` the certificate they
    /// trust, `s3` where S3 clients find the objects.
    pub(super) async fn open(config: &ServerConfig, env: &Env, url: &str, ca: Option<PathBuf>, s3: Option<String>) -> Result<Self> {
        let plan = config.plan()?;
        let data = &config.server.data;
        let mut drivers: Vec<_> = vec![plan.objects, plan.queue, plan.table];
        drivers.extend((plan.fleet == FleetDriver::Aws).then_some(Driver::Aws));
        // The embedded ledger and grants are files of their own, without the store.
        drivers.extend([plan.ledger, plan.grants].into_iter().filter(|d| d.is_engine()));
        let engines = Engines::connect(config, env, &drivers).await?;
        let mut local = None;
        let fleet: Arc<dyn Fleet> = match plan.fleet {
            FleetDriver::Local => {
                let settings = LocalFleetSettings::new(data.clone(), member(data, url, ca.as_deref(), &config.grid)?);
                let fleet = Arc::new(LocalFleet::open(settings, env.clone())?);
                local = Some(Arc::clone(&fleet));
                fleet
            }
            FleetDriver::None => Arc::new(NoFleet),
            FleetDriver::Command => {
                let settings = CommandFleetSettings::new(data.clone(), config.fleet.command.clone());
                Arc::new(CommandFleet::open(settings, env.clone())?)
            }
            FleetDriver::Aws => engines.fleet(engines.table(plan.table)?, env)?,
        };
        let blocks = Blocks {
            objects: engines.objects(plan.objects)?,
            queue: engines.queue(plan.queue)?,
            table: engines.table(plan.table)?,
            ledger: engines.ledger(plan.ledger, data, env)?,
            grants: engines.grants(plan.grants, data, env, s3).await?,
            fleet,
        };
        Ok(Self { blocks, plan, engines: Arc::new(engines), local })
    }

    /// The engines that are connected.
    pub(super) fn engines(&self) -> Arc<Engines> {
        Arc::clone(&self.engines)
    }

    /// Lets local workers finish or hand back what they have, for as long as `grace`.
    pub(super) async fn drain(&self, grace: Duration) -> Result<()> {
        match &self.local {
            Some(fleet) => fleet.shutdown(grace).await,
            None => Ok(()),
        }
    }

    /// Lets go of the data folder.
    pub(super) fn close(&self) {
        self.engines.close();
    }
}

/// Local workers are this same program.
fn member(data: &Path, url: &str, ca: Option<&Path>, grid: &GridSection) -> Result<MemberCommand> {
    let program = std::env::current_exe().map_err(|e| Error::from(e).context("find this program to start workers with"))?;
    let data = std::path::absolute(data).map_err(|e| Error::from(e).context(format!("find {}", data.display())))?;
    let path = |p: &Path| p.to_string_lossy().into_owned();
    let scratch = data.join("scratch");
    let mut args: Vec<String> =
        ["worker", "--manager", url, "--class", "{group}", "--id", "{member}", "--slots", "{slots}"].map(str::to_owned).into();
    args.extend(["--memory".to_owned(), "{memory}".to_owned(), "--token-file".to_owned(), path(&data.join(WORKER_TOKEN_FILE))]);
    args.extend(["--scratch".to_owned(), path(&scratch), "{offers}".to_owned()]);
    if let Some(ca) = ca {
        args.extend(["--ca".to_owned(), path(ca)]);
    }
    if !grid.engine_user.is_empty() {
        args.extend(["--engine-user".to_owned(), grid.engine_user.clone()]);
    }
    if let Some(python) = grid.python(&data) {
        let python = std::path::absolute(&python).map_err(|e| Error::from(e).context(format!("find {}", python.display())))?;
        args.extend(["--python".to_owned(), path(&python)]);
    }
    // They reach everything through the manager, so the database's password is not for them.
    let env = BTreeMap::from([(DATABASE_VARIABLE.to_owned(), String::new())]);
    Ok(MemberCommand { program, args, env })
}
