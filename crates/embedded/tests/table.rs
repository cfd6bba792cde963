//! The table driver against the conformance suite, and what it promises beyond it.

#![allow(clippy::unwrap_used, reason = "a test ends where something fails")]

use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tidemill_base::{Env, Timestamp};
use tidemill_blocks::table::{Condition, Cursor, Key, Range, Table, Write, sort_u64};
use tidemill_blocks_test::{Harness, table_suite};
use tidemill_embedded::Embedded;

async fn make(h: &Harness) -> Arc<dyn Table> {
    Embedded::open(&h.fresh_path("data"), h.env().clone()).unwrap().table()
}

table_suite!(real, make);

const START: Timestamp = Timestamp::from_millis(1_700_000_000_000);

fn key(n: u64) -> Key {
    Key::new("p", sort_u64(n))
}

#[tokio::test(flavor = "multi_thread")]
async fn reopening_keeps_items_versions_and_the_feed() {
    let folder = TempDir::new().unwrap();
    let embedded = Embedded::open(folder.path(), Env::system()).unwrap();
    let table = embedded.table();
    table.ensure("t").await.unwrap();
    let first = table.transact("t", vec![Write::put(key(1), "a", Condition::Absent)]).await.unwrap()[0];
    let place = table.feed_end("t").await.unwrap();
    drop((table, embedded));

    let embedded = Embedded::open(folder.path(), Env::system()).unwrap();
    let table = embedded.table();
    let item = table.get("t", &key(1)).await.unwrap().unwrap();
    assert_eq!((&item.value[..], item.version), (&b"a"[..], first));
    let second = table.transact("t", vec![Write::put(key(1), "b", Condition::Version(first))]).await.unwrap()[0];
    assert!(second > first);
    let news = table.feed("t", &place, 10, Duration::ZERO).await.unwrap();
    assert_eq!(news.entries.iter().map(|e| e.version).collect::<Vec<_>>(), [second]);
    let all = table.feed("t", &Cursor::default(), 10, Duration::ZERO).await.unwrap();
    assert_eq!(all.entries.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn sweeping_removes_the_expired_and_old_changes_and_nothing_else() {
    let folder = TempDir::new().unwrap();
    let (env, clock) = Env::manual(START, 1);
    let embedded = Embedded::open(folder.path(), env).unwrap();
    let table = embedded.table();
    table.ensure("t").await.unwrap();
    let hour = Duration::from_secs(3600);
    let put = |n, at| Write::put(key(n), "v", Condition::Any).expiring(at);
    table.write_many("t", vec![put(1, START + hour), put(2, START + hour), put(3, START + 30 * hour)]).await.unwrap();
    // Written anew without an expiry: what was noted of the old one must not remove it.
    table.transact("t", vec![Write::put(key(2), "stays", Condition::Present)]).await.unwrap();
    clock.advance(2 * hour);
    embedded.sweep().await.unwrap();
    let left = table.range("t", Range::all("p", 10)).await.unwrap().items;
    assert_eq!(left.iter().map(|i| i.key.clone()).collect::<Vec<_>>(), [key(2), key(3)]);
    let feed = |after: Cursor| {
        let table = table.clone();
        async move { table.feed("t", &after, 100, Duration::ZERO).await.unwrap() }
    };
    assert_eq!(feed(Cursor::default()).await.entries.len(), 4, "changes are kept for a day");

    clock.advance(20 * hour);
    table.transact("t", vec![Write::delete(key(2), Condition::Any)]).await.unwrap();
    clock.advance(3 * hour);
    embedded.sweep().await.unwrap();
    let page = feed(Cursor::default()).await;
    assert_eq!(page.entries.iter().map(|e| (e.key.clone(), e.value.clone())).collect::<Vec<_>>(), [(key(2), None)]);
    drop(table);
    drop(embedded);
    let embedded = Embedded::open(folder.path(), Env::seeded(clock, 2)).unwrap();
    let page = embedded.table().feed("t", &Cursor::default(), 100, Duration::ZERO).await.unwrap();
    assert_eq!(page.entries.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_feed_costs_no_sync_of_its_own() {
    let folder = TempDir::new().unwrap();
    let embedded = Embedded::open(folder.path(), Env::system()).unwrap();
    let table = embedded.table();
    table.ensure("t").await.unwrap();
    let before = embedded.counters();
    for n in 0..50 {
        table.transact("t", vec![Write::put(key(n), "v", Condition::Absent)]).await.unwrap();
    }
    let after = embedded.counters();
    assert_eq!(after.syncs - before.syncs, 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_see_the_writes_of_their_own_group() {
    let folder = TempDir::new().unwrap();
    let embedded = Embedded::open(folder.path(), Env::system()).unwrap();
    let table = embedded.table();
    table.ensure("t").await.unwrap();
    let before = embedded.counters();
    // Two writers for each key come one right after the other, so that most pairs fall into one group.
    let create = |n: u64| {
        let table = table.clone();
        async move { table.transact("t", vec![Write::put(key(n / 2), n.to_string(), Condition::Absent)]).await.is_ok() }
    };
    let won = futures::future::join_all((0..400).map(create)).await;
    assert!(embedded.counters().groups - before.groups < 200, "the writers did not share groups, so this shows nothing");
    for pair in won.chunks(2) {
        assert_eq!(pair, [true, false]);
    }
    let remove = |n: u64| {
        let table = table.clone();
        async move { table.transact("t", vec![Write::delete(key(n / 2), Condition::Present)]).await.is_ok() }
    };
    for pair in futures::future::join_all((0..400).map(remove)).await.chunks(2) {
        assert_eq!(pair, [true, false]);
    }
}
