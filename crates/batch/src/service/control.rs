//! What workers are told of jobs, and that only the leader tells them.
//!
//! A manager that was frozen past its lease may wake with a wish in its hand that another has overridden since: a pause that would
//! keep a resumed job's workers from ever starting a task. So each leader enters its fence into the control table, and what it says
//! is said in a transaction that fails once another leader has entered its own.

use std::collections::BTreeMap;
use std::time::Duration;

use tidemill_base::{Error, Result};
use tidemill_blocks::table::{Condition, MAX_TRANSACTION, Write};

use super::Shared;
use crate::protocol::{Control, HandBack, Recall, decode, encode, keys};
use crate::reactor::Core;

/// What was asked of a worker and not heard is of no use after so long.
const ASKED_FOR: Duration = Duration::from_secs(60);

/// A leader's entry in the control table.
#[derive(Debug)]
pub(super) struct ControlFence {
    version: u64,
}

impl ControlFence {
    /// Enters the leader of `fence`. `Conflict` when a later one has been there.
    pub(super) async fn take(shared: &Shared, fence: u64) -> Result<Self> {
        let (table, key) = (shared.blocks.table.as_ref(), keys::control_leader());
        let found = table.get(keys::CONTROL_TABLE, &key).await?;
        let entered = found.as_ref().map(|item| decode::<u64>("control fence", &item.value)).transpose()?;
        let condition = match (found, entered) {
            (Some(item), Some(entered)) if entered == fence => return Ok(Self { version: item.version }),
            (Some(_), Some(entered)) if entered > fence => {
                return Err(Error::conflict("another manager has led the batch system since"));
            }
            (Some(item), _) => Condition::Version(item.version),
            (None, _) => Condition::Absent,
        };
        let written = table.transact(keys::CONTROL_TABLE, vec![Write::put(key, encode(&fence)?, condition)]).await?;
        Ok(Self { version: written.first().copied().unwrap_or(0) })
    }

    /// Says what is wanted of jobs. `Conflict` when somebody else leads.
    pub(super) async fn say(&self, shared: &Shared, wishes: BTreeMap<&str, Control>) -> Result<()> {
        let wishes: Vec<_> = wishes.into_iter().collect();
        for chunk in wishes.chunks(MAX_TRANSACTION - 1) {
            let mut writes = vec![Write::check(keys::control_leader(), Condition::Version(self.version))];
            for (job, wish) in chunk {
                writes.push(Write::put(keys::control_job(job), encode(wish)?, Condition::Any));
            }
            shared.blocks.table.transact(keys::CONTROL_TABLE, writes).await?;
        }
        Ok(())
    }

    /// Asks workers to hand back what they will not start soon. `Conflict` when somebody else leads.
    pub(super) async fn ask_back(&self, shared: &Shared, wanted: &[(String, HandBack)]) -> Result<()> {
        for chunk in wanted.chunks(MAX_TRANSACTION - 1) {
            let mut writes = vec![Write::check(keys::control_leader(), Condition::Version(self.version))];
            for (worker, back) in chunk {
                let put = Write::put(keys::control_hand_back(worker), encode(back)?, Condition::Any);
                writes.push(put.expiring(back.at + ASKED_FOR));
            }
            shared.blocks.table.transact(keys::CONTROL_TABLE, writes).await?;
        }
        Ok(())
    }

    /// Says which tasks of a session are to be let go of. `Conflict` when somebody else leads.
    pub(super) async fn recall(&self, shared: &Shared, job: &str, recall: Recall) -> Result<()> {
        let fence = Write::check(keys::control_leader(), Condition::Version(self.version));
        let said = Write::put(keys::control_tasks(job), encode(&recall.fitting())?, Condition::Any);
        shared.blocks.table.transact(keys::CONTROL_TABLE, vec![fence, said]).await.map(drop)
    }

    /// Brings what workers are told of jobs in line with what is wanted: the leader before may have died before it said so.
    pub(super) async fn recover(&self, shared: &Shared, core: &Core) -> Result<()> {
        let jobs: Vec<(&str, Control)> = core.jobs.iter().map(|(id, job)| (id.as_str(), Control::from(job.wanted))).collect();
        for chunk in jobs.chunks(MAX_TRANSACTION) {
            let keys: Vec<_> = chunk.iter().map(|(id, _)| keys::control_job(id)).collect();
            let said = shared.blocks.table.get_many(keys::CONTROL_TABLE, &keys).await?;
            let mut unsaid = BTreeMap::new();
            for ((job, wanted), item) in chunk.iter().zip(said) {
                let said = item.map(|i| decode::<Control>("control", &i.value)).transpose()?.unwrap_or(Control::Run);
                if said != *wanted {
                    unsaid.insert(*job, *wanted);
                }
            }
            self.say(shared, unsaid).await?;
        }
        for job in core.recalled_jobs() {
            self.recall(shared, &job, core.recall_of(&job)).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use async_trait::async_trait;
    use bytes::Bytes;
    use tidemill_base::{Env, ErrorKind, Timestamp};
    use tidemill_blocks_test::sim::memory_blocks;

    use super::*;
    use crate::reactor::LiveBatch;
    use crate::service::{BatchSettings, Manager, SegmentSink};

    #[derive(Debug)]
    struct NoSegments;

    #[async_trait]
    impl SegmentSink for NoSegments {
        async fn encode(&self, _: Vec<LiveBatch>) -> Result<Bytes> {
            Ok(Bytes::new())
        }
    }

    #[tokio::test]
    async fn a_manager_that_does_not_lead_any_more_cannot_tell_workers_anything() {
        let (env, _) = Env::manual(Timestamp::from_millis(1000), 1);
        let manager = Manager::new(memory_blocks(&env).unwrap(), env, BatchSettings::default(), Arc::new(NoSegments)).await.unwrap();
        let shared = manager.shared();
        let frozen = ControlFence::take(shared, 1).await.unwrap();
        frozen.say(shared, [("j1", Control::Pause)].into()).await.unwrap();
        let leader = ControlFence::take(shared, 2).await.unwrap();
        leader.say(shared, [("j1", Control::Run)].into()).await.unwrap();
        let late = frozen.say(shared, [("j1", Control::Pause)].into()).await;
        assert_eq!(late.unwrap_err().kind(), ErrorKind::Conflict);
        assert_eq!(ControlFence::take(shared, 1).await.unwrap_err().kind(), ErrorKind::Conflict, "nor lead again under its old fence");
        let said = shared.blocks.table.get(keys::CONTROL_TABLE, &keys::control_job("j1")).await.unwrap().unwrap();
        assert_eq!(decode::<Control>("control", &said.value).unwrap(), Control::Run);
    }
}
