//! Types there and back, and the exact text of every form.

use std::sync::Arc;

use object_store::memory::InMemory;
use tidemill_query::{ColumnValues as V, Engine, EngineSettings, Limits, TableData, TableSchema, Type};

use crate::support::{Fixed, NEW_YEAR, csv, engine, segment, tasks, text};

fn every_type() -> TableData {
    TableData::with_rows(2)
        .column("int", V::Int(vec![i64::MIN, i64::MAX]))
        .and_then(|t| t.column("int_opt", V::IntOpt(vec![None, Some(-1)])))
        .and_then(|t| t.column("uint", V::UInt(vec![0, u64::MAX])))
        .and_then(|t| t.column("uint_opt", V::UIntOpt(vec![Some(1), None])))
        .and_then(|t| t.column("real", V::Real(vec![0.1, f64::NAN])))
        .and_then(|t| t.column("real_opt", V::RealOpt(vec![None, Some(-2.5)])))
        .and_then(|t| t.column("text", V::Text(vec!["a, \"b\"\nc".into(), String::new()])))
        .and_then(|t| t.column("text_opt", V::TextOpt(vec![None, Some("grüße und mehr als zwölf Bytes".into())])))
        .and_then(|t| t.column("bool", V::Bool(vec![true, false])))
        .and_then(|t| t.column("bool_opt", V::BoolOpt(vec![Some(false), None])))
        .and_then(|t| t.column("time", V::TimeMicros(vec![NEW_YEAR, -1])))
        .and_then(|t| t.column("time_opt", V::TimeMicrosOpt(vec![Some(NEW_YEAR + 1), None])))
        .and_then(|t| t.column("dict", V::Dict { rows: vec![0, 1], words: vec!["w".into()] }))
        .unwrap()
}

const EVERY_TYPE_JSON: &str = concat!(
    r#"[{"int":-9223372036854775808,"int_opt":null,"uint":0,"uint_opt":1,"real":0.1,"real_opt":null,"text":"a, \"b\"\nc","#,
    r#""text_opt":null,"bool":true,"bool_opt":false,"time":"2026-01-01T00:00:00Z","time_opt":"2026-01-01T00:00:00.000001Z","dict":"w"}"#,
    ",\n",
    r#"{"int":9223372036854775807,"int_opt":-1,"uint":18446744073709551615,"uint_opt":null,"real":null,"real_opt":-2.5,"text":"","#,
    r#""text_opt":"grüße und mehr als zwölf Bytes","bool":false,"bool_opt":null,"time":"1969-12-31T23:59:59.999999Z","time_opt":null,"dict":null}]"#,
    "\n"
);

#[tokio::test]
async fn every_type_comes_back_alike_from_memory_and_from_a_segment() {
    let store = Arc::new(InMemory::new());
    let engine = Engine::new(Arc::clone(&store) as _, EngineSettings::default()).unwrap();
    let rows = every_type();
    let stored = segment(&*store, "s/1.parquet", &rows).await;
    engine.register("x", "live", Arc::new(Fixed { schema: rows.schema(), tables: vec![rows.clone()], ..Fixed::default() }));
    engine.register("x", "stored", Arc::new(Fixed { schema: rows.schema(), segments: vec![(String::new(), stored)], ..Fixed::default() }));
    for table in ["live", "stored"] {
        let answer = engine.query(&format!("SELECT * FROM x.{table}"), Limits::default()).await.unwrap();
        let kinds: Vec<String> = answer.columns().into_iter().map(|c| c.kind).collect();
        assert_eq!(kinds[..2], ["Int64", "Int64"]);
        assert_eq!(kinds[10], "Timestamp(µs, \"+00:00\")");
        assert_eq!(text(answer.into_json_array()).await.unwrap(), EVERY_TYPE_JSON, "{table}");
    }
    let csv = csv(&engine, "SELECT text, text_opt, real, time, dict FROM x.live").await;
    assert_eq!(
        csv,
        "text,text_opt,real,time,dict\r\n\"a, \"\"b\"\"\nc\",,0.1,2026-01-01T00:00:00Z,w\r\n\
         \"\",grüße und mehr als zwölf Bytes,NaN,1969-12-31T23:59:59.999999Z,\r\n"
    );
}

#[tokio::test]
async fn a_table_for_people() {
    let engine = engine(vec![tasks("j1", 0, 3)]);
    let answer = engine.query("SELECT state, task, seconds, ended FROM batch.tasks ORDER BY task", Limits::default()).await.unwrap();
    let expected = "\
+--------+------+---------+----------------------+
| state  | task | seconds | ended                |
+--------+------+---------+----------------------+
| failed |    0 |     0.0 | 2026-01-01T00:00:00Z |
| done   |    1 |    0.25 | 2026-01-01T00:00:01Z |
| done   |    2 |     0.5 | 2026-01-01T00:00:02Z |
+--------+------+---------+----------------------+
(3 rows)
";
    assert_eq!(answer.to_table().await.unwrap(), expected);
}

#[tokio::test]
async fn a_table_without_rows_still_has_columns() {
    let engine = engine(Vec::new());
    assert_eq!(csv(&engine, "SELECT * FROM batch.tasks").await, "job,task,state,seconds,ended\r\n");
    assert_eq!(csv(&engine, "SELECT count(*) AS n, max(task) AS m FROM batch.tasks").await, "n,m\r\n0,\r\n");
    let answer = engine.query("SELECT job FROM batch.tasks", Limits::default()).await.unwrap();
    assert_eq!(text(answer.into_json_array()).await.unwrap(), "[]\n");
    let answer = engine.query("SELECT job FROM batch.tasks", Limits::default()).await.unwrap();
    assert_eq!(answer.to_table().await.unwrap(), "+-----+\n| job |\n+-----+\n+-----+\n(0 rows)\n");
    let answer = engine.query("SELECT job FROM batch.tasks", Limits::default()).await.unwrap();
    assert_eq!(text(answer.into_json_lines()).await.unwrap(), "");
}

#[tokio::test]
async fn arrays_join_across_batches_and_names_are_unique() {
    let engine = engine(vec![tasks("j1", 0, 2), tasks("j2", 0, 1)]);
    let sql = "SELECT a.job, b.job, a.task FROM batch.tasks a JOIN batch.tasks b ON a.task = b.task ORDER BY 1, 2, 3";
    let answer = engine.query(sql, Limits::default()).await.unwrap();
    assert_eq!(answer.columns().into_iter().map(|c| c.name).collect::<Vec<_>>(), ["job", "job_2", "task"]);
    let lines = text(answer.into_json_lines()).await.unwrap();
    assert_eq!(lines.lines().next(), Some(r#"{"job":"j1","job_2":"j1","task":0}"#));
    let answer = engine.query("SELECT task FROM batch.tasks", Limits::default()).await.unwrap();
    let array = text(answer.into_json_array()).await.unwrap();
    let rows: Vec<serde_json::Value> = serde_json::from_str(&array).unwrap();
    assert_eq!(rows.len(), 3, "{array}");
}

#[tokio::test]
async fn a_source_that_breaks_its_schema_is_named() {
    let engine = Engine::new(Arc::new(InMemory::new()), EngineSettings::default()).unwrap();
    let schema = TableSchema::new(&[("a", Type::Int), ("b", Type::Int)]);
    let tables = vec![TableData::with_rows(1).column("a", V::Int(vec![1])).unwrap()];
    engine.register("x", "t", Arc::new(Fixed { schema, tables, ..Fixed::default() }));
    assert_eq!(csv(&engine, "SELECT a FROM x.t").await, "a\r\n1\r\n", "only what is read has to be there");
    let e = crate::support::error(&engine, "SELECT b FROM x.t").await;
    assert!(e.message().contains("rows of table `x.t`: column `b` is missing"), "{e}");
}
