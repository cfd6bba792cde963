//! `grid.sessions`.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use tidemill_base::{Error, ErrorKind, Result};
use tidemill_batch::model::FunctionRef;
use tidemill_batch::store::read::{self, JobKind, JobRow, StageRow};
use tidemill_blocks::ledger::Ledger;
use tidemill_query::{ColumnValues as V, Scan, Scanned, Source, TableData, TableSchema, Type};

use super::reader::engine_of;

pub(super) struct Sessions {
    pub(super) ledger: Arc<dyn Ledger>,
    pub(super) price: f64,
}

/// Columns that are read from a session's definition, one by one, and only when they are asked for.
const DEFINED: [&str; 5] = ["engine", "function", "input", "output", "labels"];

type StageNumber = (&'static str, fn(&StageRow) -> u64);

const STAGE_NUMBERS: [StageNumber; 9] = [
    ("total", |s| s.total),
    ("succeeded", |s| s.succeeded),
    ("failed", |s| s.failed),
    ("cancelled", |s| s.cancelled),
    ("skipped", |s| s.skipped),
    ("retrying", |s| s.retrying),
    ("outstanding", |s| s.outstanding),
    ("attempts", |s| s.attempts),
    ("failed_attempts", |s| s.failed_attempts),
];

/// One row of the table.
struct Line {
    job: JobRow,
    stage: StageRow,
    defined: [String; 5],
    open: bool,
    deliveries: u64,
}

#[async_trait]
impl Source for Sessions {
    fn schema(&self) -> TableSchema {
        let mut columns = vec![("id", Type::Text), ("name", Type::Text), ("user", Type::Text)];
        columns.extend(DEFINED.map(|name| (name, Type::Text)));
        columns.extend([
            ("class", Type::Text),
            ("priority", Type::Int),
            ("state", Type::Text),
            ("reason", Type::Text),
            ("open", Type::Bool),
        ]);
        columns.extend(STAGE_NUMBERS.iter().map(|(name, _)| (*name, Type::UInt)));
        columns.extend([("deliveries", Type::UInt), ("run_us", Type::UInt), ("mean_us", Type::Real), ("cost", Type::Real)]);
        columns.extend(["opened_at", "started_at", "finished_at"].map(|name| (name, Type::Time)));
        TableSchema::new(&columns)
    }

    async fn scan(&self, want: &Scan) -> Result<Scanned> {
        let lines = self.lines(want).await?;
        let text = |f: fn(&Line) -> &str| V::Text(lines.iter().map(|l| f(l).to_owned()).collect());
        let mut table = TableData::with_rows(lines.len())
            .column("id", text(|l| &l.job.id))?
            .column("name", text(|l| &l.job.name))?
            .column("user", text(|l| &l.job.user))?
            .column("class", text(|l| &l.job.class))?
            .column("priority", V::Int(lines.iter().map(|l| i64::from(l.job.priority)).collect()))?
            .column("state", text(|l| l.job.state.as_str()))?
            .column("reason", text(|l| &l.job.reason))?
            .column("open", V::Bool(lines.iter().map(|l| l.open).collect()))?
            .column("deliveries", V::UInt(lines.iter().map(|l| l.deliveries).collect()))?
            .column("run_us", V::UInt(lines.iter().map(|l| l.stage.run_us).collect()))?
            .column("mean_us", V::Real(lines.iter().map(|l| l.stage.mean_us).collect()))?
            .column("cost", V::Real(lines.iter().map(|l| busy_us(&l.stage) / 3_600e6 * self.price).collect()))?
            .column("opened_at", V::TimeMicros(lines.iter().map(|l| l.job.submitted_at.micros()).collect()))?
            .column("started_at", V::TimeMicrosOpt(lines.iter().map(|l| l.job.started_at.map(|t| t.micros())).collect()))?
            .column("finished_at", V::TimeMicrosOpt(lines.iter().map(|l| l.job.finished_at.map(|t| t.micros())).collect()))?;
        for (at, name) in DEFINED.into_iter().enumerate() {
            table = table.column(name, V::Text(lines.iter().map(|l| l.defined[at].clone()).collect()))?;
        }
        for (name, number) in STAGE_NUMBERS {
            table = table.column(name, V::UInt(lines.iter().map(|l| number(&l.stage)).collect()))?;
        }
        Ok(table.into())
    }
}

fn busy_us(stage: &StageRow) -> f64 {
    (stage.stage_in_us + stage.run_us + stage.stage_out_us) as f64
}

impl Sessions {
    async fn lines(&self, want: &Scan) -> Result<Vec<Line>> {
        let ledger = self.ledger.as_ref();
        let one = want.words("id").filter(|w| w.len() == 1).and_then(|w| w.first());
        let jobs: Vec<JobRow> = match one {
            Some(id) => match read::job(ledger, id).await {
                Ok(job) => vec![job],
                // An id that is none has no row, as in any table.
                Err(e) if e.kind() == ErrorKind::NotFound => Vec::new(),
                Err(e) => return Err(e),
            },
            None => read::all_jobs(ledger).await?,
        };
        let stages = read::stages(ledger, one.map(String::as_str)).await?;
        let mut stages: BTreeMap<String, StageRow> = stages.into_iter().map(|s| (s.job.clone(), s)).collect();
        let defined = DEFINED.iter().any(|name| want.reads(name));
        let counted = want.reads("open") || want.reads("deliveries");
        let mut out = Vec::new();
        for job in jobs.into_iter().filter(|j| j.kind == JobKind::Session && want.wants("id", &j.id)) {
            // A session that went between the two questions has no row.
            let Some(stage) = stages.remove(&job.id) else { continue };
            let (open, deliveries) = if counted { read::session(ledger, &job.id).await? } else { (false, 0) };
            let open = open && !job.state.is_final();
            let defined = if defined { self.defined(&job.id).await? } else { Default::default() };
            out.push(Line { job, stage, defined, open, deliveries });
        }
        Ok(out)
    }

    async fn defined(&self, id: &str) -> Result<[String; 5]> {
        let spec = read::spec(self.ledger.as_ref(), id).await?;
        let labels = serde_json::to_string(&spec.labels).map_err(|e| Error::internal("encode labels").with_source(e))?;
        let Some(engine) = engine_of(&spec) else { return Ok(Default::default()) };
        let function = match &engine.function {
            FunctionRef::Name(name) | FunctionRef::Module(name) => name.clone(),
            FunctionRef::Packed(_) => "packed".to_owned(),
        };
        Ok([engine.engine.clone(), function, engine.input.clone(), engine.output.clone(), labels])
    }
}
