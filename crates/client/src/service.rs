//! Fleet, queues, SQL, overview.

use bytes::Bytes;
use reqwest::Method;
use reqwest::header::ACCEPT;
use tidemill_api::{DeadLetterList, GroupList, Overview, QueueList, RedriveRequest, RedriveResponse, SqlRequest, SqlResponse, WorkerList};
use tidemill_base::Result;

use crate::Client;
use crate::http::segment;

impl Client {
    /// What there is, in numbers.
    pub async fn overview(&self) -> Result<Overview> {
        self.get("/overview", &[]).await
    }

    /// The workers.
    pub async fn workers(&self) -> Result<WorkerList> {
        self.get("/fleet/workers", &[]).await
    }

    /// The groups of workers.
    pub async fn groups(&self) -> Result<GroupList> {
        self.get("/fleet/groups", &[]).await
    }

    /// The queues with their counts.
    pub async fn queues(&self) -> Result<QueueList> {
        self.get("/queues", &[]).await
    }

    /// Dead letters of a queue.
    pub async fn dead_letters(&self, queue: &str, limit: u32) -> Result<DeadLetterList> {
        self.get(&format!("/queues/{}/messages", segment(queue)), &[("limit", limit.to_string())]).await
    }

    /// Sends dead letters back to the queue they died in.
    pub async fn redrive(&self, queue: &str, request: &RedriveRequest) -> Result<RedriveResponse> {
        self.post(&format!("/queues/{}/redrive", segment(queue)), request).await
    }

    /// Asks in SQL; the answer with its types.
    pub async fn sql(&self, sql: &str) -> Result<SqlResponse> {
        self.post("/sql", &SqlRequest { sql: sql.to_owned() }).await
    }

    /// Asks in SQL; the answer as the server writes it in that media type: `text/csv`, or `text/plain` for a table.
    pub async fn sql_as(&self, sql: &str, media_type: &str) -> Result<Bytes> {
        let request = self.request(Method::POST, "/sql").header(ACCEPT, media_type).json(&SqlRequest { sql: sql.to_owned() });
        self.bytes(request).await
    }
}
