//! Payloads of a range's tasks, and the results that they need.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use tidemill_base::{Error, ErrorKind, Result};
use tidemill_batch::protocol::{PieceSource, Submission, WorkItem};
use tidemill_batch::service::read_needed;
use tidemill_blocks::objects;

use crate::settings::WorkerBlocks;

/// Submissions that are kept, since many ranges are cut out of one.
const KEPT: usize = 8;
/// And so many bytes of them.
const KEPT_BYTES: usize = 256 << 20;

/// Where the payloads of a range's tasks lie in memory.
#[derive(Debug, Default)]
pub(crate) struct Payloads {
    /// The first task of each piece, and the submission that it lies in.
    pieces: Vec<(u64, Submission)>,
    needs: BTreeMap<u64, Vec<Bytes>>,
}

/// Submissions that were read lately.
#[derive(Debug, Default)]
pub(crate) struct Kept(Mutex<VecDeque<(String, Submission)>>);

impl Kept {
    fn get(&self, path: &str) -> Option<Submission> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().find(|(p, _)| p == path).map(|(_, s)| s.clone())
    }

    fn keep(&self, path: &str, submission: &Submission) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push_back((path.to_owned(), submission.clone()));
        while kept.len() > KEPT || kept.len() > 1 && kept.iter().map(|(_, s)| s.bytes().len()).sum::<usize>() > KEPT_BYTES {
            kept.pop_front();
        }
    }
}

impl Payloads {
    /// Reads what the range's tasks get. `Unavailable` is worth another try.
    pub(crate) async fn load(blocks: &WorkerBlocks, kept: &Kept, item: &WorkItem) -> Result<Self> {
        let mut pieces = Vec::with_capacity(item.pieces.len());
        for piece in &item.pieces {
            let submission = match &piece.source {
                PieceSource::Inline(bytes) => Submission::parse(bytes.clone().into())?,
                PieceSource::Object(path) => match kept.get(path) {
                    Some(submission) => submission,
                    None => {
                        let bytes = objects::get(blocks.objects.as_ref(), &objects::parse_path(path)?).await?;
                        let submission = Submission::parse(bytes)?;
                        kept.keep(path, &submission);
                        submission
                    }
                },
            };
            pieces.push((piece.first, submission));
        }
        let mut needs = BTreeMap::new();
        for (task, at) in &item.needs {
            needs.insert(*task, read_needed(blocks.table.as_ref(), &blocks.objects, &item.job, item.stage, at).await?);
        }
        Ok(Self { pieces, needs })
    }

    /// A task's payload and the results it needs.
    pub(crate) fn get(&self, task: u64) -> Result<(Bytes, Box<[Bytes]>)> {
        let missing = || Error::new(ErrorKind::Corrupt, format!("no submission of the range holds task {task}"));
        let (first, submission) = self.pieces.iter().rev().find(|(first, _)| *first <= task).ok_or_else(missing)?;
        let payload = submission.payload(usize::try_from(task - first).unwrap_or(usize::MAX)).ok_or_else(missing)?;
        let needs = self.needs.get(&task).map(|n| n.clone().into_boxed_slice()).unwrap_or_default();
        Ok((payload, needs))
    }
}
