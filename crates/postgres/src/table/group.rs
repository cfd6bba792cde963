//! Transactions of one process that come at the same time go to the server as one.
//!
//! A partition's lock is held until the commit is on the disk, so that one partition would take no more transactions per second than
//! the disk takes commits, however many callers there are. Those that wait meanwhile and do not touch each other's items are therefore
//! sent together: each is checked by itself, those that hold are done, and all of them share one commit. A caller that is alone waits for
//! nobody.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use tidemill_base::{Error, Result};
use tidemill_blocks::table::{Change, Key, Write};
use tidemill_runtime::Kind;
use tokio::sync::oneshot;

use super::write::{self, BATCH, BATCH_BYTES};
use crate::Shared;

/// Groups of one table that are on their way at a time: while one is being committed, another can wait for its locks.
const ON_THEIR_WAY: usize = 2;
/// Transactions looked at for one group.
const LOOK: usize = 256;

type Answer = Result<Vec<u64>>;

#[derive(Debug)]
struct Job {
    writes: Vec<Write>,
    answer: oneshot::Sender<Answer>,
}

#[derive(Debug, Default)]
struct Line {
    waiting: VecDeque<Job>,
    on_their_way: usize,
}

/// Transactions that wait to be sent, by table.
#[derive(Debug, Default)]
pub(super) struct Groups(Mutex<BTreeMap<i32, Line>>);

/// Counts a sender off when it ends, however it does.
struct Sender {
    groups: Arc<Groups>,
    table: i32,
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.groups.with(self.table, |line| line.on_their_way -= 1);
    }
}

impl Groups {
    fn with<T>(&self, table: i32, f: impl FnOnce(&mut Line) -> T) -> T {
        f(self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(table).or_default())
    }

    /// Does all of `writes`, which go to distinct keys, or none.
    pub(super) async fn submit(self: &Arc<Self>, shared: &Arc<Shared>, table: i32, writes: Vec<Write>) -> Answer {
        let (answer, answered) = oneshot::channel();
        let starts = self.with(table, |line| {
            line.waiting.push_back(Job { writes, answer });
            let starts = line.on_their_way < ON_THEIR_WAY;
            line.on_their_way += usize::from(starts);
            starts
        });
        if starts {
            let (sender, shared) = (Sender { groups: Arc::clone(self), table }, Arc::clone(shared));
            shared.tasks.clone().spawn("table-groups", Kind::Request, async move {
                sender.send_all(&shared).await;
                Ok(())
            });
        }
        let lost = "the transaction's group was given up; whether it took effect is not known, read before trying again";
        answered.await.map_err(|_| Error::unavailable(lost))?
    }
}

impl Sender {
    async fn send_all(&self, shared: &Arc<Shared>) {
        loop {
            let group = self.groups.with(self.table, |line| take(&mut line.waiting));
            if group.is_empty() {
                return;
            }
            let transactions: Vec<&[Write]> = group.iter().map(|job| &job.writes[..]).collect();
            let answers = match write::apply(shared, self.table, &transactions).await {
                Ok(answers) => answers,
                Err(e) => group.iter().map(|_| Err(Error::new(e.kind(), e.chain()))).collect(),
            };
            for (job, answer) in group.into_iter().zip(answers) {
                // The caller may have gone; what is written stays.
                drop(job.answer.send(answer));
            }
        }
    }
}

/// The items that a group touches.
#[derive(Default)]
struct Touched {
    written: BTreeSet<Key>,
    checked: BTreeSet<Key>,
}

impl Touched {
    /// Whether one of the two would see what the other does.
    fn meets(&self, writes: &[Write]) -> bool {
        writes.iter().any(|w| self.written.contains(&w.key) || (w.change != Change::Check && self.checked.contains(&w.key)))
    }

    fn add(&mut self, writes: &[Write]) {
        for write in writes {
            let keys = if write.change == Change::Check { &mut self.checked } else { &mut self.written };
            keys.insert(write.key.clone());
        }
    }
}

/// The transactions of the next group: from the front, as many as fit and do not meet. The others keep their places.
fn take(waiting: &mut VecDeque<Job>) -> Vec<Job> {
    let (mut group, mut left) = (Vec::new(), VecDeque::new());
    let (mut touched, mut count, mut bytes) = (Touched::default(), 0, 0);
    for _ in 0..LOOK {
        let Some(job) = waiting.pop_front() else { break };
        let size = job.writes.iter().map(write_bytes).sum::<usize>();
        let fits = group.is_empty() || (count + job.writes.len() <= BATCH && bytes + size <= BATCH_BYTES);
        if fits && !touched.meets(&job.writes) {
            touched.add(&job.writes);
            (count, bytes) = (count + job.writes.len(), bytes + size);
            group.push(job);
        } else {
            left.push_back(job);
        }
    }
    while let Some(job) = left.pop_back() {
        waiting.push_front(job);
    }
    group
}

/// What a write weighs in a statement.
pub(super) fn write_bytes(write: &Write) -> usize {
    let value = if let Change::Put { value, .. } = &write.change { value.len() } else { 0 };
    write.key.partition.len() + write.key.sort.len() + value
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_blocks::table::Condition;

    fn job(keys: &[&str], len: usize) -> Job {
        let put = |k: &&str| Write::put(Key::new("p", (*k).to_owned()), vec![0; len], Condition::Any);
        Job { writes: keys.iter().map(put).collect(), answer: oneshot::channel().0 }
    }

    fn names(jobs: impl IntoIterator<Item = Job>) -> Vec<String> {
        jobs.into_iter().map(|j| String::from_utf8(j.writes[0].key.sort.to_vec()).unwrap()).collect()
    }

    #[test]
    fn a_group_touches_each_item_once_and_others_keep_their_order() {
        let mut waiting: VecDeque<Job> = [&["a", "b"][..], &["b"], &["c"], &["b", "d"], &["e"]].map(|k| job(k, 1)).into();
        assert_eq!(names(take(&mut waiting)), ["a", "c", "e"]);
        assert_eq!(names(take(&mut waiting)), ["b"]);
        assert_eq!(names(take(&mut waiting)), ["b"]);
        assert!(take(&mut waiting).is_empty());
    }

    #[test]
    fn what_is_only_checked_may_be_checked_by_many() {
        let check = |own: &str| {
            let mut job = job(&[own], 1);
            job.writes.push(Write::check(Key::new("p", "shared"), Condition::Present));
            job
        };
        let mut waiting: VecDeque<Job> = [check("a"), check("b"), job(&["shared"], 1), check("c")].into();
        assert_eq!(names(take(&mut waiting)), ["a", "b", "c"]);
        assert_eq!(names(take(&mut waiting)), ["shared"]);
    }

    #[test]
    fn a_group_has_a_size_but_for_one_that_is_too_large_alone() {
        let large = BATCH_BYTES / 2 + 1;
        let mut waiting: VecDeque<Job> = [job(&["a"], large), job(&["b"], large), job(&["c"], 1), job(&["d"], 3 * large)].into();
        assert_eq!(names(take(&mut waiting)), ["a", "c"]);
        assert_eq!(names(take(&mut waiting)), ["b"]);
        assert_eq!(names(take(&mut waiting)), ["d"]);
    }
}
