//! Rows that are read while a statement runs, as DataFusion sees them.
//!
//! Pages are read on the caller's runtime, where its database and its connections are, at most a few ahead of the statement.

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use futures::StreamExt as _;
use tidemill_base::Error;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::table::external;
use crate::{Pages, Rows};

/// Pages that wait for the statement.
const AHEAD: usize = 2;

/// A plan over pages, a partition for each of them.
pub(crate) fn plan(
    name: &str,
    schema: &SchemaRef,
    pages: Vec<Pages>,
    home: &Handle,
    limit: Option<usize>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let partition = |pages| {
        let (name, schema, home) = (name.to_owned(), Arc::clone(schema), home.clone());
        Arc::new(Paged { name, schema, pages, home }) as Arc<dyn PartitionStream>
    };
    let partitions = pages.into_iter().map(partition).collect();
    Ok(Arc::new(StreamingTableExec::try_new(Arc::clone(schema), partitions, None, [], false, limit)?))
}

struct Paged {
    name: String,
    schema: SchemaRef,
    pages: Pages,
    home: Handle,
}

impl fmt::Debug for Paged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Paged").field("name", &self.name).finish_non_exhaustive()
    }
}

impl PartitionStream for Paged {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (send, rows) = mpsc::channel(AHEAD);
        let mut pages = self.pages.begin();
        let reader = self.home.spawn(async move {
            while let Some(page) = pages.next().await {
                let last = page.is_err();
                if send.send(page).await.is_err() || last {
                    break;
                }
            }
        });
        let (name, schema) = (self.name.clone(), Arc::clone(&self.schema));
        let batches = futures::stream::unfold((rows, Some(reader)), |(mut rows, mut reader)| async move {
            if let Some(page) = rows.recv().await {
                return Some((page, (rows, reader)));
            }
            // A reader that has panicked must not look like the end of the rows.
            let ended = reader.take()?.await;
            ended.err().map(|e| (Err(Error::internal("reading pages failed").with_source(e)), (rows, None)))
        })
        .map(move |page| {
            let batch = page.and_then(|rows| rows.to_batch(&schema));
            batch.map_err(|e| external(e.context(format!("read table `{name}`"))))
        });
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), batches))
    }
}

impl Rows {
    /// As a batch with exactly the columns of `schema`.
    fn to_batch(&self, schema: &SchemaRef) -> tidemill_base::Result<RecordBatch> {
        let batch = match self {
            Self::Table(table) => return table.to_batch(schema),
            Self::Arrow(batch) => batch,
        };
        let wanted = schema.fields().iter().map(|field| {
            let found = batch.schema_ref().index_of(field.name());
            found.map_err(|e| Error::invalid(format!("column `{}` is missing from the data", field.name())).with_source(e))
        });
        let columns: Vec<usize> = wanted.collect::<tidemill_base::Result<_>>()?;
        batch
            .project(&columns)
            .and_then(|batch| batch.with_schema(Arc::clone(schema)))
            .map_err(|e| Error::invalid("the columns are not of the types that were announced").with_source(e))
    }
}
