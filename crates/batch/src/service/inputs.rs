//! Which objects the jobs under way take their input from: what a worker may read beside the jobs' own folders.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidemill_base::{Error, Result};
use tidemill_blocks::ledger::Ledger;

use crate::cut::Glob;
use crate::model::{InputSpec, JobSpec, RunSpec, StageSpec};

/// The inputs of every job that has not ended, read from the ledger when something is asked for that is not known.
#[derive(Debug, Clone)]
pub struct OpenInputs {
    ledger: Arc<dyn Ledger>,
    known: Arc<Mutex<BTreeMap<String, Vec<Glob>>>>,
}

impl OpenInputs {
    /// Over the ledger that jobs are in.
    pub fn new(ledger: Arc<dyn Ledger>) -> Self {
        Self { ledger, known: Arc::default() }
    }

    /// Whether a job that has not ended names the object as an input or as the image of its containers.
    pub async fn hold(&self, path: &str) -> Result<bool> {
        // The systems' own objects are nobody's input.
        if path.split('/').next() == Some("system") {
            return Ok(false);
        }
        if self.knows(path) {
            return Ok(true);
        }
        self.refresh().await?;
        Ok(self.knows(path))
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, Vec<Glob>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn knows(&self, path: &str) -> bool {
        self.known().values().flatten().any(|glob| glob.matches(path))
    }

    /// Forgets jobs that have ended and reads those that are new.
    async fn refresh(&self) -> Result<()> {
        let open = "SELECT id FROM batch_jobs WHERE state NOT IN ('succeeded', 'failed', 'cancelled')";
        let rows = self.ledger.query(open, vec![]).await?;
        let ids = rows.iter().map(|r| r.text(0).map(str::to_owned)).collect::<Result<std::collections::BTreeSet<_>>>()?;
        let new: Vec<String> = {
            let mut known = self.known();
            known.retain(|id, _| ids.contains(id));
            ids.into_iter().filter(|id| !known.contains_key(id)).collect()
        };
        for id in new {
            let rows = self.ledger.query("SELECT spec FROM batch_jobs WHERE id = $1", vec![id.as_str().into()]).await?;
            let Some(row) = rows.first() else { continue };
            let spec: JobSpec =
                serde_json::from_str(row.text(0)?).map_err(|e| Error::corrupt(format!("job {id} does not decode")).with_source(e))?;
            let inputs = spec.stages.iter().flat_map(named).map(|text| Glob::new(&text)).collect::<Result<_>>()?;
            self.known().insert(id, inputs);
        }
        Ok(())
    }
}

/// What a stage names, as patterns. A name that is no pattern stands for itself, since objects' names hold no wildcards there.
fn named(stage: &StageSpec) -> Vec<String> {
    let mut out = match &stage.input {
        InputSpec::Objects { patterns, .. } | InputSpec::Parts { patterns, .. } => patterns.clone(),
        InputSpec::Lines { object, .. } => vec![object.clone()],
        InputSpec::Array { .. } | InputSpec::Submitted { .. } | InputSpec::Stage { .. } => Vec::new(),
    };
    if let RunSpec::Container(container) = &stage.run {
        out.push(container.image.clone());
    }
    if let RunSpec::Engine(engine) = &stage.run {
        out.extend(engine.objects().cloned());
    }
    out
}
