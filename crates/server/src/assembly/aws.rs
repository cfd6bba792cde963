//! AWS, where the configuration names it. A program that was built without the drivers says so when it is asked for one.

use std::sync::Arc;

use tidemill_base::{Env, Result};
use tidemill_blocks::check::Finding;
use tidemill_blocks::fleet::Fleet;
use tidemill_blocks::table::Table;

#[cfg(feature = "aws")]
use crate::config::{Driver, FleetDriver};
use crate::config::{Plan, ServerConfig};

#[cfg(feature = "aws")]
pub(super) use tidemill_aws::Aws;

/// Finds region and credentials as every AWS program does. `Invalid` when this program has no such drivers.
#[cfg(feature = "aws")]
pub(super) async fn connect(config: &ServerConfig, env: &Env) -> Result<Aws> {
    let section = &config.aws;
    let given = |text: &str| Some(text.to_owned()).filter(|t| !t.is_empty());
    let settings = tidemill_aws::AwsSettings {
        region: given(&section.region),
        endpoint: given(&section.endpoint),
        prefix: section.prefix.clone(),
        bucket: section.bucket.clone(),
        role_arn: given(&section.role_arn),
        ..tidemill_aws::AwsSettings::default()
    };
    Aws::connect(settings, env.clone()).await
}

/// Groups of EC2 Auto Scaling, whose members finish their work before they go.
#[cfg(feature = "aws")]
pub(super) fn fleet(aws: &Aws, table: Arc<dyn Table>, env: &Env) -> Arc<dyn Fleet> {
    Arc::new(aws.fleet(Some(Arc::new(drainer::ByTable::new(table, env.clone())))))
}

/// What the blocks that are on AWS need of it. Queues and tables are looked for by those who keep something in them.
#[cfg(feature = "aws")]
pub(super) async fn check(aws: &Aws, plan: &Plan, groups: &[String], create: bool) -> Vec<Finding> {
    let mut out = match plan.objects {
        Driver::Aws => aws.check(create).await,
        // Without objects there, no bucket is named and none is looked for.
        _ => Vec::new(),
    };
    if plan.fleet == FleetDriver::Aws {
        out.extend(aws.check_fleet(groups).await);
    }
    out
}

#[cfg(feature = "aws")]
mod drainer {
    use async_trait::async_trait;
    use tidemill_aws::fleet::Drainer;
    use tidemill_batch::protocol::{Control, encode, keys};
    use tidemill_batch::service::live_workers;
    use tidemill_blocks::table::{Condition, Write};

    use super::{Arc, Env, Result, Table};

    /// Members are told in the control table, as any worker is, and are seen to go by their heartbeats. A member's id is its worker's.
    #[derive(Debug)]
    pub(super) struct ByTable {
        table: Arc<dyn Table>,
        env: Env,
    }

    impl ByTable {
        pub(super) fn new(table: Arc<dyn Table>, env: Env) -> Self {
            Self { table, env }
        }
    }

    #[async_trait]
    impl Drainer for ByTable {
        async fn ask(&self, member: &str) -> Result<()> {
            let write = Write::put(keys::control_worker(member), encode(&Control::Drain)?, Condition::Any);
            self.table.write_many(keys::CONTROL_TABLE, vec![write]).await
        }

        async fn is_done(&self, member: &str) -> Result<bool> {
            let live = live_workers(self.table.as_ref(), self.env.now()).await?;
            Ok(live.iter().all(|w| w.worker != member))
        }
    }
}

#[cfg(not(feature = "aws"))]
pub(super) use without::{Aws, check, connect, fleet};

#[cfg(not(feature = "aws"))]
mod without {
    use tidemill_base::Error;
    use tidemill_blocks::grants::Grants;
    use tidemill_blocks::objects::Objects;
    use tidemill_blocks::queue::Queue;

    use super::{Arc, Env, Finding, Fleet, Plan, Result, ServerConfig, Table};

    /// There is none in this program.
    #[derive(Debug, Clone, Copy)]
    pub(in super::super) enum Aws {}

    pub(in super::super) async fn connect(_: &ServerConfig, _: &Env) -> Result<Aws> {
        Err(Error::invalid(
            "a block's driver is `aws` and this binary was built without the aws drivers; build it with its default features",
        ))
    }

    pub(in super::super) fn fleet(aws: &Aws, _: Arc<dyn Table>, _: &Env) -> Arc<dyn Fleet> {
        match *aws {}
    }

    pub(in super::super) async fn check(aws: &Aws, _: &Plan, _: &[String], _: bool) -> Vec<Finding> {
        match *aws {}
    }

    impl Aws {
        pub(in super::super) fn queue(&self) -> Arc<dyn Queue> {
            match *self {}
        }

        pub(in super::super) fn table(&self) -> Arc<dyn Table> {
            match *self {}
        }

        pub(in super::super) fn objects(&self) -> Result<Objects> {
            match *self {}
        }

        pub(in super::super) fn grants(&self) -> Result<Arc<dyn Grants>> {
            match *self {}
        }
    }
}
