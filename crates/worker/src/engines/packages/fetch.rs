//! Downloading a package.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use futures::{StreamExt as _, TryStreamExt as _};
use object_store::ObjectStoreExt as _;
use sha2::{Digest as _, Sha256};
use tidemill_base::{Error, ErrorKind, Result};
use tidemill_batch::model::PackagePin;
use tidemill_blocks::objects::{self, Objects};
use tidemill_grid::packages::{Manifest, PackageFile, Stored, blob_path, hex};
use tokio::io::AsyncWriteExt as _;

use super::disk::MANIFEST;

/// Files at once.
const AT_ONCE: usize = 8;

/// Writes the package of a pin into `draft`, every file checked, the manifest last.
pub(super) async fn fetch(objects: &Objects, pin: &PackagePin, draft: &Path) -> Result<Manifest> {
    let path = object_store::path::Path::from_iter(["packages", &pin.name, &format!("{}.json", pin.version)]);
    let bytes = objects::get(objects.as_ref(), &path).await.map_err(|e| match e.kind() {
        ErrorKind::NotFound => Error::not_found("it has been deleted; open a session with a version that is there"),
        _ => e,
    })?;
    let stored: Stored = serde_json::from_slice(&bytes).map_err(|e| Error::corrupt("its manifest cannot be read").with_source(e))?;
    // Paths are checked again: a manifest that somebody else has put there leads nowhere out of the folder.
    let manifest = stored.manifest.checked()?;
    if manifest.digest()? != pin.digest {
        return Err(Error::corrupt(format!("it is not what the session pinned, whose digest is {}", pin.digest)));
    }
    let files = draft.join("files");
    make_folders(&files, &manifest)?;
    let gets = manifest.files.iter().map(|file| fetch_file(objects, file, &files));
    futures::stream::iter(gets).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
    let text = serde_json::to_vec(&manifest).map_err(|e| Error::internal("write a manifest").with_source(e))?;
    let place = draft.join(MANIFEST);
    let write = async {
        let mut out = tokio::fs::File::create(&place).await?;
        out.write_all(&text).await?;
        out.sync_all().await
    };
    write.await.map_err(|e| Error::from(e).context(format!("write `{}`", place.display())))?;
    Ok(manifest)
}

fn make_folders(files: &Path, manifest: &Manifest) -> Result<()> {
    let folders = manifest.files.iter().filter_map(|f| f.path.rsplit_once('/')).map(|(folder, _)| files.join(folder));
    for folder in std::iter::once(files.to_owned()).chain(folders) {
        std::fs::create_dir_all(&folder).map_err(|e| Error::from(e).context(format!("make `{}`", folder.display())))?;
    }
    Ok(())
}

async fn fetch_file(objects: &Objects, file: &PackageFile, files: &Path) -> Result<()> {
    let path = blob_path(&file.sha256);
    let place = files.join(&file.path);
    let failed = |e: std::io::Error| Error::from(e).context(format!("write `{}`", place.display()));
    let got = objects.get(&path).await.map_err(|e| objects::error("read", &path, e).context(&file.path))?;
    let mut stream = got.into_stream();
    let mut out = tokio::fs::File::create(&place).await.map_err(failed)?;
    let (mut hash, mut bytes) = (Sha256::new(), 0_u64);
    while let Some(chunk) = stream.try_next().await.map_err(|e| objects::error("read", &path, e).context(&file.path))? {
        bytes = bytes.saturating_add(chunk.len() as u64);
        // No more than was announced reaches the disk.
        if bytes > file.size {
            break;
        }
        hash.update(&chunk);
        out.write_all(&chunk).await.map_err(failed)?;
    }
    out.flush().await.map_err(failed)?;
    if bytes != file.size || hex(&hash.finalize()) != file.sha256 {
        return Err(Error::corrupt(format!(
            "the stored bytes of `{}` are not those that were published; publish another version, and restore `{path}` from a copy",
            file.path
        )));
    }
    let mode = if file.executable { 0o555 } else { 0o444 };
    out.set_permissions(Permissions::from_mode(mode)).await.map_err(failed)
}
