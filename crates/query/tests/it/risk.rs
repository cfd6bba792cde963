//! Measures of risk in SQL, tables made when they are named, pages, and files.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use futures::{StreamExt as _, stream};
use object_store::memory::InMemory;
use tidemill_base::{Error, Result};
use tidemill_query::{
    ColumnValues, Engine, EngineSettings, Family, FileFormat, Limits, Pages, Rows, Scan, Scanned, Source, TableData, TableSchema, Type,
    parquet,
};

use crate::support::{csv, error, one};

const PAGE: u64 = 1_000;

/// `pnl` of `n` scenarios, minus 1 to minus n, in pages; counts the pages that were read.
struct Paged {
    n: u64,
    broken_at: Option<u64>,
    read: Arc<AtomicUsize>,
}

#[async_trait]
impl Source for Paged {
    fn schema(&self) -> TableSchema {
        TableSchema::new(&[("scenario", Type::UInt), ("pnl", Type::Real), ("desk", Type::Text)])
    }

    async fn scan(&self, _want: &Scan) -> Result<Scanned> {
        let (n, broken_at, read) = (self.n, self.broken_at, Arc::clone(&self.read));
        let pages = Pages::new(move || {
            let read = Arc::clone(&read);
            stream::iter((0..n).step_by(PAGE as usize)).map(move |from| {
                read.fetch_add(1, Ordering::SeqCst);
                if broken_at.is_some_and(|at| from >= at) {
                    return Err(Error::unavailable("the page is out of reach"));
                }
                page(from, (from + PAGE).min(n)).map(Rows::Table)
            })
        });
        Ok(pages.into())
    }
}

fn page(from: u64, until: u64) -> Result<TableData> {
    let rows = usize::try_from(until - from).unwrap();
    TableData::with_rows(rows)
        .column("scenario", ColumnValues::UInt((from..until).collect()))?
        .column("pnl", ColumnValues::Real((from..until).map(|s| -((s + 1) as f64)).collect()))?
        .column("desk", ColumnValues::Dict { rows: (from..until).map(|s| (s % 2) as u32).collect(), words: vec!["a".into(), "b".into()] })
}

/// A table of so many scenarios for each name that is a number; `tN` breaks after the first page.
struct Numbers(Arc<AtomicUsize>);

#[async_trait]
impl Family for Numbers {
    async fn table(&self, name: &str) -> Result<Arc<dyn Source>> {
        let number = name.trim_start_matches(['s', 't']).parse();
        let n = number.map_err(|_| Error::not_found(format!("there is no session `{name}`")))?;
        let broken_at = name.starts_with('t').then_some(PAGE);
        Ok(Arc::new(Paged { n, broken_at, read: Arc::clone(&self.0) }))
    }
}

fn engine() -> (Engine, Arc<AtomicUsize>) {
    let engine = Engine::new(Arc::new(InMemory::new()), EngineSettings::default()).unwrap();
    let read = Arc::<AtomicUsize>::default();
    engine.register_family("grid", Arc::new(Numbers(Arc::clone(&read))));
    (engine, read)
}

#[tokio::test]
async fn measures_of_risk_are_those_computed_by_hand() {
    let (engine, _) = engine();
    for (expression, expected) in [
        // The 12 worst of 500 are 500 to 489, 5934 together; half of the 13th is 244; 12.5 of them count.
        ("round(expected_shortfall(pnl, 0.975), 9)", "494.24"),
        ("-quantile_exact(pnl, 0.01)", "496.0"),
        ("quantile_exact(pnl, 0.5)", "-251.0"),
        ("quantile_exact(pnl, 0.5, 'linear')", "-250.5"),
        ("quantile_exact(scenario, 1)", "499.0"),
        ("expected_shortfall(pnl, 0.9) FILTER (WHERE scenario < 0)", ""),
        ("quantile_exact(CASE WHEN scenario = 7 THEN NULL ELSE pnl END, 0.0)", "-500.0"),
        ("round(approx_percentile_cont(0.5) WITHIN GROUP (ORDER BY pnl))", "-251.0"),
        ("isnan(expected_shortfall(CASE WHEN scenario = 7 THEN 'NaN'::double ELSE pnl END, 0.9))", "true"),
    ] {
        assert_eq!(one(&engine, &format!("SELECT {expression} FROM grid.s500")).await, expected, "{expression}");
    }
    // Each desk has every second scenario: of 250, the fifth worst at 98 %.
    let sql = "SELECT desk, count(*) AS n, -quantile_exact(pnl, 0.02) AS var FROM grid.s500 GROUP BY desk ORDER BY desk";
    assert_eq!(csv(&engine, sql).await, "desk,n,var\r\na,250,491.0\r\nb,250,492.0\r\n");
    for (call, what) in [
        ("quantile_exact(pnl, 1.5)", "between 0 and 1"),
        ("quantile_exact(pnl, 0.5, 'midpoint')", "'inverted_cdf' and 'linear'"),
        ("expected_shortfall(pnl, pnl)", "has to be a constant"),
        ("expected_shortfall(DISTINCT pnl, 0.9)", "DISTINCT"),
    ] {
        let e = error(&engine, &format!("SELECT {call} FROM grid.s500")).await;
        assert!(e.message().contains(what), "{call}: {e}");
    }
}

#[tokio::test]
async fn tables_of_a_family_are_read_page_by_page_and_stop_early() {
    let (engine, read) = engine();
    assert_eq!(one(&engine, "SELECT sum(scenario) FROM grid.s10500").await, "55119750");
    assert_eq!(read.swap(0, Ordering::SeqCst), 11);
    assert_eq!(csv(&engine, "SELECT scenario FROM grid.s1000000 LIMIT 2").await, "scenario\r\n0\r\n1\r\n");
    let pages = read.load(Ordering::SeqCst);
    assert!(pages < 20, "{pages} of 1000 pages were read for two rows");
    assert_eq!(one(&engine, "SELECT count(*) FROM grid.s10 a JOIN grid.s20 b USING (scenario)").await, "10");
    let missing = error(&engine, "SELECT * FROM grid.sx").await;
    assert!(missing.message().contains("there is no session `sx`"), "{missing}");
    let broken = error(&engine, "SELECT sum(pnl) FROM grid.t5000").await;
    assert!(broken.message().contains("the page is out of reach"), "half a table is no answer: {broken}");
}

async fn files(engine: &Engine, sql: &str, format: FileFormat) -> Vec<(Vec<u8>, u64)> {
    let mut files = engine.query(sql, Limits::default()).await.unwrap().into_files(format, 1).unwrap();
    let mut out = Vec::new();
    while let Some(file) = files.next().await.unwrap() {
        out.push((file.bytes.to_vec(), file.rows));
    }
    out
}

#[tokio::test]
async fn files_hold_all_rows_and_the_same_rows_give_the_same_bytes() {
    let (engine, _) = engine();
    let sql = "SELECT * FROM grid.s20000 ORDER BY scenario";
    for format in [FileFormat::Parquet, FileFormat::Arrow, FileFormat::Csv, FileFormat::JsonLines] {
        let written = files(&engine, sql, format).await;
        assert_eq!(written.iter().map(|(_, rows)| *rows).collect::<Vec<_>>(), [8192, 8192, 3616], "{format:?}");
        // Sorting makes batches of other sizes than a scan does.
        let again = files(&engine, "SELECT * FROM grid.s20000", format).await;
        assert!(written == again, "{format:?}: other batches, other bytes");
        if format == FileFormat::Parquet {
            assert_eq!(parquet::row_count(&written[2].0.clone().into()).unwrap(), 3616);
        }
        let none = files(&engine, "SELECT * FROM grid.s0", format).await;
        assert_eq!(none.len(), 1, "{format:?}: the columns of no rows");
        let exact = files(&engine, "SELECT * FROM grid.s8192", format).await;
        assert_eq!(exact.len(), 1, "{format:?}");
    }
    let text = files(&engine, "SELECT scenario, desk FROM grid.s2", FileFormat::Csv).await;
    assert_eq!(String::from_utf8_lossy(&text[0].0), "scenario,desk\r\n0,a\r\n1,b\r\n");
    let text = files(&engine, "SELECT scenario, desk FROM grid.s1", FileFormat::JsonLines).await;
    assert_eq!(String::from_utf8_lossy(&text[0].0), "{\"scenario\":0,\"desk\":\"a\"}\n");
}
