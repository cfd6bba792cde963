//! What a ledger must do.

use std::sync::Arc;

use tidemill_base::{ErrorKind, Result, Timestamp};
use tidemill_blocks::ledger::{Ledger, Migration, Row, Statement, Value};

use crate::Harness;
use crate::suites::fails;

/// Tests a ledger driver: `ledger_suite!(real, make)` or `ledger_suite!(simulated, make)`, `make` being
/// `async fn(&Harness) -> Arc<dyn Ledger>`. The ledger must be empty.
#[macro_export]
macro_rules! ledger_suite {
    ($mode:ident $(, $make:path)?) => {
        $crate::__behaviours! {ledger, $mode, $($make,)?
            every_type_comes_back nulls_are_null text_and_bytes_of_any_content parameters_by_number parameters_are_counted
            parameters_are_not_sql touched_rows_are_counted upserts_insert_or_update returning_counts_rows
            expectations_roll_everything_back wrong_statements_roll_everything_back
            constraints_are_conflicts wrong_sql_is_invalid queries_only_read empty_transactions_do_nothing
            statements_see_those_before_them migrations_run_once later_migrations_are_added failed_migrations_leave_nothing
            concurrent_migrations_run_once concurrent_increments_all_count one_of_many_inserts_wins
            queries_see_answered_transactions many_rows_come_back
        }
    };
}

async fn run(l: &Arc<dyn Ledger>, sql: &str, params: Vec<Value>) -> Result<u64> {
    Ok(l.transact(vec![Statement::new(sql, params)]).await?[0])
}

/// A table of `id` and `n`, with `ids` at 0.
async fn counters(l: &Arc<dyn Ledger>, ids: &[&str]) -> Result<()> {
    run(l, "CREATE TABLE counters (id TEXT PRIMARY KEY, n BIGINT NOT NULL)", vec![]).await?;
    for id in ids {
        run(l, "INSERT INTO counters (id, n) VALUES ($1, 0)", vec![(*id).into()]).await?;
    }
    Ok(())
}

async fn counts(l: &Arc<dyn Ledger>) -> Result<Vec<(String, i64)>> {
    let rows = l.query("SELECT id, n FROM counters ORDER BY id", vec![]).await?;
    rows.iter().map(|r| Ok((r.text(0)?.to_owned(), r.int(1)?))).collect()
}

fn raise(id: &str) -> Statement {
    Statement::new("UPDATE counters SET n = n + 1 WHERE id = $1", vec![id.into()])
}

/// Stores each of `values` in a column of type `sql_type` and expects it back.
async fn round_trip(l: &Arc<dyn Ledger>, h: &Harness, sql_type: &str, values: &[Value]) -> Result<()> {
    let table = h.name("t").replace('-', "_");
    run(l, &format!("CREATE TABLE {table} (at BIGINT PRIMARY KEY, v {sql_type})"), vec![]).await?;
    for (at, value) in (0_i64..).zip(values) {
        run(l, &format!("INSERT INTO {table} (at, v) VALUES ($1, $2)"), vec![at.into(), value.clone()]).await?;
    }
    let rows = l.query(&format!("SELECT v FROM {table} ORDER BY at"), vec![]).await?;
    assert_eq!(rows, values.iter().map(|v| Row(vec![v.clone()])).collect::<Vec<_>>(), "{sql_type}");
    Ok(())
}

/// Numbers of either kind, times and booleans come back as they were stored, at their limits too.
pub async fn every_type_comes_back(l: &Arc<dyn Ledger>, h: &Harness) -> Result<()> {
    let now = Timestamp::from_millis(1_700_000_000_123);
    round_trip(l, h, "BIGINT", &[0_i64, 1, -1, i64::MAX, i64::MIN].map(Value::Int)).await?;
    round_trip(l, h, "BIGINT", &[true.into(), false.into(), now.into(), 7_u32.into(), Option::<i64>::None.into()]).await?;
    round_trip(l, h, "DOUBLE PRECISION", &[0.0, 1.0, -2.5, 0.1, 1e300, f64::MIN_POSITIVE, f64::MAX].map(Value::Real)).await?;
    let rows = l.query("SELECT $1, $2", vec![now.into(), true.into()]).await;
    // PostgreSQL cannot tell the type of a bare parameter; a driver may refuse it, but not answer something else.
    if let Ok(rows) = rows {
        assert_eq!((rows[0].time(0)?, rows[0].bool(1)?), (now, true));
    }
    Ok(())
}

/// NULL is stored, found and read as such, in a column of any type.
pub async fn nulls_are_null(l: &Arc<dyn Ledger>, h: &Harness) -> Result<()> {
    for sql_type in ["BIGINT", "DOUBLE PRECISION", "TEXT", "BYTEA"] {
        round_trip(l, h, sql_type, &[Value::Null]).await?;
    }
    run(l, "CREATE TABLE nulls (id BIGINT PRIMARY KEY, t TEXT, n BIGINT)", vec![]).await?;
    run(l, "INSERT INTO nulls VALUES (1, $1, $2), (2, 'x', 5)", vec![Value::Null, Value::Null]).await?;
    let rows = l.query("SELECT t, n FROM nulls WHERE t IS NULL", vec![]).await?;
    assert_eq!((rows.len(), rows[0].text_opt(0)?, rows[0].int_opt(1)?), (1, None, None));
    let rows = l.query("SELECT COUNT(t), SUM(n) FROM nulls", vec![]).await?;
    assert_eq!(rows[0].int(0)?, 1);
    Ok(())
}

/// Text and bytes keep every character and byte, empty ones included.
pub async fn text_and_bytes_of_any_content(l: &Arc<dyn Ledger>, h: &Harness) -> Result<()> {
    let texts = ["", " ", "it's \"quoted\"; --", "$1", "line\nbreak", "\u{1F30A} ü", "007", "1e3"].map(Value::from);
    round_trip(l, h, "TEXT", &texts).await?;
    let all: Vec<u8> = (0..=255).collect();
    round_trip(l, h, "BYTEA", &[vec![], vec![0], b"text".to_vec(), all.repeat(4096)].map(Value::Blob)).await
}

/// `$2` is the second parameter wherever it stands and however often.
pub async fn parameters_by_number(l: &Arc<dyn Ledger>, _: &Harness) -> Result<()> {
    run(l, "CREATE TABLE p (a TEXT, b TEXT, c TEXT)", vec![]).await?;
    run(l, "INSERT INTO p (c, b, a) VALUES ($3, $2, $1)", vec!["1".into(), "2".into(), "3".into()]).await?;
    run(l, "INSERT INTO p (a, b, c) VALUES ($2, $1, $2)", vec!["x".into(), "y".into()]).await?;
    let rows = l.query("SELECT a, b, c FROM p WHERE b = $2 OR a = $1 OR (b = $2 AND a = $1)", vec!["1".into(), "x".into()]).await?;
    let mut got: Vec<String> = rows.iter().map(|r| Ok(format!("{}{}{}", r.text(0)?, r.text(1)?, r.text(2)?))).collect::<Result<_>>()?;
    got.sort();
    assert_eq!(got, ["123", "yxy"]);
    let many: Vec<Value> = (1..=12_i64).map(Value::Int).collect();
    run(l, "CREATE TABLE q (a BIGINT, b BIGINT)", vec![]).await?;
    run(l, "INSERT INTO q VALUES ($12, $1 + $2 + $3 + $4 + $5 + $6 + $7 + $8 + $9 + $10 + $11)", many).await?;
    let rows = l.query("SELECT a, b FROM q", vec![]).await?;
    assert_eq!((rows[0].int(0)?, rows[0].int(1)?), (12, 66));
    Ok(())
}

/// Too few or too many parameters are `Invalid`.
pub async fn parameters_are_counted(l: &Arc<dyn Ledger>, _: &Harness) -> Result<()> {
    counters(l, &["a"]).await?;
    let sql = "UPDATE counters SET n = $1 WHERE id = $2";
    fails(ErrorKind::Invalid, "too few", run(l, sql, vec![1_i64.into()]).await);
    fails(ErrorKind::Invalid, "too many", run(l, sql, vec![1_i64.into(), "a".into(), "b".into()]).await);
    fails(ErrorKind::Invalid, "too few", l.query("SELECT n FROM counters WHERE id = $1", vec![]).await);
    assert_eq!(counts(l).await?, [("a".to_owned(), 0)]);
    Ok(())
}

/// What looks like SQL in a parameter is data.
pub async fn parameters_are_not_sql(l: &Arc<dyn Ledger>, _: &Harness) -> Result<()> {
    counters(l, &["a"]).await?;
    let nasty = "a'; DROP TABLE counters; --";
    assert_eq!(run(l, "UPDATE counters SET n = 1 WHERE id = $1", vec![nasty.into()]).await?, 0);
    run(l, "INSERT INTO counters (id, n) VALUES ($1, 2)", vec![nasty.into()]).await?;
    assert_eq!(counts(l).await?, [("a".to_owned(), 0), (nasty.to_owned(), 2)]);
    Ok(())
}

/// Each statement answers how many rows it touched.
pub async fn touched_rows_are_counted(l: &Arc<dyn Ledger>, _: &Harness) -> Result<()> {
    counters(l, &["a", "b", "c"]).await?;
    let statements = vec![
        Statement::new("UPDATE counters SET n = 5 WHERE id <> 'a'", vec![]),
        raise("nobody"),
        raise("a"),
        Statement::new("DELETE FROM counters WHERE n = 5", vec![]),
        Statement::new("CREATE TABLE other (x BIGINT)", vec![]),
        Statement::new("INSERT INTO other VALUES (1), (2)", vec![]),
    ];
    assert_eq!(l.transact(statements).await?, [2, 0, 1, 2, 0, 2]);
    Ok(())
}

/// `ON CONFLICT` updates what is there, does nothing if told so, and counts accordingly.
pub async fn upserts_insert_or_update(l: &Arc<dyn Ledger>, _: &Harness) -> Result<()> {
    counters(l, &["a"]).await?;
    let upsert = "INSERT INTO counters (id, n) VALUES ($1, $2)
                  ON CONFLICT (id) DO UPDATE SET n = counters.n + excluded.n WHERE counters.n < $3";
    let touch = async |id: &str, by: i64| run(l, upsert, vec![id.into(), by.into(), 10_i64.into()]).await;
    assert_eq!((touch("a", 20).await?, touch("b", 3).await?, touch("a", 1).await?), (1, 1, 0));
    let keep = "INSERT INTO counters (id, n) VALUES ($1, 99) ON CONFLICT DO NOTHING";
    assert_eq!((run(l, keep, vec!["a".into()]).await?, run(l, keep, vec!["c".into()]).await?), (0, 1));
    assert_eq!(counts(l).await?, [("a".to_owned(), 20), ("b".to_owned(), 3), ("c".to_owned(), 99)]);
    Ok(())
}

/// A statement with `RETURNING` takes effect whole and counts its rows.
pub async fn returning_counts_rows(l: &Arc<dyn Ledger>, _: &Harness) -> Result<()> {
    counters(l, &["a", "b", "c"]).await?;
    let returning = Statement::new("UPDATE counters SET n = 1 WHERE id <> $1 RETURNING id", vec!["b".into()]).expecting(2);
    assert_eq!(l.transact(vec![returning, raise("b")]).await?, [2, 1]);
    assert!(counts(l).await?.iter().all(|(_, n)| *n == 1));
    Ok(())
}

/// An expectation that is not met is `Conflict`, and no statement of the transaction has had an effect, wherever it stands.
pub async fn expectations_roll_everything_back(l: &Arc<dyn Ledger>, _: &Harness) -> Result<()> {
    counters(l, &["a", "b"]).await?;
    for at in 0..=2 {
        let mut statements = vec![raise("a").expecting(1), raise("b")];
        statements.insert(at, raise("nobody").expecting(1));
        fails(ErrorKind::Conflict, "transact", l.transact(statements).await);
    }
    let all = Statement::new("UPDATE counters SET n = 9", vec![]).expecting(1);
    fails(ErrorKind::Conflict, "more rows than expected", l.transact(vec![raise("a"), all]).await);
    assert_eq!(counts(l).await?, [("a".to_owned(), 0), ("b".to_owned(), 0)]);
    assert_eq!(l.transact(vec![raise("a").expecting(1), raise("nobody").expecting(0)]).await?, [1, 0]);
    Ok(())
}

/// A statement that fails takes the whole transaction with it, tables made in it included.
pub async fn wrong_statements_roll_everything_back(l: &Arc<dyn Ledger>, _: &Harness) -> Result<()> {
    counters(l, &["a"]).await?;
    let made = Statement::new("CREATE TABLE made (x BIGINT)", vec![]);
    let wrong = Statement::new("UPDATE nowhere SET n = 1", vec![]);
    fails(ErrorKind::Invalid, "transact", l.transact(vec![raise("a"), made.clone(), wrong]).await);
    assert_eq!(counts(l).await?, [("a".to_owned(), 0)]);
    fails(ErrorKind::Invalid, "the table that was rolled back", l.query("SELECT x FROM made", vec![]).await);
    assert_eq!(l.transact(vec![raise("a"), made]).await?, [1, 0], "the ledger goes on after a failure");
    Ok(())
}

/// Unique, not-null, check and foreign keys that do not hold are `Conflict`.
pub async fn constraints_are_conflicts(l: &Arc<dyn Ledger>, _: &Harness) -> Result<()> {
    counters(l, &["a"]).await?;
    run(l, "CREATE TABLE child (id TEXT REFERENCES counters (id), n BIGINT CHECK (n > 0))", vec![]).await?;
    for bad in [
        "INSERT INTO counters (id, n) VALUES ('a', 1)",
        "INSERT INTO counters (id, n) VALUES ('b', NULL)",
        "INSERT INTO child (id, n) VALUES ('nobody', 1)",
        "INSERT INTO child (id, n) VALUES ('a', -1)",
    ] {
        fails(ErrorKind::Conflict, bad, l.transact(vec![raise("a"), Statement::new(bad, vec![])]).await);
    }
    assert_eq!(counts(l).await?, [("a".to_owned(), 0)]);
    run(l, "INSERT INTO child (id, n) VALUES ('a', 1)", vec![]).await?;
    fails(ErrorKind::Conflict, "a parent with a child", run(l, "DELETE FROM counters", vec![]).await);
    Ok(())
}

/// SQL that cannot be understood, or that would end the transaction, is `Invalid`.
pub async fn wrong_sql_is_invalid(l: &Arc<dyn Ledger>, _: &Harness) -> Result<()> {
    counters(l, &["a"]).await?;
    for bad in ["SELEKT 1", "SELECT no_such_column FROM counters", "SELECT * FROM nowhere", "SELECT (", ""] {
        fails(ErrorKind::Invalid, bad, l.query(bad, vec![]).await);
    }
    for bad in ["UPDATE", "INSERT INTO counters (nope) VALUES (1)", "COMMIT", "BEGIN", "ROLLBACK"] {
        fails(ErrorKind::Invalid, bad, l.transact(vec![raise("a"), Statement::new(bad, vec![])]).await);
    }
    let two = "UPDATE counters SET n = 7; UPDATE counters SET n = 8";
    fails(ErrorKind::Invalid, "two statements in one", run(l, two, vec![]).await);
    assert_eq!(counts(l).await?, [("a".to_owned(), 0)]);
    Ok(())
}

/// `query` changes nothing.
pub async fn queries_only_read(l: &Arc<dyn Ledger>, _: &Harness) -> Result<()> {
    counters(l, &["a"]).await?;
    for change in ["UPDATE counters SET n = 1", "DELETE FROM counters", "DROP TABLE counters", "UPDATE counters SET n = 2 RETURNING n"] {
        fails(ErrorKind::Invalid, change, l.query(change, vec![]).await);
    }
    assert_eq!(counts(l).await?, [("a".to_owned(), 0)]);
    Ok(())
}

/// A transaction of nothing succeeds.
pub async fn empty_transactions_do_nothing(l: &Arc<dyn Ledger>, _: &Harness) -> Result<()> {
    assert_eq!(l.transact(vec![]).await?, Vec::<u64>::new());
    Ok(())
}

/// Within a transaction each statement sees the effects of those before it.
pub async fn statements_see_those_before_them(l: &Arc<dyn Ledger>, _: &Harness) -> Result<()> {
    counters(l, &["a"]).await?;
    let insert = Statement::new("INSERT INTO counters (id, n) SELECT 'copy', n FROM counters WHERE id = 'a'", vec![]).expecting(1);
    l.transact(vec![raise("a"), raise("a"), insert, raise("copy").expecting(1)]).await?;
    assert_eq!(counts(l).await?, [("a".to_owned(), 2), ("copy".to_owned(), 3)]);
    Ok(())
}

const FIRST: Migration = Migration {
    name: "suite-001-first",
    sql: "CREATE TABLE migrated (id BIGINT PRIMARY KEY); CREATE INDEX migrated_by_id ON migrated (id); INSERT INTO migrated VALUES (1)",
};
const SECOND: Migration =
    Migration { name: "suite-002-second", sql: "ALTER TABLE migrated ADD COLUMN note TEXT; INSERT INTO migrated VALUES (2, 'x')" };

async fn migrated(l: &Arc<dyn Ledger>) -> Result<usize> {
    l.query("SELECT id FROM migrated", vec![]).await.map(|rows| rows.len())
}

/// A migration is applied once, however often it is asked for.
pub async fn migrations_run_once(l: &Arc<dyn Ledger>, _: &Harness) -> Result<()> {
    for _ in 0..3 {
        l.migrate(&[FIRST]).await?;
    }
    l.migrate(&[]).await?;
    assert_eq!(migrated(l).await?, 1);
    Ok(())
}

/// New steps are applied after the old ones, which are not repeated; those of another system do not matter.
pub async fn later_migrations_are_added(l: &Arc<dyn Ledger>, _: &Harness) -> Result<()> {
    l.migrate(&[FIRST]).await?;
    l.migrate(&[Migration { name: "another-001-own", sql: "CREATE TABLE another (id BIGINT)" }]).await?;
    l.migrate(&[FIRST, SECOND]).await?;
    l.migrate(&[FIRST, SECOND]).await?;
    assert_eq!(migrated(l).await?, 2);
    Ok(())
}

/// A migration that fails leaves nothing half done, and can be tried again.
pub async fn failed_migrations_leave_nothing(l: &Arc<dyn Ledger>, _: &Harness) -> Result<()> {
    let wrong = Migration { name: "suite-002-second", sql: "ALTER TABLE migrated ADD COLUMN note TEXT; UPDATE nowhere SET x = 1" };
    l.migrate(&[FIRST]).await?;
    fails(ErrorKind::Invalid, "migrate", l.migrate(&[FIRST, wrong]).await);
    fails(ErrorKind::Invalid, "the column that was rolled back", l.query("SELECT note FROM migrated", vec![]).await);
    l.migrate(&[FIRST, SECOND]).await?;
    assert_eq!(migrated(l).await?, 2);
    Ok(())
}

/// Several managers that start at once apply each migration once.
pub async fn concurrent_migrations_run_once(l: &Arc<dyn Ledger>, h: &Harness) -> Result<()> {
    let call = |_| {
        let l = l.clone();
        async move { l.migrate(&[FIRST, SECOND]).await }
    };
    h.all_at_once(6, call).await.into_iter().collect::<Result<()>>()?;
    assert_eq!(migrated(l).await?, 2);
    Ok(())
}

/// Nothing is lost when many change the same row.
pub async fn concurrent_increments_all_count(l: &Arc<dyn Ledger>, h: &Harness) -> Result<()> {
    const CALLERS: usize = 8;
    const EACH: usize = 25;
    counters(l, &["a", "b"]).await?;
    let call = |n: usize| {
        let l = l.clone();
        async move {
            for _ in 0..EACH {
                // The two rows in either order, so that engines with row locks have something to get wrong.
                let both = if n.is_multiple_of(2) { [raise("a"), raise("b")] } else { [raise("b"), raise("a")] };
                l.transact(both.map(|s| s.expecting(1)).to_vec()).await?;
            }
            Ok(())
        }
    };
    h.all_at_once(CALLERS, call).await.into_iter().collect::<Result<()>>()?;
    let all = i64::try_from(CALLERS * EACH).expect("small");
    assert_eq!(counts(l).await?, [("a".to_owned(), all), ("b".to_owned(), all)]);
    Ok(())
}

/// Of many that insert the same key just one succeeds, and no trace of the others' transactions is left.
pub async fn one_of_many_inserts_wins(l: &Arc<dyn Ledger>, h: &Harness) -> Result<()> {
    counters(l, &["tries"]).await?;
    let call = |n: usize| {
        let l = l.clone();
        async move {
            let n = i64::try_from(n).expect("small");
            let insert = Statement::new("INSERT INTO counters (id, n) VALUES ('prize', $1)", vec![n.into()]);
            l.transact(vec![raise("tries"), insert]).await
        }
    };
    let answers = h.all_at_once(12, call).await;
    let winners: Vec<i64> = (0_i64..).zip(&answers).filter(|(_, a)| a.is_ok()).map(|(n, _)| n).collect();
    assert_eq!(winners.len(), 1, "{answers:?}");
    assert!(answers.iter().filter_map(|a| a.as_ref().err()).all(|e| e.kind() == ErrorKind::Conflict), "{answers:?}");
    assert_eq!(counts(l).await?, [("prize".to_owned(), winners[0]), ("tries".to_owned(), 1)]);
    Ok(())
}

/// A query sees every transaction that was answered before it was asked.
pub async fn queries_see_answered_transactions(l: &Arc<dyn Ledger>, h: &Harness) -> Result<()> {
    let ids = ["a", "b", "c", "d"];
    counters(l, &ids).await?;
    let call = |n: usize| {
        let l = l.clone();
        async move {
            for round in 1..=20_i64 {
                l.transact(vec![raise(ids[n])]).await?;
                let rows = l.query("SELECT n FROM counters WHERE id = $1", vec![ids[n].into()]).await?;
                assert_eq!(rows[0].int(0)?, round);
            }
            Ok(())
        }
    };
    h.all_at_once(ids.len(), call).await.into_iter().collect()
}

/// A long answer comes whole and in order.
pub async fn many_rows_come_back(l: &Arc<dyn Ledger>, _: &Harness) -> Result<()> {
    run(l, "CREATE TABLE many (id BIGINT PRIMARY KEY, note TEXT)", vec![]).await?;
    let insert = |n: i64| Statement::new("INSERT INTO many VALUES ($1, $2)", vec![n.into(), format!("row {n}").into()]);
    assert_eq!(l.transact((0..5000).map(insert).collect()).await?, vec![1; 5000]);
    let rows = l.query("SELECT id, note FROM many WHERE id >= $1 ORDER BY id DESC", vec![1000_i64.into()]).await?;
    assert_eq!((rows.len(), rows[0].int(0)?, rows[3999].text(1)?), (4000, 4999, "row 1000"));
    Ok(())
}
