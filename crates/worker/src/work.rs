//! The state of one claimed range: what is unstarted, open and settled, and what goes into the next report.
//!
//! Plain synchronous code. Runners take tasks out and settle them, the carrier asks for drafts and says when one was acknowledged;
//! a draft stays the same until then, so that a lost reply can be told from a lost request.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use tidemill_base::RunSet;
use tidemill_batch::model::{FailureClass, TaskColumns, TaskFailure, TaskStat};
use tidemill_batch::protocol::{RangeState, StoredFile, WorkItem};

use crate::results::{DraftResults, TaskResult, WaitingResults};

/// The most tasks with outputs or failures in one report.
pub(crate) const MAX_HEAVY: usize = 2000;
/// The most rows of statistics in one report: they must fit an item of the table.
const MAX_ROWS: usize = 5000;
/// About how many bytes of names and messages go into one report or output page, well under the table's limit for an item.
pub(crate) const MAX_PAGE_BYTES: usize = 240 << 10;
/// Small files and logs waiting for a report, in bytes; more make a report due at once.
const MAX_WAITING_BYTES: usize = 16 << 20;
/// The longest failure message, in characters.
const MAX_MESSAGE: usize = 600;

/// A file a task left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PendingFile {
    /// Its bytes wait for the report's pack.
    Small { name: String, bytes: Bytes },
    /// It has an object of its own.
    Stored(StoredFile),
}

impl PendingFile {
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Small { bytes, .. } => bytes.len() as u64,
            Self::Stored(file) => file.len,
        }
    }

    fn in_memory(&self) -> usize {
        match self {
            Self::Small { bytes, .. } => bytes.len(),
            Self::Stored(_) => 0,
        }
    }

    /// About what it takes on an output page, where a path is at most some hundred bytes longer than the name.
    fn on_page(&self) -> usize {
        match self {
            Self::Small { name, .. } => name.len() + 120,
            Self::Stored(file) => file.name.len() + file.path.len() + 20,
        }
    }
}

/// What an attempt left behind.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct PendingOutput {
    pub(crate) files: Vec<PendingFile>,
    pub(crate) stdout: Option<PendingFile>,
    pub(crate) stderr: Option<PendingFile>,
}

impl PendingOutput {
    fn all(&self) -> impl Iterator<Item = &PendingFile> {
        self.files.iter().chain(&self.stdout).chain(&self.stderr)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.all().next().is_none()
    }

    pub(crate) fn on_page(&self) -> usize {
        24 + self.all().map(PendingFile::on_page).sum::<usize>()
    }
}

/// How a task ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    Succeeded,
    Failed(Failure),
    /// Stopped by a pause or drain; it may run again elsewhere.
    Returned,
    Cancelled,
}

/// A failure without the task's number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) class: FailureClass,
    pub(crate) exit: Option<i32>,
    pub(crate) signal: Option<i32>,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(class: FailureClass, message: impl Into<String>) -> Self {
        Self { class, exit: None, signal: None, message: message.into() }
    }

    /// What the statistics show as the exit.
    pub(crate) fn exit_column(&self) -> i32 {
        self.exit.or(self.signal.map(|s| -s)).unwrap_or(0)
    }
}

#[derive(Debug)]
struct Heavy {
    stat: TaskStat,
    failure: Option<TaskFailure>,
    output: PendingOutput,
    in_memory: usize,
    on_page: usize,
}

/// One task's outputs as they go into a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DraftOutput {
    pub(crate) task: u64,
    pub(crate) ok: bool,
    pub(crate) output: PendingOutput,
}

/// What the next report says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Draft {
    pub(crate) seq: u64,
    pub(crate) succeeded: RunSet,
    pub(crate) failed: Vec<TaskFailure>,
    pub(crate) returned: RunSet,
    pub(crate) cancelled: RunSet,
    pub(crate) columns: TaskColumns,
    /// Ascending by task.
    pub(crate) outputs: Vec<DraftOutput>,
    /// What engines gave back; its rows are not among `columns`.
    pub(crate) results: DraftResults,
    pub(crate) finished: bool,
}

impl Draft {
    /// Every task it settles.
    pub(crate) fn settles(&self) -> RunSet {
        let mut all: RunSet = self.failed.iter().map(|f| f.task).collect();
        for part in [&self.succeeded, &self.returned, &self.cancelled] {
            all.union_with(part);
        }
        all
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct RangeWork {
    unstarted: RunSet,
    open: RunSet,
    plain: VecDeque<TaskColumns>,
    plain_rows: usize,
    heavy: VecDeque<Heavy>,
    waiting_bytes: usize,
    results: WaitingResults,
    returned: RunSet,
    cancelled: RunSet,
    seq: u64,
    draft: Option<Arc<Draft>>,
    finish_said: bool,
}

impl RangeWork {
    /// What is left of `item` under a claim.
    pub(crate) fn new(item: &WorkItem, claim: &RangeState) -> Self {
        let mut unstarted = RunSet::from_run(item.start, item.len);
        unstarted.subtract(&claim.settled);
        Self {
            unstarted,
            open: RunSet::new(),
            plain: VecDeque::new(),
            plain_rows: 0,
            heavy: VecDeque::new(),
            waiting_bytes: 0,
            results: WaitingResults::default(),
            returned: RunSet::new(),
            cancelled: RunSet::new(),
            seq: claim.seq,
            draft: None,
            finish_said: false,
        }
    }

    /// Takes up to `max` adjoining tasks to be run. They stay open until they are settled.
    pub(crate) fn take(&mut self, max: u64) -> Option<(u64, u64)> {
        let (start, len) = self.unstarted.take_first(max)?;
        self.open.insert_run(start, len);
        Some((start, len))
    }

    pub(crate) fn unstarted(&self) -> u64 {
        self.unstarted.len()
    }

    /// Whether every task is settled, reported or not.
    pub(crate) fn is_settled(&self) -> bool {
        self.unstarted.is_empty() && self.open.is_empty()
    }

    /// Hands back what has not been taken. Returns how many that were.
    pub(crate) fn return_unstarted(&mut self) -> u64 {
        let rest = std::mem::take(&mut self.unstarted);
        self.returned.union_with(&rest)
    }

    /// Hands back all but the first `keep` of those that have not been taken.
    pub(crate) fn return_beyond(&mut self, keep: u64) {
        let mut kept = RunSet::new();
        while let Some((start, len)) = self.unstarted.take_first(keep - kept.len()) {
            kept.insert_run(start, len);
        }
        self.return_unstarted();
        self.unstarted = kept;
    }

    /// Cancels what has not been taken. Returns how many that were.
    pub(crate) fn cancel_unstarted(&mut self) -> u64 {
        let rest = std::mem::take(&mut self.unstarted);
        self.cancelled.union_with(&rest)
    }

    /// Cancels what has not been taken of a run.
    pub(crate) fn cancel_run(&mut self, start: u64, len: u64) {
        let waiting: Vec<(u64, u64)> = self.unstarted.within(start, len).collect();
        for (start, len) in waiting {
            self.unstarted.remove_run(start, len);
            self.cancelled.insert_run(start, len);
        }
    }

    /// Settles an open task. A task that is not open (settled before, or never taken) is passed over: the first word counts.
    pub(crate) fn settle(&mut self, mut stat: TaskStat, verdict: Verdict, output: PendingOutput) {
        if self.open.remove_run(stat.task, 1) == 0 {
            return;
        }
        let failure = match verdict {
            Verdict::Returned => {
                self.returned.insert(stat.task);
                return;
            }
            Verdict::Cancelled => {
                self.cancelled.insert(stat.task);
                return;
            }
            Verdict::Succeeded if output.is_empty() => return self.push_row(stat),
            Verdict::Succeeded => None,
            Verdict::Failed(f) => {
                stat.class = f.class.code();
                stat.exit = f.exit_column();
                let message = f.message.chars().take(MAX_MESSAGE).collect();
                Some(TaskFailure { task: stat.task, class: f.class, exit: f.exit, signal: f.signal, message })
            }
        };
        let in_memory = output.all().map(PendingFile::in_memory).sum();
        let on_page = output.on_page() + failure.as_ref().map_or(0, |f| f.message.len() + 16);
        self.waiting_bytes += in_memory;
        self.heavy.push_back(Heavy { stat, failure, output, in_memory, on_page });
    }

    /// Settles open tasks with what engines gave back.
    pub(crate) fn settle_results(&mut self, made_by: &str, results: Vec<TaskResult>) {
        self.results.made_by(made_by);
        for result in results {
            if self.open.remove_run(result.stat.task, 1) == 1 {
                self.results.push(result);
            }
        }
    }

    /// Settles a whole open run as succeeded without outputs, each with the statistics that `stat` gives for it.
    pub(crate) fn settle_run(&mut self, start: u64, len: u64, stat: impl Fn(u64) -> TaskStat) {
        if self.open.remove_run(start, len) == len {
            for task in start..start + len {
                self.push_row(stat(task));
            }
        }
    }

    fn push_row(&mut self, stat: TaskStat) {
        if self.plain.back().is_none_or(|c| c.len() >= MAX_ROWS) {
            self.plain.push_back(TaskColumns::default());
        }
        if let Some(last) = self.plain.back_mut() {
            last.push(stat);
            self.plain_rows += 1;
        }
    }

    /// Whether a report should be written without waiting for its time.
    pub(crate) fn is_due(&self) -> bool {
        let finished = self.is_settled() && !self.finish_said;
        finished
            || self.results.is_due()
            || self.heavy.len() >= MAX_HEAVY
            || self.waiting_bytes >= MAX_WAITING_BYTES
            || self.plain_rows >= MAX_ROWS
    }

    /// The report to write now; the same one again until it is acknowledged. `None` when there is nothing to say.
    pub(crate) fn draft(&mut self) -> Option<Arc<Draft>> {
        if self.draft.is_none() {
            self.draft = self.next_draft().map(Arc::new);
        }
        self.draft.clone()
    }

    fn next_draft(&mut self) -> Option<Draft> {
        let mut draft = Draft { seq: self.seq + 1, columns: self.plain.pop_front().unwrap_or_default(), ..Draft::default() };
        self.plain_rows -= draft.columns.len();
        for task in &draft.columns.task {
            draft.succeeded.insert(*task);
        }
        draft.returned = std::mem::take(&mut self.returned);
        draft.cancelled = std::mem::take(&mut self.cancelled);
        let mut page = 0;
        while let Some(next) = self.heavy.front()
            && draft.outputs.len() + draft.failed.len() < MAX_HEAVY
            && (page == 0 || page + next.on_page <= MAX_PAGE_BYTES)
            && let Some(heavy) = self.heavy.pop_front()
        {
            page += heavy.on_page;
            self.waiting_bytes -= heavy.in_memory;
            add_heavy(&mut draft, heavy);
        }
        draft.outputs.sort_by_key(|o| o.task);
        draft.results = self.results.take(MAX_MESSAGE);
        draft.failed.extend(draft.results.failed.iter().cloned());
        let failed: RunSet = draft.results.failed.iter().map(|f| f.task).collect();
        draft.results.columns.task.iter().filter(|t| !failed.contains(**t)).for_each(|t| _ = draft.succeeded.insert(*t));
        draft.finished = self.is_settled() && self.plain.is_empty() && self.heavy.is_empty() && self.results.is_empty();
        let says_something =
            !(draft.columns.is_empty() && draft.results.columns.is_empty() && draft.returned.is_empty() && draft.cancelled.is_empty())
                || draft.finished && !self.finish_said;
        self.finish_said |= draft.finished;
        says_something.then_some(draft)
    }

    /// The present draft has been written.
    pub(crate) fn acknowledge(&mut self) {
        if let Some(draft) = self.draft.take() {
            self.seq = draft.seq;
        }
    }
}

fn add_heavy(draft: &mut Draft, heavy: Heavy) {
    let (task, ok) = (heavy.stat.task, heavy.failure.is_none());
    draft.columns.push(heavy.stat);
    match heavy.failure {
        Some(failure) => draft.failed.push(failure),
        None => {
            draft.succeeded.insert(task);
        }
    }
    if !heavy.output.is_empty() {
        draft.outputs.push(DraftOutput { task, ok, output: heavy.output });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_base::Timestamp;

    fn item(len: u64) -> WorkItem {
        WorkItem {
            job: "j".into(),
            stage: 0,
            range: 7,
            start: 100,
            len,
            attempt: 1,
            released_at: Timestamp::ZERO,
            pieces: Vec::new(),
            needs: Vec::new(),
        }
    }

    fn claim(seq: u64, settled: &[(u64, u64)]) -> RangeState {
        let settled = RunSet::from(settled.to_vec());
        RangeState { epoch: 1, worker: "w".into(), lease_until: Timestamp::ZERO, seq, settled, finished: false }
    }

    fn stat(task: u64) -> TaskStat {
        TaskStat { task, attempt: 1, ..TaskStat::default() }
    }

    fn small(name: &str, bytes: usize) -> PendingOutput {
        PendingOutput { files: vec![PendingFile::Small { name: name.into(), bytes: vec![0; bytes].into() }], ..PendingOutput::default() }
    }

    #[test]
    fn a_redelivered_range_goes_on_from_what_was_settled() {
        let mut work = RangeWork::new(&item(10), &claim(3, &[(100, 4), (106, 1)]));
        assert_eq!(work.take(64), Some((104, 2)));
        assert_eq!(work.take(64), Some((107, 3)));
        assert_eq!(work.take(64), None);
        work.settle_run(104, 2, stat);
        work.settle_run(107, 3, stat);
        let draft = work.draft().unwrap();
        assert_eq!((draft.seq, draft.succeeded.len(), draft.finished), (4, 5, true));
    }

    #[test]
    fn a_draft_stays_the_same_until_it_is_acknowledged() {
        let mut work = RangeWork::new(&item(3), &claim(0, &[]));
        work.take(3);
        work.settle(stat(100), Verdict::Succeeded, PendingOutput::default());
        let first = work.draft().unwrap();
        work.settle(stat(101), Verdict::Failed(Failure::new(FailureClass::Exit, "exit code 3")), PendingOutput::default());
        assert_eq!(work.draft().unwrap(), first);
        assert!(!first.finished && first.failed.is_empty());
        work.acknowledge();
        let second = work.draft().unwrap();
        assert_eq!((second.seq, second.failed.len(), second.finished), (2, 1, false));
        assert_eq!(second.columns.class, [FailureClass::Exit.code()]);
        work.acknowledge();
        assert!(work.draft().is_none());
        work.settle(stat(102), Verdict::Cancelled, PendingOutput::default());
        assert!(work.is_due());
        let third = work.draft().unwrap();
        assert_eq!((third.seq, third.cancelled.len(), third.finished, third.settles().len()), (3, 1, true, 1));
        work.acknowledge();
        assert!(work.draft().is_none() && !work.is_due(), "the end is said once");
    }

    #[test]
    fn the_first_settlement_of_a_task_counts() {
        let mut work = RangeWork::new(&item(1), &claim(0, &[]));
        work.settle(stat(100), Verdict::Succeeded, PendingOutput::default());
        assert!(!work.is_settled(), "it was never taken");
        work.take(1);
        work.settle(stat(100), Verdict::Returned, PendingOutput::default());
        work.settle(stat(100), Verdict::Succeeded, PendingOutput::default());
        let draft = work.draft().unwrap();
        assert_eq!((draft.returned.len(), draft.succeeded.len()), (1, 0));
    }

    #[test]
    fn unstarted_tasks_are_handed_back_or_cancelled_and_taken_ones_are_not() {
        for cancel in [false, true] {
            let mut work = RangeWork::new(&item(10), &claim(0, &[]));
            work.take(2);
            let gone = if cancel { work.cancel_unstarted() } else { work.return_unstarted() };
            assert_eq!(gone, 8);
            let draft = work.draft().unwrap();
            assert_eq!((draft.returned.len(), draft.cancelled.len()), if cancel { (0, 8) } else { (8, 0) });
            assert!(!draft.finished);
        }
    }

    #[test]
    fn the_tail_is_handed_back_and_the_head_is_kept() {
        let mut work = RangeWork::new(&item(20), &claim(0, &[(105, 5)]));
        work.take(2);
        work.return_beyond(7);
        assert_eq!(work.draft().unwrap().returned, RunSet::from_run(114, 6));
        assert_eq!((work.take(64), work.take(64), work.take(64)), (Some((102, 3)), Some((110, 4)), None));
        work.return_beyond(0);
        assert_eq!(work.unstarted(), 0);
    }

    #[test]
    fn only_what_was_not_taken_is_cancelled_of_a_run() {
        let mut work = RangeWork::new(&item(20), &claim(0, &[(105, 5)]));
        work.take(2);
        work.cancel_run(101, 12);
        assert_eq!(work.draft().unwrap().cancelled.runs().collect::<Vec<_>>(), [(102, 3), (110, 3)]);
        assert_eq!((work.take(64), work.take(64)), (Some((113, 7)), None));
    }

    #[test]
    fn reports_are_cut_to_fit_and_nothing_is_lost_between_them() {
        let mut work = RangeWork::new(&item(9000), &claim(0, &[]));
        work.take(9000);
        work.settle_run(100, 6000, stat);
        for task in 6100..9100 {
            match task % 3 {
                0 => work.settle(stat(task), Verdict::Failed(Failure::new(FailureClass::Exit, "x".repeat(5000))), PendingOutput::default()),
                _ => work.settle(stat(task), Verdict::Succeeded, small(&"n".repeat(100), 10)),
            }
        }
        let (mut seen, mut reports) = (RunSet::new(), 0);
        while let Some(draft) = work.draft() {
            let page: usize = draft.outputs.iter().map(|o| o.output.on_page()).sum();
            let messages: usize = draft.failed.iter().map(|f| f.message.len()).sum();
            assert!(page + messages <= MAX_PAGE_BYTES && draft.columns.len() <= MAX_ROWS + MAX_HEAVY);
            assert!(draft.failed.iter().all(|f| f.message.len() == MAX_MESSAGE));
            let settles = draft.settles();
            assert_eq!(seen.union_with(&settles), settles.len(), "settled twice");
            assert_eq!(draft.finished, seen.len() == 9000);
            reports += 1;
            work.acknowledge();
        }
        assert_eq!(seen, RunSet::from_run(100, 9000));
        assert!(reports > 3, "{reports}");
    }

    #[test]
    fn many_bytes_in_memory_make_a_report_due() {
        let mut work = RangeWork::new(&item(100), &claim(0, &[]));
        work.take(100);
        work.settle(stat(100), Verdict::Succeeded, small("a", 1000));
        assert!(!work.is_due());
        work.settle(stat(101), Verdict::Succeeded, small("a", MAX_WAITING_BYTES));
        assert!(work.is_due());
        work.draft().unwrap();
        assert!(!work.is_due());
    }
}
