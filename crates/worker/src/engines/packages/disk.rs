//! Packages' folders.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use sha2::{Digest as _, Sha256};
use tidemill_base::{Error, Result};
use tidemill_grid::packages::{Manifest, PackageFile, hex};
use tokio::io::AsyncReadExt as _;

/// Read at once, bytes.
const CHUNK: usize = 256 << 10;
/// The manifest's file.
pub(super) const MANIFEST: &str = "package.json";

/// What is in the cache's folder.
pub(super) fn folders(root: &Path) -> Vec<(String, PathBuf)> {
    let entries = fs::read_dir(root).into_iter().flatten().filter_map(std::result::Result::ok);
    let mut found: Vec<_> = entries.map(|e| (e.file_name().to_string_lossy().into_owned(), e.path())).collect();
    found.sort();
    found
}

pub(super) fn read_manifest(folder: &Path) -> Option<Manifest> {
    serde_json::from_slice(&fs::read(folder.join(MANIFEST)).ok()?).ok()
}

/// Microseconds since the epoch; 0 when nobody can say.
pub(super) fn modified(folder: &Path) -> i64 {
    let at = fs::metadata(folder).and_then(|m| m.modified()).ok();
    let since = at.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    since.and_then(|d| i64::try_from(d.as_micros()).ok()).unwrap_or_default()
}

/// Reads every file and compares. `None` when the package is not there, `Corrupt` when it is not what it was.
pub(super) async fn check(folder: &Path, digest: &str) -> Result<Option<Manifest>> {
    let Some(manifest) = read_manifest(folder) else {
        return if folder.exists() { Err(Error::corrupt(format!("`{MANIFEST}` cannot be read"))) } else { Ok(None) };
    };
    if manifest.digest()? != digest {
        return Err(Error::corrupt(format!("`{MANIFEST}` is another one's")));
    }
    for file in &manifest.files {
        check_file(&folder.join("files").join(&file.path), file).await?;
    }
    Ok(Some(manifest))
}

async fn check_file(path: &Path, file: &PackageFile) -> Result<()> {
    let damaged = |why: &str| Error::corrupt(format!("`{}` {why}", file.path));
    let mut opened = match tokio::fs::File::open(path).await {
        Ok(opened) => opened,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err(damaged("is not there")),
        Err(e) => return Err(Error::from(e).context(format!("read `{}`", path.display()))),
    };
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; CHUNK]);
    loop {
        let n = opened.read(&mut buffer).await.map_err(|e| Error::from(e).context(format!("read `{}`", path.display())))?;
        if n == 0 {
            break;
        }
        hash.update(&buffer[..n]);
    }
    if hex(&hash.finalize()) != file.sha256 {
        return Err(damaged("has another content than it was published with"));
    }
    Ok(())
}

/// Makes a finished folder read-only and gives it its name. Another process of this worker's id cannot be, so nobody else does so.
pub(super) fn place(draft: &Path, folder: &Path) -> Result<()> {
    let failed = |e: std::io::Error| Error::from(e).context(format!("put the package into `{}`", folder.display()));
    set_folders(&draft.join("files"), 0o555).map_err(failed)?;
    fs::rename(draft, folder).map_err(failed)
}

fn set_folders(folder: &Path, mode: u32) -> std::io::Result<()> {
    // Opened before what is in it is looked at, closed after.
    if mode & 0o200 != 0 {
        fs::set_permissions(folder, fs::Permissions::from_mode(mode))?;
    }
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            set_folders(&entry.path(), mode)?;
        }
    }
    fs::set_permissions(folder, fs::Permissions::from_mode(mode))
}

/// Removes a folder, read-only as it may be. What cannot be removed is found at the next start.
pub(super) fn remove(folder: &Path) {
    let gone = if folder.is_dir() { set_folders(folder, 0o755).and_then(|()| fs::remove_dir_all(folder)) } else { fs::remove_file(folder) };
    match gone {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(folder = %folder.display(), error = %e, "a package's folder was not removed");
        }
        _ => {}
    }
}
