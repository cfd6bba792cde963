//! Which objects the patterns of an input stand for.

use futures::{StreamExt, TryStreamExt};
use object_store::ObjectStoreExt;
use tidemill_base::{Error, ErrorKind, Result};
use tidemill_blocks::objects::{self, Objects};

use super::{Cutting, Glob};
use crate::spec::suggest;

/// An object: its path and its size in bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Found {
    pub(super) path: Box<str>,
    pub(super) size: u64,
}

/// How many names are looked at when a pattern matched nothing and the error suggests some.
const NEARBY: usize = 1000;

/// Every object that matches one of the patterns, each once, in order of the path. `Invalid` when a pattern matches none.
pub(super) async fn list(patterns: &[String], cx: &mut Cutting<'_>) -> Result<Vec<Found>> {
    let mut all: Vec<Found> = Vec::new();
    for pattern in patterns {
        let glob = Glob::new(pattern)?;
        let before = all.len();
        if glob.is_plain() {
            all.extend(one(cx.objects, &glob).await?)
        } else {
            matching(&glob, &mut all, cx).await?
        }
        if all.len() == before {
            return Err(nothing(cx.objects, &glob).await?);
        }
    }
    all.sort_unstable();
    all.dedup_by(|a, b| a.path == b.path);
    Ok(all)
}

async fn one(store: &Objects, glob: &Glob) -> Result<Option<Found>> {
    let path = objects::parse_path(glob.as_str())?;
    match store.head(&path).await {
        Ok(meta) => Ok(Some(Found { path: glob.as_str().into(), size: meta.size })),
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(e) => Err(objects::error("look at", &path, e)),
    }
}

async fn matching(glob: &Glob, all: &mut Vec<Found>, cx: &mut Cutting<'_>) -> Result<()> {
    let prefix = objects::parse_path(glob.prefix())?;
    let mut names = cx.objects.list(Some(&prefix));
    while let Some(meta) = names.try_next().await.map_err(|e| objects::error("list under", &prefix, e))? {
        if !glob.matches(meta.location.as_ref()) {
            continue;
        }
        all.push(Found { path: meta.location.as_ref().into(), size: meta.size });
        if all.len() > cx.limits.objects {
            let what = format!("`{}` matches more than {} objects; narrow it, or cut the job in several", glob.as_str(), cx.limits.objects);
            return Err(Error::new(ErrorKind::Exhausted, what));
        }
        if all.len().is_multiple_of(1000) {
            cx.tell(0, 0, all.len() as u64);
        }
    }
    Ok(())
}

/// The error for a pattern without a match: it names what lies nearby, one folder further up as long as there is nothing.
async fn nothing(store: &Objects, glob: &Glob) -> Result<Error> {
    let shown = glob.as_str().escape_debug();
    let mut folder = if glob.is_plain() { parent(glob.prefix()) } else { glob.prefix() };
    while !folder.is_empty() {
        let prefix = objects::parse_path(folder)?;
        let names = store.list(Some(&prefix)).map_ok(|m| m.location.to_string()).take(NEARBY);
        let mut names: Vec<String> = names.try_collect().await.map_err(|e| objects::error("list under", &prefix, e))?;
        if !names.is_empty() {
            names.sort_by_cached_key(|n| suggest::distance(glob.as_str(), n));
            let list = names.iter().take(3).map(|n| format!("`{}`", n.escape_debug())).collect::<Vec<_>>().join(", ");
            return Ok(Error::invalid(format!("`{shown}` matches nothing; under `{}/` there is {list}", folder.escape_debug())));
        }
        folder = parent(folder);
    }
    let bucket = glob.as_str().split('/').next().unwrap_or_default().escape_debug();
    Ok(Error::invalid(format!("`{shown}` matches nothing: bucket `{bucket}` is empty; upload the input first")))
}

fn parent(folder: &str) -> &str {
    folder.rsplit_once('/').map_or("", |(up, _)| up)
}
