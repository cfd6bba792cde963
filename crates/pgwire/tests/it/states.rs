//! Programs go by the state of an error and not by its words, so the words of the engine are held to their states here.

use crate::support::{plain, said};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_error_has_the_state_that_postgresql_gives_it() {
    let running = plain().await;
    let client = running.client().await;
    for (sql, state) in [
        ("SELEKT 1", "42601"),
        ("SELECT * FROM nowhere", "42P01"),
        ("SELECT nothing FROM jobs", "42703"),
        ("SELECT n FROM jobs a JOIN jobs b ON a.n = b.n", "42702"),
        ("SELECT no_such_function(1)", "42883"),
        ("SELECT length(1, 2, 3)", "42883"),
        ("SELECT 1 / 0", "22012"),
        ("SELECT CAST('x' AS INT)", "22P02"),
        ("SELECT n, count(*) FROM jobs", "42803"),
        ("SELECT $1", "42P02"),
        ("INSERT INTO jobs VALUES ('x')", "25006"),
        ("UPDATE jobs SET n = 1", "25006"),
        ("DELETE FROM jobs", "25006"),
        ("CREATE TABLE t (a INT)", "25006"),
        ("CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'", "25006"),
        ("DROP TABLE jobs", "25006"),
        ("COPY jobs FROM STDIN", "25006"),
        ("COPY jobs TO '/tmp/x'", "0A000"),
        ("EXPLAIN DELETE FROM jobs", "25006"),
        ("SHOW no_such_setting", "42704"),
        ("SET server_version = 9", "55P02"),
        ("SET statement_timeout = 'soon'", "22023"),
        ("FETCH 1 FROM nowhere", "34000"),
        ("DEALLOCATE nowhere", "26000"),
        ("DECLARE c CURSOR FOR SELECT 1", "25P01"),
        ("SELECT arrow_cast(18446744073709551615, 'UInt64')", "22003"),
    ] {
        let e = client.batch_execute(sql).await.expect_err(sql);
        assert_eq!(said(&e).0, state, "{sql}: {e:?}");
    }
    let nested = format!("SELECT {}1{}", "abs(".repeat(40), ")".repeat(40));
    assert_eq!(said(&client.batch_execute(&nested).await.unwrap_err()).0, "54001");
    client.batch_execute("SELECT 1").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_says_where_and_what_to_do() {
    let running = plain().await;
    let client = running.client().await;
    let e = client.batch_execute("SELECT 'ä',\n idd FROM jobs").await.unwrap_err();
    let db = e.as_db_error().unwrap();
    assert_eq!(db.position(), Some(&tokio_postgres::error::ErrorPosition::Original(14)));
    assert!(db.hint().unwrap().contains("did you mean"), "{db:?}");
    let e = client.batch_execute("SELECT 1;\n  SELECT idd FROM jobs").await.unwrap_err();
    assert_eq!(e.as_db_error().unwrap().position(), Some(&tokio_postgres::error::ErrorPosition::Original(20)));
    let e = client.batch_execute("DROP TABLE jobs").await.unwrap_err();
    let db = e.as_db_error().unwrap();
    assert_eq!(db.message(), "`DROP TABLE` is refused, SQL here only reads");
    assert!(db.hint().unwrap().contains("use SELECT"), "{db:?}");
}
