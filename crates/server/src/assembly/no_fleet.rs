//! No groups: others start workers, and nobody here scales them.

use async_trait::async_trait;
use tidemill_base::{Error, Result};
use tidemill_blocks::fleet::{Fleet, Group, GroupSpec};

/// The fleet of `drivers.fleet = "none"`.
#[derive(Debug, Clone, Copy)]
pub(super) struct NoFleet;

fn none(group: &str) -> Error {
    let shown = group.escape_debug();
    Error::not_found(format!("there is no group `{shown}`: drivers.fleet is `none`, and workers are started by whoever runs them"))
}

#[async_trait]
impl Fleet for NoFleet {
    async fn ensure(&self, spec: GroupSpec) -> Result<()> {
        Err(none(&spec.name))
    }

    async fn groups(&self) -> Result<Vec<Group>> {
        Ok(Vec::new())
    }

    async fn set_desired(&self, group: &str, _: u32) -> Result<()> {
        Err(none(group))
    }

    async fn protect(&self, group: &str, _: &str, _: bool) -> Result<()> {
        Err(none(group))
    }

    async fn drain(&self, group: &str, _: &str, _: bool) -> Result<()> {
        Err(none(group))
    }

    async fn mark_unhealthy(&self, group: &str, _: &str) -> Result<()> {
        Err(none(group))
    }

    async fn reconcile(&self) -> Result<()> {
        Ok(())
    }
}
