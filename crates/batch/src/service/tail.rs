//! What came of sessions a moment ago: whoever follows one reads it here, and not back from ledger and table.
//!
//! Only the leader's process has it, and only what is written down already. What does not fit, or whose results went by another manager,
//! is left to ledger and table.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tidemill_base::Result;

use super::lead::Leader;
use super::session::Delivered;
use crate::protocol::{ResultBody, ResultPage, decode};
use crate::reactor::Completion;

/// A longer page is read from the table: those who take that much at once do not feel the way there.
const PAGE_BYTES: usize = 64 << 10;
/// Deliveries that are kept of a session,
const DELIVERIES: usize = 256;
/// and bytes of them.
const BYTES: usize = 1 << 20;
/// Sessions that are kept; beyond it the one that was opened first is left out.
const SESSIONS: usize = 64;

/// What came in one round of the leader is told ahead of the ledger if it is not more than so many deliveries,
const EARLY: usize = 4;
/// and results.
const EARLY_RESULTS: usize = 16;

/// The last deliveries of sessions.
#[derive(Debug, Default)]
pub(super) struct Tails {
    tails: Mutex<BTreeMap<String, Tail>>,
    /// What is on its way into the ledger.
    early: Mutex<Vec<(String, Delivered)>>,
}

#[derive(Debug, Default)]
struct Tail {
    /// Every delivery after this number is here.
    after: u64,
    deliveries: VecDeque<Delivered>,
    bytes: usize,
}

impl Tail {
    fn last(&self) -> u64 {
        self.after + self.deliveries.len() as u64
    }

    fn push(&mut self, delivered: Delivered) {
        if delivered.n != self.last() + 1 {
            *self = Self { after: delivered.n - 1, ..Self::default() };
        }
        self.bytes += delivered.body.len();
        self.deliveries.push_back(delivered);
        while self.deliveries.len() > DELIVERIES || self.bytes > BYTES {
            let Some(oldest) = self.deliveries.pop_front() else { return };
            self.bytes -= oldest.body.len();
            self.after = oldest.n;
        }
    }
}

impl Tails {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Tail>> {
        self.tails.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn early(&self) -> MutexGuard<'_, Vec<(String, Delivered)>> {
        self.early.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is on its way into the ledger of this session.
    pub(super) fn early_of(&self, job: &str) -> Vec<Delivered> {
        self.early().iter().filter(|(j, _)| j == job).map(|(_, d)| d.clone()).collect()
    }

    /// A completion has been written down; `page` are the results that belong to it, if they came by this process.
    pub(super) fn add(&self, completion: Completion, page: Option<&Bytes>) {
        let (job, n) = (completion.job.clone(), completion.n);
        // Whoever reads a damaged page in the table is told so.
        let delivered = whole(completion, page).unwrap_or_default();
        let mut tails = self.lock();
        let tail = tails.entry(job).or_default();
        match delivered {
            Some(delivered) => tail.push(delivered),
            None => *tail = Tail { after: n, ..Tail::default() },
        }
        if tails.len() > SESSIONS {
            // Identifiers begin with the time.
            tails.pop_first();
        }
    }

    /// What came after delivery `after`, at most `most`; `None`: ask ledger and table.
    pub(super) fn read(&self, job: &str, after: u64, most: u64) -> Option<Vec<Delivered>> {
        let tails = self.lock();
        let tail = tails.get(job).filter(|t| t.after <= after)?;
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let seen = usize::try_from(after - tail.after).unwrap_or(usize::MAX);
        Some(tail.deliveries.iter().skip(seen).take(most).cloned().collect())
    }

    /// Whether the session is followed here: it has not ended.
    pub(super) fn has(&self, job: &str) -> bool {
        self.lock().contains_key(job)
    }

    /// The session has ended.
    pub(super) fn forget(&self, job: &str) {
        self.lock().remove(job);
    }

    /// The leader has gone, and what comes next is not heard of here.
    pub(super) fn close(&self) {
        self.lock().clear();
        self.early().clear();
    }
}

impl Leader<'_> {
    /// Few results, such as those of single calls, are told before the ledger has them, to those who asked for it: each is in the table and
    /// final, only the number of its delivery is not.
    pub(super) fn tell_early(&self, completions: &[Completion]) {
        if completions.is_empty() || completions.len() > EARLY {
            return;
        }
        let mut early = Vec::with_capacity(completions.len());
        for c in completions.iter().filter(|c| c.seq > 0 && c.dead.is_empty() && c.cancelled.is_none()) {
            let page = self.pages.get(&(c.job.clone(), c.stage, c.range, c.seq));
            if let Ok(Some(delivered)) = whole(c.clone(), page)
                && delivered.page.as_ref().is_some_and(|p| p.len() <= EARLY_RESULTS)
            {
                early.push((c.job.clone(), delivered));
            }
        }
        if !early.is_empty() {
            *self.shared.tails.early() = early;
            self.shared.mark_changed();
        }
    }

    /// What has just been written down is kept for those who follow.
    pub(super) fn keep_tails(&mut self, completions: Vec<Completion>) {
        let pages = std::mem::take(&mut self.pages);
        for completion in completions {
            let page = pages.get(&(completion.job.clone(), completion.stage, completion.range, completion.seq));
            self.shared.tails.add(completion, page);
        }
        self.shared.tails.early().clear();
    }
}

/// The delivery with its results, if they are at hand and small.
fn whole(c: Completion, page: Option<&Bytes>) -> Result<Option<Delivered>> {
    let (page, body) = match (c.seq, page) {
        (0, _) => (None, Bytes::new()),
        (_, Some(page)) if page.len() <= PAGE_BYTES => {
            let mut page: ResultPage = decode("results", page)?;
            page.check()?;
            let ResultBody::Inline(bytes) = &mut page.body else { return Ok(None) };
            let body = Bytes::from(std::mem::take(bytes));
            (Some(page), body)
        }
        _ => return Ok(None),
    };
    Ok(Some(Delivered { n: c.n, page, body, succeeded: c.succeeded, dead: c.dead, cancelled: c.cancelled }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::encode;

    fn completion(n: u64) -> Completion {
        let job = "s".to_owned();
        Completion { job, stage: 0, n, range: n, seq: 1, succeeded: vec![(n, 1)], dead: Vec::new(), cancelled: None }
    }

    fn page(n: u64, len: usize) -> Bytes {
        let body = ResultBody::Inline(vec![7; len]);
        let lens = vec![u32::try_from(len).unwrap()];
        let page = ResultPage {
            range: n,
            epoch: 1,
            seq: 1,
            attempt: 1,
            made_by: "w".into(),
            tasks: vec![n],
            ok: vec![1],
            run_us: vec![1],
            lens,
            body,
        };
        Bytes::from(encode(&page).unwrap())
    }

    fn numbers(tails: &Tails, after: u64) -> Option<Vec<u64>> {
        Some(tails.read("s", after, 100)?.iter().map(|d| d.n).collect())
    }

    #[test]
    fn what_came_is_read_from_where_the_reader_is() {
        let tails = Tails::default();
        assert_eq!(numbers(&tails, 0), None, "nothing is known of it");
        for n in 5..8 {
            tails.add(completion(n), Some(&page(n, 3)));
        }
        assert_eq!(numbers(&tails, 3), None, "delivery 4 came before");
        assert_eq!(numbers(&tails, 4), Some(vec![5, 6, 7]));
        assert_eq!(numbers(&tails, 6), Some(vec![7]));
        assert_eq!(numbers(&tails, 7), Some(vec![]), "there is nothing more");
        assert_eq!(numbers(&tails, 9), Some(vec![]));
        assert_eq!(tails.read("s", 4, 2).unwrap().len(), 2);
        let delivered = &tails.read("s", 6, 1).unwrap()[0];
        assert_eq!(delivered.body, Bytes::from_static(&[7; 3]));
        assert_eq!(delivered.page.as_ref().unwrap().split(&delivered.body).unwrap().len(), 1);
        tails.forget("s");
        assert_eq!(numbers(&tails, 4), None);
    }

    #[test]
    fn what_is_not_at_hand_is_left_to_ledger_and_table() {
        let tails = Tails::default();
        tails.add(completion(1), Some(&page(1, 3)));
        tails.add(completion(2), None);
        assert_eq!(numbers(&tails, 1), None, "results that another manager took");
        assert_eq!(numbers(&tails, 2), Some(vec![]));
        tails.add(completion(3), Some(&page(3, PAGE_BYTES + 1)));
        assert_eq!(numbers(&tails, 2), None, "a long page");
        tails.add(Completion { seq: 0, ..completion(4) }, None);
        assert_eq!(numbers(&tails, 3), Some(vec![4]), "it has no results");
        tails.add(completion(6), Some(&page(6, 3)));
        assert_eq!(numbers(&tails, 4), None, "delivery 5 is missing");
    }

    #[test]
    fn it_stays_small() {
        let tails = Tails::default();
        for n in 1..=1_000 {
            tails.add(completion(n), Some(&page(n, 20_000)));
        }
        let kept = tails.lock()["s"].bytes;
        assert!(kept <= BYTES && kept > BYTES / 2, "{kept}");
        assert_eq!(numbers(&tails, 999), Some(vec![1_000]));
        for k in 0..200 {
            tails.add(Completion { job: format!("t{k:03}"), ..completion(1) }, None);
        }
        assert!(tails.lock().len() <= SESSIONS && !tails.has("s"));
    }
}
