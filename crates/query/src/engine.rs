//! The engine: its settings, its tables, and one statement from text to a running plan.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use datafusion::common::DataFusionError;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{FairSpillPool, GreedyMemoryPool, MemoryPool};
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::{SendableRecordBatchStream, SessionState};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::{EmptyRecordBatchStream, execute_stream};
use datafusion::prelude::{SQLOptions, SessionConfig, SessionContext};
use datafusion::sql::parser::Statement;
use object_store::ObjectStore;
use tidemill_base::{ByteSize, Error, Result};
use tidemill_runtime::Stopwatch;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::answer::{Answer, Deadline};
use crate::arrow::datatypes::{DataType, SchemaRef};
use crate::catalog::Catalog;
use crate::run::{Pool, yielding};
use crate::store::ReadAtHome;
use crate::table::{OBJECTS_URL, SourceTable};
use crate::{Family, Rewrite, Source, TableSchema, failure, risk, statement};

/// The name of the catalog, the first part of a table's full name: `tidemill.batch.jobs`.
const CATALOG: &str = "tidemill";

/// What all statements together may use.
#[derive(Debug, Clone)]
pub struct EngineSettings {
    /// Memory for sorting, joining and grouping of all statements together. Reading and decoding come on top, some MiB per thread.
    pub memory_limit: ByteSize,
    /// Where sorts and groupings that pass the memory limit go on, and how much they may write; `None` lets them fail.
    pub spill: Option<(PathBuf, ByteSize)>,
    /// The longest that a statement may take, with the time that its caller needs to read the answer.
    pub timeout: Duration,
    /// The most rows in an answer.
    pub max_rows: u64,
    /// The most bytes in a statement.
    pub max_statement: ByteSize,
    /// Threads, and so cores, that one statement has. They are not the caller's: a statement computes for long without a pause.
    pub threads: usize,
    /// How many statements run at a time; more wait, and their timeout runs while they do. A statement that was stopped counts until
    /// its threads are at rest.
    pub concurrency: usize,
    /// The schema of a table that is named without one.
    pub default_schema: String,
}

impl Default for EngineSettings {
    fn default() -> Self {
        Self {
            memory_limit: ByteSize(512 << 20),
            spill: None,
            timeout: Duration::from_secs(60),
            max_rows: 10_000_000,
            max_statement: ByteSize(256 << 10),
            threads: 2,
            concurrency: 8,
            default_schema: "public".to_owned(),
        }
    }
}

/// What one statement may use, within what [`EngineSettings`] allow. The default asks for no less than those.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// A shorter timeout.
    pub timeout: Option<Duration>,
    /// Fewer rows.
    pub max_rows: Option<u64>,
    /// Ends the answer at the row limit, with [`Answer::is_cut`], where it would otherwise fail.
    pub cut: bool,
}

/// What a statement will answer and what it asks for.
#[derive(Debug, Clone)]
pub struct Description {
    /// The columns of its answer.
    pub columns: SchemaRef,
    /// The types of its parameters by number, as far as they follow from where they stand.
    pub parameters: BTreeMap<usize, Option<DataType>>,
}

/// SQL over registered sources. Cheap to share in an `Arc`.
pub struct Engine {
    planner: Arc<Planner>,
    settings: EngineSettings,
    pool: Pool,
    home: Handle,
}

/// What planning needs; it runs on the engine's threads and may outlive the call that asked for it.
struct Planner {
    context: SessionContext,
    catalog: Arc<Catalog>,
    default_schema: String,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("settings", &self.settings).field("tables", &self.tables()).finish_non_exhaustive()
    }
}

impl Engine {
    /// An engine without tables. `objects` is where [`crate::SegmentRef`] paths are read. It is made inside a tokio runtime, on which
    /// it asks sources and reads objects for as long as it lives.
    pub fn new(objects: Arc<dyn ObjectStore>, settings: EngineSettings) -> Result<Self> {
        let home = Handle::try_current().map_err(|e| Error::internal("make the SQL engine inside a runtime").with_source(e))?;
        let objects = Arc::new(ReadAtHome::new(objects, home.clone()));
        let runtime = runtime(objects, &settings).map_err(|e| failure::from_datafusion(e).context("start the SQL engine"))?;
        let context = SessionContext::new_with_config_rt(config(&settings), Arc::new(runtime));
        risk::aggregates().into_iter().for_each(|aggregate| context.register_udaf(aggregate));
        let catalog = Arc::new(Catalog::default());
        context.register_catalog(CATALOG, Arc::clone(&catalog) as _);
        let planner = Arc::new(Planner { context, catalog, default_schema: settings.default_schema.clone() });
        let pool = Pool::new(settings.concurrency, settings.threads, home.clone());
        Ok(Self { planner, settings, pool, home })
    }

    /// Makes a source a table, over one that had its name. Statements that run go on with what they began with.
    pub fn register(&self, schema: &str, table: &str, source: Arc<dyn Source>) {
        self.planner.catalog.insert(schema, table, SourceTable::new(format!("{schema}.{table}"), source, self.home.clone()));
    }

    /// Has tables of a schema made when a statement names them, beside those that are registered. They are not listed.
    pub fn register_family(&self, schema: &str, family: Arc<dyn Family>) {
        self.planner.catalog.insert_family(schema, family, self.home.clone());
    }

    /// Takes a table away; whether it was there.
    pub fn deregister(&self, schema: &str, table: &str) -> bool {
        self.planner.catalog.remove(schema, table)
    }

    /// All tables as `schema.table`, in order. Schemas whose names begin with `pg_` can be read and are not listed anywhere.
    pub fn tables(&self) -> Vec<String> {
        self.planner.catalog.names()
    }

    /// All listed tables with their columns: schema, name, columns; in order.
    pub fn described(&self) -> Vec<(String, String, TableSchema)> {
        self.planner.catalog.described()
    }

    /// The schema of a table that is named without one.
    pub fn default_schema(&self) -> &str {
        &self.settings.default_schema
    }

    /// The longest that a statement may take.
    pub const fn timeout(&self) -> Duration {
        self.settings.timeout
    }

    /// Starts a statement that reads. The rows come as they are made, from the [`Answer`]; dropping it stops the work.
    ///
    /// # Errors
    /// `Denied` for a statement that would change something; `Invalid` for one that is wrong, with its place and the names there
    /// are; `Exhausted` when it is too long or too deep, or meets a memory or row limit; `Unavailable` past its timeout; a
    /// source's own error as it is.
    pub async fn query(&self, sql: &str, limits: Limits) -> Result<Answer> {
        self.begin(sql, limits, |planner, text| async move { planner.plan(&text, None).await }).await
    }

    /// As [`Engine::query`], for a statement that is changed between parsing and planning: other dialects' names, values for
    /// parameters. What comes of it has to pass the same checks as what the caller wrote.
    pub async fn query_as(&self, sql: &str, limits: Limits, rewrite: Arc<Rewrite>) -> Result<Answer> {
        self.begin(sql, limits, |planner, text| async move { planner.plan(&text, Some(&*rewrite)).await }).await
    }

    /// The columns of a statement and the types of its parameters `$1`, `$2` ..., without running it.
    ///
    /// # Errors
    /// As those of [`Engine::query`].
    pub async fn describe(&self, sql: &str, limits: Limits, rewrite: Arc<Rewrite>) -> Result<Description> {
        let (tell, told) = oneshot::channel();
        let plan = |planner: Arc<Planner>, text: String| async move {
            let description = planner.describe(&text, &*rewrite).await?;
            let nothing = EmptyRecordBatchStream::new(Arc::clone(&description.columns));
            // Nobody listens any more when the caller has given up.
            drop(tell.send(description));
            Ok(Box::pin(nothing) as SendableRecordBatchStream)
        };
        self.begin(sql, limits, plan).await?;
        told.await.map_err(|e| Error::internal("the description of a statement was lost").with_source(e))
    }

    /// Checks the bounds of a statement, waits for a place, and has it planned on threads of its own.
    async fn begin<F>(&self, sql: &str, limits: Limits, plan: impl FnOnce(Arc<Planner>, String) -> F) -> Result<Answer>
    where
        F: Future<Output = Result<SendableRecordBatchStream>> + Send + 'static,
    {
        let limit = limits.timeout.map_or(self.settings.timeout, |t| t.min(self.settings.timeout));
        let deadline = Deadline::new(Stopwatch::start(), limit);
        let max_bytes = usize::try_from(self.settings.max_statement.bytes()).unwrap_or(usize::MAX);
        statement::bound(sql, max_bytes)?;
        let place = deadline.run(self.pool.place()).await??;
        let plan = plan(Arc::clone(&self.planner), sql.to_owned());
        let running = deadline.run(self.pool.run(plan, place)).await??;
        let max_rows = limits.max_rows.map_or(self.settings.max_rows, |n| n.min(self.settings.max_rows));
        Ok(Answer::new(running, deadline, max_rows, limits.cut))
    }
}

impl Planner {
    async fn plan(&self, sql: &str, rewrite: Option<&Rewrite>) -> Result<SendableRecordBatchStream> {
        let state = self.context.state();
        let plan = self.understand(sql, rewrite, &state).await?;
        let run = async {
            let plan = state.create_physical_plan(&plan).await?;
            execute_stream(yielding(plan)?, state.task_ctx())
        };
        run.await.map_err(|e| failure::from_planner(sql, e, &[], &[]))
    }

    /// A statement's plan, not yet made to run.
    async fn understand(&self, sql: &str, rewrite: Option<&Rewrite>, state: &SessionState) -> Result<LogicalPlan> {
        let mut statement = statement::parse(sql)?;
        if let Some(rewrite) = rewrite {
            statement::rewrite(&mut statement, rewrite)?;
        }
        let missing = self.missing(state, &statement);
        let plan = match state.statement_to_plan(statement).await {
            Ok(plan) => plan,
            Err(e) => return Err(failure::from_planner(sql, e, &missing, &self.catalog.names())),
        };
        let reads = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        reads.verify_plan(&plan).map_err(|_| statement::refused(sql))?;
        Ok(plan)
    }

    async fn describe(&self, sql: &str, rewrite: &Rewrite) -> Result<Description> {
        let state = self.context.state();
        let plan = self.understand(sql, Some(rewrite), &state).await?;
        let types = plan.get_parameter_types().map_err(|e| failure::from_planner(sql, e, &[], &[]))?;
        let parameters = types.into_iter().filter_map(|(name, kind)| Some((name.strip_prefix('$')?.parse().ok()?, kind))).collect();
        // Types are made to fit each other by the first step of optimizing, which a parameter of unknown type can keep from ending.
        let plan = state.optimize(&plan).unwrap_or(plan);
        Ok(Description { columns: Arc::clone(plan.schema().inner()), parameters })
    }

    /// The tables that a statement names and that are not there, as `schema.table`.
    fn missing(&self, state: &SessionState, statement: &Statement) -> Vec<String> {
        let named = state.resolve_table_references(statement).unwrap_or_default();
        let full = named.into_iter().map(|t| t.resolve(CATALOG, &self.default_schema));
        full.filter(|t| &*t.schema != "information_schema" && state.table_functions().get(&*t.table).is_none())
            .filter(|t| &*t.catalog != CATALOG || !self.catalog.contains(&t.schema, &t.table))
            .map(|t| if &*t.catalog == CATALOG { format!("{}.{}", t.schema, t.table) } else { t.to_string() })
            .collect()
    }
}

fn config(settings: &EngineSettings) -> SessionConfig {
    let mut config = SessionConfig::new()
        .with_create_default_catalog_and_schema(false)
        .with_default_catalog_and_schema(CATALOG, &settings.default_schema)
        .with_information_schema(true)
        .with_target_partitions(settings.threads.max(1));
    let options = config.options_mut();
    options.sql_parser.collect_spans = true;
    // Rows that a condition rules out are not decoded in the other columns.
    options.execution.parquet.pushdown_filters = true;
    options.execution.parquet.reorder_filters = true;
    // What a sort keeps free for merging what it spilled: 10 MiB by default, which a small engine does not have.
    let kept = usize::try_from(settings.memory_limit.bytes() / 8).unwrap_or(usize::MAX);
    options.execution.sort_spill_reservation_bytes = kept.min(options.execution.sort_spill_reservation_bytes);
    config
}

fn runtime(objects: Arc<dyn ObjectStore>, settings: &EngineSettings) -> Result<RuntimeEnv, DataFusionError> {
    let limit = usize::try_from(settings.memory_limit.bytes()).unwrap_or(usize::MAX);
    let pool: Arc<dyn MemoryPool> = match &settings.spill {
        Some(_) => Arc::new(FairSpillPool::new(limit)),
        None => Arc::new(GreedyMemoryPool::new(limit)),
    };
    let disk = match &settings.spill {
        Some((dir, most)) => DiskManagerBuilder::default()
            .with_mode(DiskManagerMode::Directories(vec![dir.clone()]))
            .with_max_temp_directory_size(most.bytes()),
        None => DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled),
    };
    let runtime = RuntimeEnvBuilder::new().with_memory_pool(pool).with_disk_manager_builder(disk).build()?;
    // The local file system is there by default. No statement can reach it, and it is not there all the same.
    runtime.deregister_object_store(ObjectStoreUrl::local_filesystem().as_ref())?;
    runtime.register_object_store(ObjectStoreUrl::parse(OBJECTS_URL)?.as_ref(), objects);
    Ok(runtime)
}
