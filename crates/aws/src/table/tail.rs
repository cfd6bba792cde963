//! The newest records of each shard that somebody follows, read once for all followers in this process.
//!
//! DynamoDB lets a shard be asked five times a second, by two readers. A server has a follower for each worker, so they must not ask
//! one by one: whoever is at a shard's end is served from its tail, and the tail asks DynamoDB, no oftener than
//! [`PAUSE`] lets it. A follower is at the tail when its cursor says so (a mark: this process, and how many records the tail
//! had seen) or when the number of its last record is among the tail's. Others read by themselves until they get there. An empty
//! answer does not show that a reader is at the end, since DynamoDB gives such in the middle as well; so nothing else counts.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::Duration;

use tidemill_base::{Env, Result};
use tidemill_runtime::Stopwatch;
use tokio::sync::Mutex;

use super::shards::{Change, Got, Shard, list, records};
use crate::connect::Inner;

/// Two processes that follow a table stay within DynamoDB's five questions a second.
pub(super) const PAUSE: Duration = Duration::from_millis(400);
/// Records kept; followers that fall behind further read by themselves.
const KEPT: usize = 4096;
/// Bytes of values kept.
const KEPT_BYTES: usize = 16 * 1024 * 1024;
/// DynamoDB's iterators go stale then.
const IDLE: Duration = Duration::from_secs(15 * 60);
/// Shards come and go every few hours, and DynamoDB lists them ten times a second at most, for everybody.
const LISTED: Duration = Duration::from_secs(1);
/// Records in one question.
const ASKED: usize = 1000;

/// The tails of this process.
#[derive(Debug)]
pub(super) struct Tails {
    /// Tells this process's marks from others'.
    id: u64,
    by_shard: StdMutex<BTreeMap<String, Arc<Mutex<Tail>>>>,
    /// The shards of each stream, and since when.
    listed: Mutex<BTreeMap<String, (Stopwatch, Vec<Shard>)>>,
}

/// The newest records of a shard.
#[derive(Debug)]
pub(super) struct Tail {
    id: u64,
    /// The record before the first one kept, if it is known.
    before: Option<String>,
    log: VecDeque<Change>,
    bytes: usize,
    /// How many records were dropped from the front of the log.
    dropped: u64,
    /// DynamoDB's word for what follows; `None`: the shard has ended.
    next: Option<String>,
    asked: Option<Stopwatch>,
    begun: Stopwatch,
}

/// Which process, and how many records its tail had seen.
pub(super) type Mark = (u64, u64);

impl Tails {
    pub(super) fn new(env: &Env) -> Self {
        Self { id: env.random_u64(), by_shard: StdMutex::default(), listed: Mutex::default() }
    }

    /// All shards of a stream as they were a second ago at most. An end that is newer than that is found later, and children are
    /// read from their beginning, so that nothing is missed.
    pub(super) async fn shards(&self, inner: &Inner, stream: &str) -> Result<Vec<Shard>> {
        let mut listed = self.listed.lock().await;
        if let Some((_, shards)) = listed.get(stream).filter(|(at, _)| at.elapsed() < LISTED) {
            return Ok(shards.clone());
        }
        let at = Stopwatch::start();
        let shards = list(inner, stream).await?;
        listed.insert(stream.to_owned(), (at, shards.clone()));
        Ok(shards)
    }

    pub(super) fn get(&self, shard: &str) -> Option<Arc<Mutex<Tail>>> {
        self.by_shard.lock().unwrap_or_else(PoisonError::into_inner).get(shard).cloned()
    }

    /// The shard's tail, which begins at the iterator `next`, behind the record `before`, unless there is one already.
    pub(super) fn begin(&self, shard: &str, before: Option<String>, next: String) -> Arc<Mutex<Tail>> {
        let begin = || {
            let tail = Tail {
                id: self.id,
                before,
                log: VecDeque::new(),
                bytes: 0,
                dropped: 0,
                next: Some(next),
                asked: None,
                begun: Stopwatch::start(),
            };
            Arc::new(Mutex::new(tail))
        };
        let mut tails = self.by_shard.lock().unwrap_or_else(PoisonError::into_inner);
        // One that nobody has asked for so long is of no use: its iterator is stale, or its shard has ended.
        tails.retain(|_, tail| tail.try_lock().map_or(true, |tail| tail.asked.unwrap_or(tail.begun).elapsed() < IDLE));
        tails.entry(shard.to_owned()).or_insert_with(begin).clone()
    }

    fn forget(&self, shard: &str) {
        self.by_shard.lock().unwrap_or_else(PoisonError::into_inner).remove(shard);
    }
}

impl Tail {
    /// The place behind all records.
    pub(super) fn end(&self) -> Mark {
        (self.id, self.dropped + self.log.len() as u64)
    }

    /// The place of a follower, if the tail reaches back so far.
    pub(super) fn find(&self, mark: Option<Mark>, after: Option<&str>) -> Option<u64> {
        if let Some((_, seen)) = mark.filter(|(id, seen)| *id == self.id && (self.dropped..=self.end().1).contains(seen)) {
            return Some(seen);
        }
        let after = after?;
        if self.before.as_deref() == Some(after) {
            return Some(self.dropped);
        }
        self.log.iter().rposition(|c| c.number == after).map(|at| self.dropped + at as u64 + 1)
    }

    /// Up to `max` records from `place` on, the place behind them, and whether the shard has ended there.
    pub(super) fn take(&self, place: u64, max: usize) -> (Vec<Change>, Mark, bool) {
        let skipped = usize::try_from(place - self.dropped).unwrap_or(usize::MAX);
        let taken: Vec<Change> = self.log.iter().skip(skipped).take(max).cloned().collect();
        let mark = (self.id, place + taken.len() as u64);
        let ended = self.next.is_none() && mark == self.end();
        (taken, mark, ended)
    }

    /// The record before `place`; `None` when it is not known.
    pub(super) fn number_before(&self, place: u64) -> Option<String> {
        match usize::try_from(place - self.dropped).unwrap_or(usize::MAX) {
            0 => self.before.clone(),
            n => self.log.get(n - 1).map(|c| c.number.clone()),
        }
    }

    /// DynamoDB's word for the place behind all records.
    pub(super) fn iterator(&self) -> Option<&String> {
        self.next.as_ref()
    }

    /// Asks for more, unless somebody has since `fresh` ago. `false`: the tail has gone stale and is forgotten.
    pub(super) async fn refresh(&mut self, inner: &Inner, tails: &Tails, stream: &str, shard: &str, fresh: Duration) -> Result<bool> {
        let Some(next) = self.next.clone() else { return Ok(true) };
        if self.asked.is_some_and(|asked| asked.elapsed() < fresh) {
            return Ok(true);
        }
        let asked = Stopwatch::start();
        match records(inner, stream, &next, ASKED).await? {
            Got::Records(changes, next) => {
                self.next = next;
                self.asked = Some(asked);
                changes.into_iter().for_each(|c| self.push(c));
                Ok(true)
            }
            Got::Expired => {
                tails.forget(shard);
                Ok(false)
            }
        }
    }

    fn push(&mut self, change: Change) {
        self.bytes += change.bytes();
        self.log.push_back(change);
        while self.log.len() > KEPT || self.bytes > KEPT_BYTES {
            let Some(oldest) = self.log.pop_front() else { return };
            self.bytes -= oldest.bytes();
            self.dropped += 1;
            self.before = Some(oldest.number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(number: u64) -> Change {
        Change { number: number.to_string(), second: 0, entry: None }
    }

    fn tail(count: u64) -> Tail {
        let (env, _) = Env::manual(tidemill_base::Timestamp::ZERO, 1);
        let begun = Tails::new(&env).begin("s", Some("0".to_owned()), "i".to_owned());
        let mut tail = Arc::into_inner(begun).map(Mutex::into_inner).unwrap();
        (1..=count).for_each(|n| tail.push(change(n)));
        tail
    }

    #[test]
    fn followers_are_found_by_mark_or_by_number() {
        let tail = tail(3);
        let (id, end) = tail.end();
        assert_eq!(end, 3);
        assert_eq!(tail.find(Some((id, 2)), None), Some(2));
        assert_eq!(tail.find(Some((id, 4)), None), None, "a mark of the future is no mark");
        assert_eq!(tail.find(Some((id + 1, 2)), Some("1")), Some(1), "another process's mark says nothing");
        assert_eq!(tail.find(None, Some("0")), Some(0));
        assert_eq!(tail.find(None, Some("17")), None);
        assert_eq!(tail.find(None, None), None);
    }

    #[test]
    fn records_are_taken_in_pages_and_the_end_of_the_shard_is_told_last() {
        let mut tail = tail(3);
        let numbers = |taken: &[Change]| taken.iter().map(|c| c.number.clone()).collect::<Vec<_>>();
        let (taken, mark, ended) = tail.take(0, 2);
        assert_eq!((numbers(&taken), mark.1, ended), (vec!["1".to_owned(), "2".to_owned()], 2, false));
        tail.next = None;
        assert!(!tail.take(0, 2).2, "there is one more");
        assert!(tail.take(2, 2).2);
        assert_eq!((tail.number_before(0).as_deref(), tail.number_before(2).as_deref()), (Some("0"), Some("2")));
    }

    #[test]
    fn what_is_too_old_is_dropped_and_followers_there_are_on_their_own() {
        let tail = tail(KEPT as u64 + 10);
        let (id, end) = tail.end();
        assert_eq!((tail.log.len(), tail.dropped, end), (KEPT, 10, KEPT as u64 + 10));
        assert_eq!(tail.find(Some((id, 9)), None), None);
        assert_eq!(tail.find(Some((id, 10)), None), Some(10));
        assert_eq!(tail.find(None, Some("10")), Some(10));
        assert_eq!(tail.take(10, 1).0[0].number, "11");
    }

    #[test]
    fn tails_that_nobody_asks_are_forgotten() {
        tidemill_blocks_test::run_simulated(async |h| {
            let tails = Tails::new(h.env());
            tails.begin("ended", None, "i".to_owned());
            tidemill_runtime::sleep(IDLE / 2).await;
            tails.begin("followed", None, "i".to_owned());
            assert!(tails.get("ended").is_some());
            tidemill_runtime::sleep(IDLE / 2).await;
            tails.begin("new", None, "i".to_owned());
            assert!(tails.get("ended").is_none() && tails.get("followed").is_some());
        });
    }
}
