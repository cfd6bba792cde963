//! The change feed.

use std::sync::Arc;
use std::time::Duration;

use tidemill_base::{ErrorKind, Result};
use tidemill_blocks::table::{Condition, Cursor, FeedEntry, Key, Table, Write};
use tidemill_runtime::Stopwatch;

use super::{key, new_table, put, text};
use crate::Harness;
use crate::suites::fails;

const LONGEST: Duration = Duration::from_secs(20);
/// A follower that is woken answers well before this.
const PROMPT: Duration = Duration::from_secs(5);

/// Follows the feed from `after` until `count` entries came or no more come; answers the cursor too.
async fn follow(t: &Arc<dyn Table>, table: &str, after: &Cursor, count: usize) -> Result<(Vec<FeedEntry>, Cursor)> {
    let (mut entries, mut cursor) = (Vec::new(), after.clone());
    while entries.len() < count {
        let page = t.feed(table, &cursor, count - entries.len(), Duration::from_secs(3)).await?;
        cursor = page.next;
        if page.entries.is_empty() {
            break;
        }
        entries.extend(page.entries);
    }
    Ok((entries, cursor))
}

fn told(entries: &[FeedEntry]) -> Vec<(String, Option<String>)> {
    entries.iter().map(|e| (text(&e.key.sort), e.value.as_deref().map(text))).collect()
}

/// Puts, overwrites and removals are told in the order in which they took effect, with value and version.
pub async fn the_feed_has_each_change_in_order(t: &Arc<dyn Table>, h: &Harness) -> Result<()> {
    let table = new_table(t, h).await?;
    let first = put(t, &table, "a", "1").await?;
    put(t, &table, "b", "2").await?;
    let third = put(t, &table, "a", "3").await?;
    t.transact(&table, vec![Write::delete(key("b"), Condition::Any)]).await?;
    t.write_many(&table, vec![Write::put(key("c"), "4", Condition::Any)]).await?;
    let (entries, _) = follow(t, &table, &Cursor::default(), 5).await?;
    let want = [("a", Some("1")), ("b", Some("2")), ("a", Some("3")), ("b", None), ("c", Some("4"))];
    assert_eq!(told(&entries), want.map(|(k, v)| (k.to_owned(), v.map(str::to_owned))));
    assert_eq!((entries[0].version, entries[2].version), (first, third));
    assert_eq!(entries[0].key, key("a"));
    Ok(())
}

/// A cursor goes on after the last entry it was given with, and may be used again.
pub async fn the_feed_resumes_at_its_cursor(t: &Arc<dyn Table>, h: &Harness) -> Result<()> {
    let table = new_table(t, h).await?;
    put(t, &table, "a", "1").await?;
    put(t, &table, "b", "2").await?;
    let (_, after_b) = follow(t, &table, &Cursor::default(), 2).await?;
    put(t, &table, "c", "3").await?;
    let mut end = after_b.clone();
    for _ in 0..2 {
        let (entries, next) = follow(t, &table, &after_b, 1).await?;
        assert_eq!(told(&entries), [("c".to_owned(), Some("3".to_owned()))]);
        end = next;
    }
    let nothing = t.feed(&table, &end, 10, Duration::ZERO).await?;
    assert!(nothing.entries.is_empty(), "{nothing:?}");
    put(t, &table, "d", "4").await?;
    for cursor in [end, nothing.next] {
        let (entries, _) = follow(t, &table, &cursor, 1).await?;
        assert_eq!(told(&entries), [("d".to_owned(), Some("4".to_owned()))], "the cursor of an empty answer goes on too");
    }
    Ok(())
}

/// `feed_end` leaves out what was written before it and nothing that is written after.
pub async fn the_feed_end_is_after_everything(t: &Arc<dyn Table>, h: &Harness) -> Result<()> {
    let table = new_table(t, h).await?;
    let empty = t.feed_end(&table).await?;
    put(t, &table, "a", "1").await?;
    let end = t.feed_end(&table).await?;
    assert!(t.feed(&table, &end, 10, Duration::ZERO).await?.entries.is_empty());
    put(t, &table, "b", "2").await?;
    assert_eq!(told(&follow(t, &table, &end, 1).await?.0), [("b".to_owned(), Some("2".to_owned()))]);
    assert_eq!(follow(t, &table, &empty, 2).await?.0.len(), 2);
    Ok(())
}

/// A page has `max` entries at most; pages join without gap or repetition.
pub async fn the_feed_comes_in_pages(t: &Arc<dyn Table>, h: &Harness) -> Result<()> {
    let table = new_table(t, h).await?;
    for n in 0..23 {
        put(t, &table, &format!("{n:02}"), "x").await?;
    }
    let (mut got, mut cursor) = (Vec::new(), Cursor::default());
    while got.len() < 23 {
        let page = t.feed(&table, &cursor, 5, LONGEST).await?;
        assert!((1..=5).contains(&page.entries.len()), "a page of {}", page.entries.len());
        got.extend(page.entries.iter().map(|e| text(&e.key.sort)));
        cursor = page.next;
    }
    assert_eq!(got, (0..23).map(|n| format!("{n:02}")).collect::<Vec<_>>());
    Ok(())
}

/// A change reaches a waiting follower at once.
pub async fn the_feed_waits_for_a_change(t: &Arc<dyn Table>, h: &Harness) -> Result<()> {
    let table = new_table(t, h).await?;
    let end = t.feed_end(&table).await?;
    let started = Stopwatch::start();
    let change = async {
        h.pass(Duration::from_secs(1)).await;
        put(t, &table, "k", "v").await
    };
    let (page, changed) = futures::join!(t.feed(&table, &end, 10, LONGEST), change);
    changed?;
    assert_eq!(page?.entries.len(), 1);
    assert!(started.elapsed() < PROMPT, "the follower was woken only after {:?}", started.elapsed());
    Ok(())
}

/// A wait without a change takes its time and answers nothing; a change in another table does not end it.
pub async fn the_feed_wait_ends_without_a_change(t: &Arc<dyn Table>, h: &Harness) -> Result<()> {
    let (table, other) = (new_table(t, h).await?, new_table(t, h).await?);
    let end = t.feed_end(&table).await?;
    let started = Stopwatch::start();
    let change = async {
        h.pass(Duration::from_millis(500)).await;
        put(t, &other, "k", "v").await
    };
    let (page, changed) = futures::join!(t.feed(&table, &end, 10, Duration::from_secs(2)), change);
    changed?;
    let took = started.elapsed();
    assert!(page?.entries.is_empty());
    assert!(took >= Duration::from_millis(1900) && took < PROMPT, "waited {took:?} of 2 s");
    Ok(())
}

/// What was refused, and what was only checked, is not told.
pub async fn refused_writes_are_not_in_the_feed(t: &Arc<dyn Table>, h: &Harness) -> Result<()> {
    let table = new_table(t, h).await?;
    let refused = vec![Write::put(key("a"), "x", Condition::Any), Write::check(key("b"), Condition::Present)];
    fails(ErrorKind::Conflict, "transact", t.transact(&table, refused).await);
    t.transact(&table, vec![Write::check(key("b"), Condition::Absent)]).await?;
    put(t, &table, "c", "told").await?;
    assert_eq!(told(&follow(t, &table, &Cursor::default(), 1).await?.0), [("c".to_owned(), Some("told".to_owned()))]);
    Ok(())
}

/// A follower that reads while many write misses nothing, and sees each partition's versions of a key grow.
pub async fn the_feed_of_a_busy_partition_is_whole(t: &Arc<dyn Table>, h: &Harness) -> Result<()> {
    const WRITERS: usize = 4;
    const EACH: usize = 40;
    let table = new_table(t, h).await?;
    let call = |n: usize| {
        let (t, table) = (t.clone(), table.clone());
        async move {
            if n == WRITERS {
                return follow(&t, &table, &Cursor::default(), WRITERS * EACH).await.map(|(entries, _)| entries);
            }
            for m in 0..EACH {
                let at = Key::new(format!("p{}", n % 2), format!("{}", n % 2));
                t.transact(&table, vec![Write::put(at, format!("{n}/{m}"), Condition::Any)]).await?;
            }
            Ok(Vec::new())
        }
    };
    let answers: Vec<Vec<FeedEntry>> = h.all_at_once(WRITERS + 1, call).await.into_iter().collect::<Result<_>>()?;
    let told = &answers[WRITERS];
    assert_eq!(told.len(), WRITERS * EACH);
    for partition in ["p0", "p1"] {
        let versions: Vec<u64> = told.iter().filter(|e| e.key.partition == partition).map(|e| e.version).collect();
        assert!(versions.is_sorted_by(|a, b| a < b), "{partition}: {versions:?}");
    }
    for n in 0..WRITERS {
        let mine: Vec<String> =
            told.iter().filter_map(|e| e.value.as_deref().map(text)).filter(|v| v.starts_with(&format!("{n}/"))).collect();
        assert_eq!(mine, (0..EACH).map(|m| format!("{n}/{m}")).collect::<Vec<_>>(), "writer {n}'s order");
    }
    Ok(())
}

/// A cursor that no feed gave is `Invalid`.
pub async fn foreign_cursors_are_refused(t: &Arc<dyn Table>, h: &Harness) -> Result<()> {
    let table = new_table(t, h).await?;
    put(t, &table, "a", "1").await?;
    fails(ErrorKind::Invalid, "feed", t.feed(&table, &Cursor("no such place".into()), 10, Duration::ZERO).await);
    Ok(())
}
