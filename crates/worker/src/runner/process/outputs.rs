//! What a task left behind: small files are read, large ones are put on the list of uploads.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use tidemill_base::Error;
use tidemill_batch::model::FailureClass;

use super::plan::Out;
use crate::range::{OpenRange, Part, Upload, failure};
use crate::work::{Failure, MAX_PAGE_BYTES, PendingFile, PendingOutput};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Collected {
    pub(super) output: PendingOutput,
    pub(super) uploads: Vec<Upload>,
}

fn refuse(what: impl Into<String>) -> Failure {
    Failure::new(FailureClass::Output, what)
}

/// Collects the output files of a task that succeeded. `folder` is all it may have written to.
pub(super) fn collect(range: &OpenRange, task: u64, out: &Out, folder: &Path, inline: u64) -> Result<Collected, Failure> {
    let mut collected = Collected::default();
    let root = fs::canonicalize(folder).map_err(|e| unreadable(folder, e))?;
    let mut found = Vec::new();
    let optional = range.stage.definition.spec.output.optional;
    match out {
        Out::Stdout(_) => return Ok(collected),
        Out::File { path, name } => {
            // A command that was not told `{out}` writes where it stands.
            let beside = folder.join(name);
            let path = if fs::symlink_metadata(path).is_err() && beside.is_file() { &beside } else { path };
            if fs::symlink_metadata(path).is_ok() {
                found.push((check(path, &root, name)?, name.clone()));
            } else if !optional {
                return Err(refuse(format!("the command did not write its output `{name}`")));
            }
        }
        Out::Folder(path) => {
            walk(&check(path, &root, "out")?, "", &root, &mut found)?;
            if found.is_empty() && !optional {
                return Err(refuse("the command wrote nothing into its output folder"));
            }
        }
    }
    found.sort_by(|a, b| a.1.cmp(&b.1));
    for (path, name) in found {
        let meta = fs::metadata(&path).map_err(|e| unreadable(&path, e))?;
        if meta.is_dir() {
            return Err(refuse(format!("the output `{}` is a folder; say `folder = true` in the stage's output", name.escape_debug())));
        }
        if meta.len() <= inline {
            let bytes = fs::read(&path).map_err(|e| unreadable(&path, e))?.into();
            collected.output.files.push(PendingFile::Small { name, bytes });
        } else {
            let target = range.file_path(task, &name);
            collected.uploads.push(Upload { part: Part::File, name, source: path, offset: 0, len: meta.len(), target });
        }
    }
    let entries: usize = collected.uploads.iter().map(|u| u.name.len() + u.target.as_ref().len() + 20).sum();
    if collected.output.on_page() + entries > MAX_PAGE_BYTES {
        let count = collected.output.files.len() + collected.uploads.len();
        return Err(refuse(format!("the command wrote {count} output files, whose names are too many to keep; pack them into an archive")));
    }
    Ok(collected)
}

fn unreadable(path: &Path, e: std::io::Error) -> Failure {
    failure(FailureClass::Output, &Error::from(e).context(format!("read the output `{}`", path.display())))
}

/// The real path, if it lies within `root`.
fn check(path: &Path, root: &Path, name: &str) -> Result<PathBuf, Failure> {
    let real = fs::canonicalize(path).map_err(|e| unreadable(path, e))?;
    if real.starts_with(root) {
        Ok(real)
    } else {
        Err(refuse(format!("the output `{}` is a link that leads out of the task's folder", name.escape_debug())))
    }
}

fn walk(folder: &Path, prefix: &str, root: &Path, found: &mut Vec<(PathBuf, String)>) -> Result<(), Failure> {
    for entry in fs::read_dir(folder).map_err(|e| unreadable(folder, e))? {
        let entry = entry.map_err(|e| unreadable(folder, e))?;
        let raw = entry.file_name();
        let Some(name) = raw.to_str() else {
            return Err(refuse(format!("the output `{}` has a name that is not UTF-8", raw.to_string_lossy().escape_debug())));
        };
        let name = format!("{prefix}{name}");
        let kind = entry.file_type().map_err(|e| unreadable(&entry.path(), e))?;
        if kind.is_dir() {
            walk(&entry.path(), &format!("{name}/"), root, found)?;
        } else if kind.is_fifo() || kind.is_socket() || kind.is_char_device() || kind.is_block_device() {
            return Err(refuse(format!("the output `{}` is neither a file nor a folder", name.escape_debug())));
        } else {
            found.push((check(&entry.path(), root, &name)?, name));
        }
    }
    Ok(())
}
