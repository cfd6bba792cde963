//! From a draft to what is stored: the pack, the output page, the report.

use bytes::BytesMut;
use object_store::path::Path;
use tidemill_base::{Error, Result, RunSet, Timestamp};
use tidemill_batch::model::TaskColumns;
use tidemill_batch::protocol::{OutputPage, Report, ResultBody, ResultPage, StoredFile, TaskOutput, encode, keys};
use tidemill_blocks::table::{Condition, Write};

use crate::range::OpenRange;
use crate::work::{Draft, PendingFile};

/// Results up to so many bytes lie in their page, which has to fit an item of the table with all its columns.
const INLINE_RESULTS: usize = 160 << 10;

/// What one report writes.
#[derive(Debug)]
pub(super) struct Parcel {
    /// The object that holds the small files, if there are any.
    pub(super) pack: Option<(Path, bytes::Bytes)>,
    /// Where that object is.
    pub(super) pack_path: Option<Path>,
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
        columns: columns(draft).pack()?,
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
    let mut pack = (!bytes.is_empty()).then(|| (path, bytes.freeze()));
    if !draft.results.bytes.is_empty() {
        let (page, large) = results(range, draft);
        writes.push(Write::put(keys::result_page(&item.job, item.stage, item.range, draft.seq), encode(&page)?, Condition::Absent));
        // A stage has either files or results.
        pack = pack.or(large);
    }
    let pack_path = pack.as_ref().map(|(path, _)| path.clone());
    Ok(Parcel { pack, pack_path, writes, named })
}

/// Rows of statistics, from either side.
fn columns(draft: &Draft) -> std::borrow::Cow<'_, TaskColumns> {
    match (draft.columns.is_empty(), draft.results.columns.is_empty()) {
        (_, true) => std::borrow::Cow::Borrowed(&draft.columns),
        (true, false) => std::borrow::Cow::Borrowed(&draft.results.columns),
        (false, false) => {
            let mut all = draft.columns.clone();
            all.append(draft.results.columns.clone());
            std::borrow::Cow::Owned(all)
        }
    }
}

/// The page of results, and the object beside it when they are too large for one.
fn results(range: &OpenRange, draft: &Draft) -> (ResultPage, Option<(Path, bytes::Bytes)>) {
    let (item, from) = (&range.item, &draft.results);
    let mut body = BytesMut::with_capacity(from.bytes.iter().map(bytes::Bytes::len).sum());
    from.bytes.iter().for_each(|b| body.extend_from_slice(b));
    let (body, large) = if body.len() <= INLINE_RESULTS {
        (ResultBody::Inline(body.to_vec()), None)
    } else {
        let path = keys::result_object(&item.job, item.stage, item.range, range.epoch, draft.seq);
        (ResultBody::Object(path.to_string()), Some((path, body.freeze())))
    };
    let failed: RunSet = from.failed.iter().map(|f| f.task).collect();
    let page = ResultPage {
        range: item.range,
        epoch: range.epoch,
        seq: draft.seq,
        attempt: item.attempt,
        made_by: from.made_by.clone(),
        tasks: from.columns.task.clone(),
        ok: from.columns.task.iter().map(|t| u8::from(!failed.contains(*t))).collect(),
        run_us: from.columns.run_us.clone(),
        lens: from.bytes.iter().map(|b| u32::try_from(b.len()).unwrap_or(u32::MAX)).collect(),
        body,
    };
    (page, large)
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
