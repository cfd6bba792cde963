//! Reads of many, ranges, expiry.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tidemill_base::{ErrorKind, Result};
use tidemill_blocks::table::{Condition, Key, Range, Table, Write, read_all, sort_u64};

use super::{key, new_table, put, read_pages, sorts, text, value};
use crate::Harness;
use crate::suites::fails;

/// Stores items under these sort keys.
async fn letters(t: &Arc<dyn Table>, h: &Harness, sorts: &str) -> Result<String> {
    let table = new_table(t, h).await?;
    for sort in sorts.split_terminator("").filter(|s| !s.is_empty()) {
        put(t, &table, sort, sort).await?;
    }
    Ok(table)
}

/// Answers come in the order asked, absent ones and repeated keys included, however many.
pub async fn get_many_keeps_the_order(t: &Arc<dyn Table>, h: &Harness) -> Result<()> {
    let table = letters(t, h, "abc").await?;
    let asked = [key("c"), key("nope"), key("a"), key("c"), Key::new("q", "a"), key("b")];
    let got: Vec<Option<String>> = t.get_many(&table, &asked).await?.into_iter().map(|i| i.map(|i| text(&i.value))).collect();
    let want = [Some("c"), None, Some("a"), Some("c"), None, Some("b")];
    assert_eq!(got, want.map(|w| w.map(str::to_owned)));
    assert!(t.get_many(&table, &[]).await?.is_empty());
    let many: Vec<Key> = (0..300).map(|n| key(if n % 3 == 0 { "a" } else { "nope" })).collect();
    let got = t.get_many(&table, &many).await?;
    assert!(got.len() == 300 && got.iter().enumerate().all(|(n, i)| i.is_some() == (n % 3 == 0)));
    Ok(())
}

/// Sort keys are ordered as bytes, unsigned.
pub async fn ranges_are_in_byte_order(t: &Arc<dyn Table>, h: &Harness) -> Result<()> {
    let table = new_table(t, h).await?;
    let mut keys: Vec<Bytes> = [0, 1, 255, 256, 65_535, u64::MAX].map(sort_u64).to_vec();
    keys.extend([&b""[..], b"a", b"a\0", b"a\0b", b"aa", b"\xff", b"\xff\xff"].map(Bytes::from_static));
    for sort in keys.iter().rev() {
        t.transact(&table, vec![Write::put(Key::new("p", sort.clone()), "v", Condition::Absent)]).await?;
    }
    let got: Vec<Bytes> = read_all(t.as_ref(), &table, Range::all("p", 3)).await?.into_iter().map(|i| i.key.sort).collect();
    keys.sort();
    assert_eq!(got, keys);
    Ok(())
}

/// The lower bound is included, the upper one is not; bounds need not be keys.
pub async fn ranges_keep_their_bounds(t: &Arc<dyn Table>, h: &Harness) -> Result<()> {
    let table = letters(t, h, "bdfh").await?;
    for (from, until, want) in [
        ("", None, "bdfh"),
        ("d", None, "dfh"),
        ("c", None, "dfh"),
        ("d\0", None, "fh"),
        ("i", None, ""),
        ("", Some("f"), "bd"),
        ("", Some("f\0"), "bdf"),
        ("b", Some("h"), "bdf"),
        ("c", Some("e"), "d"),
        ("e", Some("f"), ""),
    ] {
        for limit in [1, 2, 100] {
            for reverse in [false, true] {
                let mut range = Range { limit, reverse, ..Range::all("p", 1) }.from(from);
                range.until = until.map(Bytes::from);
                let (got, _) = read_pages(t, &table, range.clone()).await?;
                let want: String = if reverse { want.chars().rev().collect() } else { want.to_owned() };
                assert_eq!(got.concat(), want, "{range:?}");
            }
        }
    }
    Ok(())
}

/// Backwards the last come first.
pub async fn ranges_backwards(t: &Arc<dyn Table>, h: &Harness) -> Result<()> {
    let table = letters(t, h, "abcde").await?;
    put(t, &table, "", "the empty sort key").await?;
    t.transact(&table, vec![Write::put(Key::new("q", "z"), "later partition", Condition::Any)]).await?;
    let back = Range { reverse: true, ..Range::all("p", 2) };
    let page = t.range(&table, back.clone()).await?;
    assert!(page.next.is_some() && "edcba".starts_with(&sorts(&page.items).concat()), "{page:?}");
    let (got, _) = read_pages(t, &table, back).await?;
    assert_eq!(got, ["e", "d", "c", "b", "a", ""]);
    Ok(())
}

/// Pages hold what was asked at most, join without gap or repetition, and end.
pub async fn ranges_come_in_pages(t: &Arc<dyn Table>, h: &Harness) -> Result<()> {
    let table = new_table(t, h).await?;
    let names: Vec<String> = (0..25).map(|n| format!("{n:02}")).collect();
    t.write_many(&table, names.iter().map(|n| Write::put(key(n.as_str()), n.clone(), Condition::Any)).collect()).await?;
    for limit in [1, 5, 24, 25, 26] {
        let (got, pages) = read_pages(t, &table, Range::all("p", limit)).await?;
        assert_eq!(got, names, "pages of {limit}");
        assert!(pages >= names.len().div_ceil(limit), "{pages} pages of {limit}");
    }
    Ok(())
}

/// A range never leaves its partition, in either direction.
pub async fn ranges_stay_in_their_partition(t: &Arc<dyn Table>, h: &Harness) -> Result<()> {
    let table = new_table(t, h).await?;
    for partition in ["a", "a\0", "aa", "b"] {
        for sort in ["1", "2"] {
            t.transact(&table, vec![Write::put(Key::new(partition, sort), partition, Condition::Any)]).await?;
        }
    }
    for partition in ["a", "a\0", "aa", "b"] {
        for reverse in [false, true] {
            let items = read_all(t.as_ref(), &table, Range { reverse, ..Range::all(partition, 1) }).await?;
            assert!(items.len() == 2 && items.iter().all(|i| i.key.partition == partition), "{partition:?}: {items:?}");
        }
    }
    Ok(())
}

/// A partition without items, and bounds that leave nothing, give an empty end.
pub async fn empty_ranges_are_empty(t: &Arc<dyn Table>, h: &Harness) -> Result<()> {
    let table = letters(t, h, "abc").await?;
    for range in [
        Range::all("nobody", 5),
        Range::all("p", 5).from("d"),
        Range::all("p", 5).from("b").until("b"),
        Range::all("p", 5).from("c").until("a"),
        Range { reverse: true, ..Range::all("p", 5).from("c").until("a") },
    ] {
        assert_eq!(read_pages(t, &table, range.clone()).await?.0, Vec::<String>::new(), "{range:?}");
    }
    Ok(())
}

/// A limit of nothing is `Invalid`.
pub async fn ranges_need_a_limit(t: &Arc<dyn Table>, h: &Harness) -> Result<()> {
    let table = letters(t, h, "a").await?;
    fails(ErrorKind::Invalid, "range", t.range(&table, Range::all("p", 0)).await);
    Ok(())
}

/// What is written behind a reader's page is not read, what is written before it is, and nothing is read twice.
pub async fn pages_go_on_while_items_change(t: &Arc<dyn Table>, h: &Harness) -> Result<()> {
    let table = letters(t, h, "bdfh").await?;
    let first = t.range(&table, Range::all("p", 1)).await?;
    assert_eq!(sorts(&first.items), ["b"]);
    put(t, &table, "a", "behind").await?;
    put(t, &table, "g", "ahead").await?;
    t.transact(&table, vec![Write::delete(key("b"), Condition::Any), Write::delete(key("f"), Condition::Any)]).await?;
    let (rest, _) = read_pages(t, &table, first.next.expect("there is more")).await?;
    assert_eq!(rest, ["d", "g", "h"]);
    Ok(())
}

/// After its time an item is in no answer.
pub async fn expired_items_are_not_returned(t: &Arc<dyn Table>, h: &Harness) -> Result<()> {
    let table = letters(t, h, "ac").await?;
    let at = h.env().now() + Duration::from_secs(2);
    t.transact(&table, vec![Write::put(key("b"), "brief", Condition::Any).expiring(at)]).await?;
    let item = t.get(&table, &key("b")).await?.expect("it has not expired yet");
    let stored = item.expires_at.expect("the expiry is kept");
    assert!(stored >= at && stored <= at + Duration::from_secs(1), "engines round up to seconds at most: {stored} for {at}");
    assert_eq!(read_all(t.as_ref(), &table, Range::all("p", 10)).await?.len(), 3);
    h.pass(Duration::from_secs(3)).await;
    assert_eq!(t.get(&table, &key("b")).await?, None);
    assert!(t.get_many(&table, &[key("a"), key("b")]).await?[1].is_none());
    for reverse in [false, true] {
        for limit in [1, 10] {
            let (got, _) = read_pages(t, &table, Range { reverse, ..Range::all("p", limit) }).await?;
            assert_eq!(got, if reverse { ["c", "a"] } else { ["a", "c"] });
        }
    }
    Ok(())
}

/// To a condition an expired item is not there.
pub async fn expired_items_are_absent_to_conditions(t: &Arc<dyn Table>, h: &Harness) -> Result<()> {
    let table = new_table(t, h).await?;
    let at = h.env().now() + Duration::from_secs(1);
    let version = t.transact(&table, vec![Write::put(key("k"), "brief", Condition::Any).expiring(at)]).await?[0];
    fails(ErrorKind::Conflict, "absent", t.transact(&table, vec![Write::check(key("k"), Condition::Absent)]).await);
    h.pass(Duration::from_secs(2)).await;
    fails(ErrorKind::Conflict, "present", t.transact(&table, vec![Write::check(key("k"), Condition::Present)]).await);
    fails(ErrorKind::Conflict, "version", t.transact(&table, vec![Write::check(key("k"), Condition::Version(version))]).await);
    let new = t.transact(&table, vec![Write::put(key("k"), "new", Condition::Absent)]).await?[0];
    assert!(new > version, "version {new} after {version}");
    assert_eq!(value(t, &table, "k").await?.as_deref(), Some("new"));
    Ok(())
}

/// A later put replaces the expiry, or takes it away.
pub async fn a_new_put_sets_a_new_expiry(t: &Arc<dyn Table>, h: &Harness) -> Result<()> {
    let table = new_table(t, h).await?;
    let soon = h.env().now() + Duration::from_secs(1);
    let brief = |k: &str| Write::put(key(k), "brief", Condition::Any).expiring(soon);
    t.transact(&table, vec![brief("forever"), brief("longer")]).await?;
    put(t, &table, "forever", "kept").await?;
    let later = soon + Duration::from_secs(600);
    t.transact(&table, vec![Write::put(key("longer"), "kept", Condition::Any).expiring(later)]).await?;
    h.pass(Duration::from_secs(2)).await;
    assert_eq!(value(t, &table, "forever").await?.as_deref(), Some("kept"));
    assert_eq!(value(t, &table, "longer").await?.as_deref(), Some("kept"));
    Ok(())
}
