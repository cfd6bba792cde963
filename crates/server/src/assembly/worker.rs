//! The blocks of a worker that speaks to the engines itself, without a manager in between.

use std::sync::Arc;

use tidemill_base::{Env, Error, Result};
use tidemill_batch::protocol::TaskGrants;
use tidemill_batch::service::FencedGrants;
use tidemill_blocks::objects::Objects;
use tidemill_blocks::queue::Queue;
use tidemill_blocks::table::Table;

use super::engines::Engines;
use crate::config::{Driver, Plan, ServerConfig};

/// What a worker needs of the engines. It never sees the ledger's records.
#[derive(Debug, Clone)]
pub struct WorkerDrivers {
    /// Work and completions.
    pub queue: Arc<dyn Queue>,
    /// Fences, reports, heartbeats, control.
    pub table: Arc<dyn Table>,
    /// Inputs, outputs, stage definitions.
    pub objects: Objects,
    /// Credentials for tasks. `None` when the configuration does not say where they could be used: a manager has to be asked then.
    pub grants: Option<Arc<dyn TaskGrants>>,
}

/// Connects to the engines behind queue, table and objects, and to no others. With `own_grants` it issues the credentials of its tasks
/// by itself, as far as the configuration says how.
///
/// `Invalid` when one of the three is in a data folder, which belongs to its manager; `Unavailable` when an engine cannot be reached.
pub async fn worker_drivers(config: &ServerConfig, env: &Env, own_grants: bool) -> Result<WorkerDrivers> {
    let plan = config.plan()?;
    check_reach(&plan)?;
    let grants = own_grants.then(|| issuer(&plan, config)).flatten();
    let mut drivers = vec![plan.queue, plan.table, plan.objects];
    drivers.extend(grants);
    let engines = Engines::connect(config, env, &drivers).await?;
    let (table, objects) = (engines.table(plan.table)?, engines.objects(plan.objects)?);
    let grants: Option<Arc<dyn TaskGrants>> = match grants {
        Some(driver) => {
            let s3 = Some(config.server.s3_url.trim_end_matches('/').to_owned());
            let issuer = engines.grants(driver, &config.server.data, env, s3).await?;
            Some(Arc::new(FencedGrants::new(issuer, Arc::clone(&table), Arc::clone(&objects), env.clone())))
        }
        None => None,
    };
    Ok(WorkerDrivers { queue: engines.queue(plan.queue)?, table, objects, grants })
}

fn check_reach(plan: &Plan) -> Result<()> {
    let own = [("queue", plan.queue), ("table", plan.table), ("objects", plan.objects)];
    match own.iter().find(|(_, driver)| !driver.is_engine()) {
        None => Ok(()),
        Some((name, _)) => Err(Error::invalid(format!(
            "drivers.{name} is `embedded`, in the data folder of its manager, where no worker can reach it by itself; start the worker with \
             --manager URL and without --config and --drivers"
        ))),
    }
}

/// Who issues credentials, if the worker can. What we sign ourselves is for an S3 endpoint of ours, and the worker has none.
fn issuer(plan: &Plan, config: &ServerConfig) -> Option<Driver> {
    let usable = plan.grants == Driver::Aws || (plan.grants == Driver::Postgres && !config.server.s3_url.is_empty());
    usable.then_some(plan.grants)
}

#[cfg(test)]
mod tests {
    use tidemill_base::ErrorKind;

    use super::*;

    #[tokio::test]
    async fn a_data_folder_is_out_of_a_workers_reach() {
        let mut config = ServerConfig::default();
        config.drivers.objects = "aws".to_owned();
        config.aws.bucket = "b".to_owned();
        let e = worker_drivers(&config, &Env::system(), true).await.unwrap_err();
        assert!(e.kind() == ErrorKind::Invalid && e.message().contains("drivers.queue") && e.message().contains("--manager"), "{e}");
    }

    #[test]
    fn the_key_of_credentials_is_read_only_where_they_can_be_used() {
        let mut config = ServerConfig::default();
        config.drivers.default = "postgres".to_owned();
        config.postgres.url = "postgres://db/mill".into();
        let plan = config.plan().unwrap();
        assert_eq!(issuer(&plan, &config), None);
        config.server.s3_url = "https://s3.mill.example".to_owned();
        assert_eq!(issuer(&plan, &config), Some(Driver::Postgres));
    }
}
