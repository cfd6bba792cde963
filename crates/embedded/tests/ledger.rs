//! The ledger on real files, and leases and ticks over it.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers included")]

use std::io::BufRead as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tidemill_base::{Env, ErrorKind, Timestamp};
use tidemill_blocks::ledger::{Ledger, Migration, Statement, Value};
use tidemill_blocks::schedule::{self, Schedule};
use tidemill_embedded::ledger::SqliteLedger;

fn open(folder: &Path) -> SqliteLedger {
    SqliteLedger::open(folder.join("ledger.db"), Env::system()).unwrap()
}

fn sql(text: &str) -> Statement {
    Statement::new(text, vec![])
}

fn put(id: &str, n: i64) -> Statement {
    Statement::new("INSERT INTO t (id, n) VALUES ($1, $2)", vec![id.into(), n.into()])
}

async fn with_table(folder: &Path) -> SqliteLedger {
    let ledger = open(folder);
    ledger.transact(vec![sql("CREATE TABLE t (id TEXT PRIMARY KEY, n BIGINT)")]).await.unwrap();
    ledger
}

async fn count(ledger: &SqliteLedger) -> u64 {
    ledger.query("SELECT COUNT(*) FROM t", vec![]).await.unwrap()[0].uint(0).unwrap()
}

#[tokio::test]
async fn every_value_comes_back_as_it_went_in() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    ledger.transact(vec![sql("CREATE TABLE v (i BIGINT, r DOUBLE PRECISION, t TEXT, b BYTEA, z TEXT)")]).await.unwrap();
    let values = vec![i64::MIN.into(), 0.1.into(), "gr\u{fc}n; '--".into(), vec![0_u8, 255].into(), Value::Null];
    ledger.transact(vec![Statement::new("INSERT INTO v VALUES ($1, $2, $3, $4, $5)", values.clone())]).await.unwrap();
    assert_eq!(ledger.query("SELECT * FROM v", vec![]).await.unwrap()[0].0, values);
}

#[tokio::test]
async fn parameters_are_bound_by_number_in_any_order_and_as_often_as_one_likes() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    let params: Vec<Value> = (1..=11).map(|n: i64| n.into()).collect();
    let rows = ledger.query("SELECT $2, $1, $2, $11, $3+$4+$5+$6+$7+$8+$9+$10", params).await.unwrap();
    assert_eq!(rows[0].0, [2, 1, 2, 11, 52].map(Value::Int));

    for (text, given) in [("SELECT $3", 2_usize), ("SELECT $1", 2), ("SELECT ?", 1), ("SELECT :a", 1), ("SELECT $1::bigint", 1)] {
        let e = ledger.query(text, vec![Value::Int(1); given]).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Invalid, "{text}: {e:?}");
    }
}

#[tokio::test]
async fn a_failing_transaction_changes_nothing_and_says_which_kind() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = with_table(dir.path()).await;
    assert_eq!(ledger.transact(vec![put("a", 1), sql("UPDATE t SET n = 2")]).await.unwrap(), [1, 1]);

    let none = sql("UPDATE t SET n = 9 WHERE id = 'nobody'").expecting(1);
    for (bad, kind) in [
        (none, ErrorKind::Conflict),
        (put("a", 2), ErrorKind::Conflict),
        (sql("SELEC"), ErrorKind::Invalid),
        (sql("INSERT INTO missing VALUES (1)"), ErrorKind::Invalid),
        (sql("DELETE FROM t; DELETE FROM t"), ErrorKind::Invalid),
        (sql("INSERT OR ROLLBACK INTO t (id) VALUES ('a')"), ErrorKind::Conflict),
        (sql("/* now */ commit"), ErrorKind::Invalid),
        (sql("PRAGMA synchronous = OFF"), ErrorKind::Invalid),
        (sql(""), ErrorKind::Invalid),
    ] {
        let e = ledger.transact(vec![put("b", 1), bad.clone()]).await.unwrap_err();
        assert_eq!(e.kind(), kind, "{bad:?}: {e:?}");
        assert_eq!(count(&ledger).await, 1, "{bad:?}");
    }
}

#[tokio::test]
async fn rows_touched_are_those_of_the_statement_and_not_of_the_one_before() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = with_table(dir.path()).await;
    let skip = sql("INSERT INTO t (id) VALUES ('a') ON CONFLICT DO NOTHING");
    let touched = ledger
        .transact(vec![
            sql("INSERT INTO t (id) VALUES ('a'), ('b')"),
            sql("CREATE TABLE u (x BIGINT)"),
            skip,
            sql("SELECT 1 FROM t"),
            sql("DELETE FROM t RETURNING id"),
        ])
        .await
        .unwrap();
    assert_eq!(touched, [2, 0, 0, 2, 2]);
}

#[tokio::test]
async fn in_a_group_only_the_failing_ones_fail() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = with_table(dir.path()).await;
    ledger.transact(vec![sql("CREATE TABLE c (t TEXT REFERENCES t (id) DEFERRABLE INITIALLY DEFERRED)")]).await.unwrap();
    let jobs = (0..400_i64).map(|n| match n % 8 {
        3 => vec![put(&format!("x{n}"), n), put("same", n)],
        // These end or spoil the transaction of the whole group, the second one only at its commit.
        5 if n < 40 => vec![put(&format!("x{n}"), n), sql("INSERT OR ROLLBACK INTO t (id) VALUES ('x0')")],
        7 if n < 40 => vec![put(&format!("x{n}"), n), sql("INSERT INTO c VALUES ('nobody')")],
        _ => vec![put(&format!("x{n}"), n)],
    });
    ledger.transact(vec![put("same", -1)]).await.unwrap();
    let outcomes = join_all(jobs.map(|job| ledger.transact(job))).await;
    let mut kept = 1;
    for (n, outcome) in outcomes.iter().enumerate() {
        let fails = n % 8 == 3 || n < 40 && matches!(n % 8, 5 | 7);
        match outcome {
            Err(e) => assert!(fails && e.kind() == ErrorKind::Conflict, "{n}: {e:?}"),
            Ok(_) => {
                assert!(!fails, "{n} should have failed");
                kept += 1;
            }
        }
    }
    assert_eq!(count(&ledger).await, kept);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_query_sees_every_transaction_answered_before() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Arc::new(with_table(dir.path()).await);
    join_all((0..8).map(|who| {
        let ledger = Arc::clone(&ledger);
        async move {
            for n in 0..50_i64 {
                let id = format!("{who}-{n}");
                ledger.transact(vec![put(&id, n)]).await.unwrap();
                let rows = ledger.query("SELECT n FROM t WHERE id = $1", vec![id.into()]).await.unwrap();
                assert_eq!(rows[0].int(0).unwrap(), n);
            }
        }
    }))
    .await;
}

#[tokio::test]
async fn queries_only_read() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = with_table(dir.path()).await;
    for text in ["DELETE FROM t", "BEGIN", "PRAGMA user_version", "WITH x AS (SELECT 1) DELETE FROM t", "", "SELECT 1; SELECT 2"] {
        let e = ledger.query(text, vec![]).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Invalid, "{text}: {e:?}");
    }
    assert_eq!(ledger.query("-- why\n WITH x AS (SELECT 1) SELECT * FROM x", vec![]).await.unwrap()[0].int(0).unwrap(), 1);
}

const FIRST: Migration = Migration { name: "demo-001", sql: "CREATE TABLE d (x BIGINT); INSERT INTO d VALUES (1)" };
const SECOND: Migration = Migration { name: "demo-002", sql: "ALTER TABLE d ADD COLUMN y BIGINT; UPDATE d SET y = x" };

#[tokio::test]
async fn migrations_are_applied_once_by_however_many_managers() {
    let dir = tempfile::tempdir().unwrap();
    let ledgers: Vec<_> = (0..4).map(|_| open(dir.path())).collect();
    ledgers[0].migrate(&[FIRST]).await.unwrap();
    for outcome in join_all(ledgers.iter().map(|l| l.migrate(&[FIRST, SECOND]))).await {
        outcome.unwrap();
    }
    let rows = ledgers[3].query("SELECT x, y FROM d", vec![]).await.unwrap();
    assert_eq!(rows.iter().map(|r| r.0.clone()).collect::<Vec<_>>(), [vec![Value::Int(1), Value::Int(1)]]);
}

#[tokio::test]
async fn a_migration_that_fails_or_was_changed_leaves_all_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    let broken = Migration { name: "demo-002", sql: "CREATE TABLE e (x BIGINT); ALTER TABLE nobody ADD COLUMN y BIGINT" };
    let e = ledger.migrate(&[FIRST, broken]).await.unwrap_err();
    assert!(e.message().contains("demo-002"), "{e}");
    assert!(ledger.query("SELECT * FROM d", vec![]).await.is_err(), "the first step must not stay when the second fails");

    ledger.migrate(&[FIRST]).await.unwrap();
    let e = ledger.migrate(&[Migration { sql: "CREATE TABLE d (x TEXT)", ..FIRST }]).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Invalid);
    assert!(e.message().contains("demo-001"), "{e}");
}

#[tokio::test]
async fn what_was_answered_is_there_after_reopening_and_in_a_backup() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = with_table(dir.path()).await;
    ledger.transact(vec![put("a", 1)]).await.unwrap();
    let copy = dir.path().join("copy");
    std::fs::create_dir(&copy).unwrap();
    ledger.backup(&copy.join("ledger.db")).await.unwrap();
    assert_eq!(ledger.backup(&copy.join("ledger.db")).await.unwrap_err().kind(), ErrorKind::Conflict);
    ledger.transact(vec![put("b", 2)]).await.unwrap();
    drop(ledger);
    assert_eq!(count(&open(dir.path())).await, 2);
    assert_eq!(count(&open(&copy)).await, 1);
}

/// The part of the next test that runs in a process of its own: inserts and says so until it is killed.
#[tokio::test]
#[ignore = "started by what_was_answered_survives_kill_9"]
async fn insert_until_killed() {
    let folder = std::env::var("LEDGER_FOLDER").unwrap();
    let ledger = with_table(Path::new(&folder)).await;
    for n in 0.. {
        let ids: Vec<_> = (0..5).map(|k| format!("{n}-{k}")).collect();
        join_all(ids.iter().map(|id| ledger.transact(vec![put(id, n)]))).await.into_iter().for_each(|o| drop(o.unwrap()));
        println!("\nanswered {n}");
    }
}

#[tokio::test]
async fn what_was_answered_survives_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "insert_until_killed", "--ignored", "--nocapture"])
        .env("LEDGER_FOLDER", dir.path())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let said = std::io::BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut answered = said.filter_map(|line| line.strip_prefix("answered ")?.parse::<i64>().ok());
    let seen = answered.find(|n| *n >= 50).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let last = answered.last().unwrap_or(seen);
    let ledger = open(dir.path());
    let rows = ledger.query("SELECT COUNT(*) FROM t WHERE n <= $1", vec![last.into()]).await.unwrap();
    assert_eq!(rows[0].int(0).unwrap(), (last + 1) * 5);
}

#[tokio::test]
async fn a_file_that_is_no_ledger_is_named() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("ledger.db"), "this is no database, and it is long enough to be looked at as one").unwrap();
    let e = SqliteLedger::open(dir.path().join("ledger.db"), Env::system()).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Corrupt);
    assert!(e.message().contains("ledger.db"), "{e}");
    let e = SqliteLedger::open(dir.path().join("no/ledger.db"), Env::system()).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::NotFound, "{e:?}");
}

async fn two_schedules(folder: &Path) -> (Schedule, Schedule, Arc<tidemill_base::ManualClock>) {
    let (env, clock) = Env::manual(Timestamp::from_millis(1_700_000_000_000), 1);
    let (one, two) = (Arc::new(open(folder)), Arc::new(open(folder)));
    one.migrate(schedule::MIGRATIONS).await.unwrap();
    (Schedule::new(one, env.clone()), Schedule::new(two, env), clock)
}

#[tokio::test]
async fn one_holder_leads_until_its_lease_ends_and_the_fence_grows_with_each_change() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b, clock) = two_schedules(dir.path()).await;
    let ttl = Duration::from_secs(10);
    assert_eq!(a.lead("cut", "a", ttl).await.unwrap(), Some(1));
    assert_eq!(b.lead("cut", "b", ttl).await.unwrap(), None);
    clock.advance(Duration::from_secs(9));
    assert_eq!(a.lead("cut", "a", ttl).await.unwrap(), Some(1), "renewing keeps the fence");
    clock.advance(Duration::from_secs(9));
    assert_eq!(b.lead("cut", "b", ttl).await.unwrap(), None, "the renewed lease still runs");
    clock.advance(Duration::from_secs(2));
    assert_eq!(b.lead("cut", "b", ttl).await.unwrap(), Some(2));
    assert_eq!(a.lead("cut", "a", ttl).await.unwrap(), None, "the one before has to wait like anybody");
    assert_eq!(a.lead("fold", "a", ttl).await.unwrap(), Some(1), "other leases are not touched");
}

#[tokio::test]
async fn a_resigned_lease_is_free_at_once_and_only_its_holder_can_resign() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b, _clock) = two_schedules(dir.path()).await;
    let ttl = Duration::from_secs(10);
    a.lead("cut", "a", ttl).await.unwrap();
    b.resign("cut", "b").await.unwrap();
    assert_eq!(b.lead("cut", "b", ttl).await.unwrap(), None);
    a.resign("cut", "a").await.unwrap();
    assert_eq!(b.lead("cut", "b", ttl).await.unwrap(), Some(2));
}

#[tokio::test]
async fn a_fenced_transaction_fails_once_another_leads() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b, clock) = two_schedules(dir.path()).await;
    let ledger = with_table(dir.path()).await;
    let fence = a.lead("cut", "a", Duration::from_secs(1)).await.unwrap().unwrap();
    ledger.transact(vec![schedule::fenced("cut", "a", fence), put("x", 1)]).await.unwrap();
    clock.advance(Duration::from_secs(2));
    b.lead("cut", "b", Duration::from_secs(1)).await.unwrap().unwrap();
    let e = ledger.transact(vec![schedule::fenced("cut", "a", fence), put("y", 1)]).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Conflict);
    assert_eq!(count(&ledger).await, 1);
}

#[tokio::test]
async fn a_tick_is_taken_by_just_one_and_never_one_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b, _clock) = two_schedules(dir.path()).await;
    for minute in 1..20_i64 {
        let at = Timestamp::from_millis(minute * 60_000);
        let (one, two) = tokio::join!(a.take_tick("rollup", at), b.take_tick("rollup", at));
        assert!(one.unwrap() ^ two.unwrap(), "minute {minute}");
    }
    assert!(!a.take_tick("rollup", Timestamp::from_millis(60_000)).await.unwrap(), "a tick of the past is gone");
    assert!(a.take_tick("other", Timestamp::from_millis(60_000)).await.unwrap());
}
