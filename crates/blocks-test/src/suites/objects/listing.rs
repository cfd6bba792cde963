//! Lists.

use futures::{StreamExt, TryStreamExt};
use object_store::ObjectMeta;
use object_store::path::Path;
use tidemill_base::Result;
use tidemill_blocks::objects::{Objects, error};

use super::{at, below, fill, list};
use crate::Harness;

/// Ascending by the bytes of the whole path, where `-` and `.` come before `/` and digits after it.
pub async fn lists_are_in_order_of_the_path(o: &Objects, h: &Harness) -> Result<()> {
    let names = ["b", "a/b", "a", "a-b", "a.b", "a0b", "a/0", "a-b/c", "A", "\u{fc}", "a/b/c", "ab", "10", "9"];
    let base = fill(o, h, &names).await?;
    let mut want = names.map(|n| at(&base, n)).to_vec();
    want.sort_by(|a, b| a.as_ref().as_bytes().cmp(b.as_ref().as_bytes()));
    let listed: Vec<Path> = list(o.as_ref(), &Path::from(base)).await?.into_iter().map(|m| m.location).collect();
    assert_eq!(listed, want);
    Ok(())
}

/// A prefix holds what lies below it by whole segments; each object is described as `head` does, its time to the second, which is what
/// HTTP's headers have.
pub async fn lists_keep_to_whole_segments(o: &Objects, h: &Harness) -> Result<()> {
    use object_store::ObjectStoreExt as _;
    let base = fill(o, h, &["a/b/1", "a/b/2", "a/bc/3", "a/4", "ab/5", "other"]).await?;
    for (prefix, want) in
        [("a/b", vec!["a/b/1", "a/b/2"]), ("a", vec!["a/4", "a/b/1", "a/b/2", "a/bc/3"]), ("a/b/", vec!["a/b/1", "a/b/2"])]
    {
        assert_eq!(below(&base, &list(o.as_ref(), &at(&base, prefix)).await?), want, "{prefix}");
    }
    for meta in list(o.as_ref(), &at(&base, "a")).await? {
        let head = o.head(&meta.location).await.map_err(|e| error("head", &meta.location, e))?;
        assert_eq!(meta.last_modified.timestamp(), head.last_modified.timestamp());
        assert_eq!(ObjectMeta { last_modified: head.last_modified, ..meta }, head);
    }
    Ok(())
}

/// An offset is left out, and need not be there.
pub async fn lists_go_on_after_an_offset(o: &Objects, h: &Harness) -> Result<()> {
    let base = fill(o, h, &["a", "b", "b/c", "d", "e/f"]).await?;
    for (offset, want) in
        [("b", vec!["b/c", "d", "e/f"]), ("bb", vec!["d", "e/f"]), ("0", vec!["a", "b", "b/c", "d", "e/f"]), ("e/f", vec![])]
    {
        let prefix = Path::from(base.clone());
        let listed: Vec<ObjectMeta> =
            o.list_with_offset(Some(&prefix), &at(&base, offset)).boxed().try_collect().await.map_err(|e| error("list", &prefix, e))?;
        assert_eq!(below(&base, &listed), want, "after {offset}");
    }
    Ok(())
}

/// With a delimiter a list has the objects of one folder and the names of the folders in it.
pub async fn lists_with_delimiter_stop_at_folders(o: &Objects, h: &Harness) -> Result<()> {
    let base = fill(o, h, &["1", "2", "dir", "dir/3", "dir/deep/4", "dir/deep/5", "other/6"]).await?;
    for (prefix, objects, folders) in [
        ("", vec!["1", "2", "dir"], vec!["dir", "other"]),
        ("dir", vec!["dir/3"], vec!["dir/deep"]),
        ("dir/deep", vec!["dir/deep/4", "dir/deep/5"], vec![]),
        ("nowhere", vec![], vec![]),
    ] {
        let prefix = at(&base, prefix);
        let got = o.list_with_delimiter(Some(&prefix)).await.map_err(|e| error("list", &prefix, e))?;
        assert_eq!(below(&base, &got.objects), objects, "objects in {prefix}");
        let folders: Vec<Path> = folders.into_iter().map(|f| at(&base, f)).collect();
        assert_eq!(got.common_prefixes, folders, "folders in {prefix}");
    }
    Ok(())
}

/// Where nothing is, nothing is listed, and that is no error; an object is not below itself.
pub async fn empty_lists_are_empty(o: &Objects, h: &Harness) -> Result<()> {
    let base = fill(o, h, &["object"]).await?;
    for nothing in ["nowhere", "object", "obj"] {
        assert_eq!(list(o.as_ref(), &at(&base, nothing)).await?, [], "{nothing}");
    }
    assert_eq!(list(o.as_ref(), &Path::from(h.name("no-bucket"))).await?, []);
    Ok(())
}

/// Lists longer than an engine's page come whole.
pub async fn long_lists_are_whole(o: &Objects, h: &Harness) -> Result<()> {
    let names: Vec<String> = (0..1100).map(|n| format!("dir/{n:04}")).collect();
    let base = fill(o, h, &names.iter().map(String::as_str).collect::<Vec<_>>()).await?;
    assert_eq!(below(&base, &list(o.as_ref(), &Path::from(base.clone())).await?), names);
    let half = at(&base, "dir/0549");
    let rest: Vec<ObjectMeta> =
        o.list_with_offset(Some(&Path::from(base.clone())), &half).try_collect().await.map_err(|e| error("list", &half, e))?;
    assert_eq!(rest.len(), 550);
    Ok(())
}
