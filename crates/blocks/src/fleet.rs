//! Groups of workers with a desired size.
//!
//! The shape is that of an EC2 Auto Scaling group: a group has a minimum, a maximum and a desired size; the driver starts and
//! replaces members until the desired number is healthy; a member that works is protected from scale-in; a member is drained
//! before it goes.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tidemill_base::{Result, Timestamp};

/// What a group is set to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupSpec {
    /// `a-z 0-9 -`, 1 to 40 characters. Also the class of work its members take.
    pub name: String,
    /// Never fewer members than this.
    pub min: u32,
    /// Never more.
    pub max: u32,
    /// What one member offers.
    pub offers: Offers,
}

/// What one worker offers to tasks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offers {
    /// Tasks of one CPU that it runs at once.
    pub slots: u32,
    /// Bytes of memory for tasks.
    pub memory: u64,
    /// Named resources and how much of each.
    pub named: BTreeMap<String, u64>,
}

/// How a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemberState {
    /// Started, has not shown a sign of life yet.
    Starting,
    /// Alive.
    Running,
    /// Takes no new work and goes when it is done.
    Draining,
    /// Found sick; will be replaced.
    Unhealthy,
}

/// One member of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The driver's name for it: process number, instance id.
    pub id: String,
    /// How it is.
    pub state: MemberState,
    /// Not chosen when the group shrinks.
    pub protected: bool,
    /// When it was started.
    pub started_at: Timestamp,
}

/// A group as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// What it is set to.
    pub spec: GroupSpec,
    /// The size it should have, between min and max.
    pub desired: u32,
    /// Those there are, drained ones included until they are gone.
    pub members: Vec<Member>,
}

/// The fleet block.
#[async_trait]
pub trait Fleet: Send + Sync + std::fmt::Debug {
    /// Makes the group or changes its settings; the desired size is kept within the new bounds.
    async fn ensure(&self, spec: GroupSpec) -> Result<()>;

    /// Every group.
    async fn groups(&self) -> Result<Vec<Group>>;

    /// Sets the size. Outside min and max it is `Invalid`. Shrinking drains unprotected members first, the youngest first.
    async fn set_desired(&self, group: &str, desired: u32) -> Result<()>;

    /// Sets or lifts scale-in protection.
    async fn protect(&self, group: &str, member: &str, protected: bool) -> Result<()>;

    /// Lets the member finish what it has and go; with `replace` another takes its place, otherwise the desired size shrinks, which
    /// is `Invalid` at the minimum.
    async fn drain(&self, group: &str, member: &str, replace: bool) -> Result<()>;

    /// Says that the member is sick: it is ended at once and replaced.
    async fn mark_unhealthy(&self, group: &str, member: &str) -> Result<()>;

    /// Brings what there is in line with what is desired: starts, replaces, reaps. Called every second or so by whoever leads.
    async fn reconcile(&self) -> Result<()>;

    /// How long a member may take from its start to its first sign of life before it is taken for sick. A process is there at once; a
    /// machine has to boot.
    fn boot_limit(&self) -> Duration {
        Duration::from_secs(60)
    }

    /// Why the group is not as it should be, for people: a start that fails, members that cannot go yet. `None`: nothing to say,
    /// or the driver cannot tell.
    async fn trouble(&self, group: &str) -> Result<Option<String>> {
        let _ = group;
        Ok(None)
    }
}
