//! A [`Source`] as DataFusion sees it.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::stats::Precision;
use datafusion::common::{DataFusionError, Result, Statistics};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::physical_plan::parquet::CachedParquetFileReaderFactory;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::union::UnionExec;
use tidemill_base::Error;
use tokio::runtime::Handle;

use crate::{Scan, Scanned, SegmentRef, Source, TableData, TableSchema, paged, pushdown};

/// The name of the engine's one object store in DataFusion's registry; no statement can say it.
pub(crate) const OBJECTS_URL: &str = "tidemill://objects";

/// Footers are a few tens of KiB; reading this much at once saves a request for most segments.
const FOOTER_HINT_BYTES: usize = 64 * 1024;

pub(crate) struct SourceTable {
    name: String,
    schema: SchemaRef,
    source: Arc<dyn Source>,
    home: Handle,
}

impl SourceTable {
    pub(crate) fn new(name: String, source: Arc<dyn Source>, home: Handle) -> Self {
        let schema = source.arrow_schema().unwrap_or_else(|| source.schema().arrow());
        Self { name, schema, source, home }
    }

    /// The columns as the source gives them.
    pub(crate) fn described(&self) -> TableSchema {
        self.source.schema()
    }
}

impl fmt::Debug for SourceTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SourceTable").field("name", &self.name).finish_non_exhaustive()
    }
}

#[async_trait]
impl TableProvider for SourceTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        // A source skips by them, and may still give rows that do not match.
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = match projection {
            Some(indices) => Arc::new(self.schema.project(indices)?),
            None => Arc::clone(&self.schema),
        };
        let mut want = Scan::new(schema.fields().iter().map(|f| f.name().clone()).collect(), limit);
        pushdown::narrow(&mut want, filters);
        let found = self.ask(want).await.map_err(|e| external(e.context(format!("read table `{}`", self.name))))?;
        let mut inputs: Vec<Arc<dyn ExecutionPlan>> = Vec::new();
        if !found.tables.is_empty() {
            inputs.push(self.live(state, &schema, &found.tables)?);
        }
        if !found.segments.is_empty() {
            inputs.push(self.stored(state, projection, limit, &found.segments)?);
        }
        if !found.pages.is_empty() {
            inputs.push(paged::plan(&self.name, &schema, found.pages, &self.home, limit)?);
        }
        match inputs.len() {
            0 => Ok(Arc::new(EmptyExec::new(schema))),
            1 => Ok(inputs.remove(0)),
            _ => UnionExec::try_new(inputs),
        }
    }
}

impl SourceTable {
    /// Asks the source on the caller's runtime, where its database, locks and timers are.
    async fn ask(&self, want: Scan) -> tidemill_base::Result<Scanned> {
        let source = Arc::clone(&self.source);
        let asked = self.home.spawn(async move { source.scan(&want).await });
        asked.await.map_err(|e| Error::internal("the source failed").with_source(e))?
    }

    /// Rows in memory, cut without copying into batches of the session's size.
    fn live(&self, state: &dyn Session, schema: &SchemaRef, tables: &[TableData]) -> Result<Arc<dyn ExecutionPlan>> {
        let step = state.config_options().execution.batch_size.get();
        let threads = state.config_options().execution.target_partitions;
        let mut partitions: Vec<Vec<RecordBatch>> = vec![Vec::new(); threads.min(tables.len()).max(1)];
        let pool = Arc::clone(&state.runtime_env().memory_pool);
        let held = MemoryConsumer::new(format!("rows of `{}`", self.name)).register(&pool);
        for (i, table) in tables.iter().enumerate() {
            let batch = table.to_batch(schema).map_err(|e| external(e.context(format!("rows of table `{}`", self.name))))?;
            held.try_grow(batch.get_array_memory_size())?;
            let lane = i % partitions.len();
            let slices = (0..batch.num_rows()).step_by(step).map(|at| batch.slice(at, step.min(batch.num_rows() - at)));
            partitions[lane].extend(slices);
        }
        Ok(MemorySourceConfig::try_new_exec(&partitions, Arc::clone(schema), None)?)
    }

    /// Rows in Parquet: nothing is opened before the plan runs.
    fn stored(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        limit: Option<usize>,
        segments: &[SegmentRef],
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let url = ObjectStoreUrl::parse(OBJECTS_URL)?;
        let runtime = state.runtime_env();
        let footers = CachedParquetFileReaderFactory::new(runtime.object_store(&url)?, runtime.cache_manager.get_file_metadata_cache());
        let source = ParquetSource::new(Arc::clone(&self.schema))
            .with_table_parquet_options(state.default_table_options().parquet)
            .with_metadata_size_hint(FOOTER_HINT_BYTES)
            .with_parquet_file_reader_factory(Arc::new(footers));
        let rows = segments.iter().fold(0_u64, |sum, s| sum.saturating_add(s.rows));
        let mut statistics = Statistics::new_unknown(&self.schema);
        statistics.num_rows = usize::try_from(rows).map_or(Precision::Absent, Precision::Exact);
        let files = FileGroup::new(segments.iter().map(file).collect());
        let config = FileScanConfigBuilder::new(url, Arc::new(source))
            .with_file_groups(files.split_files(state.config_options().execution.target_partitions))
            .with_statistics(statistics)
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }
}

fn file(segment: &SegmentRef) -> datafusion::datasource::listing::PartitionedFile {
    let mut file = datafusion::datasource::listing::PartitionedFile::new(String::new(), segment.bytes);
    file.object_meta.location = segment.path.clone();
    file
}

pub(crate) fn external(e: Error) -> DataFusionError {
    DataFusionError::External(Box::new(e))
}
