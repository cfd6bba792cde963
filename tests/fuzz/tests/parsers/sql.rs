//! SQL that anybody may send, and the segments that it reads.

use std::time::Duration;

use tidemill_base::{ByteSize, ErrorKind};
use tidemill_blocks::memory;
use tidemill_fuzz::{Settings, fuzz, shape};
use tidemill_query::{ColumnValues, Engine, EngineSettings, Limits, TableData, parquet};

use crate::{block_on, refused, text};

const TOKENS: &[&str] = &[
    "SELECT ",
    " FROM ",
    "WITH a AS (",
    "INSERT INTO t ",
    "UPDATE t SET ",
    "DELETE FROM t",
    "DROP TABLE t",
    "COPY t TO '/tmp/x'",
    "CREATE TABLE x AS ",
    " INTO x ",
    "EXPLAIN ",
    "ANALYZE ",
    "SET a = 1",
    ";",
    "--",
    "/*",
    "*/",
    "$$",
    "'",
    "\"",
    "(",
    ")",
    " UNION ALL ",
    " OVER (",
    " FOR UPDATE",
    "::bigint",
    "[1]",
    "CASE WHEN ",
    " RETURNING *",
    "E'\\",
    "U&'",
    "0x",
    "1e999",
    "information_schema.tables",
];

/// What the check lets through only reads, and its own way of writing the statement says so again.
#[test]
fn sql_check() {
    // The parser recurses, so it gets the stack that it has in the engine.
    let engine_like = std::thread::Builder::new().stack_size(tidemill_query::fuzz::STACK_BYTES).spawn(check_statements);
    if let Err(panic) = engine_like.unwrap().join() {
        std::panic::resume_unwind(panic);
    }
}

fn check_statements() {
    let settings = Settings { runs: 6_000, tokens: TOKENS, memory: 16 << 20, memory_per_byte: 16 << 10, ..Settings::default() };
    fuzz("sql_check", settings, |input| {
        let sql = text(input);
        match tidemill_query::fuzz::check(&sql, 64 << 10) {
            Ok(written) => {
                assert!(!tidemill_query::fuzz::changes(&sql).unwrap(), "{sql}");
                if let Ok(again) = tidemill_query::fuzz::check(&written, 64 << 10) {
                    assert_eq!(again.split_whitespace().next(), written.split_whitespace().next());
                }
                let first = written.split(|c: char| !c.is_ascii_alphabetic()).find(|w| !w.is_empty()).unwrap_or_default().to_owned();
                shape(first)
            }
            Err(e) => {
                assert!(matches!(e.kind(), ErrorKind::Invalid | ErrorKind::Denied | ErrorKind::Exhausted), "{e}");
                refused(&e)
            }
        }
    });
}

/// Statements from text to rows. Whatever they are, the engine answers within its limits and has the same tables afterwards.
#[test]
fn sql_engine() {
    let settings =
        Settings { runs: 500, max_len: 400, tokens: TOKENS, memory: 256 << 20, time: Duration::from_secs(20), ..Settings::default() };
    let engine = block_on(async {
        let settings = EngineSettings {
            memory_limit: ByteSize(32 << 20),
            timeout: Duration::from_secs(5),
            max_rows: 1000,
            ..EngineSettings::default()
        };
        Engine::new(memory::objects(), settings).unwrap()
    });
    fuzz("sql_engine", settings, move |input| {
        let sql = text(input);
        let outcome = block_on(async {
            let limits = Limits { max_rows: Some(100), cut: true, ..Limits::default() };
            engine.query(&sql, limits).await?.to_json_rows().await
        });
        assert_eq!(engine.tables(), Vec::<String>::new());
        match outcome {
            Ok(rows) => {
                assert!(rows.len() <= 100);
                shape("i".repeat(rows.len().min(3)))
            }
            Err(e) => refused(&e),
        }
    });
}

/// A segment of statistics that something else has written over.
#[test]
fn segment() {
    let table = TableData::with_rows(50)
        .column("task", ColumnValues::Int((0..50).collect()))
        .and_then(|t| t.column("class", ColumnValues::Text((0..50).map(|n| format!("c{}", n % 3)).collect())));
    let examples = vec![parquet::encode(&table.unwrap()).unwrap().to_vec()];
    let settings = Settings { runs: 10_000, examples, tokens: &["PAR1"], memory: 64 << 20, ..Settings::default() };
    fuzz("segment", settings, |input| match parquet::row_count(&input.to_vec().into()) {
        Ok(rows) => shape(rows == 50),
        Err(e) => refused(&e),
    });
}
