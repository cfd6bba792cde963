//! The table on PostgreSQL: the conformance suite, and what is promised beyond it.

#![allow(clippy::unwrap_used, reason = "a test ends where something fails")]

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use support::{admin, connect, kill, named, on_postgres, unavailable};
use tidemill_base::{Env, Timestamp};
use tidemill_blocks::table::{Condition, Cursor, FeedEntry, Key, Range, Table, Write};
use tidemill_runtime::{Stopwatch, sleep};

mod suite {
    use std::sync::Arc;

    use tidemill_blocks::table::Table;
    use tidemill_blocks_test::{Harness, Skip, table_suite};

    async fn make(h: &Harness) -> Result<Arc<dyn Table>, Skip> {
        super::support::postgres(h).await.map(|postgres| postgres.table())
    }

    table_suite!(real, make);
}

fn put(partition: &str, sort: &str, value: &str) -> Write {
    Write::put(Key::new(partition.to_owned(), sort.to_owned()), value.to_owned(), Condition::Any)
}

async fn tail(table: &dyn Table, mut cursor: Cursor, count: usize) -> Vec<FeedEntry> {
    let mut entries = Vec::new();
    while entries.len() < count {
        let page = table.feed("t", &cursor, 100, Duration::from_secs(10)).await.unwrap();
        assert!(!page.entries.is_empty(), "{} of {count} changes", entries.len());
        entries.extend(page.entries);
        cursor = page.next;
    }
    entries
}

#[test]
fn a_follower_of_many_writers_misses_nothing() {
    on_postgres("a_follower_of_many_writers_misses_nothing", async |h, settings| {
        const WRITERS: usize = 8;
        const EACH: usize = 30;
        let both = [connect(&settings, h.env()).await, connect(&settings, h.env()).await];
        both[0].table().ensure("t").await.unwrap();
        // What each writer will write: transactions of random length over partitions in random order.
        let plan = |writer: usize| {
            let mut rng = fastrand::Rng::with_seed(writer as u64);
            (0..EACH)
                .map(|n| {
                    let count = rng.usize(1..40);
                    let mut keys: Vec<usize> = (0..120).collect();
                    rng.shuffle(&mut keys);
                    keys.truncate(count);
                    keys.into_iter().map(|k| put(&format!("p{}", k % 10), &k.to_string(), &format!("{writer}/{n}"))).collect::<Vec<_>>()
                })
                .collect::<Vec<_>>()
        };
        let total: usize = (0..WRITERS).flat_map(plan).map(|t| t.len()).sum();
        let call = |n: usize| {
            let table = both[n % 2].table();
            let transactions = if n < WRITERS { plan(n) } else { Vec::new() };
            async move {
                let mut entries = Vec::new();
                if n == WRITERS {
                    entries = tail(table.as_ref(), Cursor::default(), total).await;
                }
                for writes in transactions {
                    table.transact("t", writes).await.unwrap();
                }
                entries
            }
        };
        let told = h.all_at_once(WRITERS + 1, call).await.pop().unwrap();
        assert_eq!(told.len(), total);
        let mut newest = BTreeMap::new();
        let mut last = BTreeMap::<String, u64>::new();
        for entry in told {
            let before = last.insert(entry.key.partition.clone(), entry.version);
            assert!(before.is_none_or(|v| v < entry.version), "partition {}: {} after {before:?}", entry.key.partition, entry.version);
            newest.insert(entry.key, (entry.version, entry.value));
        }
        for p in 0..10 {
            for item in both[0].table().range("t", Range::all(format!("p{p}"), 100)).await.unwrap().items {
                assert_eq!(newest.remove(&item.key), Some((item.version, Some(item.value))), "{:?}", item.key);
            }
        }
        assert!(newest.is_empty());
    });
}

#[test]
fn what_is_committed_late_is_not_passed_by() {
    on_postgres("what_is_committed_late_is_not_passed_by", async |h, settings| {
        let postgres = connect(&settings, h.env()).await;
        let table = postgres.table();
        table.ensure("t").await.unwrap();
        let client = admin(&settings.url).await;
        // As another manager whose transaction began before and is not done yet.
        let late = format!(
            "SET search_path TO {}; BEGIN; INSERT INTO tidemill_feed (tbl, xid, version, at, partition, sort, value)
             SELECT id, pg_current_xact_id()::text::bigint, nextval('tidemill_versions'), now(), 'late', '', '' FROM tidemill_tables",
            settings.schema
        );
        client.batch_execute(&late).await.unwrap();
        table.transact("t", vec![put("early", "", "")]).await.unwrap();
        let held = table.feed("t", &Cursor::default(), 10, Duration::from_millis(300)).await.unwrap();
        assert!(held.entries.is_empty(), "the earlier one may still come: {held:?}");
        let (end, committed) = futures::join!(table.feed_end("t"), async {
            sleep(Duration::from_millis(300)).await;
            client.batch_execute("COMMIT").await
        });
        committed.unwrap();
        let told = tail(table.as_ref(), held.next, 2).await;
        assert_eq!(told.iter().map(|e| e.key.partition.as_str()).collect::<Vec<_>>(), ["late", "early"]);
        let after = table.feed("t", &end.unwrap(), 10, Duration::ZERO).await.unwrap();
        assert!(after.entries.is_empty(), "the end waited for both: {after:?}");
    });
}

#[test]
fn a_change_of_another_process_wakes_a_follower_at_once() {
    on_postgres("a_change_of_another_process_wakes_a_follower_at_once", async |h, settings| {
        let (here, there) = (connect(&settings, h.env()).await, connect(&settings, h.env()).await);
        here.table().ensure("t").await.unwrap();
        let (mut cursor, mut waited) = (here.table().feed_end("t").await.unwrap(), Duration::ZERO);
        for round in 0..8 {
            let (table, other) = (here.table(), there.table());
            let follow = table.feed("t", &cursor, 10, Duration::from_secs(10));
            let change = async {
                sleep(Duration::from_millis(300)).await;
                other.transact("t", vec![put("p", &round.to_string(), "")]).await.unwrap();
                Stopwatch::start()
            };
            let (page, changed) = futures::join!(follow, change);
            waited += changed.elapsed();
            cursor = page.unwrap().next;
        }
        assert!(waited < Duration::from_secs(2), "{waited:?} for eight changes");
    });
}

#[test]
fn sweeping_removes_the_expired_and_old_changes() {
    on_postgres("sweeping_removes_the_expired_and_old_changes", async |h, settings| {
        let postgres = connect(&settings, h.env()).await;
        let table = postgres.table();
        table.ensure("t").await.unwrap();
        let past = Timestamp::from_millis(1_000);
        let soon = Env::system().now() + Duration::from_secs(3600);
        let many: Vec<Write> = (0..1500).map(|n| put("p", &n.to_string(), "").expiring(past)).collect();
        table.write_many("t", many).await.unwrap();
        table.write_many("t", vec![put("p", "kept", ""), put("p", "later", "").expiring(soon)]).await.unwrap();
        let client = admin(&settings.url).await;
        let count = async |what: &str| {
            client.query_one(&format!("SELECT count(*) FROM {}.{what}", settings.schema), &[]).await.unwrap().get::<_, i64>(0)
        };
        postgres.sweep().await.unwrap();
        assert_eq!((count("tidemill_items").await, count("tidemill_feed").await), (2, 1502));
        let old = format!("UPDATE {}.tidemill_feed SET at = at - interval '26 hours' WHERE sort <> 'kept'", settings.schema);
        client.batch_execute(&old).await.unwrap();
        postgres.sweep().await.unwrap();
        let left = table.feed("t", &Cursor::default(), 10, Duration::from_secs(10)).await.unwrap().entries;
        assert_eq!(left.iter().map(|e| &e.key.sort[..]).collect::<Vec<_>>(), [b"kept"]);
    });
}

#[test]
fn a_transaction_is_one_round_trip_and_survives_lost_connections() {
    on_postgres("a_transaction_is_one_round_trip_and_survives_lost_connections", async |h, settings| {
        let doomed = named(&settings, &h.name("doomed"));
        let postgres = connect(&doomed, h.env()).await;
        let table = postgres.table();
        table.ensure("t").await.unwrap();
        table.transact("t", vec![put("p", "a", "0")]).await.unwrap();
        let before = postgres.calls().table;
        let many = (0..100).map(|n| put(&format!("p{n}"), "a", "1")).collect();
        table.transact("t", many).await.unwrap();
        assert_eq!(postgres.calls().table - before, 1);

        // A writer that waits for a partition which somebody else holds loses its connection.
        let client = admin(&settings.url).await;
        let hold = format!("BEGIN; LOCK TABLE {}.tidemill_items", settings.schema);
        client.batch_execute(&hold).await.unwrap();
        let application = doomed.url.rsplit('=').next().unwrap().to_owned();
        let (lost, ()) = futures::join!(table.transact("t", vec![put("p", "a", "2")]), async {
            sleep(Duration::from_millis(500)).await;
            assert!(kill(&client, &application).await > 0);
        });
        assert!(unavailable(&lost.unwrap_err()));
        client.batch_execute("ROLLBACK").await.unwrap();
        let item = table.get("t", &Key::new("p", "a")).await.unwrap().unwrap();
        assert_eq!(item.value, "0", "what was lost before its commit has had no effect");
        table.transact("t", vec![Write::put(Key::new("p", "a"), "3", Condition::Version(item.version))]).await.unwrap();
    });
}

#[test]
fn callers_of_one_process_share_commits_and_no_fate() {
    on_postgres("callers_of_one_process_share_commits_and_no_fate", async |h, settings| {
        const CALLERS: usize = 200;
        let postgres = connect(&settings, h.env()).await;
        let table = postgres.table();
        table.ensure("t").await.unwrap();
        table.transact("t", vec![put("p", "taken", "")]).await.unwrap();
        let before = postgres.calls().table;
        let call = |n: usize| {
            let table = table.clone();
            async move {
                // Every fourth wants what is not so; of the others, pairs want the same item.
                let check = if n.is_multiple_of(4) { Condition::Absent } else { Condition::Any };
                let own = Write::put(Key::new("p", format!("{}", n / 2)), n.to_string(), Condition::Absent);
                table.transact("t", vec![own, Write::check(Key::new("p", "taken"), check)]).await
            }
        };
        let answers = h.all_at_once(CALLERS, call).await;
        for (n, answer) in answers.iter().enumerate().filter(|(n, _)| n.is_multiple_of(4)) {
            assert_eq!(answer.as_ref().unwrap_err().kind(), tidemill_base::ErrorKind::Conflict, "caller {n}");
        }
        for pair in 0..CALLERS / 2 {
            let won: Vec<usize> = [2 * pair, 2 * pair + 1].into_iter().filter(|n| answers[*n].is_ok()).collect();
            assert_eq!(won.len(), 1, "pair {pair}");
            let item = table.get("t", &Key::new("p", format!("{pair}"))).await.unwrap().unwrap();
            assert_eq!((item.value, item.version), (won[0].to_string().into(), answers[won[0]].as_ref().unwrap()[0]));
        }
        let between = postgres.calls().table;
        let alone = |n: usize| {
            let table = table.clone();
            async move { table.transact("t", vec![put("q", &n.to_string(), "")]).await }
        };
        assert!(h.all_at_once(CALLERS, alone).await.iter().all(Result::is_ok));
        let shared = postgres.calls().table - between;
        assert!(shared < CALLERS as u64 / 4, "{shared} round trips for {CALLERS} callers, {} before", between - before);
    });
}
