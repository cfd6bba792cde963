//! Time, memory, rows and concurrency.

use std::time::Duration;

use tidemill_base::{ByteSize, ErrorKind};
use tidemill_query::{EngineSettings, Limits};

use crate::support::{engine, engine_with, error, one, tasks};

/// Pairs without end for all that it matters: a trillion rows, folded into one number.
const FOREVER: &str = "SELECT sum(a.value * b.value) FROM generate_series(1, 1000000) a CROSS JOIN generate_series(1, 1000000) b";

/// Statements that compute for hours, each in a part of the engine that gives way in its own fashion or not at all.
const ENDLESS: &[&str] = &[
    FOREVER,
    "SELECT count(*) FROM generate_series(1, 1000000) a JOIN generate_series(1, 1000000) b ON a.value + b.value < a.value - b.value",
    "SELECT count(*) FROM generate_series(1, 1000000) a JOIN generate_series(1, 1000000) b ON a.value % 2 = b.value % 2",
    "WITH RECURSIVE t AS (SELECT 1 AS n UNION ALL SELECT (n + 1) % 10 FROM t) SELECT sum(n) FROM t",
    "SELECT sum(value) FROM generate_series(1, 1000000000000)",
    "SELECT count(*) FROM generate_series(1, 1000000000000) ORDER BY 1",
];

#[tokio::test]
async fn a_statement_past_its_time_is_stopped_wherever_it_is() {
    let engine = engine(Vec::new());
    for sql in ENDLESS {
        let watch = tidemill_runtime::Stopwatch::start();
        let limits = Limits { timeout: Some(Duration::from_millis(300)), ..Limits::default() };
        let e = match engine.query(sql, limits).await {
            Ok(answer) => answer.collect().await.unwrap_err(),
            Err(e) => e,
        };
        assert_eq!(e.kind(), ErrorKind::Unavailable, "{sql}: {e}");
        assert!(e.message().contains("longer than 300ms"), "{e}");
        assert!(watch.elapsed() < Duration::from_secs(5), "{sql}: {:?}", watch.elapsed());
    }
    assert_eq!(one(&engine, "SELECT 1").await, "1", "the threads are free again");
}

#[tokio::test]
async fn dropping_an_answer_frees_its_place() {
    let settings = EngineSettings { concurrency: 1, ..EngineSettings::default() };
    let engine = engine_with(vec![tasks("j", 0, 3)], settings);
    let mut running = engine.query(FOREVER, Limits::default()).await.unwrap();
    assert!(tidemill_runtime::timeout(Duration::from_millis(50), "first rows", running.next()).await.is_err());
    let limits = Limits { timeout: Some(Duration::from_millis(50)), ..Limits::default() };
    let waiting = engine.query("SELECT 1", limits).await.unwrap_err();
    assert_eq!(waiting.kind(), ErrorKind::Unavailable, "the only place is taken");
    drop(running);
    assert_eq!(one(&engine, "SELECT count(*) FROM batch.tasks").await, "3");
}

#[tokio::test]
async fn an_answer_read_to_its_end_frees_its_place_before_it_is_dropped() {
    let engine = engine_with(Vec::new(), EngineSettings { concurrency: 1, ..EngineSettings::default() });
    let mut read = engine.query("SELECT 1", Limits::default()).await.unwrap();
    while read.next().await.unwrap().is_some() {}
    assert_eq!(one(&engine, "SELECT 2").await, "2");
    assert!(read.next().await.unwrap().is_none(), "the end stays the end");
}

#[tokio::test]
async fn memory_is_bounded_and_a_spill_goes_past_it() {
    let order = "SELECT CAST(value * 7919 % 1000003 AS VARCHAR) AS k, value FROM generate_series(1, 300000) ORDER BY k";
    let small = EngineSettings { memory_limit: ByteSize(4 << 20), threads: 1, ..EngineSettings::default() };
    let engine = engine_with(Vec::new(), small.clone());
    let e = error(&engine, order).await;
    assert_eq!(e.kind(), ErrorKind::Exhausted, "{e}");
    assert!(e.message().contains("more memory than SQL may use"), "{e}");
    assert_eq!(one(&engine, "SELECT count(*) FROM generate_series(1, 300000)").await, "300000", "the engine goes on");
    let dir = tempfile::tempdir().unwrap();
    let spill = Some((dir.path().to_owned(), ByteSize(256 << 20)));
    let engine = engine_with(Vec::new(), EngineSettings { spill, ..small });
    let answer = engine.query(order, Limits::default()).await.unwrap();
    let rows: usize = answer.collect().await.unwrap().iter().map(|b| b.num_rows()).sum();
    assert_eq!(rows, 300_000);
}

#[tokio::test]
async fn live_rows_count_against_the_memory_limit() {
    let settings = EngineSettings { memory_limit: ByteSize(64 << 10), ..EngineSettings::default() };
    let engine = engine_with(vec![tasks("j", 0, 100_000)], settings);
    assert_eq!(error(&engine, "SELECT * FROM batch.tasks").await.kind(), ErrorKind::Exhausted);
}

#[tokio::test]
async fn too_many_rows_fail_or_are_cut_as_asked() {
    let engine = engine(vec![tasks("j", 0, 20_000)]);
    let limits = Limits { max_rows: Some(10), ..Limits::default() };
    let e = engine.query("SELECT task FROM batch.tasks", limits).await.unwrap().collect().await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Exhausted);
    assert!(e.message().contains("more than 10 rows"), "{e}");
    let exact = engine.query("SELECT task FROM batch.tasks LIMIT 10", limits).await.unwrap();
    assert_eq!(exact.to_json_rows().await.unwrap().len(), 10);
    let cut = Limits { cut: true, ..limits };
    let table = engine.query("SELECT task FROM batch.tasks ORDER BY task", cut).await.unwrap().to_table().await.unwrap();
    assert!(table.ends_with("|    9 |\n+------+\n(10 rows, and there are more)\n"), "{table}");
    let whole = engine.query("SELECT task FROM batch.tasks LIMIT 10", cut).await.unwrap().to_table().await.unwrap();
    assert!(whole.ends_with("(10 rows)\n"), "{whole}");
}
