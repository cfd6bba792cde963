//! Objects and result files, streamed in both directions.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::StreamExt as _;
use reqwest::header::CONTENT_LENGTH;
use reqwest::{Body, Method};
use serde_json::json;
use tidemill_api::{BASE, UploadResponse};
use tidemill_base::{Error, Result};
use tokio::io::AsyncWriteExt as _;
use tokio_util::io::ReaderStream;

use crate::Client;
use crate::http::path;

/// Bytes that went over the wire so far; clones share the count.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<AtomicU64>);

impl Progress {
    /// The bytes so far.
    pub fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self, bytes: usize) {
        self.0.fetch_add(u64::try_from(bytes).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

fn about(file: &Path) -> impl Fn(std::io::Error) -> Error + '_ {
    move |e| Error::from(e).context(file.display())
}

impl Client {
    /// A fresh place to upload input to.
    pub async fn new_upload(&self) -> Result<UploadResponse> {
        self.post("/uploads", &json!({})).await
    }

    /// Stores bytes as the object `name`.
    pub async fn put_object(&self, name: &str, content: impl Into<Bytes>) -> Result<()> {
        let request = self.request(Method::PUT, &format!("/objects/{}", path(name)));
        self.send(request.body(content.into())).await.map(drop)
    }

    /// Stores a file of this machine as the object `name`. It is read as it is sent and never held in whole.
    pub async fn put_file(&self, name: &str, file: &Path, progress: &Progress) -> Result<()> {
        let opened = tokio::fs::File::open(file).await.map_err(about(file))?;
        let length = opened.metadata().await.map_err(about(file))?.len();
        let counted = progress.clone();
        let stream = ReaderStream::with_capacity(opened, 256 << 10).map(move |chunk| chunk.inspect(|bytes| counted.add(bytes.len())));
        let request = self.request(Method::PUT, &format!("/objects/{}", path(name))).header(CONTENT_LENGTH, length);
        let sent = self.send(request.body(Body::wrap_stream(stream))).await;
        sent.map(drop).map_err(|e| e.context(format!("upload {}", file.display())))
    }

    /// An object's bytes.
    pub async fn get_object(&self, name: &str) -> Result<Bytes> {
        self.get_bytes(&format!("/objects/{}", path(name))).await
    }

    /// What lies behind a link of an answer, such as the `href` of a result file.
    pub async fn get_href(&self, href: &str) -> Result<Bytes> {
        self.get_bytes(under_base(href)).await
    }

    async fn get_bytes(&self, path: &str) -> Result<Bytes> {
        let response = self.send(self.request(Method::GET, path)).await?;
        response.bytes().await.map_err(|e| self.broken(e))
    }

    /// Fetches what lies behind a link into a file. The file is there when it is complete, and not before.
    pub async fn download(&self, href: &str, file: &Path, progress: &Progress) -> Result<()> {
        let mut response = self.send(self.request(Method::GET, under_base(href))).await?;
        let mut draft_name = file.file_name().unwrap_or_default().to_owned();
        draft_name.push(".part");
        let draft = file.with_file_name(draft_name);
        let mut out = tokio::fs::File::create(&draft).await.map_err(about(&draft))?;
        while let Some(chunk) = response.chunk().await.map_err(|e| self.broken(e))? {
            out.write_all(&chunk).await.map_err(about(&draft))?;
            progress.add(chunk.len());
        }
        out.flush().await.map_err(about(&draft))?;
        drop(out);
        tokio::fs::rename(&draft, file).await.map_err(about(file))
    }
}

fn under_base(href: &str) -> &str {
    href.strip_prefix(BASE).unwrap_or(href)
}
