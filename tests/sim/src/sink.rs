//! Segments that a test can read back.

use async_trait::async_trait;
use bytes::Bytes;
use tidemill_base::{Error, Result};
use tidemill_batch::service::{LiveBatch, SegmentSink};

/// Writes a line a row: stage, task, attempt, class.
#[derive(Debug, Clone, Copy)]
pub struct RowSink;

#[async_trait]
impl SegmentSink for RowSink {
    async fn encode(&self, batches: Vec<LiveBatch>) -> Result<Bytes> {
        let lines =
            batches.iter().flat_map(|b| b.columns.rows().map(move |r| format!("{} {} {} {}\n", b.stage, r.task, r.attempt, r.class)));
        Ok(Bytes::from(lines.collect::<String>()))
    }
}

/// One settled attempt, as a segment or the manager's memory has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Row {
    /// The stage.
    pub stage: u32,
    /// The task.
    pub task: u64,
    /// Which try.
    pub attempt: u32,
    /// 0 for success.
    pub class: u8,
}

/// Reads a segment back.
pub(crate) fn decode(bytes: &[u8]) -> Result<Vec<Row>> {
    let bad = || Error::corrupt("a simulated segment does not decode");
    let text = std::str::from_utf8(bytes).map_err(|_| bad())?;
    text.lines()
        .map(|line| {
            let f: Vec<u64> = line.split(' ').filter_map(|n| n.parse().ok()).collect();
            let [stage, task, attempt, class] = f.as_slice() else { return Err(bad()) };
            let small = |n: u64| u32::try_from(n).map_err(|_| bad());
            Ok(Row { stage: small(*stage)?, task: *task, attempt: small(*attempt)?, class: u8::try_from(*class).map_err(|_| bad())? })
        })
        .collect()
}
