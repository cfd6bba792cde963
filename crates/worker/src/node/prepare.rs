//! What must be known and at hand before tasks of a range can run.

use std::ffi::OsString;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tidemill_base::{Error, ErrorKind, Result};
use tidemill_batch::cut::StageDefinition;
use tidemill_batch::model::{FailureClass, TaskInput};
use tidemill_batch::protocol::{RangeState, WorkItem, keys};
use tidemill_blocks::grants::{Credential, MAX_TTL, Scope, Verbs};
use tidemill_blocks::objects;

use super::Node;
use crate::inputs::{self, Inputs};
use crate::range::{OpenRange, failure};
use crate::runner::{Programs, engine, is_archive, load_archive};
use crate::stage::{Kind, Stage, resolve_secrets};
use crate::work::Failure;

/// This many stage definitions are remembered.
const REMEMBERED_STAGES: usize = 64;
/// A credential with less left than this is not handed to a task any more.
const CREDENTIAL_MARGIN: Duration = Duration::from_secs(1200);

impl Node {
    /// The range with all that its tasks need, and why they cannot start if so. `Unavailable` is worth another try.
    pub(super) async fn prepare(&self, item: &WorkItem, claim: &RangeState) -> Result<(OpenRange, Option<Failure>)> {
        let stage = self.stage(item).await?;
        let inputs = inputs::load(&self.blocks, &self.reader, &stage, item).await?;
        let staged = self.runner.uses_files() && takes_files(&inputs, &stage, item);
        let (base_env, failure) = match self.base_env(&stage, item).await {
            Ok(env) => (env, self.floor.misfit(&stage.definition.spec.resources).map(|m| Failure::new(FailureClass::Start, m))),
            Err(e) if e.kind() == ErrorKind::Unavailable => return Err(e),
            Err(e) => (Vec::new(), Some(failure(FailureClass::Start, &e))),
        };
        Ok((OpenRange::new(item.clone(), claim, stage, inputs, staged, base_env), failure))
    }

    async fn stage(&self, item: &WorkItem) -> Result<Arc<Stage>> {
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
    async fn base_env(&self, stage: &Stage, item: &WorkItem) -> Result<Vec<(OsString, OsString)>> {
        let spec = &stage.definition.spec;
        let mut env: Vec<(OsString, OsString)> = vec![
            ("TIDEMILL_JOB".into(), (&item.job).into()),
            ("TIDEMILL_STAGE".into(), (&spec.name).into()),
            ("TIDEMILL_ATTEMPT".into(), item.attempt.to_string().into()),
        ];
        if !self.runner.uses_files() {
            return Ok(env);
        }
        env.extend(resolve_secrets(&spec.secrets, |name| std::env::var_os(name))?);
        if spec.credentials {
            let credential = self.credential(&item.job).await?;
            let prefix = keys::job_prefix(&item.job);
            let prefix = match &credential.bucket {
                Some(bucket) => format!("s3://{bucket}/{prefix}"),
                None => format!("s3://{prefix}"),
            };
            env.extend([
                ("AWS_ACCESS_KEY_ID".into(), credential.access_key.into()),
                ("AWS_SECRET_ACCESS_KEY".into(), credential.secret_key.into()),
                ("AWS_SESSION_TOKEN".into(), credential.session_token.into()),
                ("TIDEMILL_PREFIX".into(), prefix.into()),
            ]);
            env.extend(credential.endpoint.map(|e| ("AWS_ENDPOINT_URL".into(), e.into())));
        }
        Ok(env)
    }

    /// A credential for the job's prefix, asked for again when it has not long to live.
    async fn credential(&self, job: &str) -> Result<Credential> {
        let grants = self.blocks.grants.as_ref().ok_or_else(|| {
            Error::invalid("the stage asks for credentials and this worker has nobody who issues them; start it where grants are set up")
        })?;
        let mut known = self.credentials.lock().await;
        let now = self.env.now();
        known.retain(|_, c| c.expires_at > now + CREDENTIAL_MARGIN);
        if let Some(credential) = known.get(job) {
            return Ok(credential.clone());
        }
        let scope = Scope { prefix: keys::job_prefix(job).to_string(), verbs: Verbs::ALL };
        let credential = grants.issue(&format!("job/{job}"), vec![scope], MAX_TTL).await?;
        known.insert(job.to_owned(), credential.clone());
        Ok(credential)
    }
}

/// Whether the tasks get files. All tasks of a stage get the same kind of thing.
fn takes_files(inputs: &Inputs, stage: &Stage, item: &WorkItem) -> bool {
    let Inputs::Listed { tasks, .. } = inputs else { return false };
    stage.kind != Kind::Noop
        && tasks.iter().any(|t| matches!(t, Ok(TaskInput::Files { .. })))
        && inputs.get(&stage.definition, item.start).map_or(true, |i| matches!(i, TaskInput::Files { .. }))
}
