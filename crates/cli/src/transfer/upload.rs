//! Uploading input, several files at once.

use std::path::PathBuf;

use futures::StreamExt as _;
use tidemill_base::{Env, Result};
use tidemill_client::{Client, Progress};

use super::{PARALLEL, persist};
use crate::progress::{CountProgress, Style};

/// A file of this machine, and what it is to be called.
#[derive(Debug, Clone)]
pub(crate) struct LocalFile {
    pub(crate) path: PathBuf,
    pub(crate) name: String,
}

/// Uploads the files to a fresh place and returns its prefix, without a slash at the end. Files are independent, so the first that
/// cannot be uploaded ends it.
pub(crate) async fn upload(client: &Client, env: &Env, files: &[LocalFile], style: Style) -> Result<String> {
    let made = persist(env, || client.new_upload()).await?;
    let prefix = made.prefix.trim_end_matches('/').to_owned();
    let bytes = Progress::default();
    let mut progress = CountProgress::new(style, "uploading", u64::try_from(files.len()).unwrap_or(u64::MAX), bytes.clone());
    let puts = files.iter().map(|file| {
        let (object, bytes) = (format!("{prefix}/{}", file.name), bytes.clone());
        async move { persist(env, || client.put_file(&object, &file.path, &bytes)).await }
    });
    let mut running = futures::stream::iter(puts).buffer_unordered(PARALLEL);
    while let Some(done) = running.next().await {
        done?;
        progress.one_done();
    }
    drop(running);
    progress.finish("uploaded");
    Ok(prefix)
}
