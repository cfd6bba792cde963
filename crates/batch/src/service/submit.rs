//! Takes jobs in: checks what can be checked, cuts the input into tasks, and writes the job down.

use std::sync::Arc;

use tidemill_base::{Error, ErrorKind, Result, RunSet, Timestamp};
use tidemill_blocks::fleet::Offers;

use super::lead::News;
use super::{Manager, Shared, workers};
use crate::cut::{self, Cutting, Limits, StageDefinition, UpstreamInfo};
use crate::model::{ChainMode, InputSpec, JobSpec, StageState};
use crate::reactor::{SessionRow, SessionState, StageEntry, upstream_of};
use crate::spec;
use crate::store::{self, NewJob};

/// A job to take in.
#[derive(Debug, Clone)]
pub struct Submit {
    /// Whose it is.
    pub user: String,
    /// The job, as [`crate::spec`] made it.
    pub spec: JobSpec,
    /// A second submit by the same user with the same token answers with the first one's job.
    pub client_token: Option<String>,
}

/// What became of a submit. It is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submitted {
    /// The job.
    pub id: String,
    /// An earlier submit with the same token had made it.
    pub existing: bool,
    /// Tasks over all stages, as far as they are known; 0 for a job that is cut when it starts.
    pub tasks: u64,
}

impl Manager {
    /// Takes a job in. `Invalid` names what is wrong with it, an input that matches nothing and resources that no worker of the class
    /// has included.
    pub async fn submit(&self, submit: Submit) -> Result<Submitted> {
        self.shared().submit(submit, None).await
    }
}

impl Shared {
    pub(super) async fn submit(&self, submit: Submit, cron_parent: Option<&str>) -> Result<Submitted> {
        if let Some(known) = self.by_token(&submit).await? {
            return Ok(known);
        }
        let now = self.env.now();
        spec::validate(&submit.spec)?;
        spec::check_resources(&submit.spec, &self.offers_of(&submit.spec.class).await?)?;
        self.check_dependencies(&submit.spec).await?;
        self.ensure_class(&submit.spec.class).await?;
        let id = self.env.id("j");
        // A job that starts later may be meant for input that is not there yet; it is cut when it starts.
        let later = submit.spec.cron.is_some() || !submit.spec.after.is_empty() || submit.spec.at.is_some_and(|at| at > now);
        let stages = if later {
            submit.spec.stages.iter().map(|_| StageEntry::new(StageState::Blocked, 0, RunSet::new())).collect()
        } else {
            self.cut_stages(&id, &submit.spec).await?
        };
        let tasks = stages.iter().map(|s| s.total).sum();
        let job = NewJob {
            id: &id,
            user: &submit.user,
            spec: &submit.spec,
            client_token: submit.client_token.as_deref(),
            cron_parent,
            submitted_at: now,
            cut: !later,
            stages,
        };
        match self.blocks.ledger.transact(store::insert_job(&job, &self.env.id("c"))?).await {
            Ok(_) => {}
            Err(e) if matches!(e.kind(), ErrorKind::Conflict | ErrorKind::Unavailable) => {
                // Another submit with the token was faster, or ours went through although we were not told.
                return self.by_token(&submit).await?.ok_or(e);
            }
            Err(e) => return Err(e),
        }
        self.nudge_to_look();
        Ok(Submitted { id, existing: false, tasks })
    }

    async fn by_token(&self, submit: &Submit) -> Result<Option<Submitted>> {
        let Some(token) = &submit.client_token else { return Ok(None) };
        let sql = "SELECT j.id, CAST(COALESCE(SUM(s.total), 0) AS BIGINT) FROM batch_jobs j LEFT JOIN batch_stages s ON s.job = j.id
                   WHERE j.user_name = $1 AND j.client_token = $2 GROUP BY j.id";
        let rows = self.blocks.ledger.query(sql, vec![submit.user.as_str().into(), token.as_str().into()]).await?;
        rows.first().map(|r| Ok(Submitted { id: r.text(0)?.to_owned(), existing: true, tasks: r.uint(1)? })).transpose()
    }

    async fn check_dependencies(&self, spec: &JobSpec) -> Result<()> {
        for job in &spec.after {
            let rows = self.blocks.ledger.query("SELECT 1 FROM batch_jobs WHERE id = $1", vec![job.as_str().into()]).await?;
            if rows.is_empty() {
                return Err(Error::invalid(format!(
                    "`after` names job `{job}`, which there is not; `tidemill batch list` shows those there are"
                )));
            }
        }
        Ok(())
    }

    /// What workers of a class offer: the live ones, and what the fleet would start.
    async fn offers_of(&self, class: &str) -> Result<Vec<Offers>> {
        let live = workers::live_workers(self.blocks.table.as_ref(), self.env.now()).await?;
        let mut offers: Vec<Offers> = live.into_iter().filter(|w| w.class == class).map(|w| w.offers).collect();
        offers.extend(
            self.blocks.fleet.groups().await?.into_iter().filter(|g| g.spec.name == class && g.spec.max > 0).map(|g| g.spec.offers),
        );
        offers.extend(self.settings.offers.iter().filter(|(c, _)| c == class).map(|(_, o)| o.clone()));
        Ok(offers)
    }

    /// Cuts every stage's input and stores the definitions that workers read.
    async fn cut_stages(&self, id: &str, spec: &JobSpec) -> Result<Vec<StageEntry>> {
        let mut entries: Vec<StageEntry> = Vec::with_capacity(spec.stages.len());
        for (stage, s) in (0_u32..).zip(&spec.stages) {
            let definition = match upstream_of(spec, stage) {
                Some((from, mode)) => {
                    let upstream = UpstreamInfo { stage: from, mode: mode.clone(), total: entries[from as usize].total };
                    let total = upstream.task_count().unwrap_or(0);
                    StageDefinition { job_name: spec.name.clone(), spec: s.clone(), total, manifest: None, upstream: Some(upstream) }
                }
                None => {
                    let mut progress = |_| {};
                    let mut cutting =
                        Cutting { objects: &self.blocks.objects, job: id, stage, limits: Limits::default(), progress: &mut progress };
                    let cut = cut::cut(&s.input, &mut cutting).await.map_err(|e| e.context(format!("stage `{}`", s.name)))?;
                    StageDefinition {
                        job_name: spec.name.clone(),
                        spec: s.clone(),
                        total: cut.total,
                        manifest: cut.manifest,
                        upstream: None,
                    }
                }
            };
            definition.store(&self.blocks.objects, id, stage).await?;
            entries.push(entry_of(&definition));
        }
        Ok(entries)
    }
}

fn entry_of(definition: &StageDefinition) -> StageEntry {
    let total = definition.total;
    match &definition.spec.input {
        InputSpec::Stage { mode: ChainMode::Stream, .. } => StageEntry::new(StageState::Open, total, RunSet::new()),
        InputSpec::Stage { .. } => StageEntry::new(StageState::Blocked, total, RunSet::new()),
        InputSpec::Submitted { .. } => {
            let session = SessionState::new(SessionRow { open: true, ..SessionRow::default() }, Timestamp::ZERO);
            StageEntry { session: Some(Box::new(session)), ..StageEntry::new(StageState::Open, 0, RunSet::new()) }
        }
        _ => StageEntry::new(StageState::Open, total, RunSet::from_run(0, total)),
    }
}

/// Cuts a job that has become due.
pub(super) async fn cut_later(shared: Arc<Shared>, job: String) -> News {
    let outcome = async {
        let rows = shared.blocks.ledger.query("SELECT spec FROM batch_jobs WHERE id = $1", vec![job.as_str().into()]).await?;
        let row = rows.first().ok_or_else(|| Error::not_found(format!("there is no job `{job}`")))?;
        let spec: JobSpec =
            serde_json::from_str(row.text(0)?).map_err(|e| Error::corrupt(format!("job {job} does not decode")).with_source(e))?;
        shared.cut_stages(&job, &spec).await
    };
    let outcome = outcome.await;
    News::Cut(job, outcome)
}

/// Whether a stage waits for its input stage to be done; its definition is known only then.
pub(super) fn definition_of_follower(spec: &JobSpec, stage: u32, from: u32, upstream_total: u64) -> Option<StageDefinition> {
    let (source, mode) = upstream_of(spec, stage)?;
    if source != from {
        return None;
    }
    let upstream = UpstreamInfo { stage: from, mode: mode.clone(), total: upstream_total };
    let total = upstream.task_count()?;
    let s = spec.stages.get(stage as usize)?.clone();
    Some(StageDefinition { job_name: spec.name.clone(), spec: s, total, manifest: None, upstream: Some(upstream) })
}
