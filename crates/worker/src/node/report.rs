//! From a draft to what is stored: the pack, the output page, the report.

use bytes::BytesMut;
use object_store::path::Path;
use tidemill_base::{Error, Result, Timestamp};
use tidemill_batch::protocol::{OutputPage, Report, StoredFile, TaskOutput, encode, keys};
use tidemill_blocks::table::{Condition, Write};

use crate::range::OpenRange;
use crate::work::{Draft, PendingFile};

/// What one report writes.
#[derive(Debug)]
pub(super) struct Parcel {
    /// The object that holds the small files, if there are any.
    pub(super) pack: Option<(Path, bytes::Bytes)>,
    /// The report, and the output page if there are outputs.
    pub(super) writes: Vec<Write>,
    /// Every object the page names.
    pub(super) named: Vec<Path>,
}

/// Builds what `draft` writes.
pub(super) fn build(range: &OpenRange, worker: &str, draft: &Draft, now: Timestamp) -> Result<Parcel> {
    let item = &range.item;
    let report = Report {
        worker: worker.to_owned(),
        epoch: range.epoch,
        attempt: item.attempt,
        succeeded: draft.succeeded.runs().collect(),
        failed: draft.failed.clone(),
        returned: draft.returned.runs().collect(),
        cancelled: draft.cancelled.runs().collect(),
        finished: draft.finished,
        columns: draft.columns.pack()?,
        at: now,
    };
    let key = keys::report(&item.job, item.stage, item.range, draft.seq);
    let mut writes = vec![Write::put(key, encode(&report)?, Condition::Absent)];
    let mut packer =
        Packer { path: keys::pack(&item.job, item.stage, item.range, range.epoch, draft.seq), bytes: BytesMut::new(), named: Vec::new() };
    let mut page = OutputPage { range: item.range, epoch: range.epoch, seq: draft.seq, tasks: Vec::with_capacity(draft.outputs.len()) };
    for out in &draft.outputs {
        page.tasks.push(TaskOutput {
            task: out.task,
            attempt: item.attempt,
            ok: out.ok,
            files: out.output.files.iter().map(|f| packer.place(f)).collect::<Result<_>>()?,
            stdout: out.output.stdout.as_ref().map(|f| packer.place(f)).transpose()?,
            stderr: out.output.stderr.as_ref().map(|f| packer.place(f)).transpose()?,
        });
    }
    if let Some(first) = page.tasks.first() {
        let key = keys::output_page(&item.job, item.stage, first.task, item.range, draft.seq);
        writes.push(Write::put(key, encode(&page)?, Condition::Absent));
    }
    let Packer { path, bytes, named } = packer;
    Ok(Parcel { pack: (!bytes.is_empty()).then(|| (path, bytes.freeze())), writes, named })
}

struct Packer {
    path: Path,
    bytes: BytesMut,
    named: Vec<Path>,
}

impl Packer {
    fn place(&mut self, file: &PendingFile) -> Result<StoredFile> {
        match file {
            PendingFile::Stored(stored) => {
                let path = Path::parse(&stored.path).map_err(|e| Error::internal("a stored file's path").with_source(e))?;
                self.named.push(path);
                Ok(stored.clone())
            }
            PendingFile::Small { name, bytes } => {
                let offset = self.bytes.len() as u64;
                self.bytes.extend_from_slice(bytes);
                Ok(StoredFile { name: name.clone(), path: self.path.to_string(), offset, len: bytes.len() as u64, whole: false })
            }
        }
    }
}
