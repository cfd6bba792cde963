//! From inputs to tasks. An array is arithmetic and costs nothing, however long; everything else is listed or read once, as a stream, and
//! written down as a [`manifest`] that workers look their task up in.
//!
//! Cutting needs the object store only. It changes nothing but the manifest's objects and writes the same ones when it is done
//! again, so a manager that dies in the middle just starts over.

mod boundaries;
mod definition;
mod glob;
mod group;
mod lines;
mod listing;
pub mod manifest;
mod naming;
mod parts;

use tidemill_base::{Error, ErrorKind, Result};
use tidemill_blocks::objects::Objects;

pub use definition::{InputSource, StageDefinition, UpstreamInfo};
pub use glob::Glob;
pub use group::cut_group;
pub use manifest::{ManifestInfo, Reader};
pub use naming::input_refs;

use crate::model::{InputRef, InputSpec, TaskInput};
use crate::spec::limits::MAX_TASKS;
use manifest::Writer;

/// How much one stage may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Tasks.
    pub tasks: u64,
    /// Objects that patterns match, or outputs that are grouped: they are held in memory while they are sorted, about 150 bytes each.
    pub objects: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { tasks: MAX_TASKS, objects: 5_000_000 }
    }
}

/// How far the cutting of a stage has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Tasks cut.
    pub tasks: u64,
    /// Bytes of input looked at.
    pub bytes: u64,
    /// Objects found, or dealt with.
    pub objects: u64,
}

/// Where the tasks of a stage go while they are cut.
pub struct Cutting<'a> {
    /// Where inputs are read and the manifest is written.
    pub objects: &'a Objects,
    /// The job's id.
    pub job: &'a str,
    /// The stage's number.
    pub stage: u32,
    /// What is too much.
    pub limits: Limits,
    /// Told every now and then.
    pub progress: &'a mut (dyn FnMut(Progress) + Send),
}

impl std::fmt::Debug for Cutting<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cutting").field("job", &self.job).field("stage", &self.stage).field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl Cutting<'_> {
    fn tell(&mut self, tasks: u64, bytes: u64, objects: u64) {
        (self.progress)(Progress { tasks, bytes, objects });
    }

    fn check_tasks(&self, tasks: u64) -> Result<()> {
        if tasks <= self.limits.tasks {
            return Ok(());
        }
        let what = format!("the input makes more than {} tasks; raise `per-task` or the size of parts", self.limits.tasks);
        Err(Error::new(ErrorKind::Exhausted, what))
    }
}

/// What a stage was cut into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CutResult {
    /// How many tasks.
    pub total: u64,
    /// Where their inputs are listed; `None` when they can be computed.
    pub manifest: Option<ManifestInfo>,
    /// Objects without a byte or a record, which make no part.
    pub empty_objects: u64,
}

impl CutResult {
    async fn of(writer: Writer<'_>) -> Result<Self> {
        let info = writer.finish().await?;
        Ok(Self { total: info.entries, manifest: Some(info), empty_objects: 0 })
    }
}

/// Cuts the input of a stage. A stage that takes another's outputs is not cut here: [`UpstreamInfo::task_count`] and [`cut_group`] see
/// to it. `Invalid` when an object is missing, a pattern matches nothing or an input is not what it should be; `Exhausted` beyond a limit.
pub async fn cut(input: &InputSpec, cx: &mut Cutting<'_>) -> Result<CutResult> {
    match input {
        InputSpec::Array { first, last } => {
            let total = last.abs_diff(*first).saturating_add(1);
            cx.check_tasks(total)?;
            Ok(CutResult { total, manifest: None, empty_objects: 0 })
        }
        InputSpec::Objects { patterns, per_task } => cut_objects(patterns, *per_task, cx).await,
        InputSpec::Lines { object, per_task } => lines::cut(object, *per_task, cx).await,
        InputSpec::Parts { patterns, bytes, boundary, header } => {
            parts::cut(parts::PartSpec { patterns, bytes: (*bytes).max(1), boundary: *boundary, header: *header }, cx).await
        }
        InputSpec::Submitted { .. } => Ok(CutResult { total: 0, manifest: None, empty_objects: 0 }),
        InputSpec::Stage { stage, .. } => Err(Error::internal(format!("a stage that takes the outputs of `{stage}` has no input to cut"))),
    }
}

async fn cut_objects(patterns: &[String], per_task: u64, cx: &mut Cutting<'_>) -> Result<CutResult> {
    let found = listing::list(patterns, cx).await?;
    let count = found.len() as u64;
    let per_task = per_task.max(1);
    cx.check_tasks(count.div_ceil(per_task))?;
    let mut writer = Writer::new(cx.objects, cx.job, cx.stage);
    for group in found.chunks(usize::try_from(per_task).unwrap_or(usize::MAX)) {
        let mut files: Vec<_> = group.iter().map(whole).collect();
        naming::make_unique(&mut files);
        writer.push(&TaskInput::Files { files, key: None }).await?;
    }
    cx.tell(writer.entries(), 0, count);
    CutResult::of(writer).await
}

fn whole(found: &listing::Found) -> InputRef {
    let name = naming::file_name(&found.path).to_owned();
    InputRef { path: found.path.to_string(), name, offset: 0, len: found.size, header: 0, whole: true }
}
