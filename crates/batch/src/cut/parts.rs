//! Tasks from parts of large objects.

use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use object_store::path::Path;
use tidemill_base::{Error, Result};
use tidemill_blocks::objects::{self, Objects};

use super::boundaries::{CsvScanner, Cuts, header_end, line_end};
use super::listing::{Found, list};
use super::manifest::Writer;
use super::naming::{file_name, part_name};
use super::{CutResult, Cutting};
use crate::model::{Boundary, InputRef, TaskInput};

/// How much is read at once when only the next newline is looked for.
const WINDOW: u64 = 64 << 10;

pub(super) struct PartSpec<'a> {
    pub(super) patterns: &'a [String],
    pub(super) bytes: u64,
    pub(super) boundary: Boundary,
    pub(super) header: bool,
}

pub(super) async fn cut(spec: PartSpec<'_>, cx: &mut Cutting<'_>) -> Result<CutResult> {
    let found = list(spec.patterns, cx).await?;
    let mut writer = Writer::new(cx.objects, cx.job, cx.stage);
    let (mut empty, mut bytes) = (0, 0);
    for (done, object) in found.iter().enumerate() {
        let cuts = cuts(object, &spec, cx.objects).await?;
        empty += u64::from(cuts.ends.is_empty());
        for input in refs(object, &cuts) {
            writer.push(&TaskInput::Files { files: vec![input], key: None }).await?;
        }
        bytes += object.size;
        cx.check_tasks(writer.entries())?;
        cx.tell(writer.entries(), bytes, done as u64 + 1);
    }
    if writer.entries() == 0 {
        let patterns = spec.patterns.join("`, `");
        return Err(Error::invalid(format!(
            "parts: the {empty} objects that `{}` matches hold no record, so there is nothing to do",
            patterns.escape_debug()
        )));
    }
    Ok(CutResult { empty_objects: empty, ..CutResult::of(writer).await? })
}

/// The parts of one object. The first part has the header in it already; the others get it put in front.
fn refs<'a>(object: &'a Found, cuts: &'a Cuts) -> impl Iterator<Item = InputRef> + 'a {
    let name = file_name(&object.path);
    let single = cuts.ends.len() == 1;
    let starts = std::iter::once(0).chain(cuts.ends.iter().copied());
    starts.zip(&cuts.ends).zip(1..).map(move |((offset, end), number)| InputRef {
        path: object.path.to_string(),
        name: if single { name.to_owned() } else { part_name(name, number) },
        offset,
        len: end - offset,
        header: if offset == 0 { 0 } else { cuts.header },
        whole: single,
    })
}

async fn cuts(object: &Found, spec: &PartSpec<'_>, store: &Objects) -> Result<Cuts> {
    let path = objects::parse_path(&object.path)?;
    match spec.boundary {
        _ if object.size == 0 => Ok(Cuts { header: 0, ends: Vec::new() }),
        Boundary::Byte => Ok(Cuts { header: 0, ends: byte_ends(object.size, spec.bytes) }),
        Boundary::Line => line_cuts(store, &path, object.size, spec).await,
        Boundary::Csv => csv_cuts(store, &path, spec).await,
    }
}

fn byte_ends(size: u64, target: u64) -> Vec<u64> {
    (1..=size.div_ceil(target)).map(|n| n.saturating_mul(target).min(size)).collect()
}

/// For lines only the bytes around each cut are read, however large the object is.
async fn line_cuts(store: &Objects, path: &Path, size: u64, spec: &PartSpec<'_>) -> Result<Cuts> {
    let header = if spec.header { read_header(store, path, size).await? } else { 0 };
    let mut ends = Vec::new();
    let mut start = header;
    while start < size {
        let target = start.saturating_add(spec.bytes - 1);
        let end = if target >= size { size } else { next_line(store, path, target, size).await? };
        ends.push(end);
        start = end;
    }
    Ok(Cuts { header, ends })
}

async fn next_line(store: &Objects, path: &Path, from: u64, size: u64) -> Result<u64> {
    let (mut at, mut window) = (from, WINDOW);
    while at < size {
        let bytes = read(store, path, at, window.min(size - at)).await?;
        if let Some(end) = line_end(&bytes) {
            return Ok(at + end);
        }
        at += bytes.len() as u64;
        // A record that is large is likely very large: ask for more at once, so that it does not cost thousands of calls.
        window = (window * 4).min(16 << 20);
    }
    Ok(size)
}

async fn read_header(store: &Objects, path: &Path, size: u64) -> Result<u64> {
    let mut window = WINDOW;
    loop {
        let bytes = read(store, path, 0, window.min(size)).await?;
        if let Some(end) = header_end(&bytes) {
            return Ok(end);
        }
        if window >= size {
            return Ok(size);
        }
        if window >= 16 << 20 {
            return Err(Error::invalid(format!(
                "`{path}` has no line within its first {window} bytes that could be its header; set `header = false`"
            )));
        }
        window *= 4;
    }
}

async fn read(store: &Objects, path: &Path, at: u64, len: u64) -> Result<bytes::Bytes> {
    let got = store.get_range(path, at..at + len).await.map_err(|e| objects::error("read", path, e))?;
    // A reader that makes no progress would never end.
    if got.is_empty() {
        Err(Error::new(tidemill_base::ErrorKind::Conflict, format!("`{path}` became shorter while it was cut; submit again")))
    } else {
        Ok(got)
    }
}

async fn csv_cuts(store: &Objects, path: &Path, spec: &PartSpec<'_>) -> Result<Cuts> {
    let got = store.get(path).await.map_err(|e| objects::error("read", path, e))?;
    let mut stream = got.into_stream();
    let mut scanner = CsvScanner::new(spec.bytes, spec.header);
    while let Some(chunk) = stream.try_next().await.map_err(|e| objects::error("read", path, e))? {
        scanner.feed(&chunk);
    }
    scanner.finish().map_err(|at| {
        Error::invalid(format!(
            "`{path}` ends within quotes that open at byte {at}, so this is not CSV as of RFC 4180; mend it, or use boundary \"line\""
        ))
    })
}
