//! What tables there are, and errors that say so.

use tidemill_base::ErrorKind;
use tidemill_query::Limits;

use crate::support::{csv, engine, engine_with, error, one, tasks};

#[tokio::test]
async fn unknown_names_are_answered_with_those_there_are() {
    let engine = engine(vec![tasks("j1", 0, 3)]);
    let e = error(&engine, "SELECT *\nFROM batch.task").await;
    assert_eq!(e.kind(), ErrorKind::Invalid);
    assert_eq!(
        e.message(),
        "there is no table `batch.task` at line 2, column 12; did you mean `batch.tasks`? (the tables are batch.tasks)"
    );
    let e = error(&engine, "SELECT secnds FROM batch.tasks").await;
    assert_eq!(
        e.message(),
        "there is no column `secnds`; did you mean `tasks.seconds`? (the columns are tasks.job, tasks.task, tasks.state, \
         tasks.seconds, tasks.ended) (at line 1, column 8, near \"secnds FROM batch.tasks\")"
    );
    assert!(error(&engine, "SELECT * FROM '/etc/passwd'").await.message().starts_with("there is no table"));
    assert!(error(&engine, "SELECT * FROM other.batch.tasks").await.message().starts_with("there is no table"));
    assert!(error(&engine, "SELECT nosuch(1)").await.message().contains("nosuch"));
    let e = error(&engine, "SELECT 'a' + 1 FROM batch.tasks WHERE task = 'x'").await;
    assert_eq!(e.kind(), ErrorKind::Invalid, "{e}");
}

#[tokio::test]
async fn errors_while_running_are_the_callers() {
    let engine = engine(vec![tasks("j1", 0, 3)]);
    assert_eq!(error(&engine, "SELECT 1 / (task - 1) FROM batch.tasks").await.kind(), ErrorKind::Invalid);
    assert_eq!(error(&engine, "SELECT CAST(job AS BIGINT) FROM batch.tasks").await.kind(), ErrorKind::Invalid);
    let e = error(&engine, "SELECT 1; DROP TABLE batch.tasks").await;
    assert!(e.message().starts_with("2 statements"), "{e}");
    for sql in ["SELECT 1 INTO x", "WITH a AS (SELECT 1) INSERT INTO batch.tasks SELECT * FROM a", "CREATE VIEW v AS SELECT 1"] {
        let e = error(&engine, sql).await;
        assert!(matches!(e.kind(), ErrorKind::Denied | ErrorKind::Invalid), "{sql}: {e}");
    }
    assert_eq!(engine.tables(), ["batch.tasks"]);
}

#[tokio::test]
async fn the_catalog_describes_itself() {
    let engine = engine(vec![tasks("j1", 0, 3)]);
    let tables = csv(&engine, "SHOW TABLES").await;
    assert!(tables.contains("tidemill,batch,tasks,BASE TABLE"), "{tables}");
    let columns = "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = 'tasks' ORDER BY ordinal_position";
    assert_eq!(
        csv(&engine, columns).await,
        "column_name,data_type\r\njob,Utf8View\r\ntask,Int64\r\nstate,Utf8View\r\nseconds,Float64\r\nended,\"Timestamp(µs, \"\"+00:00\"\")\"\r\n"
    );
    assert_eq!(csv(&engine, "DESCRIBE batch.tasks").await.lines().count(), 6);
    assert!(csv(&engine, "SHOW COLUMNS FROM batch.tasks").await.contains("seconds"));
    assert!(csv(&engine, "EXPLAIN SELECT * FROM batch.tasks").await.contains("DataSourceExec"));
    assert!(csv(&engine, "EXPLAIN ANALYZE SELECT count(job) FROM batch.tasks").await.contains("output_rows"));
}

#[tokio::test]
async fn tables_come_and_go_and_a_default_schema_is_tried() {
    let settings = tidemill_query::EngineSettings { default_schema: "batch".into(), ..Default::default() };
    let engine = engine_with(vec![tasks("j1", 0, 3)], settings);
    assert_eq!(one(&engine, "SELECT count(*) FROM tasks").await, "3");
    let answer = engine.query("SELECT task FROM tasks ORDER BY task", Limits::default()).await.unwrap();
    assert!(engine.deregister("batch", "tasks") && !engine.deregister("batch", "tasks"));
    assert_eq!(answer.to_json_rows().await.unwrap().len(), 3, "a running statement keeps its table");
    let e = error(&engine, "SELECT count(*) FROM tasks").await;
    assert_eq!(e.message(), "there is no table `batch.tasks` at line 1, column 22 (the tables are none)");
}
