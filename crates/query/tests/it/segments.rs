//! Live rows and segments together, and that what is not needed is not read.

use std::sync::Arc;

use object_store::path::Path;
use tidemill_base::ErrorKind;
use tidemill_query::{ColumnValues, Engine, EngineSettings, SegmentRef, TableSchema, Type};

use crate::support::{Counting, Fixed, NEW_YEAR, TASKS, csv, error, one, segment, tasks};

/// Jobs `a` (200,000 rows, a segment of 4 row groups) and `b` (1,000 rows) stored, job `c` (10 rows) live.
async fn stored() -> (Arc<Counting>, Arc<Fixed>, Engine, u64) {
    let store = Arc::new(Counting::default());
    let a = segment(&*store, "stats/a.parquet", &tasks("a", 0, 200_000)).await;
    let b = segment(&*store, "stats/b.parquet", &tasks("b", 0, 1_000)).await;
    let size = a.bytes;
    let source = Arc::new(Fixed {
        schema: TableSchema::new(TASKS),
        tables: vec![tasks("c", 0, 10)],
        segments: vec![("a".into(), a), ("b".into(), b)],
        ..Fixed::default()
    });
    let engine = Engine::new(Arc::clone(&store) as _, EngineSettings::default()).unwrap();
    engine.register("batch", "tasks", Arc::clone(&source) as _);
    (store, source, engine, size)
}

#[tokio::test]
async fn live_rows_and_segments_are_one_table() {
    let (_, _, engine, _) = stored().await;
    let sql = "SELECT job, count(*) AS n, sum(task) AS total, count(ended) AS ended FROM batch.tasks GROUP BY job ORDER BY job";
    assert_eq!(csv(&engine, sql).await, "job,n,total,ended\r\na,200000,19999900000,150000\r\nb,1000,499500,750\r\nc,10,45,8\r\n");
    let sql = "SELECT job, task FROM batch.tasks WHERE state = 'failed' AND task < 1 ORDER BY job";
    assert_eq!(csv(&engine, sql).await, "job,task\r\na,0\r\nb,0\r\nc,0\r\n");
}

#[tokio::test]
async fn a_count_opens_no_segment() {
    let (store, source, engine, _) = stored().await;
    assert_eq!(one(&engine, "SELECT count(*) FROM batch.tasks").await, "201010");
    assert_eq!(store.take(), (0, 0));
    assert!(source.asked.lock().unwrap()[0].columns().is_empty());
}

#[tokio::test]
async fn a_key_reaches_the_source_and_other_segments_stay_closed() {
    let (store, source, engine, size) = stored().await;
    assert_eq!(one(&engine, "SELECT sum(seconds) FROM batch.tasks WHERE job = 'b'").await, "124875.0");
    let (_, bytes) = store.take();
    assert!(bytes > 0 && bytes < size / 10, "{bytes} of {size}");
    let asked = source.asked.lock().unwrap().pop().unwrap();
    assert!(asked.reads("seconds") && !asked.reads("state"), "{asked:?}");
    assert!(asked.wants("job", "b") && !asked.wants("job", "a"));
    assert_eq!(one(&engine, "SELECT count(*) FROM batch.tasks WHERE job IN ('b', 'c')").await, "1010");
    assert_eq!(one(&engine, "SELECT count(*) FROM batch.tasks WHERE job = 'nobody' AND task >= 0").await, "0");
}

#[tokio::test]
async fn row_groups_and_columns_that_are_not_needed_are_not_read() {
    let (store, _, engine, size) = stored().await;
    let all = "SELECT count(job), sum(task), count(state), sum(seconds), count(ended) FROM batch.tasks WHERE job = 'a'";
    csv(&engine, all).await;
    let (_, everything) = store.take();
    assert!(everything > size * 9 / 10, "{everything} of {size}");
    assert_eq!(one(&engine, "SELECT count(state) FROM batch.tasks WHERE job = 'a'").await, "200000");
    let (_, one_column) = store.take();
    assert!(one_column < size / 10, "{one_column} of {size}");
    let few = "SELECT sum(seconds) FROM batch.tasks WHERE job = 'a' AND task BETWEEN 150000 AND 150003";
    assert_eq!(one(&engine, few).await, "150001.5");
    let (_, pruned) = store.take();
    assert!(pruned > 0 && pruned < size / 10, "{pruned} of {size}");
    assert_eq!(one(&engine, "SELECT sum(task) FROM batch.tasks WHERE job = 'a' AND task > 10000000").await, "");
    assert_eq!(store.take().1, 0, "statistics in a remembered footer rule out every row group");
}

#[tokio::test]
async fn times_and_numbers_reach_the_source_as_ranges() {
    let (_, source, engine, _) = stored().await;
    let sql = "SELECT count(*) FROM batch.tasks WHERE ended >= '2026-01-01T00:00:01Z' AND ended < '2026-01-01T00:00:03Z' AND task <= 7";
    assert_eq!(one(&engine, sql).await, "6");
    let asked = source.asked.lock().unwrap().pop().unwrap();
    assert_eq!(asked.range("ended"), Some((NEW_YEAR + 1_000_000, NEW_YEAR + 2_999_999)));
    assert_eq!(asked.range("task"), Some((i64::MIN, 7)));
    assert_eq!(one(&engine, "SELECT count(*) FROM batch.tasks WHERE ended > now()").await, "0");
    let asked = source.asked.lock().unwrap().pop().unwrap();
    assert!(asked.range("ended").is_some_and(|(low, high)| low > NEW_YEAR - 31_536_000_000_000 && high == i64::MAX), "{asked:?}");
}

#[tokio::test]
async fn a_segment_written_before_a_column_existed_reads_as_null() {
    let store = Arc::new(Counting::default());
    let old = segment(&*store, "old.parquet", &tasks("a", 0, 3)).await;
    let mut columns = TASKS.to_vec();
    columns.push(("host", Type::Text));
    let live = tasks("c", 0, 1).column("host", ColumnValues::Text(vec!["h1".into()])).unwrap();
    let engine = Engine::new(Arc::clone(&store) as _, EngineSettings::default()).unwrap();
    let source = Fixed { schema: TableSchema::new(&columns), tables: vec![live], segments: vec![("a".into(), old)], ..Fixed::default() };
    engine.register("batch", "tasks", Arc::new(source));
    assert_eq!(csv(&engine, "SELECT host, count(*) AS n FROM batch.tasks GROUP BY host ORDER BY n").await, "host,n\r\nh1,1\r\n,3\r\n");
    assert_eq!(one(&engine, "SELECT count(*) FROM batch.tasks WHERE host = 'h1'").await, "1");
}

#[tokio::test]
async fn a_missing_or_damaged_segment_is_named() {
    let store = Arc::new(Counting::default());
    let engine = Engine::new(Arc::clone(&store) as _, EngineSettings::default()).unwrap();
    let gone = SegmentRef { path: Path::from("stats/gone.parquet"), rows: 1, bytes: 1000 };
    let source = Fixed { schema: TableSchema::new(TASKS), segments: vec![("a".into(), gone)], ..Fixed::default() };
    engine.register("batch", "tasks", Arc::new(source));
    let e = error(&engine, "SELECT task FROM batch.tasks").await;
    assert_eq!(e.kind(), ErrorKind::Corrupt);
    assert!(e.message().contains("stats/gone.parquet"), "{e}");
    let mut bad = segment(&*store, "stats/bad.parquet", &tasks("a", 0, 3)).await;
    bad.bytes -= 3;
    let source = Fixed { schema: TableSchema::new(TASKS), segments: vec![("a".into(), bad)], ..Fixed::default() };
    engine.register("batch", "tasks", Arc::new(source));
    assert_eq!(error(&engine, "SELECT task FROM batch.tasks").await.kind(), ErrorKind::Corrupt);
}
