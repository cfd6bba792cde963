use super::*;

#[tokio::test]
async fn a_panic_is_an_error_to_its_group_and_the_writer_lives_on() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = SqliteLedger::open(dir.path().join("ledger.db"), Env::system()).unwrap();
    let insert = || vec![Statement::new("INSERT INTO t (x) VALUES ($1)", vec![1.into()])];
    ledger.transact(vec![Statement::new("CREATE TABLE t (x BIGINT)", vec![])]).await.unwrap();

    let panicked = ledger.writer.submit(Work::Panic).await.unwrap_err();
    assert_eq!(panicked.kind(), ErrorKind::Unavailable);

    // Both in one group or one after the other: what was answered Ok is there, and nothing else.
    let (with, panicked) = tokio::join!(ledger.transact(insert()), ledger.writer.submit(Work::Panic));
    assert!(panicked.is_err());
    ledger.transact(insert()).await.unwrap();
    let rows = ledger.query("SELECT COUNT(*) FROM t", vec![]).await.unwrap();
    assert_eq!(rows[0].uint(0).unwrap(), 1 + u64::from(with.is_ok()));
}
