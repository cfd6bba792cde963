//! Tasks of a stage that groups an earlier stage's outputs by key, cut when that stage is done.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::{Stream, StreamExt};
use tidemill_base::{Error, ErrorKind, Result};

use super::manifest::Writer;
use super::naming::{input_ref, make_unique};
use super::{CutResult, Cutting};
use crate::model::TaskInput;
use crate::protocol::{OutputPage, StoredFile};
use crate::spec::key_regex;

/// An output file held until all are known. Small files share the path of their pack.
struct Held {
    task: u64,
    place: u32,
    path: Arc<str>,
    name: Box<str>,
    offset: u64,
    len: u64,
    whole: bool,
}

impl Held {
    fn file(&self) -> StoredFile {
        let (name, path) = (self.name.to_string(), self.path.to_string());
        StoredFile { name, path, offset: self.offset, len: self.len, whole: self.whole }
    }
}

/// Cuts a grouping stage: one task for each distinct key among the names of the outputs, in order of the key, its files in order of
/// the task that made them. `key` is a regular expression with one capture group; outputs that do not match are left out. `pages`
/// are the earlier stage's output pages in any order. `Invalid` when no output matches, `Exhausted` when there are too many.
pub async fn cut_group(key: &str, pages: impl Stream<Item = Result<OutputPage>>, cx: &mut Cutting<'_>) -> Result<CutResult> {
    let regex = key_regex(key)?;
    let mut groups: BTreeMap<String, Vec<Held>> = BTreeMap::new();
    let mut paths: BTreeSet<Arc<str>> = BTreeSet::new();
    let mut seen: usize = 0;
    let mut example = None;
    let mut pages = std::pin::pin!(pages);
    while let Some(page) = pages.next().await {
        for task in page?.tasks.into_iter().filter(|t| t.ok) {
            for (file, place) in task.files.into_iter().zip(0..) {
                let Some(found) = regex.captures(&file.name).and_then(|c| c.get(1)) else {
                    example.get_or_insert(file.name);
                    continue;
                };
                seen += 1;
                if seen > cx.limits.objects {
                    let what = format!(
                        "more than {} outputs are to be grouped; let the earlier stage put out fewer, larger files",
                        cx.limits.objects
                    );
                    return Err(Error::new(ErrorKind::Exhausted, what));
                }
                let key = found.as_str().to_owned();
                let path = intern(&mut paths, file.path);
                let held =
                    Held { task: task.task, place, path, name: file.name.into(), offset: file.offset, len: file.len, whole: file.whole };
                groups.entry(key).or_default().push(held);
            }
        }
    }
    if groups.is_empty() {
        let names = example.map_or_else(|| "it has no outputs".to_owned(), |n| format!("they are called like `{}`", n.escape_debug()));
        return Err(Error::invalid(format!("key `{}` matches no output of the earlier stage; {names}", key.escape_debug())));
    }
    cx.check_tasks(groups.len() as u64)?;
    write(groups, cx).await
}

async fn write(groups: BTreeMap<String, Vec<Held>>, cx: &mut Cutting<'_>) -> Result<CutResult> {
    let mut writer = Writer::new(cx.objects, cx.job, cx.stage);
    for (key, mut held) in groups {
        held.sort_by_key(|h| (h.task, h.place));
        let mut files: Vec<_> = held.iter().map(|h| input_ref(&h.file())).collect();
        make_unique(&mut files);
        writer.push(&TaskInput::Files { files, key: Some(key) }).await?;
    }
    cx.tell(writer.entries(), 0, 0);
    CutResult::of(writer).await
}

fn intern(paths: &mut BTreeSet<Arc<str>>, path: String) -> Arc<str> {
    if let Some(known) = paths.get(path.as_str()) {
        return known.clone();
    }
    let path: Arc<str> = path.into();
    paths.insert(path.clone());
    path
}
