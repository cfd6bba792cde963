//! Results of sessions as files, and sessions in cold storage.

use reqwest::Method;
use tidemill_api::{ArchiveDetail, ArchiveRequest, CollectRequest, Collected, OpenSessionResponse};
use tidemill_base::Result;

use crate::Client;
use crate::grid::session_path;
use crate::http::segment;

impl Client {
    /// Writes a session's results, or a statement's rows, to objects.
    pub async fn collect_session(&self, id: &str, request: &CollectRequest) -> Result<Collected> {
        self.post(&session_path(id, "/collect"), request).await
    }

    /// Archives a session that has ended.
    pub async fn archive_session(&self, id: &str, request: ArchiveRequest) -> Result<ArchiveDetail> {
        self.post(&session_path(id, "/archive"), &request).await
    }

    /// An archived session.
    pub async fn archived_session(&self, id: &str) -> Result<ArchiveDetail> {
        self.get(&archive_path(id, ""), &[]).await
    }

    /// Asks for an archived session, so that its results can be read.
    pub async fn restore_session(&self, id: &str) -> Result<ArchiveDetail> {
        self.json(self.request(Method::POST, &archive_path(id, "/restore"))).await
    }

    /// Runs a restored session once more: the same function over the same inputs, as a new session.
    pub async fn rerun_session(&self, id: &str) -> Result<OpenSessionResponse> {
        self.json(self.request(Method::POST, &archive_path(id, "/rerun"))).await
    }

    /// Removes an archive.
    pub async fn delete_archive(&self, id: &str) -> Result<()> {
        self.tell(self.request(Method::DELETE, &archive_path(id, ""))).await
    }
}

fn archive_path(id: &str, rest: &str) -> String {
    format!("/grid/archives/{}{rest}", segment(id))
}
