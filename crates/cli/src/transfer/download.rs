//! Downloading results, several files at once.

use std::path::Path;

use futures::StreamExt as _;
use tidemill_api::ResultFile;
use tidemill_base::{Env, Error, Result};
use tidemill_client::{Client, Progress};

use super::{PARALLEL, download_paths, persist};
use crate::progress::{CountProgress, Style};

/// All result files of a job, over all pages. `stage` as of [`Client::results`].
pub(crate) async fn all_results(client: &Client, job: &str, stage: Option<&str>) -> Result<Vec<ResultFile>> {
    let (mut files, mut after) = (Vec::new(), None);
    loop {
        let page = client.results(job, stage, after.as_deref()).await?;
        files.extend(page.files);
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(files),
        }
    }
}

/// Fetches the files into `folder`, which is made when it is not there. Files that are there are replaced.
pub(crate) async fn download(client: &Client, env: &Env, files: &[ResultFile], folder: &Path, style: Style) -> Result<()> {
    let places = download_paths(files)?;
    let bytes = Progress::default();
    let mut progress = CountProgress::new(style, "downloading", u64::try_from(files.len()).unwrap_or(u64::MAX), bytes.clone());
    let gets = files.iter().zip(&places).map(|(file, place)| {
        let (target, bytes) = (folder.join(place), bytes.clone());
        async move {
            if let Some(parent) = target.parent() {
                let made = tokio::fs::create_dir_all(parent).await;
                made.map_err(|e| Error::from(e).context(format!("make the folder {}", parent.display())))?;
            }
            persist(env, || client.download(&file.href, &target, &bytes)).await
        }
    });
    let mut running = futures::stream::iter(gets).buffer_unordered(PARALLEL);
    while let Some(done) = running.next().await {
        done?;
        progress.one_done();
    }
    drop(running);
    progress.finish(&format!("downloaded to {}", folder.display()));
    Ok(())
}
