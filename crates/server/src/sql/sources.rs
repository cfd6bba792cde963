//! The tables: `batch.jobs`, `batch.stages`, `batch.tasks`, `batch.failures`, `grid.attempts`, `fleet.workers`, `fleet.groups`.
//!
//! Sessions of the grid are jobs inside. Their rows are in the tables of the grid alone, so that who counts jobs counts jobs.

use std::sync::Arc;

use async_trait::async_trait;
use tidemill_base::{Env, Result, Timestamp};
use tidemill_batch::service::{Manager, live_workers};
use tidemill_batch::store::read::{self, JobKind, JobRow, StageRow};
use tidemill_blocks::Blocks;
use tidemill_blocks::ledger::Ledger;
use tidemill_query::{ColumnValues as V, Engine, Scan, Scanned, SegmentRef, Source, TableData, TableSchema, Type};

use super::segments;

pub(super) fn register(engine: &Engine, blocks: &Blocks, manager: &Manager, env: Env, price: f64) {
    engine.register("batch", "jobs", Arc::new(Jobs(blocks.clone())));
    engine.register("batch", "stages", Arc::new(Stages(blocks.clone(), price)));
    let attempts = |kind| Arc::new(Attempts { manager: manager.clone(), ledger: Arc::clone(&blocks.ledger), kind, price });
    engine.register("batch", "tasks", attempts(JobKind::Job));
    engine.register("grid", "attempts", attempts(JobKind::Session));
    engine.register("batch", "failures", Arc::new(Failures(blocks.clone())));
    engine.register("fleet", "workers", Arc::new(Workers(blocks.clone(), env)));
    engine.register("fleet", "groups", Arc::new(Groups(blocks.clone())));
}

fn texts<T>(rows: &[T], f: impl Fn(&T) -> &str) -> V {
    V::Text(rows.iter().map(|r| f(r).to_owned()).collect())
}

fn counts<T>(rows: &[T], f: impl Fn(&T) -> u64) -> V {
    V::UInt(rows.iter().map(f).collect())
}

fn times<T>(rows: &[T], f: impl Fn(&T) -> Option<Timestamp>) -> V {
    V::TimeMicrosOpt(rows.iter().map(|r| f(r).map(Timestamp::micros)).collect())
}

struct Jobs(Blocks);

#[async_trait]
impl Source for Jobs {
    fn schema(&self) -> TableSchema {
        TableSchema::new(&[
            ("id", Type::Text),
            ("name", Type::Text),
            ("user", Type::Text),
            ("class", Type::Text),
            ("priority", Type::Int),
            ("state", Type::Text),
            ("reason", Type::Text),
            ("submitted_at", Type::Time),
            ("started_at", Type::Time),
            ("finished_at", Type::Time),
        ])
    }

    async fn scan(&self, _want: &Scan) -> Result<Scanned> {
        let mut rows: Vec<JobRow> = read::all_jobs(self.0.ledger.as_ref()).await?;
        rows.retain(|j| j.kind == JobKind::Job);
        let table = TableData::with_rows(rows.len())
            .column("id", texts(&rows, |j| &j.id))?
            .column("name", texts(&rows, |j| &j.name))?
            .column("user", texts(&rows, |j| &j.user))?
            .column("class", texts(&rows, |j| &j.class))?
            .column("priority", V::Int(rows.iter().map(|j| i64::from(j.priority)).collect()))?
            .column("state", texts(&rows, |j| j.state.as_str()))?
            .column("reason", texts(&rows, |j| &j.reason))?
            .column("submitted_at", times(&rows, |j| Some(j.submitted_at)))?
            .column("started_at", times(&rows, |j| j.started_at))?
            .column("finished_at", times(&rows, |j| j.finished_at))?;
        Ok(table.into())
    }
}

struct Stages(Blocks, f64);

type StageNumber = (&'static str, fn(&StageRow) -> u64);

const STAGE_NUMBERS: [StageNumber; 19] = [
    ("total", |s| s.total),
    ("succeeded", |s| s.succeeded),
    ("failed", |s| s.failed),
    ("cancelled", |s| s.cancelled),
    ("skipped", |s| s.skipped),
    ("retrying", |s| s.retrying),
    ("outstanding", |s| s.outstanding),
    ("attempts", |s| s.attempts),
    ("failed_attempts", |s| s.failed_attempts),
    ("wait_us", |s| s.wait_us),
    ("stage_in_us", |s| s.stage_in_us),
    ("run_us", |s| s.run_us),
    ("stage_out_us", |s| s.stage_out_us),
    ("wasted_us", |s| s.wasted_us),
    ("cpu_us", |s| s.cpu_us),
    ("peak_memory", |s| s.peak_memory),
    ("bytes_in", |s| s.bytes_in),
    ("bytes_out", |s| s.bytes_out),
    ("stage_number", |s| s.stage as u64),
];

#[async_trait]
impl Source for Stages {
    fn schema(&self) -> TableSchema {
        let mut columns = vec![("job", Type::Text), ("name", Type::Text), ("state", Type::Text)];
        columns.extend(STAGE_NUMBERS.iter().map(|(name, _)| (*name, Type::UInt)));
        columns.extend([("mean_us", Type::Real), ("cost", Type::Real), ("started_at", Type::Time), ("finished_at", Type::Time)]);
        TableSchema::new(&columns)
    }

    async fn scan(&self, want: &Scan) -> Result<Scanned> {
        let one = want.words("job").filter(|w| w.len() == 1).and_then(|w| w.first());
        let mut rows = read::stages(self.0.ledger.as_ref(), one.map(String::as_str)).await?;
        let sessions = read::sessions(self.0.ledger.as_ref()).await?;
        rows.retain(|s| !sessions.contains(&s.job));
        let mut table = TableData::with_rows(rows.len())
            .column("job", texts(&rows, |s| &s.job))?
            .column("name", texts(&rows, |s| &s.name))?
            .column("state", texts(&rows, |s| &s.state))?;
        for (name, number) in STAGE_NUMBERS {
            table = table.column(name, counts(&rows, number))?;
        }
        let busy_us = |s: &StageRow| (s.stage_in_us + s.run_us + s.stage_out_us) as f64;
        let table = table
            .column("mean_us", V::Real(rows.iter().map(|s| s.mean_us).collect()))?
            .column("cost", V::Real(rows.iter().map(|s| busy_us(s) / 3_600e6 * self.1).collect()))?
            .column("started_at", times(&rows, |s| s.started_at))?
            .column("finished_at", times(&rows, |s| s.finished_at))?;
        Ok(table.into())
    }
}

/// Settled attempts of tasks: those of jobs, or those of sessions.
struct Attempts {
    manager: Manager,
    ledger: Arc<dyn Ledger>,
    kind: JobKind,
    price: f64,
}

#[async_trait]
impl Source for Attempts {
    fn schema(&self) -> TableSchema {
        segments::schema()
    }

    async fn scan(&self, want: &Scan) -> Result<Scanned> {
        let one = want.words("job").filter(|w| w.len() == 1).and_then(|w| w.first());
        let mut picture = self.manager.statistics(one.map(String::as_str)).await?;
        let sessions = read::sessions(self.ledger.as_ref()).await?;
        let listed = |job: &str| sessions.contains(job) == (self.kind == JobKind::Session);
        picture.live.retain(|batch| listed(&batch.job));
        // `jobs/ID/stats/...`
        picture.segments.retain(|(path, ..)| path.split('/').nth(1).is_some_and(listed));
        let segments: Result<Vec<SegmentRef>> = picture
            .segments
            .into_iter()
            .map(|(path, rows, bytes)| Ok(SegmentRef { path: tidemill_blocks::objects::parse_path(&path)?, rows, bytes }))
            .collect();
        Ok(Scanned { tables: vec![segments::table(&picture.live, self.price)?], segments: segments?, ..Scanned::default() })
    }
}

struct Failures(Blocks);

#[async_trait]
impl Source for Failures {
    fn schema(&self) -> TableSchema {
        TableSchema::new(&[
            ("job", Type::Text),
            ("stage_number", Type::UInt),
            ("task", Type::UInt),
            ("attempts", Type::UInt),
            ("class", Type::Text),
            ("exit_code", Type::Int),
            ("message", Type::Text),
            ("worker", Type::Text),
            ("state", Type::Text),
            ("at", Type::Time),
        ])
    }

    async fn scan(&self, want: &Scan) -> Result<Scanned> {
        let ledger = self.0.ledger.as_ref();
        let mut out = Vec::new();
        for job in read::all_jobs(ledger).await?.iter().filter(|j| j.kind == JobKind::Job && want.wants("job", &j.id)) {
            let rows = read::exceptions(ledger, &job.id, None, 1_000_000).await?;
            if rows.is_empty() {
                continue;
            }
            let table = TableData::with_rows(rows.len())
                .column("job", V::Text(vec![job.id.clone(); rows.len()]))?
                .column("stage_number", counts(&rows, |e| u64::from(e.stage)))?
                .column("task", counts(&rows, |e| e.task))?
                .column("attempts", counts(&rows, |e| u64::from(e.attempts)))?
                .column("class", texts(&rows, |e| &e.class))?
                .column("exit_code", V::IntOpt(rows.iter().map(|e| e.exit.map(i64::from)).collect()))?
                .column("message", texts(&rows, |e| &e.message))?
                .column("worker", texts(&rows, |e| &e.worker))?
                .column("state", texts(&rows, |e| if e.dead { "dead" } else { "retrying" }))?
                .column("at", times(&rows, |e| Some(e.at)))?;
            out.push(table);
        }
        Ok(Scanned { tables: out, ..Scanned::default() })
    }
}

struct Workers(Blocks, Env);

#[async_trait]
impl Source for Workers {
    fn schema(&self) -> TableSchema {
        TableSchema::new(&[
            ("id", Type::Text),
            ("class", Type::Text),
            ("host", Type::Text),
            ("version", Type::Text),
            ("slots", Type::UInt),
            ("memory", Type::UInt),
            ("running", Type::UInt),
            ("tasks_done", Type::UInt),
            ("busy_us", Type::UInt),
            ("cpu_us", Type::UInt),
            ("started_at", Type::Time),
            ("heard_at", Type::Time),
        ])
    }

    async fn scan(&self, _want: &Scan) -> Result<Scanned> {
        let rows = live_workers(self.0.table.as_ref(), self.1.now()).await?;
        let table = TableData::with_rows(rows.len())
            .column("id", texts(&rows, |w| &w.worker))?
            .column("class", texts(&rows, |w| &w.class))?
            .column("host", texts(&rows, |w| &w.host))?
            .column("version", texts(&rows, |w| &w.version))?
            .column("slots", counts(&rows, |w| u64::from(w.offers.slots)))?
            .column("memory", counts(&rows, |w| w.offers.memory))?
            .column("running", counts(&rows, |w| w.running.len() as u64))?
            .column("tasks_done", counts(&rows, |w| w.tasks_done))?
            .column("busy_us", counts(&rows, |w| w.busy_us))?
            .column("cpu_us", counts(&rows, |w| w.cpu_us))?
            .column("started_at", times(&rows, |w| Some(w.started_at)))?
            .column("heard_at", times(&rows, |w| Some(w.at)))?;
        Ok(table.into())
    }
}

struct Groups(Blocks);

#[async_trait]
impl Source for Groups {
    fn schema(&self) -> TableSchema {
        TableSchema::new(&[
            ("name", Type::Text),
            ("min", Type::UInt),
            ("max", Type::UInt),
            ("desired", Type::UInt),
            ("members", Type::UInt),
        ])
    }

    async fn scan(&self, _want: &Scan) -> Result<Scanned> {
        let rows = self.0.fleet.groups().await?;
        let table = TableData::with_rows(rows.len())
            .column("name", texts(&rows, |g| &g.spec.name))?
            .column("min", counts(&rows, |g| u64::from(g.spec.min)))?
            .column("max", counts(&rows, |g| u64::from(g.spec.max)))?
            .column("desired", counts(&rows, |g| u64::from(g.desired)))?
            .column("members", counts(&rows, |g| g.members.len() as u64))?;
        Ok(table.into())
    }
}
