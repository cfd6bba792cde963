//! Names, conditions, versions, transactions.

use std::sync::Arc;

use bytes::Bytes;
use tidemill_base::{ErrorKind, Result};
use tidemill_blocks::table::{Condition, Cursor, Key, MAX_KEY_BYTES, MAX_TRANSACTION, MAX_VALUE_BYTES, Range, Table, Write, read_all};

use super::{key, new_table, put, text, value};
use crate::Harness;
use crate::suites::fails;

/// Names have 1 to 80 characters of `a-z 0-9 - _ .`; others are `Invalid`.
pub async fn table_names_are_checked(t: &Arc<dyn Table>, h: &Harness) -> Result<()> {
    for bad in ["", "Upper", "with space", "a/b", "ü", "a\0b", &"x".repeat(81)] {
        fails(ErrorKind::Invalid, bad, t.ensure(bad).await);
        fails(ErrorKind::Invalid, bad, t.get(bad, &key("a")).await);
    }
    let longest = format!("{:x<80}", h.name("a.b-c_9"));
    t.ensure(&longest).await?;
    put(t, &longest, "a", "1").await?;
    assert_eq!(value(t, &longest, "a").await?.as_deref(), Some("1"));
    Ok(())
}

/// Every call on a table that was not made is `NotFound`.
pub async fn unknown_tables_are_not_found(t: &Arc<dyn Table>, h: &Harness) -> Result<()> {
    let no = &h.name("no");
    let write = || vec![Write::put(key("a"), "x", Condition::Any)];
    fails(ErrorKind::NotFound, "get", t.get(no, &key("a")).await);
    fails(ErrorKind::NotFound, "get_many", t.get_many(no, &[key("a")]).await);
    fails(ErrorKind::NotFound, "transact", t.transact(no, write()).await);
    fails(ErrorKind::NotFound, "write_many", t.write_many(no, write()).await);
    fails(ErrorKind::NotFound, "range", t.range(no, Range::all("p", 1)).await);
    fails(ErrorKind::NotFound, "feed_end", t.feed_end(no).await);
    fails(ErrorKind::NotFound, "feed", t.feed(no, &Cursor::default(), 1, std::time::Duration::ZERO).await);
    Ok(())
}

/// The same key in two tables is two items.
pub async fn tables_are_separate(t: &Arc<dyn Table>, h: &Harness) -> Result<()> {
    let (a, b) = (new_table(t, h).await?, new_table(t, h).await?);
    put(t, &a, "k", "in a").await?;
    assert_eq!(value(t, &b, "k").await?, None);
    put(t, &b, "k", "in b").await?;
    assert_eq!(value(t, &a, "k").await?.as_deref(), Some("in a"));
    assert_eq!(read_all(t.as_ref(), &b, Range::all("p", 10)).await?.len(), 1);
    Ok(())
}

/// `ensure` of a table that is there does nothing.
pub async fn ensure_keeps_what_is_there(t: &Arc<dyn Table>, h: &Harness) -> Result<()> {
    let table = new_table(t, h).await?;
    let version = put(t, &table, "k", "v").await?;
    t.ensure(&table).await?;
    assert_eq!(t.get(&table, &key("k")).await?.map(|i| i.version), Some(version));
    Ok(())
}

/// What was stored is read as it was, until it is removed; removing it again is no error.
pub async fn put_get_delete(t: &Arc<dyn Table>, h: &Harness) -> Result<()> {
    let (table, k) = (new_table(t, h).await?, key("k"));
    assert_eq!(t.get(&table, &k).await?, None);
    let body = Bytes::from_static(b"\0\xff not text");
    let version = t.transact(&table, vec![Write::put(k.clone(), body.clone(), Condition::Any)]).await?[0];
    let item = t.get(&table, &k).await?.expect("it was stored");
    assert_eq!((&item.key, &item.value, item.version, item.expires_at), (&k, &body, version, None));
    put(t, &table, "k", "").await?;
    assert_eq!(value(t, &table, "k").await?.as_deref(), Some(""), "an empty value is a value");
    for _ in 0..2 {
        assert_eq!(t.transact(&table, vec![Write::delete(k.clone(), Condition::Any)]).await?, [0]);
        assert_eq!(t.get(&table, &k).await?, None);
    }
    assert!(t.transact(&table, vec![]).await?.is_empty());
    Ok(())
}

/// Puts, deletes and checks of `k` under `condition`; whether each is done, with `k` as `make` leaves it.
async fn tries(t: &Arc<dyn Table>, table: &str, value: Option<&str>, condition: impl Fn(u64) -> Condition) -> Result<Vec<bool>> {
    let mut done = Vec::new();
    for what in 0..3 {
        let version = match value {
            Some(v) => put(t, table, "k", v).await?,
            None => t.transact(table, vec![Write::delete(key("k"), Condition::Any)]).await?[0],
        };
        let condition = condition(version);
        let write = match what {
            0 => Write::put(key("k"), "new", condition),
            1 => Write::delete(key("k"), condition),
            _ => Write::check(key("k"), condition),
        };
        let answer = t.transact(table, vec![write]).await;
        let now = t.get(table, &key("k")).await?.map(|i| text(&i.value));
        done.push(answer.is_ok());
        let want = match (answer, what) {
            (Ok(_), 0) => Some("new"),
            (Ok(_), 1) => None,
            (Ok(_), _) => value,
            (Err(e), _) => {
                assert_eq!(e.kind(), ErrorKind::Conflict, "{e:?}");
                value
            }
        };
        assert_eq!(now.as_deref(), want, "write {what} under {condition:?} on {value:?}");
    }
    Ok(done)
}

/// `Any` holds with and without an item.
pub async fn any_condition_always_holds(t: &Arc<dyn Table>, h: &Harness) -> Result<()> {
    let table = new_table(t, h).await?;
    assert_eq!(tries(t, &table, None, |_| Condition::Any).await?, [true; 3]);
    assert_eq!(tries(t, &table, Some("old"), |_| Condition::Any).await?, [true; 3]);
    Ok(())
}

/// `Absent` holds without an item only.
pub async fn absent_holds_only_without_an_item(t: &Arc<dyn Table>, h: &Harness) -> Result<()> {
    let table = new_table(t, h).await?;
    assert_eq!(tries(t, &table, None, |_| Condition::Absent).await?, [true; 3]);
    assert_eq!(tries(t, &table, Some("old"), |_| Condition::Absent).await?, [false; 3]);
    Ok(())
}

/// `Present` holds with an item only.
pub async fn present_holds_only_with_an_item(t: &Arc<dyn Table>, h: &Harness) -> Result<()> {
    let table = new_table(t, h).await?;
    assert_eq!(tries(t, &table, None, |_| Condition::Present).await?, [false; 3]);
    assert_eq!(tries(t, &table, Some("old"), |_| Condition::Present).await?, [true; 3]);
    Ok(())
}

/// `Version` holds for the newest version only, and never without an item.
pub async fn version_holds_only_for_the_newest(t: &Arc<dyn Table>, h: &Harness) -> Result<()> {
    let table = new_table(t, h).await?;
    let first = put(t, &table, "k", "first").await?;
    assert_eq!(tries(t, &table, Some("old"), Condition::Version).await?, [true; 3]);
    assert_eq!(tries(t, &table, Some("old"), |_| Condition::Version(first)).await?, [false; 3]);
    assert_eq!(tries(t, &table, Some("old"), |v| Condition::Version(v + 1)).await?, [false; 3]);
    assert_eq!(tries(t, &table, None, |_| Condition::Version(first)).await?, [false; 3]);
    assert_eq!(tries(t, &table, None, |_| Condition::Version(0)).await?, [false; 3]);
    Ok(())
}

/// A check leaves value and version as they are.
pub async fn check_changes_nothing(t: &Arc<dyn Table>, h: &Harness) -> Result<()> {
    let table = new_table(t, h).await?;
    put(t, &table, "k", "v").await?;
    let before = t.get(&table, &key("k")).await?;
    let writes = vec![Write::check(key("k"), Condition::Present), Write::check(key("none"), Condition::Absent)];
    assert_eq!(t.transact(&table, writes).await?, [0, 0]);
    assert_eq!(t.get(&table, &key("k")).await?, before);
    assert_eq!(t.get(&table, &key("none")).await?, None);
    Ok(())
}

/// Every write of a key has a greater version, removal in between or not.
pub async fn versions_grow_even_after_a_delete(t: &Arc<dyn Table>, h: &Harness) -> Result<()> {
    let table = new_table(t, h).await?;
    let mut last = 0;
    for round in 0..6 {
        let version = put(t, &table, "k", "v").await?;
        assert!(version > last, "round {round}: version {version} after {last}");
        assert_eq!(t.get(&table, &key("k")).await?.map(|i| i.version), Some(version));
        last = version;
        if round % 2 == 1 {
            t.transact(&table, vec![Write::delete(key("k"), Condition::Version(version))]).await?;
        }
    }
    Ok(())
}

/// One condition that does not hold undoes the whole transaction, wherever it stands.
pub async fn transactions_are_all_or_nothing(t: &Arc<dyn Table>, h: &Harness) -> Result<()> {
    let table = new_table(t, h).await?;
    put(t, &table, "kept", "old").await?;
    put(t, &table, "there", "old").await?;
    let good = [
        Write::put(key("kept"), "new", Condition::Present),
        Write::put(key("fresh"), "new", Condition::Absent),
        Write::delete(key("there"), Condition::Present),
    ];
    for at in 0..=good.len() {
        let mut writes = good.to_vec();
        writes.insert(at, Write::check(key("missing"), Condition::Present));
        fails(ErrorKind::Conflict, "transact", t.transact(&table, writes).await);
        assert_eq!(value(t, &table, "kept").await?.as_deref(), Some("old"));
        assert_eq!(value(t, &table, "fresh").await?, None);
        assert_eq!(value(t, &table, "there").await?.as_deref(), Some("old"));
    }
    // Writes to several partitions are one transaction as well.
    let mut writes = good.to_vec();
    writes.push(Write::put(Key::new("another", "k"), "new", Condition::Absent));
    t.transact(&table, writes).await?;
    assert_eq!(value(t, &table, "kept").await?.as_deref(), Some("new"));
    assert_eq!(value(t, &table, "fresh").await?.as_deref(), Some("new"));
    assert_eq!(value(t, &table, "there").await?, None);
    assert!(t.get(&table, &Key::new("another", "k")).await?.is_some());
    Ok(())
}

/// The answer has a version per put and 0 for deletes and checks, in order.
pub async fn transactions_answer_versions_in_order(t: &Arc<dyn Table>, h: &Harness) -> Result<()> {
    let table = new_table(t, h).await?;
    put(t, &table, "gone", "x").await?;
    let writes = vec![
        Write::put(key("b"), "1", Condition::Any),
        Write::delete(key("gone"), Condition::Any),
        Write::put(key("a"), "2", Condition::Any),
        Write::check(key("none"), Condition::Absent),
    ];
    let versions = t.transact(&table, writes).await?;
    assert_eq!((versions.len(), versions[1], versions[3]), (4, 0, 0));
    for (sort, at) in [("b", 0), ("a", 2)] {
        assert!(versions[at] >= 1);
        assert_eq!(t.get(&table, &key(sort)).await?.map(|i| i.version), Some(versions[at]));
    }
    Ok(())
}

/// Two writes to one key in a transaction are `Invalid`, whatever they do.
pub async fn transactions_need_distinct_keys(t: &Arc<dyn Table>, h: &Harness) -> Result<()> {
    let table = new_table(t, h).await?;
    let put_k = Write::put(key("k"), "1", Condition::Any);
    for second in [put_k.clone(), Write::delete(key("k"), Condition::Any), Write::check(key("k"), Condition::Absent)] {
        let writes = vec![put_k.clone(), Write::put(key("other"), "x", Condition::Any), second];
        fails(ErrorKind::Invalid, "transact", t.transact(&table, writes).await);
    }
    assert_eq!((value(t, &table, "k").await?, value(t, &table, "other").await?), (None, None));
    Ok(())
}

/// A transaction of the limit passes; one more write is `Invalid` and nothing happens.
pub async fn transactions_up_to_the_limit(t: &Arc<dyn Table>, h: &Harness) -> Result<()> {
    let table = new_table(t, h).await?;
    let writes = |n: usize| (0..n).map(|i| Write::put(key(format!("{i:04}")), "x", Condition::Absent)).collect::<Vec<_>>();
    fails(ErrorKind::Invalid, "transact", t.transact(&table, writes(MAX_TRANSACTION + 1)).await);
    assert_eq!(read_all(t.as_ref(), &table, Range::all("p", 100)).await?.len(), 0);
    assert_eq!(t.transact(&table, writes(MAX_TRANSACTION)).await?.len(), MAX_TRANSACTION);
    assert_eq!(read_all(t.as_ref(), &table, Range::all("p", 7)).await?.len(), MAX_TRANSACTION);
    Ok(())
}

/// A value of the limit passes whole; a longer one is `Invalid`.
pub async fn values_up_to_the_limit(t: &Arc<dyn Table>, h: &Harness) -> Result<()> {
    let table = new_table(t, h).await?;
    let largest: Bytes = (0..MAX_VALUE_BYTES).map(|n| (n % 251) as u8).collect();
    t.transact(&table, vec![Write::put(key("k"), largest.clone(), Condition::Any)]).await?;
    let over = || vec![Write::put(key("k"), vec![0; MAX_VALUE_BYTES + 1], Condition::Any)];
    fails(ErrorKind::Invalid, "transact", t.transact(&table, over()).await);
    fails(ErrorKind::Invalid, "write_many", t.write_many(&table, over()).await);
    let item = t.get(&table, &key("k")).await?.expect("it was stored");
    assert!(item.value == largest, "the largest value comes back as it was stored");
    Ok(())
}

/// Keys of the limit pass; longer ones, and an empty partition, are `Invalid` in every call. An empty sort key is a key.
pub async fn keys_up_to_the_limit(t: &Arc<dyn Table>, h: &Harness) -> Result<()> {
    let table = new_table(t, h).await?;
    let (long, too_long) = ("x".repeat(MAX_KEY_BYTES), "x".repeat(MAX_KEY_BYTES + 1));
    for good in [Key::new(long.clone(), long.clone()), Key::new("p", ""), Key::new("p", vec![255; MAX_KEY_BYTES])] {
        t.transact(&table, vec![Write::put(good.clone(), "v", Condition::Absent)]).await?;
        assert_eq!(t.get(&table, &good).await?.map(|i| i.key), Some(good));
    }
    assert_eq!(read_all(t.as_ref(), &table, Range::all("p", 1)).await?.len(), 2, "reading on after the longest key works");
    for bad in [Key::new("", "s"), Key::new(too_long.clone(), "s"), Key::new("p", too_long)] {
        let write = || vec![Write::put(bad.clone(), "v", Condition::Any)];
        fails(ErrorKind::Invalid, "transact", t.transact(&table, write()).await);
        fails(ErrorKind::Invalid, "write_many", t.write_many(&table, write()).await);
        fails(ErrorKind::Invalid, "get", t.get(&table, &bad).await);
        fails(ErrorKind::Invalid, "get_many", t.get_many(&table, &[key("ok"), bad.clone()]).await);
    }
    Ok(())
}

/// Keys that look alike when glued together, or hold separators, are different keys.
pub async fn odd_keys_are_kept_apart(t: &Arc<dyn Table>, h: &Harness) -> Result<()> {
    let table = new_table(t, h).await?;
    let pairs: &[(&str, &[u8])] = &[
        ("a", b"bc"),
        ("ab", b"c"),
        ("abc", b""),
        ("a\0", b"b"),
        ("a", b"\0b"),
        ("a\0b", b""),
        ("a/", b"b"),
        ("a", b"/b"),
        ("\u{1F30A}", b"\xff\xfe"),
        ("p\u{ff}", b"\0\0"),
        ("..", b"../x"),
    ];
    for (n, (partition, sort)) in pairs.iter().enumerate() {
        let write = Write::put(Key::new(*partition, Bytes::from_static(sort)), n.to_string(), Condition::Absent);
        t.transact(&table, vec![write]).await?;
    }
    for (n, (partition, sort)) in pairs.iter().enumerate() {
        let item = t.get(&table, &Key::new(*partition, Bytes::from_static(sort))).await?.expect("it was stored");
        assert_eq!(text(&item.value), n.to_string(), "{partition:?} {sort:?}");
        let count = pairs.iter().filter(|(p, _)| p == partition).count();
        assert_eq!(read_all(t.as_ref(), &table, Range::all(*partition, 2)).await?.len(), count, "{partition:?}");
    }
    Ok(())
}

/// Of many that create the same item at once just one succeeds; the others get `Conflict`.
pub async fn one_of_many_writers_wins(t: &Arc<dyn Table>, h: &Harness) -> Result<()> {
    let table = new_table(t, h).await?;
    for round in 0..5 {
        let k = key(format!("k{round}"));
        let call = |n: usize| {
            let (t, table, k) = (t.clone(), table.clone(), k.clone());
            async move { t.transact(&table, vec![Write::put(k, n.to_string(), Condition::Absent)]).await }
        };
        let answers = h.all_at_once(16, call).await;
        let winners: Vec<usize> = answers.iter().enumerate().filter(|(_, a)| a.is_ok()).map(|(n, _)| n).collect();
        assert_eq!(winners.len(), 1, "winners of round {round}: {winners:?}");
        assert!(answers.iter().flat_map(|a| a.as_ref().err()).all(|e| e.kind() == ErrorKind::Conflict), "{answers:?}");
        let item = t.get(&table, &k).await?.expect("it was stored");
        assert_eq!(text(&item.value), winners[0].to_string());
    }
    Ok(())
}

/// Counters raised by read and conditional write end at the number of successes.
pub async fn concurrent_counters_lose_nothing(t: &Arc<dyn Table>, h: &Harness) -> Result<()> {
    const CALLERS: usize = 8;
    const EACH: usize = 10;
    let table = new_table(t, h).await?;
    put(t, &table, "n", "0").await?;
    let call = |_| {
        let (t, table) = (t.clone(), table.clone());
        async move {
            let mut done = 0;
            while done < EACH {
                let item = t.get(&table, &key("n")).await?.expect("the counter is there");
                let next = text(&item.value).parse::<u64>().expect("the counter is a number") + 1;
                match t.transact(&table, vec![Write::put(key("n"), next.to_string(), Condition::Version(item.version))]).await {
                    Ok(_) => done += 1,
                    Err(e) => assert_eq!(e.kind(), ErrorKind::Conflict, "{e:?}"),
                }
            }
            Ok(())
        }
    };
    h.all_at_once(CALLERS, call).await.into_iter().collect::<Result<()>>()?;
    assert_eq!(value(t, &table, "n").await?, Some((CALLERS * EACH).to_string()));
    Ok(())
}

/// Amounts moved between two items by transactions keep their sum, and a reader of one transaction's writes sees all of them.
pub async fn concurrent_transactions_move_whole_amounts(t: &Arc<dyn Table>, h: &Harness) -> Result<()> {
    let table = new_table(t, h).await?;
    put(t, &table, "a", "100").await?;
    put(t, &table, "b", "100").await?;
    let call = |n: usize| {
        let (t, table) = (t.clone(), table.clone());
        async move {
            for _ in 0..10 {
                let items = t.get_many(&table, &[key("a"), key("b")]).await?;
                let [Some(a), Some(b)] = &items[..] else { panic!("both are there") };
                let amount = |v: &[u8]| text(v).parse::<i64>().expect("a number");
                let by = i64::try_from(n).expect("small") + 1;
                let writes = vec![
                    Write::put(key("a"), (amount(&a.value) - by).to_string(), Condition::Version(a.version)),
                    Write::put(key("b"), (amount(&b.value) + by).to_string(), Condition::Version(b.version)),
                ];
                if let Err(e) = t.transact(&table, writes).await {
                    assert_eq!(e.kind(), ErrorKind::Conflict, "{e:?}");
                }
            }
            Ok(())
        }
    };
    h.all_at_once(6, call).await.into_iter().collect::<Result<()>>()?;
    let items = read_all(t.as_ref(), &table, Range::all("p", 10)).await?;
    let sum: i64 = items.iter().map(|i| text(&i.value).parse::<i64>().expect("a number")).sum();
    assert_eq!(sum, 200);
    Ok(())
}

/// `write_many` takes more than a transaction, over many partitions, puts and deletes.
pub async fn write_many_takes_any_number(t: &Arc<dyn Table>, h: &Harness) -> Result<()> {
    let table = new_table(t, h).await?;
    let at = |i: usize| Key::new(format!("p{}", i % 7), format!("{i:04}"));
    t.write_many(&table, (0..1000).map(|i| Write::put(at(i), i.to_string(), Condition::Any)).collect()).await?;
    t.write_many(&table, (0..1000).step_by(2).map(|i| Write::delete(at(i), Condition::Any)).collect()).await?;
    t.write_many(&table, vec![]).await?;
    let keys: Vec<Key> = (0..1000).map(at).collect();
    for (i, item) in t.get_many(&table, &keys).await?.iter().enumerate() {
        assert_eq!(item.as_ref().map(|i| text(&i.value)), (i % 2 == 1).then(|| i.to_string()), "item {i}");
    }
    Ok(())
}

/// Sending the same writes again leaves the same values; versions grow.
pub async fn write_many_may_be_repeated(t: &Arc<dyn Table>, h: &Harness) -> Result<()> {
    let table = new_table(t, h).await?;
    let writes: Vec<Write> = (0..150).map(|i| Write::put(key(format!("{i:04}")), i.to_string(), Condition::Any)).collect();
    t.write_many(&table, writes.clone()).await?;
    let before = read_all(t.as_ref(), &table, Range::all("p", 100)).await?;
    t.write_many(&table, writes).await?;
    let after = read_all(t.as_ref(), &table, Range::all("p", 100)).await?;
    assert_eq!((before.len(), after.len()), (150, 150));
    assert!(before.iter().zip(&after).all(|(b, a)| b.key == a.key && b.value == a.value && b.version < a.version));
    Ok(())
}

/// Conditions and checks have no place in `write_many`; they are `Invalid` and nothing happens.
pub async fn write_many_is_unconditional(t: &Arc<dyn Table>, h: &Harness) -> Result<()> {
    let table = new_table(t, h).await?;
    for bad in [Write::put(key("k"), "x", Condition::Absent), Write::check(key("k"), Condition::Any)] {
        fails(ErrorKind::Invalid, "write_many", t.write_many(&table, vec![Write::put(key("a"), "x", Condition::Any), bad]).await);
    }
    assert_eq!((value(t, &table, "a").await?, value(t, &table, "k").await?), (None, None));
    Ok(())
}
