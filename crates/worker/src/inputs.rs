//! What the tasks of a range get: computed, read from the manifest, or found among the outputs of an earlier stage.

use std::collections::BTreeMap;

use bytes::Bytes;
use tidemill_base::{ErrorKind, Result};
use tidemill_batch::cut::{InputSource, Reader, StageDefinition};
use tidemill_batch::model::{ChainMode, FailureClass, InputRef, TaskInput};
use tidemill_batch::protocol::{MAX_RANGE, OutputPage, StoredFile, WorkItem, decode, keys};
use tidemill_batch::spec::Placeholder;
use tidemill_blocks::table::Range;

use crate::payloads::{Kept, Payloads};
use crate::range::failure;
use crate::settings::WorkerBlocks;
use crate::stage::Stage;
use crate::work::Failure;

/// See the module.
#[derive(Debug)]
pub(crate) enum Inputs {
    /// From the task's number.
    Computed,
    /// What their submissions hold.
    Submitted(Payloads),
    /// From `first` on.
    Listed { first: u64, tasks: Vec<Result<TaskInput, Failure>> },
}

impl Inputs {
    /// What `task` gets.
    pub(crate) fn get(&self, definition: &StageDefinition, task: u64) -> Result<TaskInput, Failure> {
        match self {
            Self::Computed => match definition.source(task) {
                Ok(InputSource::Ready(input)) => Ok(input),
                Ok(_) => Err(Failure::new(FailureClass::Input, "the task's input has not been looked up; report this")),
                Err(e) => Err(failure(FailureClass::Input, &e)),
            },
            Self::Submitted(_) => Ok(TaskInput::Payload),
            Self::Listed { first, tasks } => task
                .checked_sub(*first)
                .and_then(|at| tasks.get(usize::try_from(at).ok()?).cloned())
                .unwrap_or_else(|| Err(Failure::new(FailureClass::Input, format!("task {task} is not in the range")))),
        }
    }
}

/// Looks up the inputs of a whole range. `Unavailable` is worth another try; what is wrong with single tasks stays with them.
pub(crate) async fn load(blocks: &WorkerBlocks, reader: &Reader, kept: &Kept, stage: &Stage, item: &WorkItem) -> Result<Inputs> {
    let definition = &stage.definition;
    if stage.engine().is_some() {
        return Ok(Inputs::Submitted(Payloads::load(blocks, kept, item).await?));
    }
    match definition.source(item.start) {
        Ok(InputSource::Ready(_)) | Err(_) => Ok(Inputs::Computed),
        Ok(InputSource::Manifest) => from_manifest(blocks, reader, definition, item).await,
        Ok(InputSource::Outputs { .. }) => from_outputs(blocks, stage, item).await,
    }
}

async fn from_manifest(blocks: &WorkerBlocks, reader: &Reader, definition: &StageDefinition, item: &WorkItem) -> Result<Inputs> {
    let Some(info) = &definition.manifest else { return Ok(Inputs::Computed) };
    let mut tasks = Vec::with_capacity(usize::try_from(item.len).unwrap_or(0));
    for task in item.start..item.start + item.len {
        match reader.get(&blocks.objects, &item.job, item.stage, info, task).await {
            Ok(input) => tasks.push(Ok(input)),
            Err(e) if e.kind() == ErrorKind::Unavailable => return Err(e),
            Err(e) => tasks.push(Err(failure(FailureClass::Input, &e))),
        }
    }
    Ok(Inputs::Listed { first: item.start, tasks })
}

async fn from_outputs(blocks: &WorkerBlocks, stage: &Stage, item: &WorkItem) -> Result<Inputs> {
    let sources: Vec<_> = (item.start..item.start + item.len)
        .filter_map(|task| match stage.definition.source(task) {
            Ok(InputSource::Outputs { stage, first, len }) => Some((stage, first, len)),
            _ => None,
        })
        .collect();
    let Some(&(upstream, first, _)) = sources.first() else { return Ok(Inputs::Computed) };
    let end = sources.last().map_or(first, |(_, f, len)| f + len);
    let found = outputs_of(blocks, &item.job, upstream, first, end).await?;
    let streams = stage.definition.upstream.as_ref().is_some_and(|u| u.mode == ChainMode::Stream);
    let tasks = sources
        .iter()
        .map(|(_, first, len)| {
            let files: Vec<_> = found.range(*first..first + len).flat_map(|(_, (_, files))| files).map(input_ref).collect();
            if files.is_empty() && streams && stage.uses(Placeholder::In) {
                let what = format!("task {first} of stage {upstream}, whose output is the input, has stored no file");
                return Err(Failure::new(FailureClass::Input, what));
            }
            Ok(TaskInput::Files { files, key: None })
        })
        .collect();
    Ok(Inputs::Listed { first: item.start, tasks })
}

/// The newest successful outputs of the tasks `first..end` of a stage: the attempt and its files by task.
async fn outputs_of(blocks: &WorkerBlocks, job: &str, stage: u32, first: u64, end: u64) -> Result<BTreeMap<u64, (u32, Vec<StoredFile>)>> {
    let mut found: BTreeMap<u64, (u32, Vec<StoredFile>)> = BTreeMap::new();
    let from = first.saturating_sub(MAX_RANGE).to_be_bytes();
    let until = end.to_be_bytes();
    let whole = Range::all(keys::output_partition(job, stage), 50);
    let mut next = Some(whole.from(Bytes::copy_from_slice(&from)).until(Bytes::copy_from_slice(&until)));
    while let Some(range) = next {
        let page = blocks.table.range(tidemill_batch::protocol::keys::STATE_TABLE, range).await?;
        next = page.next;
        for item in page.items {
            let outputs: OutputPage = decode("output page", &item.value)?;
            for t in outputs.tasks.into_iter().filter(|t| t.ok && (first..end).contains(&t.task)) {
                if found.get(&t.task).is_none_or(|(attempt, _)| *attempt <= t.attempt) {
                    found.insert(t.task, (t.attempt, t.files));
                }
            }
        }
    }
    Ok(found)
}

fn input_ref(file: &StoredFile) -> InputRef {
    let name = file.name.rsplit('/').next().unwrap_or(&file.name).to_owned();
    InputRef { path: file.path.clone(), name, offset: file.offset, len: file.len, header: 0, whole: file.whole }
}
