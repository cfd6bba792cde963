//! Task statistics as a table: its columns, from memory and into Parquet.

use std::collections::BTreeMap;

use async_trait::async_trait;
use bytes::Bytes;
use tidemill_base::{Error, Result};
use tidemill_batch::model::FailureClass;
use tidemill_batch::service::{LiveBatch, SegmentSink};
use tidemill_query::{ColumnValues, TableData, TableSchema, Type, parquet};

/// `batch.tasks` and `grid.attempts`: a row for each settled attempt.
pub(super) fn schema() -> TableSchema {
    TableSchema::new(&[
        ("job", Type::Text),
        ("stage_number", Type::UInt),
        ("task", Type::UInt),
        ("attempt", Type::UInt),
        ("class", Type::Text),
        ("exit_code", Type::Int),
        ("worker", Type::Text),
        ("started_at", Type::Time),
        ("wait_us", Type::UInt),
        ("stage_in_us", Type::UInt),
        ("run_us", Type::UInt),
        ("stage_out_us", Type::UInt),
        ("cpu_us", Type::UInt),
        ("peak_memory", Type::UInt),
        ("bytes_in", Type::UInt),
        ("bytes_out", Type::UInt),
        ("cost", Type::Real),
    ])
}

/// The rows of some reports. `price` is that of a slot for an hour.
pub(super) fn table(batches: &[LiveBatch], price: f64) -> Result<TableData> {
    let rows = batches.iter().map(|b| b.columns.len()).sum();
    let numbers = |f: &dyn Fn(&LiveBatch, usize) -> u64| {
        let all = batches.iter().flat_map(|b| (0..b.columns.len()).map(move |i| (b, i)));
        ColumnValues::UInt(all.map(|(b, i)| f(b, i)).collect())
    };
    let busy = |b: &LiveBatch, i: usize| b.columns.stage_in_us[i] + b.columns.run_us[i] + b.columns.stage_out_us[i];
    let each = || batches.iter().flat_map(|b| (0..b.columns.len()).map(move |i| (b, i)));
    TableData::with_rows(rows)
        .column("job", dictionary(batches, |b, _| b.job.to_string()))?
        .column("stage_number", numbers(&|b, _| u64::from(b.stage)))?
        .column("task", numbers(&|b, i| b.columns.task[i]))?
        .column("attempt", numbers(&|b, i| u64::from(b.columns.attempt[i])))?
        .column(
            "class",
            dictionary(batches, |b, i| FailureClass::from_code(b.columns.class[i]).map_or("ok", FailureClass::as_str).to_owned()),
        )?
        .column("exit_code", ColumnValues::Int(each().map(|(b, i)| i64::from(b.columns.exit[i])).collect()))?
        .column("worker", dictionary(batches, |b, _| b.worker.to_string()))?
        .column("started_at", ColumnValues::TimeMicros(each().map(|(b, i)| b.columns.started_us[i]).collect()))?
        .column("wait_us", numbers(&|b, i| b.columns.wait_us[i]))?
        .column("stage_in_us", numbers(&|b, i| b.columns.stage_in_us[i]))?
        .column("run_us", numbers(&|b, i| b.columns.run_us[i]))?
        .column("stage_out_us", numbers(&|b, i| b.columns.stage_out_us[i]))?
        .column("cpu_us", numbers(&|b, i| b.columns.cpu_us[i]))?
        .column("peak_memory", numbers(&|b, i| b.columns.peak_memory[i]))?
        .column("bytes_in", numbers(&|b, i| b.columns.bytes_in[i]))?
        .column("bytes_out", numbers(&|b, i| b.columns.bytes_out[i]))?
        .column("cost", ColumnValues::Real(each().map(|(b, i)| busy(b, i) as f64 / 3_600e6 * price).collect()))
}

/// Words that repeat are held once. The word of a row may depend on the batch alone or on the row; looking it up by its text is cheap
/// beside everything else.
fn dictionary(batches: &[LiveBatch], word: impl Fn(&LiveBatch, usize) -> String) -> ColumnValues {
    let mut known: BTreeMap<String, u32> = BTreeMap::new();
    let (mut words, mut rows) = (Vec::new(), Vec::new());
    for batch in batches {
        for i in 0..batch.columns.len() {
            let text = word(batch, i);
            let next = u32::try_from(words.len()).unwrap_or(u32::MAX);
            let code = *known.entry(text).or_insert_with_key(|text| {
                words.push(text.clone());
                next
            });
            rows.push(code);
        }
    }
    ColumnValues::Dict { rows, words }
}

/// Writes segments as Parquet, off the threads that serve.
#[derive(Debug, Clone, Copy)]
pub struct ParquetSink {
    /// Price of a slot for an hour.
    pub price: f64,
}

#[async_trait]
impl SegmentSink for ParquetSink {
    async fn encode(&self, batches: Vec<LiveBatch>) -> Result<Bytes> {
        let price = self.price;
        let work = tokio::task::spawn_blocking(move || parquet::encode(&table(&batches, price)?));
        work.await.map_err(|e| Error::internal("encoding a segment panicked").with_source(e))?
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tidemill_batch::model::{TaskColumns, TaskStat};

    #[test]
    fn the_table_has_the_columns_of_the_schema_and_a_row_for_each_attempt() {
        let mut columns = TaskColumns::default();
        columns.push(TaskStat { task: 7, attempt: 2, class: FailureClass::Timeout.code(), run_us: 3_600_000_000, ..TaskStat::default() });
        columns.push(TaskStat { task: 8, attempt: 1, ..TaskStat::default() });
        let batch = LiveBatch { job: "j1".into(), stage: 3, range: 0, seq: 1, worker: "w1".into(), columns: Arc::new(columns) };
        let table = table(&[batch.clone(), batch], 0.5).unwrap();
        assert_eq!(table.schema(), schema());
        let Some(ColumnValues::Dict { rows, words }) = table.get("class") else { panic!("class is a dictionary") };
        assert_eq!((rows.as_slice(), words.as_slice()), ([0, 1, 0, 1].as_slice(), ["timeout".to_owned(), "ok".to_owned()].as_slice()));
        let Some(ColumnValues::Real(cost)) = table.get("cost") else { panic!("cost is a number") };
        assert!((cost[0] - 0.5).abs() < 1e-9);
    }
}
