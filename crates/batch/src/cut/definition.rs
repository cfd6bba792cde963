//! What workers read to know what a stage's tasks are: one JSON object a stage.

use serde::{Deserialize, Serialize};
use tidemill_base::{Error, Result};
use tidemill_blocks::objects::{self, Objects};

use super::ManifestInfo;
use crate::model::{ChainMode, InputSpec, StageSpec, TaskInput};
use crate::protocol::keys;

/// A stage as workers see it; stored at [`keys::stage_definition`] when its tasks are known and never changed after.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StageDefinition {
    /// The job's name, for messages and for the task's environment.
    pub job_name: String,
    /// The stage as submitted.
    pub spec: StageSpec,
    /// How many tasks it has.
    pub total: u64,
    /// Where the tasks' inputs are listed, if they cannot be computed.
    pub manifest: Option<ManifestInfo>,
    /// The stage it takes its input from, if it does.
    pub upstream: Option<UpstreamInfo>,
}

/// The stage that another one takes its input from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpstreamInfo {
    /// Its number within the job.
    pub stage: u32,
    /// How its tasks become ours.
    pub mode: ChainMode,
    /// How many tasks it has.
    pub total: u64,
}

/// Where to find what a task gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InputSource {
    /// This is it.
    Ready(TaskInput),
    /// It is in the stage's manifest, at the task's number.
    Manifest,
    /// It is what these tasks of an earlier stage have put out.
    Outputs {
        /// The earlier stage's number.
        stage: u32,
        /// The first of its tasks.
        first: u64,
        /// How many of its tasks.
        len: u64,
    },
}

impl StageDefinition {
    /// Where to find what `task` gets. `NotFound` beyond the last task.
    pub fn source(&self, task: u64) -> Result<InputSource> {
        if matches!(self.spec.input, InputSpec::Submitted { .. }) {
            return Ok(InputSource::Ready(TaskInput::Payload));
        }
        if task >= self.total {
            return Err(Error::not_found(format!("stage `{}` has {} tasks, there is no task {task}", self.spec.name, self.total)));
        }
        if self.manifest.is_some() {
            return Ok(InputSource::Manifest);
        }
        match (&self.spec.input, &self.upstream) {
            (InputSpec::Array { first, .. }, _) => Ok(InputSource::Ready(TaskInput::Index(first.wrapping_add_unsigned(task)))),
            (InputSpec::Stage { .. }, Some(upstream)) => upstream.outputs_of(task),
            _ => Err(Error::corrupt(format!("the definition of stage `{}` has lost its manifest", self.spec.name))),
        }
    }

    /// Stores it.
    pub async fn store(&self, objects: &Objects, job: &str, stage: u32) -> Result<()> {
        let json = serde_json::to_vec(self).map_err(|e| Error::internal("encode stage definition").with_source(e))?;
        objects::put(objects.as_ref(), &keys::stage_definition(job, stage), json).await
    }

    /// Reads it. `NotFound` when it is not there, `Corrupt` when it cannot be read.
    pub async fn load(objects: &Objects, job: &str, stage: u32) -> Result<Self> {
        let path = keys::stage_definition(job, stage);
        let json = objects::get(objects.as_ref(), &path).await?;
        serde_json::from_slice(&json).map_err(|e| Error::corrupt(format!("stage definition `{path}` cannot be read")).with_source(e))
    }
}

impl UpstreamInfo {
    /// How many tasks a stage has that streams from or gathers this one. `None` for grouping, which has to look at the outputs.
    pub fn task_count(&self) -> Option<u64> {
        match self.mode {
            ChainMode::Stream => Some(self.total),
            ChainMode::Gather { per_task } => Some(per_task.map_or(1, |n| self.total.div_ceil(n.max(1)))),
            ChainMode::Group { .. } => None,
        }
    }

    fn outputs_of(&self, task: u64) -> Result<InputSource> {
        let (first, len) = match self.mode {
            ChainMode::Stream => (task, 1),
            ChainMode::Gather { per_task: None } => (0, self.total),
            ChainMode::Gather { per_task: Some(n) } => {
                let first = task.checked_mul(n).filter(|first| *first < self.total);
                let first = first.ok_or_else(|| Error::corrupt(format!("the earlier stage has too few tasks for task {task}")))?;
                (first, n.min(self.total - first))
            }
            ChainMode::Group { .. } => return Err(Error::corrupt("a grouping stage has lost its manifest")),
        };
        Ok(InputSource::Outputs { stage: self.stage, first, len })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gathering_covers_every_upstream_task_once() {
        for (total, per_task) in [(10, Some(3)), (9, Some(3)), (1, Some(5)), (7, None), (1, None)] {
            let upstream = UpstreamInfo { stage: 2, mode: ChainMode::Gather { per_task }, total };
            let mut next = 0;
            for task in 0..upstream.task_count().unwrap() {
                let InputSource::Outputs { stage: 2, first, len } = upstream.outputs_of(task).unwrap() else { panic!("{task}") };
                assert_eq!(first, next);
                assert!(len > 0);
                next += len;
            }
            assert_eq!(next, total, "{per_task:?}");
        }
    }
}
