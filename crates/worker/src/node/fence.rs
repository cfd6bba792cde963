//! Claiming a range, and the fence under which its reports are written.

use std::sync::Arc;
use std::time::Duration;

use tidemill_base::{Env, Error, ErrorKind, Result, RunSet};
use tidemill_batch::protocol::keys::STATE_TABLE;
use tidemill_batch::protocol::{Claim, Control, FENCE_KEPT, RangeState, Report, WorkItem, claim as decide, decode, encode, keys};
use tidemill_blocks::table::{Condition, Key, Table, Write};
use tidemill_runtime::sleep;

use super::recall::Recalled;
use super::{Node, Said};

/// An epoch that is drawn has 40 bits: claims that follow count on from it.
const EPOCH_SHIFT: u32 = 24;

/// What came of an attempt to claim a range.
#[derive(Debug)]
pub(super) enum Claimed {
    /// It is ours; and what is asked of its job, and of tasks of it.
    Mine(Box<Fence>, Said, Recalled),
    /// Somebody has finished it; the last report's number.
    Finished(u64),
    /// Somebody else is at it for so long.
    Other(Duration),
}

/// Claims the range of `item`.
pub(super) async fn claim(node: &Node, item: &WorkItem) -> Result<Claimed> {
    let fence = keys::fence(&item.job, item.stage, item.range);
    let table = &node.blocks.table;
    let mut tries = 0;
    loop {
        let got = read_both(table, &fence, &item.job).await;
        let outcome = match got {
            Err(e) => Err(e),
            Ok((current, control, recalled)) => {
                let state = current.as_ref().map(|(s, _)| s);
                let state = match decide(state, &node.settings.id, node.env.now(), node.settings.lease) {
                    Claim::AlreadyFinished => return Ok(Claimed::Finished(state.map_or(0, |s| s.seq))),
                    Claim::HeldByOther(wait) => return Ok(Claimed::Other(wait)),
                    Claim::Take(state) => state,
                };
                let condition = current.map_or(Condition::Absent, |(_, version)| Condition::Version(version));
                let write = Write::put(fence.clone(), encode(&state)?, condition);
                table.transact(STATE_TABLE, vec![write]).await.map(|versions| {
                    let version = versions.first().copied();
                    let fence = Fence {
                        table: table.clone(),
                        env: node.env.clone(),
                        lease: node.settings.lease,
                        key: fence.clone(),
                        state,
                        version,
                        unsure: false,
                        unanswered: None,
                    };
                    Claimed::Mine(Box::new(fence), control, recalled)
                })
            }
        };
        tries += 1;
        match outcome {
            Ok(claimed) => return Ok(claimed),
            // Somebody was faster, or the answer was lost. Reading again shows which, and a claim of our own may be claimed anew.
            Err(e) if matches!(e.kind(), ErrorKind::Conflict | ErrorKind::Unavailable) && node.settings.retry.allows_another(tries) => {
                sleep(node.settings.retry.delay(tries, &node.env)).await;
            }
            Err(e) => return Err(e.context(format!("claim range {} of job {}", item.range, item.job))),
        }
    }
}

type Read = (Option<(RangeState, u64)>, Said, Recalled);

async fn read_both(table: &Arc<dyn Table>, fence: &Key, job: &str) -> Result<Read> {
    let (state, (control, recalled)) = futures::future::try_join(table.get(STATE_TABLE, fence), said(table, job)).await?;
    let state = state.map(|i| Ok::<_, Error>((decode("fence", &i.value)?, i.version))).transpose()?;
    Ok((state, control, recalled))
}

/// What the manager has said of a job, and of tasks of it.
pub(super) async fn said(table: &Arc<dyn Table>, job: &str) -> Result<(Said, Recalled)> {
    let said = table.get_many(keys::CONTROL_TABLE, &[keys::control_job(job), keys::control_tasks(job)]).await?;
    let mut said = said.into_iter();
    let (control, recalled) = (said.next().flatten(), said.next().flatten());
    let control = match control {
        Some(item) => Said { control: decode("control", &item.value)?, version: item.version },
        None => Said { control: Control::Run, version: 0 },
    };
    let recalled = match recalled {
        Some(item) => Recalled { recall: Arc::new(decode("recalled tasks", &item.value)?), version: item.version },
        None => Recalled::default(),
    };
    Ok((control, recalled))
}

/// Whether the range is still ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hold {
    Ours,
    /// Somebody else has claimed it. Whether the report that was being written counted before that.
    Lost {
        counted: bool,
    },
}

/// The fence of a range that is ours.
#[derive(Debug)]
pub(super) struct Fence {
    table: Arc<dyn Table>,
    env: Env,
    lease: Duration,
    key: Key,
    pub(super) state: RangeState,
    /// `None`: it is not written yet, and must not be there when it is.
    version: Option<u64>,
    /// A write was answered in a way that leaves open whether it happened, so `state` may be behind.
    unsure: bool,
    /// The number of a report of which that is not known.
    unanswered: Option<u64>,
}

impl Fence {
    /// A claim that is written with the first report or when it is extended, whichever comes first. For a range that seems to be delivered
    /// for the first time: should somebody have claimed it all the same, what is written first says that the range is lost, as for any
    /// other. Until then objects may be written under its epoch, so that has to be nobody else's, not even of a claim that is long over: a
    /// queue may give a message twice and call it the first time twice.
    pub(super) fn unwritten(node: &Node, item: &WorkItem) -> Self {
        let key = keys::fence(&item.job, item.stage, item.range);
        Self::unclaimed(node.blocks.table.clone(), node.env.clone(), node.settings.lease, &node.settings.id, key)
    }

    fn unclaimed(table: Arc<dyn Table>, env: Env, lease: Duration, worker: &str, key: Key) -> Self {
        let state = RangeState {
            // The first epoch is of a range that is claimed before it is begun.
            epoch: 2 + (env.random_u64() >> EPOCH_SHIFT),
            worker: worker.to_owned(),
            lease_until: env.now() + lease,
            seq: 0,
            settled: RunSet::new(),
            finished: false,
        };
        Self { table, env, lease, key, state, version: None, unsure: false, unanswered: None }
    }

    pub(super) const fn is_written(&self) -> bool {
        self.version.is_some()
    }

    /// How much longer the claim runs.
    pub(super) fn left(&self) -> Duration {
        self.state.lease_until.since(self.env.now())
    }

    /// Lets the claim run for another lease from now.
    pub(super) async fn extend(&mut self) -> Result<Hold> {
        if self.unsure
            && let Some(lost) = self.look_again().await?
        {
            return Ok(lost);
        }
        // From what is known now: a report may have been written in the moment of doubt, and must not be undone.
        let next = RangeState { lease_until: self.env.now() + self.lease, ..self.state.clone() };
        self.write(next, Vec::new()).await
    }

    /// Writes a report: moves the fence on and adds `writes`, all or nothing.
    pub(super) async fn report(&mut self, seq: u64, settles: &RunSet, finished: bool, writes: Vec<Write>) -> Result<Hold> {
        if self.unsure
            && let Some(lost) = self.look_again().await?
        {
            return Ok(lost);
        }
        if self.state.seq >= seq {
            return Ok(Hold::Ours);
        }
        let mut next = RangeState { lease_until: self.env.now() + self.lease, seq, finished, ..self.state.clone() };
        next.settled.union_with(settles);
        self.unanswered = Some(seq);
        self.write(next, writes).await
    }

    async fn write(&mut self, next: RangeState, mut writes: Vec<Write>) -> Result<Hold> {
        let condition = self.version.map_or(Condition::Absent, Condition::Version);
        let put = Write::put(self.key.clone(), encode(&next)?, condition);
        writes.insert(0, if next.finished { put.expiring(self.env.now() + FENCE_KEPT) } else { put });
        match self.table.transact(STATE_TABLE, writes).await {
            Ok(versions) => {
                (self.state, self.version) = (next, versions.first().copied());
                (self.unsure, self.unanswered) = (false, None);
                Ok(Hold::Ours)
            }
            Err(e) => {
                self.unsure = true;
                if e.kind() == ErrorKind::Conflict {
                    if let Some(lost) = self.look_again().await? {
                        return Ok(lost);
                    }
                    if self.state.seq >= next.seq && self.state.lease_until >= next.lease_until {
                        return Ok(Hold::Ours);
                    }
                }
                Err(e)
            }
        }
    }

    /// After a lost answer: reads the fence as it is, or finds that the range is lost. `None`: it is ours, and `state` is what it is.
    async fn look_again(&mut self) -> Result<Option<Hold>> {
        let found = self.table.get(STATE_TABLE, &self.key).await?;
        let Some(item) = found else {
            // Nobody removes a fence before the job is gone, and then nothing counts.
            return Ok(Some(Hold::Lost { counted: false }));
        };
        let state: RangeState = decode("fence", &item.value)?;
        if state.epoch != self.state.epoch || state.worker != self.state.worker {
            let counted = match self.unanswered {
                Some(seq) if state.seq >= seq => self.report_is_ours(seq).await?,
                _ => false,
            };
            return Ok(Some(Hold::Lost { counted }));
        }
        if self.unanswered.is_some_and(|seq| state.seq >= seq) {
            self.unanswered = None;
        }
        self.unsure = false;
        self.version = Some(item.version);
        self.state = state;
        Ok(None)
    }

    /// Whether the report number `seq` is of this claim. One that has been cleared away into a segment is taken to be: its outputs
    /// must not be removed, and those of a claim that did not count are swept at the job's end.
    async fn report_is_ours(&self, seq: u64) -> Result<bool> {
        let Some((job, stage)) = self.key.partition.strip_prefix("r/").and_then(|p| p.rsplit_once('/')) else { return Ok(false) };
        let stage = stage.parse().map_err(|e| Error::internal("stage in a fence's key").with_source(e))?;
        let range = tidemill_blocks::table::unsort_u64(&self.key.sort).unwrap_or(0);
        let found = self.table.get(STATE_TABLE, &keys::report(job, stage, range, seq)).await?;
        Ok(match found {
            Some(item) => decode::<Report>("report", &item.value)?.epoch == self.state.epoch,
            None => true,
        })
    }
}

#[cfg(test)]
mod tests {
    use tidemill_base::Timestamp;
    use tidemill_blocks::memory::MemoryTable;

    use super::*;

    async fn claimed(table: &Arc<dyn Table>, env: &Env) -> Fence {
        table.ensure(STATE_TABLE).await.unwrap();
        let lease = Duration::from_secs(10);
        let Claim::Take(state) = decide(None, "w1", env.now(), lease) else { panic!("nobody holds it") };
        let key = keys::fence("j", 0, 7);
        let put = Write::put(key.clone(), encode(&state).unwrap(), Condition::Absent);
        let version = Some(table.transact(STATE_TABLE, vec![put]).await.unwrap()[0]);
        Fence { table: table.clone(), env: env.clone(), lease, key, state, version, unsure: false, unanswered: None }
    }

    #[tokio::test]
    async fn a_range_that_is_given_twice_as_if_for_the_first_time_counts_once_and_shares_no_objects() {
        let (env, _) = Env::manual(Timestamp::from_millis(1000), 1);
        let table: Arc<dyn Table> = Arc::new(MemoryTable::new(env.clone()));
        table.ensure(STATE_TABLE).await.unwrap();
        let begin = |worker: &str| Fence::unclaimed(table.clone(), env.clone(), Duration::from_secs(10), worker, keys::fence("j", 0, 7));
        let object = |f: &Fence| keys::result_object("j", 0, 7, f.state.epoch, 1);
        let report = |f: &Fence| vec![Write::put(keys::report("j", 0, 7, 1), encode(&a_report(f.state.epoch)).unwrap(), Condition::Absent)];
        let mut first = begin("w1");
        let writes = report(&first);
        assert_eq!(first.report(1, &RunSet::from_run(0, 5), true, writes).await.unwrap(), Hold::Ours);
        // By the same worker as well: it has forgotten what is done.
        for worker in ["w1", "w2"] {
            let mut again = begin(worker);
            assert_ne!(object(&again), object(&first), "what {worker} removes of its own must not be what counts");
            assert_eq!(again.extend().await.unwrap(), Hold::Lost { counted: false });
            let mut again = begin(worker);
            let writes = report(&again);
            assert_eq!(again.report(1, &RunSet::from_run(0, 5), true, writes).await.unwrap(), Hold::Lost { counted: false });
        }
        // One that is written first by a claim of the ordinary kind.
        let next = decide(Some(&RangeState { finished: false, ..first.state.clone() }), "w1", env.now(), Duration::from_secs(10));
        assert!(matches!(next, Claim::Take(s) if s.epoch == first.state.epoch + 1));
    }

    /// The same fence as a worker has it whose report was written and whose answer was lost.
    async fn with_lost_answer(mut fence: Fence) -> Fence {
        let before =
            Fence { table: fence.table.clone(), env: fence.env.clone(), key: fence.key.clone(), state: fence.state.clone(), ..fence };
        let report = Write::put(keys::report("j", 0, 7, 1), encode(&a_report(1)).unwrap(), Condition::Absent);
        assert_eq!(fence.report(1, &RunSet::from_run(0, 5), false, vec![report]).await.unwrap(), Hold::Ours);
        Fence { unsure: true, unanswered: Some(1), ..before }
    }

    fn a_report(epoch: u64) -> Report {
        Report {
            worker: "w1".into(),
            epoch,
            attempt: 1,
            succeeded: vec![(0, 5)],
            failed: vec![],
            returned: vec![],
            cancelled: vec![],
            finished: false,
            columns: vec![],
            at: Timestamp::ZERO,
        }
    }

    #[tokio::test]
    async fn extending_a_claim_does_not_undo_a_report_whose_answer_was_lost() {
        let (env, _) = Env::manual(Timestamp::from_millis(1000), 1);
        let table: Arc<dyn Table> = Arc::new(MemoryTable::new(env.clone()));
        let mut fence = with_lost_answer(claimed(&table, &env).await).await;
        assert_eq!(fence.extend().await.unwrap(), Hold::Ours);
        let stored: RangeState = decode("fence", &table.get(STATE_TABLE, &fence.key).await.unwrap().unwrap().value).unwrap();
        assert_eq!((stored.seq, stored.settled.len()), (1, 5));
        assert_eq!(fence.report(1, &RunSet::from_run(0, 5), false, vec![]).await.unwrap(), Hold::Ours, "it is known to be written");
    }

    #[tokio::test]
    async fn a_report_that_counted_before_the_claim_was_lost_is_known_to_have_counted() {
        let (env, clock) = Env::manual(Timestamp::from_millis(1000), 1);
        let table: Arc<dyn Table> = Arc::new(MemoryTable::new(env.clone()));
        let mut fence = with_lost_answer(claimed(&table, &env).await).await;
        clock.advance(Duration::from_secs(60));
        let item = table.get(STATE_TABLE, &fence.key).await.unwrap().unwrap();
        let held: RangeState = decode("fence", &item.value).unwrap();
        let Claim::Take(other) = decide(Some(&held), "w2", env.now(), fence.lease) else { panic!("the lease has ended") };
        let put = Write::put(fence.key.clone(), encode(&other).unwrap(), Condition::Version(item.version));
        table.transact(STATE_TABLE, vec![put]).await.unwrap();
        assert_eq!(fence.extend().await.unwrap(), Hold::Lost { counted: true }, "so its outputs are kept");
    }
}
