//! What engines gave back and no report holds yet: columns, and the results themselves.

use std::collections::VecDeque;

use bytes::Bytes;
use tidemill_batch::model::{FailureClass, TaskColumns, TaskFailure, TaskStat};

/// The most results in one report: their statistics must fit an item of the table.
const MAX_RESULTS: usize = 5_000;
/// So many bytes of results make a report due, and go into one. More than fits an item go into an object.
const MAX_BYTES: usize = 4 << 20;

/// The result of one task: bytes as the engine made them, or why there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TaskResult {
    pub(crate) stat: TaskStat,
    /// How it failed, and the first words of it; the whole error is in `bytes`.
    pub(crate) failure: Option<(FailureClass, String)>,
    pub(crate) bytes: Bytes,
}

/// Results as they go into one report.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct DraftResults {
    pub(crate) columns: TaskColumns,
    pub(crate) failed: Vec<TaskFailure>,
    pub(crate) bytes: Vec<Bytes>,
    /// Which engine made them, in words.
    pub(crate) made_by: String,
}

/// Results that wait for a report.
#[derive(Debug, Default)]
pub(crate) struct WaitingResults {
    waiting: VecDeque<TaskResult>,
    bytes: usize,
    made_by: String,
}

impl WaitingResults {
    pub(crate) fn push(&mut self, result: TaskResult) {
        self.bytes += result.bytes.len();
        self.waiting.push_back(result);
    }

    /// What the next results are made by.
    pub(crate) fn made_by(&mut self, engine: &str) {
        if self.made_by != engine {
            engine.clone_into(&mut self.made_by);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether a report should be written without waiting for its time.
    pub(crate) fn is_due(&self) -> bool {
        self.waiting.len() >= MAX_RESULTS || self.bytes >= MAX_BYTES
    }

    /// What goes into the next report: at least one, if there is any.
    pub(crate) fn take(&mut self, max_message: usize) -> DraftResults {
        let mut out = DraftResults { made_by: self.made_by.clone(), ..DraftResults::default() };
        let mut bytes = 0;
        while let Some(next) = self.waiting.front()
            && out.bytes.len() < MAX_RESULTS
            && (bytes == 0 || bytes + next.bytes.len() <= MAX_BYTES)
            && let Some(mut result) = self.waiting.pop_front()
        {
            bytes += result.bytes.len();
            if let Some((class, message)) = result.failure {
                result.stat.class = class.code();
                let message = message.chars().take(max_message).collect();
                out.failed.push(TaskFailure { task: result.stat.task, class, exit: None, signal: None, message });
            }
            out.columns.push(result.stat);
            out.bytes.push(result.bytes);
        }
        self.bytes -= bytes;
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(task: u64, len: usize, failed: bool) -> TaskResult {
        let failure = failed.then(|| (FailureClass::Error, "x".repeat(1_000)));
        TaskResult { stat: TaskStat { task, attempt: 1, ..TaskStat::default() }, failure, bytes: vec![0; len].into() }
    }

    #[test]
    fn reports_are_cut_by_count_and_by_bytes_and_nothing_is_lost_between_them() {
        let mut waiting = WaitingResults::default();
        for task in 0..12_000 {
            waiting.push(result(task, if task % 4_000 == 1 { 3 << 20 } else { 8 }, task % 100 == 7));
        }
        assert!(waiting.is_due());
        let (mut seen, mut reports) = (Vec::new(), 0);
        while !waiting.is_empty() {
            let taken = waiting.take(600);
            assert!(taken.columns.len() == taken.bytes.len() && taken.columns.len() <= MAX_RESULTS);
            assert!(taken.bytes.iter().map(Bytes::len).sum::<usize>() <= MAX_BYTES);
            assert!(taken.failed.iter().all(|f| f.message.len() == 600 && f.task % 100 == 7));
            seen.extend(taken.columns.task);
            reports += 1;
        }
        assert_eq!(seen, (0..12_000).collect::<Vec<_>>());
        assert!(reports >= 3 && !waiting.is_due(), "{reports}");
    }

    #[test]
    fn a_result_larger_than_a_report_goes_alone() {
        let mut waiting = WaitingResults::default();
        waiting.push(result(1, MAX_BYTES + 1, false));
        waiting.push(result(2, 1, false));
        assert_eq!(waiting.take(600).columns.task, [1]);
        assert_eq!(waiting.take(600).columns.task, [2]);
        assert_eq!(waiting.take(600), DraftResults::default());
    }
}
