//! The ledger on PostgreSQL: the conformance suite, and what is promised beyond it.

#![allow(clippy::unwrap_used, reason = "a test ends where something fails")]

mod support;

use std::time::Duration;

use support::{admin, connect, kill, named, on_postgres, unavailable};
use tidemill_base::{Env, ErrorKind};
use tidemill_blocks::check::Found;
use tidemill_blocks::ledger::{Ledger, Statement, Value};
use tidemill_postgres::{Postgres, PostgresSettings};
use tidemill_runtime::sleep;

mod suite {
    use std::sync::Arc;

    use tidemill_blocks::ledger::Ledger;
    use tidemill_blocks_test::{Harness, Skip, ledger_suite};

    async fn make(h: &Harness) -> Result<Arc<dyn Ledger>, Skip> {
        super::support::postgres(h).await.map(|postgres| postgres.ledger())
    }

    ledger_suite!(real, make);
}

async fn run(ledger: &dyn Ledger, sql: &str, params: Vec<Value>) -> u64 {
    ledger.transact(vec![Statement::new(sql, params)]).await.unwrap()[0]
}

#[test]
fn a_transaction_with_expectations_is_one_round_trip() {
    on_postgres("a_transaction_with_expectations_is_one_round_trip", async |h, settings| {
        let postgres = connect(&settings, h.env()).await;
        let ledger = postgres.ledger();
        run(ledger.as_ref(), "CREATE TABLE t (id TEXT PRIMARY KEY, n BIGINT)", vec![]).await;
        run(ledger.as_ref(), "INSERT INTO t VALUES ('a', 0), ('b', 0)", vec![]).await;
        let raise = |id: &str, by: i64| Statement::new("UPDATE t SET n = n + $2 WHERE id = $1", vec![id.into(), by.into()]).expecting(1);
        for round in 0..3 {
            let before = postgres.calls().ledger;
            let insert = Statement::new("INSERT INTO t (id, n) VALUES ($1, 1) ON CONFLICT (id) DO NOTHING", vec!["c".into()]);
            let touched = ledger.transact(vec![raise("a", 1), raise("b", 2), insert]).await.unwrap();
            assert_eq!(touched, [1, 1, u64::from(round == 0)]);
            let failed = ledger.transact(vec![raise("a", 1), raise("nobody", 2)]).await.unwrap_err();
            assert_eq!(failed.kind(), ErrorKind::Conflict);
            assert!(failed.message().starts_with("statement 2 touched 0 rows, expected 1"), "{failed:?}");
            ledger.query("SELECT n FROM t WHERE id = $1", vec!["a".into()]).await.unwrap();
            assert_eq!(postgres.calls().ledger - before, 3, "round {round}");
        }
        let rows = ledger.query("SELECT id, n FROM t ORDER BY id", vec![]).await.unwrap();
        assert_eq!(rows.iter().map(|r| r.int(1).unwrap()).collect::<Vec<_>>(), [3, 6, 1]);
    });
}

#[test]
fn what_two_transactions_read_and_write_crosswise_is_serialised() {
    on_postgres("what_two_transactions_read_and_write_crosswise_is_serialised", async |h, settings| {
        let both = [connect(&settings, h.env()).await, connect(&settings, h.env()).await];
        run(both[0].ledger().as_ref(), "CREATE TABLE t (round BIGINT, writer BIGINT)", vec![]).await;
        // Each writes only if it sees nobody else's row. No row is there to be locked, and no constraint helps.
        let call = |n: usize| {
            let ledger = both[n % 2].ledger();
            async move {
                for round in 0..25_i64 {
                    let sql = "INSERT INTO t (round, writer) SELECT $1, $2 WHERE NOT EXISTS (SELECT 1 FROM t WHERE round = $1)";
                    run(ledger.as_ref(), sql, vec![round.into(), (n as u64).into()]).await;
                }
            }
        };
        h.all_at_once(6, call).await;
        let rows = both[1].ledger().query("SELECT round, COUNT(*) FROM t GROUP BY round ORDER BY round", vec![]).await.unwrap();
        assert_eq!(rows.len(), 25);
        assert!(rows.iter().all(|r| r.int(1).unwrap() == 1), "{rows:?}");
    });
}

#[test]
fn numbers_and_nulls_of_every_type() {
    on_postgres("numbers_and_nulls_of_every_type", async |h, settings| {
        let ledger = connect(&settings, h.env()).await.ledger();
        let l = ledger.as_ref();
        run(l, "CREATE TABLE t (i SMALLINT, j INT, k BIGINT, r REAL, d DOUBLE PRECISION, m NUMERIC, b BOOLEAN, s TEXT, y BYTEA)", vec![])
            .await;
        let nulls = vec![Value::Null; 9];
        run(l, "INSERT INTO t VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)", nulls).await;
        let seven = vec![7.into(), 7.into(), 7.into(), 7.into(), 7.into(), 7.into(), true.into(), "7".into(), Value::Blob(vec![7])];
        run(l, "INSERT INTO t VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)", seven).await;
        let rows = l.query("SELECT i, j, k, r, d, m, b, s, y FROM t WHERE k = $1", vec![7.into()]).await.unwrap();
        let whole = Value::Int(7);
        let want = [&whole, &whole, &whole, &Value::Real(7.0), &Value::Real(7.0), &whole, &Value::Int(1)];
        assert_eq!(rows[0].0[..7].iter().collect::<Vec<_>>(), want);
        let rows = l.query("SELECT SUM(k), AVG(k), SUM(d), COUNT(*), MAX(s) FROM t", vec![]).await.unwrap();
        assert_eq!(rows[0].0, [Value::Int(7), Value::Int(7), Value::Real(7.0), Value::Int(2), Value::Text("7".into())]);
        // `$1 + 1` makes the server take the parameter for a small integer; SUM makes it one of any length.
        let large = 1_i64 << 40;
        assert_eq!(l.query("SELECT $1 + 1", vec![large.into()]).await.unwrap()[0].int(0).unwrap(), large + 1);
        let rows =
            l.query("SELECT COUNT(*) FROM t HAVING SUM(k) < $1 AND SUM(k) > $2", vec![large.into(), Value::Real(6.5)]).await.unwrap();
        assert_eq!(rows[0].int(0).unwrap(), 2);
        let refused = l.query("SELECT k FROM t WHERE k = $1", vec![Value::Real(7.5)]).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Invalid, "{refused:?}");
    });
}

#[test]
fn an_altered_table_does_not_break_what_was_prepared() {
    on_postgres("an_altered_table_does_not_break_what_was_prepared", async |h, settings| {
        let both = [connect(&settings, h.env()).await.ledger(), connect(&settings, h.env()).await.ledger()];
        run(both[0].as_ref(), "CREATE TABLE t (a BIGINT)", vec![]).await;
        run(both[0].as_ref(), "INSERT INTO t VALUES (1)", vec![]).await;
        for ledger in &both {
            assert_eq!(ledger.query("SELECT * FROM t", vec![]).await.unwrap()[0].0.len(), 1);
        }
        run(both[0].as_ref(), "ALTER TABLE t ADD COLUMN b BIGINT", vec![]).await;
        for ledger in &both {
            assert_eq!(ledger.query("SELECT * FROM t", vec![]).await.unwrap()[0].0.len(), 2);
        }
    });
}

#[test]
fn a_connection_that_is_lost_in_the_middle() {
    on_postgres("a_connection_that_is_lost_in_the_middle", async |h, settings| {
        let doomed = named(&settings, &h.name("doomed"));
        let ledger = connect(&doomed, h.env()).await.ledger();
        run(ledger.as_ref(), "CREATE TABLE t (n BIGINT)", vec![]).await;
        let client = admin(&settings.url).await;
        let application = doomed.url.rsplit('=').next().unwrap().to_owned();
        let insert = || Statement::new("INSERT INTO t VALUES (1)", vec![]);
        let slow = vec![insert(), Statement::new("SELECT pg_sleep(30)", vec![])];
        let (lost, ()) = futures::join!(ledger.transact(slow), async {
            sleep(Duration::from_millis(500)).await;
            assert!(kill(&client, &application).await > 0);
        });
        assert!(unavailable(&lost.unwrap_err()));
        ledger.transact(vec![insert()]).await.unwrap();
        assert_eq!(ledger.query("SELECT n FROM t", vec![]).await.unwrap().len(), 1);
        // A caller that gives up leaves no transaction open behind it.
        let abandoned = tidemill_runtime::timeout(
            Duration::from_millis(300),
            "sleep",
            ledger.transact(vec![insert(), Statement::new("SELECT pg_sleep(2)", vec![]).expecting(9)]),
        );
        assert!(abandoned.await.is_err());
        sleep(Duration::from_millis(2500)).await;
        ledger.transact(vec![insert()]).await.unwrap();
        assert_eq!(ledger.query("SELECT n FROM t", vec![]).await.unwrap().len(), 2);
    });
}

#[test]
fn many_managers_start_at_once() {
    on_postgres("many_managers_start_at_once", async |h, settings| {
        let start = |_| {
            let (settings, env) = (PostgresSettings { pool: 2, ..settings.clone() }, h.env().clone());
            async move {
                let postgres = Postgres::connect(settings, env).await?;
                postgres.secret("grants").await
            }
        };
        let secrets: Vec<[u8; 32]> = h.all_at_once(8, start).await.into_iter().collect::<Result<_, _>>().unwrap();
        assert!(secrets.iter().all(|s| *s == secrets[0] && *s != [0; 32]), "all have the same secret");
        let other = connect(&settings, h.env()).await.secret("another").await.unwrap();
        assert_ne!(other, secrets[0]);
    });
}

#[test]
fn a_check_tells_what_is_missing_and_makes_it() {
    on_postgres("a_check_tells_what_is_missing_and_makes_it", async |h, settings| {
        let postgres = Postgres::prepare(&settings, h.env().clone()).unwrap();
        let before = postgres.check(false).await;
        assert_eq!(before[0].found, Found::Ready, "the server: {before:?}");
        assert!(before.len() > 8 && before[1..].iter().all(|f| f.found == Found::Missing && !f.note.is_empty()), "{before:?}");
        let made = postgres.check(true).await;
        assert!(made[1..].iter().all(|f| f.found == Found::Made), "{made:?}");
        assert!(postgres.check(false).await.iter().all(|f| f.found == Found::Ready));

        let nowhere = PostgresSettings { url: "postgres://u:s3cret@127.0.0.1:1/db".into(), ..settings.clone() };
        let found = Postgres::prepare(&nowhere, h.env().clone()).unwrap().check(true).await;
        assert_eq!(found.iter().map(|f| f.found).collect::<Vec<_>>(), [Found::Unreachable]);
        assert!(!found[0].note.contains("s3cret") && found[0].what.contains("127.0.0.1:1/db"), "{found:?}");
        let client = admin(&settings.url).await;
        let user = settings.schema.replace("tidemill_test", "tidemill_user");
        client.batch_execute(&format!("CREATE ROLE {user} LOGIN")).await.unwrap();
        let (_, rest) = settings.url.split_once('@').unwrap();
        let weak = PostgresSettings { url: format!("postgres://{user}@{rest}"), ..settings.clone() };
        let found = Postgres::prepare(&weak, h.env().clone()).unwrap().check(false).await;
        assert!(found.iter().any(|f| f.found == Found::Denied), "{found:?}");
        let e = Postgres::connect(PostgresSettings { schema: format!("{}_x", settings.schema), ..weak }, Env::system()).await.unwrap_err();
        assert!(e.kind() == ErrorKind::Denied && e.message().contains("CREATE SCHEMA"), "{e:?}");
        client.batch_execute(&format!("DROP ROLE {user}")).await.unwrap();
    });
}
