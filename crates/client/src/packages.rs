//! Packages of files, and tasks made from data.

use std::path::Path;

use futures::StreamExt as _;
use reqwest::header::CONTENT_LENGTH;
use reqwest::{Body, Method};
use tidemill_api::{PackageDetail, PackageList, PackageManifest, PublishPackageResponse, TasksFromRequest, TasksFromResponse};
use tidemill_base::{Error, Result};
use tokio_util::io::ReaderStream;

use crate::grid::session_path;
use crate::http::segment;
use crate::{Client, Progress};

impl Client {
    /// Publishes a version, or says which files have to be sent first: see [`Client::put_package_file`].
    pub async fn publish_package(&self, manifest: &PackageManifest) -> Result<PublishPackageResponse> {
        self.post("/grid/packages", manifest).await
    }

    /// Sends a file of a package. It is read as it is sent and never held in whole.
    pub async fn put_package_file(&self, sha256: &str, file: &Path, progress: &Progress) -> Result<()> {
        let about = |e: std::io::Error| Error::from(e).context(file.display());
        let opened = tokio::fs::File::open(file).await.map_err(about)?;
        let length = opened.metadata().await.map_err(about)?.len();
        let counted = progress.clone();
        let stream = ReaderStream::with_capacity(opened, 256 << 10).map(move |chunk| chunk.inspect(|bytes| counted.add(bytes.len())));
        let request = self.request(Method::PUT, &format!("/grid/packages/blobs/{}", segment(sha256))).header(CONTENT_LENGTH, length);
        let sent = self.send(request.body(Body::wrap_stream(stream))).await;
        sent.map(drop).map_err(|e| e.context(format!("upload {}", file.display())))
    }

    /// All versions of all packages, or of one.
    pub async fn packages(&self, name: Option<&str>) -> Result<PackageList> {
        let query: Vec<_> = name.map(|n| ("name", n.to_owned())).into_iter().collect();
        self.get("/grid/packages", &query).await
    }

    /// A version with its files.
    pub async fn package(&self, name: &str, version: &str) -> Result<PackageDetail> {
        self.get(&format!("/grid/packages/{}/{}", segment(name), segment(version)), &[]).await
    }

    /// Deletes a version that no live session pins.
    pub async fn delete_package(&self, name: &str, version: &str) -> Result<()> {
        self.tell(self.request(Method::DELETE, &format!("/grid/packages/{}/{}", segment(name), segment(version)))).await
    }

    /// Makes tasks of a session from data. The call may be made again when its answer was lost: nothing is made twice.
    pub async fn tasks_from(&self, session: &str, request: &TasksFromRequest) -> Result<TasksFromResponse> {
        // Reading gigabytes takes longer than an answer may usually take.
        let response = self.send(self.request(Method::POST, &session_path(session, "/tasks-from")).json(request)).await?;
        let bytes = response.bytes().await.map_err(|e| self.broken(e))?;
        serde_json::from_slice(&bytes).map_err(|e| Error::internal("the answer of the server cannot be read").with_source(e))
    }
}
