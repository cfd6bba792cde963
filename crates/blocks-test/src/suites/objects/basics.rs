//! Single objects: put, get, create, copy, delete, names.

use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{Attribute, Attributes, Error, GetOptions, GetRange, ObjectStoreExt, PutOptions};
use tidemill_base::{ErrorKind, Result};
use tidemill_blocks::objects::{Objects, delete, error, get, get_opt, put, put_new};

use super::{at, below, bytes, fill, list};
use crate::Harness;
use crate::suites::fails;

/// What was stored is read as it was, and described rightly.
pub async fn put_get_head(o: &Objects, h: &Harness) -> Result<()> {
    let path = at(&h.name("b"), "dir/object");
    let before = h.env().now();
    put(o.as_ref(), &path, Bytes::from_static(b"\0\xff not text")).await?;
    assert_eq!(get(o.as_ref(), &path).await?, &b"\0\xff not text"[..]);
    let head = o.head(&path).await.map_err(|e| error("head", &path, e))?;
    assert_eq!((&head.location, head.size), (&path, 11));
    let got = o.get(&path).await.map_err(|e| error("get", &path, e))?;
    assert_eq!((&got.meta, got.range.clone()), (&head, 0..11));
    let modified = tidemill_base::Timestamp::from_millis(head.last_modified.timestamp_millis());
    // On simulated time the upstream memory store still looks at the real clock.
    assert!(modified + Duration::from_secs(60) > before, "last modified {modified}");
    Ok(())
}

/// Reading, describing or copying what is not there is `NotFound`.
pub async fn missing_objects_are_not_found(o: &Objects, h: &Harness) -> Result<()> {
    let base = fill(o, h, &["there/object"]).await?;
    for missing in ["missing", "there", "there/object/below", "ther"] {
        let path = at(&base, missing);
        fails(ErrorKind::NotFound, missing, get(o.as_ref(), &path).await);
        assert_eq!(get_opt(o.as_ref(), &path).await?, None);
        assert!(matches!(o.head(&path).await, Err(Error::NotFound { .. })), "head of {missing}");
        assert!(matches!(o.get_range(&path, 0..1).await, Err(Error::NotFound { .. })), "range of {missing}");
        assert!(matches!(o.copy(&path, &at(&base, "copy")).await, Err(Error::NotFound { .. })), "copy of {missing}");
    }
    assert_eq!(get_opt(o.as_ref(), &at(&base, "copy")).await?, None);
    Ok(())
}

/// A second put replaces the object, however long the first was.
pub async fn a_put_replaces_whole_objects(o: &Objects, h: &Harness) -> Result<()> {
    let path = at(&h.name("b"), "object");
    for len in [10, 100_000, 3, 0, 5] {
        let body = bytes(len, len as u64);
        put(o.as_ref(), &path, body.clone()).await?;
        assert!(get(o.as_ref(), &path).await? == body, "{len} bytes");
        assert_eq!(o.head(&path).await.map_err(|e| error("head", &path, e))?.size, len as u64);
    }
    Ok(())
}

/// An object of no bytes is there, and listed.
pub async fn empty_objects_are_objects(o: &Objects, h: &Harness) -> Result<()> {
    let base = h.name("b");
    let path = at(&base, "empty");
    put(o.as_ref(), &path, Bytes::new()).await?;
    assert_eq!(get_opt(o.as_ref(), &path).await?, Some(Bytes::new()));
    assert!(!put_new(o.as_ref(), &path, Bytes::from_static(b"x")).await?, "it is there");
    let listed = list(o.as_ref(), &Path::from(base.clone())).await?;
    assert_eq!((below(&base, &listed), listed[0].size), (vec!["empty".to_owned()], 0));
    Ok(())
}

/// 5 MiB in one put come back, whole, as a stream, and in part.
pub async fn large_objects_come_back(o: &Objects, h: &Harness) -> Result<()> {
    let (path, body) = (at(&h.name("b"), "large"), bytes(5 << 20, 5));
    put(o.as_ref(), &path, body.clone()).await?;
    assert!(get(o.as_ref(), &path).await? == body);
    let chunks: Vec<Bytes> = async { o.get(&path).await?.into_stream().try_collect().await }.await.map_err(|e| error("read", &path, e))?;
    assert!(chunks.concat() == body, "the stream's chunks are the object");
    let part = o.get_range(&path, 3_000_000..3_000_500).await.map_err(|e| error("read", &path, e))?;
    assert!(part == body[3_000_000..3_000_500]);
    Ok(())
}

/// Create-if-absent leaves an object alone; after a delete it works again.
pub async fn create_keeps_what_is_there(o: &Objects, h: &Harness) -> Result<()> {
    let path = at(&h.name("b"), "dir/object");
    assert!(put_new(o.as_ref(), &path, Bytes::from_static(b"first")).await?);
    assert!(!put_new(o.as_ref(), &path, Bytes::from_static(b"second")).await?);
    assert_eq!(get(o.as_ref(), &path).await?, "first");
    delete(o.as_ref(), &path).await?;
    assert!(put_new(o.as_ref(), &path, Bytes::from_static(b"third")).await?);
    assert_eq!(get(o.as_ref(), &path).await?, "third");
    Ok(())
}

/// Of many that create the same object at once just one succeeds, and its bytes stay.
pub async fn one_of_many_creators_wins(o: &Objects, h: &Harness) -> Result<()> {
    let base = h.name("b");
    for round in 0..5 {
        let path = at(&base, &format!("object{round}"));
        let call = |n: usize| {
            let (o, path) = (o.clone(), path.clone());
            async move { put_new(o.as_ref(), &path, bytes(10_000, n as u64)).await }
        };
        let answers: Vec<bool> = h.all_at_once(12, call).await.into_iter().collect::<Result<_>>()?;
        let winners: Vec<usize> = (0..answers.len()).filter(|n| answers[*n]).collect();
        assert_eq!(winners.len(), 1, "winners of round {round}: {winners:?}");
        assert!(get(o.as_ref(), &path).await? == bytes(10_000, winners[0] as u64));
    }
    Ok(())
}

/// Readers beside many writers always see one writer's whole object.
pub async fn concurrent_puts_leave_one_whole(o: &Objects, h: &Harness) -> Result<()> {
    const LEN: usize = 200_000;
    let path = at(&h.name("b"), "object");
    put(o.as_ref(), &path, vec![0_u8; LEN]).await?;
    let call = |n: usize| {
        let (o, path) = (o.clone(), path.clone());
        async move {
            for _ in 0..10 {
                if n < 4 {
                    put(o.as_ref(), &path, vec![u8::try_from(n).expect("small"); LEN]).await?;
                } else {
                    let seen = get(o.as_ref(), &path).await?;
                    assert!(seen.len() == LEN && seen.iter().all(|b| *b == seen[0]), "a torn object of {} bytes", seen.len());
                }
            }
            Ok(())
        }
    };
    h.all_at_once(8, call).await.into_iter().collect()
}

/// Content type and user metadata come back, and go with the next put.
pub async fn attributes_are_kept(o: &Objects, h: &Harness) -> Result<()> {
    let path = at(&h.name("b"), "object");
    let mut attributes = Attributes::new();
    attributes.insert(Attribute::ContentType, "text/csv; charset=utf-8".into());
    attributes.insert(Attribute::Metadata("tidemill-checksum".into()), "abc=123".into());
    let options = PutOptions { attributes: attributes.clone(), ..PutOptions::default() };
    o.put_opts(&path, "a,b".into(), options).await.map_err(|e| error("put", &path, e))?;
    let got = o.get(&path).await.map_err(|e| error("get", &path, e))?.attributes;
    assert_eq!(got, attributes);
    let copy = at(&h.name("b"), "copy");
    o.copy(&path, &copy).await.map_err(|e| error("copy", &path, e))?;
    assert_eq!(o.get(&copy).await.map_err(|e| error("get", &copy, e))?.attributes, attributes, "a copy keeps them");
    put(o.as_ref(), &path, Bytes::from_static(b"new")).await?;
    let got = o.get(&path).await.map_err(|e| error("get", &path, e))?.attributes;
    assert!(got.get(&Attribute::Metadata("tidemill-checksum".into())).is_none(), "they belonged to the old object");
    Ok(())
}

/// Parts by bounds, from an offset, and from the end; what reaches past the end is cut there.
pub async fn ranges_of_an_object(o: &Objects, h: &Harness) -> Result<()> {
    let path = at(&h.name("b"), "object");
    put(o.as_ref(), &path, Bytes::from_static(b"0123456789")).await?;
    for (range, want) in [
        (GetRange::Bounded(0..1), "0"),
        (GetRange::Bounded(3..7), "3456"),
        (GetRange::Bounded(8..100), "89"),
        (GetRange::Offset(4), "456789"),
        (GetRange::Suffix(3), "789"),
        (GetRange::Suffix(100), "0123456789"),
    ] {
        let options = GetOptions { range: Some(range.clone()), ..GetOptions::default() };
        let got = o.get_opts(&path, options).await.map_err(|e| error("read", &path, e))?;
        assert_eq!((got.meta.size, got.range.end - got.range.start), (10, want.len() as u64), "{range:?}");
        assert_eq!(got.bytes().await.map_err(|e| error("read", &path, e))?, want, "{range:?}");
    }
    let several = o.get_ranges(&path, &[7..9, 0..2, 1..3]).await.map_err(|e| error("read", &path, e))?;
    assert_eq!(several, ["78", "01", "12"]);
    assert!(o.get_range(&path, 10..12).await.is_err(), "a range that starts after the end");
    Ok(())
}

/// A copy is an object of its own; a rename moves; both can be told not to replace.
pub async fn copies_and_renames(o: &Objects, h: &Harness) -> Result<()> {
    let base = fill(o, h, &["a", "b"]).await?;
    let [a, b, c, d] = ["a", "b", "dir/c", "d"].map(|name| at(&base, name));
    let failed = |e| error("copy", &a, e);
    o.copy(&a, &c).await.map_err(failed)?;
    put(o.as_ref(), &a, Bytes::from_static(b"changed")).await?;
    assert_eq!(get(o.as_ref(), &c).await?, "a");
    assert!(matches!(o.copy_if_not_exists(&a, &b).await, Err(Error::AlreadyExists { .. })));
    assert_eq!(get(o.as_ref(), &b).await?, "b");
    o.copy_if_not_exists(&a, &d).await.map_err(failed)?;
    o.copy(&a, &b).await.map_err(failed)?;
    assert_eq!((get(o.as_ref(), &d).await?, get(o.as_ref(), &b).await?), ("changed".into(), "changed".into()));
    o.rename(&c, &b).await.map_err(failed)?;
    assert_eq!((get(o.as_ref(), &b).await?, get_opt(o.as_ref(), &c).await?), ("a".into(), None));
    Ok(())
}

/// Deleting removes the object and only it; again is no error.
pub async fn deleting_is_idempotent(o: &Objects, h: &Harness) -> Result<()> {
    let base = fill(o, h, &["a", "a/b", "ab"]).await?;
    for _ in 0..2 {
        delete(o.as_ref(), &at(&base, "a")).await?;
        assert_eq!(get_opt(o.as_ref(), &at(&base, "a")).await?, None);
    }
    assert_eq!(below(&base, &list(o.as_ref(), &Path::from(base.clone())).await?), ["a/b", "ab"]);
    Ok(())
}

/// A stream of deletes answers for each, in any number.
pub async fn many_are_deleted_at_once(o: &Objects, h: &Harness) -> Result<()> {
    let names: Vec<String> = (0..50).map(|n| format!("dir/{n:02}")).collect();
    let base = fill(o, h, &names.iter().map(String::as_str).collect::<Vec<_>>()).await?;
    let doomed: Vec<Path> = names.iter().skip(1).map(|n| at(&base, n)).collect();
    let deleted: Vec<Path> = o
        .delete_stream(stream::iter(doomed.clone().into_iter().map(Ok)).boxed())
        .try_collect()
        .await
        .map_err(|e| error("delete", &doomed[0], e))?;
    assert_eq!(deleted.len(), 49);
    assert_eq!(below(&base, &list(o.as_ref(), &Path::from(base.clone())).await?), ["dir/00"]);
    Ok(())
}

/// Names as people give them to files are kept as they are.
pub async fn odd_names_are_names(o: &Objects, h: &Harness) -> Result<()> {
    let base = h.name("b");
    let long = "l".repeat(200);
    let names = [
        "with space",
        " leading and trailing ",
        "ünï\u{1F30A}",
        "u\u{308} is not \u{fc}",
        "\u{fc} is not u\u{308}",
        "100%",
        "%2F",
        "line\u{2028}separator",
        "next\u{85}line",
        "%25",
        "a..b",
        "...",
        ".hidden",
        "trailing.",
        "~tilde",
        "quote'\"`",
        "q?a=b&c#d+e",
        "back\\slash",
        "(brackets)[and]{more}",
        "semi;colon:and,comma",
        "star*",
        "CaseMatters",
        "casematters",
        "-rf",
        "$HOME",
        "x.tmp",
        "x#1",
        long.as_str(),
    ];
    let mut paths = Vec::new();
    for name in names {
        let path = Path::parse(format!("{base}/{name}/{name}")).expect("the name is allowed");
        put(o.as_ref(), &path, Bytes::copy_from_slice(name.as_bytes())).await?;
        paths.push(path);
    }
    for (path, name) in paths.iter().zip(names) {
        assert_eq!(get(o.as_ref(), path).await?, name.as_bytes());
        let listed = list(o.as_ref(), &Path::parse(format!("{base}/{name}")).expect("the name is allowed")).await?;
        assert_eq!(listed.iter().map(|m| &m.location).collect::<Vec<_>>(), [path]);
    }
    paths.sort();
    let listed = list(o.as_ref(), &Path::from(base)).await?;
    assert_eq!(listed.into_iter().map(|m| m.location).collect::<Vec<_>>(), paths);
    Ok(())
}

/// `a` and `a/b` are two objects, whichever came first.
pub async fn names_may_be_prefixes_of_names(o: &Objects, h: &Harness) -> Result<()> {
    let base = fill(o, h, &["a", "a/b", "x/y/z", "x/y", "x"]).await?;
    for name in ["a", "a/b", "x", "x/y", "x/y/z"] {
        assert_eq!(get(o.as_ref(), &at(&base, name)).await?, name.as_bytes());
    }
    delete(o.as_ref(), &at(&base, "x/y")).await?;
    assert_eq!(below(&base, &list(o.as_ref(), &Path::from(base.clone())).await?), ["a", "a/b", "x", "x/y/z"]);
    Ok(())
}
