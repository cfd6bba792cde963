//! What must be known and at hand before tasks of a range can run.

use std::ffi::OsString;
use std::sync::{Arc, PoisonError};

use tidemill_base::{Error, Result};
use tidemill_batch::cut::StageDefinition;
use tidemill_batch::model::{FailureClass, TaskInput};
use tidemill_batch::protocol::{RangeState, WorkItem};
use tidemill_blocks::objects;

use super::Node;
use crate::inputs::{self, Inputs};
use crate::range::{OpenRange, failure};
use crate::runner::{Programs, engine, is_archive, load_archive};
use crate::stage::{Kind, Stage, resolve_secrets};
use crate::work::Failure;

/// This many stage definitions are remembered.
const REMEMBERED_STAGES: usize = 64;

impl Node {
    /// The range with all that its tasks need, and why they cannot start if so. `Unavailable` is worth another try.
    pub(super) async fn prepare(&self, item: &WorkItem, claim: &RangeState) -> Result<(OpenRange, Option<Failure>)> {
        let stage = self.stage(item).await?;
        let inputs = inputs::load(&self.blocks, &self.reader, &self.submissions, &stage, item).await?;
        let asks = stage.definition.spec.credentials && stage.kind != Kind::Noop;
        let staged = self.runner.uses_files() && (asks || takes_files(&inputs, &stage, item));
        let (base_env, failure) = match self.base_env(&stage, item) {
            Ok(env) => (env, self.floor.misfit(&stage.definition.spec.resources).map(|m| Failure::new(FailureClass::Start, m))),
            Err(e) => (Vec::new(), Some(failure(FailureClass::Start, &e))),
        };
        Ok((OpenRange::new(item.clone(), claim, stage, inputs, staged, base_env), failure))
    }

    pub(super) async fn stage(&self, item: &WorkItem) -> Result<Arc<Stage>> {
        let key = (item.job.clone(), item.stage);
        let known = self.stages.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some(stage) = known {
            return Ok(stage);
        }
        let definition = StageDefinition::load(&self.blocks.objects, &item.job, item.stage).await?;
        let stage = Arc::new(Stage::new(definition)?);
        if let Kind::Container(spec) = &stage.kind
            && is_archive(&spec.image)
            && self.runner.uses_files()
        {
            let image = self.load_image(&spec.engine, &spec.image).await?;
            drop(stage.image.set(image));
        }
        let mut stages = self.stages.lock().unwrap_or_else(PoisonError::into_inner);
        stages.insert(key, stage.clone());
        while stages.len() > REMEMBERED_STAGES {
            stages.pop_first();
        }
        Ok(stage)
    }

    async fn load_image(&self, wanted: &str, image: &str) -> Result<String> {
        let engine = engine(wanted, &mut Programs::new()).map_err(|f| Error::invalid(f.message))?;
        let path = objects::parse_path(image)?;
        let archive = self.settings.scratch.join("uploads").join(format!("{}.tar", self.env.id("image")));
        let bytes = objects::get(self.blocks.objects.as_ref(), &path).await?;
        tokio::fs::write(&archive, bytes).await?;
        let load = {
            let archive = archive.clone();
            tokio::task::spawn_blocking(move || load_archive(&engine, &archive))
        };
        let name = load.await.map_err(|e| Error::internal("load an image").with_source(e))?;
        tokio::fs::remove_file(&archive).await?;
        name
    }

    /// What all tasks of the range have in their environment.
    fn base_env(&self, stage: &Stage, item: &WorkItem) -> Result<Vec<(OsString, OsString)>> {
        let spec = &stage.definition.spec;
        let mut env: Vec<(OsString, OsString)> = vec![
            ("TIDEMILL_JOB".into(), (&item.job).into()),
            ("TIDEMILL_STAGE".into(), (&spec.name).into()),
            ("TIDEMILL_ATTEMPT".into(), item.attempt.to_string().into()),
        ];
        if !self.runner.uses_files() {
            return Ok(env);
        }
        env.extend(resolve_secrets(&spec.secrets, &self.settings.own_variables, |name| std::env::var_os(name))?);
        Ok(env)
    }
}

/// Whether the tasks get files. All tasks of a stage get the same kind of thing.
fn takes_files(inputs: &Inputs, stage: &Stage, item: &WorkItem) -> bool {
    let Inputs::Listed { tasks, .. } = inputs else { return false };
    stage.kind != Kind::Noop
        && tasks.iter().any(|t| matches!(t, Ok(TaskInput::Files { .. })))
        && inputs.get(&stage.definition, item.start).map_or(true, |i| matches!(i, TaskInput::Files { .. }))
}
