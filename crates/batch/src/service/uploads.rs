//! What was uploaded for jobs: folders `uploads/ID`. One that a single job reads is deleted with it.
//!
//! Those of most jobs stand in their definitions. A session's tasks come later, and what they were made from is in no definition, so
//! that is noted by itself.

use std::collections::BTreeSet;

use tidemill_base::{Error, Result};
use tidemill_blocks::ledger::{Ledger, Statement};

use super::Manager;
use crate::model::{InputSpec, JobSpec, RunSpec, StageSpec};

impl Manager {
    /// Notes the uploads among these objects as read by a session, so that they go with it unless another job reads them.
    pub async fn note_uploads<'a>(&self, session: &str, objects: impl Iterator<Item = &'a str>) -> Result<()> {
        let uploads: BTreeSet<String> = objects.filter_map(upload_of).collect();
        let sql = "INSERT INTO batch_uploads (job, upload) VALUES ($1, $2) ON CONFLICT (job, upload) DO NOTHING";
        let rows: Vec<_> = uploads.into_iter().map(|upload| Statement::new(sql, vec![session.into(), upload.into()])).collect();
        if rows.is_empty() {
            return Ok(());
        }
        self.shared().blocks.ledger.transact(rows).await.map(drop)
    }
}

/// The uploads that a job reads and no other does.
pub(super) async fn of_job_alone(ledger: &dyn Ledger, job: &str) -> Result<Vec<String>> {
    let mut read = BTreeSet::new();
    for row in ledger.query("SELECT spec FROM batch_jobs WHERE id = $1", vec![job.into()]).await? {
        let spec: JobSpec = serde_json::from_str(row.text(0)?).map_err(|e| Error::corrupt("a job does not decode").with_source(e))?;
        read.extend(spec.stages.iter().flat_map(of_stage));
    }
    for row in ledger.query("SELECT upload FROM batch_uploads WHERE job = $1", vec![job.into()]).await? {
        read.insert(row.text(0)?.to_owned());
    }
    let mut alone = Vec::new();
    for upload in read {
        let by_definition = "SELECT 1 FROM batch_jobs WHERE id <> $1 AND spec LIKE $2 LIMIT 1";
        let by_tasks = "SELECT 1 FROM batch_uploads WHERE job <> $1 AND upload = $2 LIMIT 1";
        let others = ledger.query(by_definition, vec![job.into(), format!("%{upload}/%").into()]).await?.len()
            + ledger.query(by_tasks, vec![job.into(), upload.as_str().into()]).await?.len();
        if others == 0 {
            alone.push(upload);
        }
    }
    Ok(alone)
}

/// The uploads that a stage's definition names.
fn of_stage(stage: &StageSpec) -> Vec<String> {
    let mut names = match &stage.input {
        InputSpec::Objects { patterns, .. } | InputSpec::Parts { patterns, .. } => patterns.clone(),
        InputSpec::Lines { object, .. } => vec![object.clone()],
        InputSpec::Array { .. } | InputSpec::Submitted { .. } | InputSpec::Stage { .. } => Vec::new(),
    };
    if let RunSpec::Engine(engine) = &stage.run {
        names.extend(engine.objects().cloned());
    }
    names.iter().filter_map(|name| upload_of(name)).collect()
}

/// The upload that an object or a pattern lies in.
fn upload_of(name: &str) -> Option<String> {
    let mut segments = name.split('/');
    let (bucket, id, rest) = (segments.next()?, segments.next()?, segments.next());
    (bucket == "uploads" && rest.is_some() && !id.contains(['*', '?', '%', '_'])).then(|| format!("uploads/{id}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_is_a_folder_with_a_name_of_its_own() {
        assert_eq!(upload_of("uploads/u1/trades.csv"), Some("uploads/u1".to_owned()));
        assert_eq!(upload_of("uploads/u1/**"), Some("uploads/u1".to_owned()));
        for other in ["uploads/*/trades.csv", "uploads/u1", "data/u1/trades.csv", "uploads/u_1/x", "uploads"] {
            assert_eq!(upload_of(other), None, "{other}");
        }
    }
}
