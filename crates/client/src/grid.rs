//! Sessions of the grid.

use bytes::{BufMut as _, Bytes, BytesMut};
use reqwest::Method;
use reqwest::header::CONTENT_TYPE;
use tidemill_api::{
    CancelTasksRequest, CancelTasksResponse, OpenSessionRequest, OpenSessionResponse, PriorityRequest, RetryRequest, RetryResponse,
    SessionDetail, SessionList, SubmitTasksResponse,
};
use tidemill_base::{Error, Result};

use crate::Client;
use crate::batch::pairs;
use crate::http::segment;

/// The most tasks in one submission.
pub const MAX_SUBMISSION_TASKS: usize = 1_000_000;

/// Which sessions to list.
#[derive(Debug, Clone, Default)]
pub struct SessionFilter {
    /// In this state only.
    pub state: Option<String>,
    /// Of this user only.
    pub user: Option<String>,
    /// From here on: `next` of the page before.
    pub after: Option<String>,
    /// No more than this.
    pub limit: Option<u32>,
}

pub(crate) fn session_path(id: &str, rest: &str) -> String {
    format!("/grid/sessions/{}{rest}", segment(id))
}

impl Client {
    /// Opens a session. A second call by the same user with the same token answers with the first one's session.
    pub async fn open_session(&self, request: &OpenSessionRequest) -> Result<OpenSessionResponse> {
        self.post("/grid/sessions", request).await
    }

    /// Sessions, newest first.
    pub async fn grid_sessions(&self, filter: &SessionFilter) -> Result<SessionList> {
        let f = filter.clone();
        let query = pairs([("state", f.state), ("user", f.user), ("after", f.after), ("limit", f.limit.map(|n| n.to_string()))]);
        self.get("/grid/sessions", &query).await
    }

    /// One session.
    pub async fn grid_session(&self, id: &str) -> Result<SessionDetail> {
        self.get(&session_path(id, ""), &[]).await
    }

    /// Hands tasks to a session: what [`submission`] wrote. With a token the call may be made again when its answer was lost.
    pub async fn submit_tasks(&self, id: &str, submission: Bytes, client_token: Option<&str>) -> Result<SubmitTasksResponse> {
        let query = pairs([("client_token", client_token.map(str::to_owned))]);
        let request =
            self.request(Method::POST, &session_path(id, "/tasks")).query(&query).header(CONTENT_TYPE, "application/octet-stream");
        self.json(request.body(submission)).await
    }

    /// No more tasks: the session ends with the last of those that it has.
    pub async fn close_session(&self, id: &str) -> Result<()> {
        self.tell(self.request(Method::POST, &session_path(id, "/close"))).await
    }

    /// Releases no more tasks; those that run go on.
    pub async fn pause_session(&self, id: &str) -> Result<()> {
        self.tell(self.request(Method::POST, &session_path(id, "/pause"))).await
    }

    /// Goes on after a pause.
    pub async fn resume_session(&self, id: &str) -> Result<()> {
        self.tell(self.request(Method::POST, &session_path(id, "/resume"))).await
    }

    /// Ends it; what runs is stopped.
    pub async fn cancel_session(&self, id: &str) -> Result<()> {
        self.tell(self.request(Method::POST, &session_path(id, "/cancel"))).await
    }

    /// Gives up tasks that have not begun, or with `running` those that run as well. It may be asked again.
    pub async fn cancel_tasks(&self, id: &str, request: &CancelTasksRequest) -> Result<CancelTasksResponse> {
        self.post(&session_path(id, "/tasks/cancel"), request).await
    }

    /// Says that whoever opened the session is there. A session with a `keep_alive` ends without such a word; submitting and following results
    /// says so as well.
    pub async fn keep_session_alive(&self, id: &str) -> Result<()> {
        self.tell(self.request(Method::POST, &session_path(id, "/keep-alive"))).await
    }

    /// Sets the priority, -1000 to 1000.
    pub async fn set_session_priority(&self, id: &str, priority: i32) -> Result<()> {
        self.tell(self.request(Method::PUT, &session_path(id, "/priority")).json(&PriorityRequest { priority })).await
    }

    /// Tries failed tasks again: those named, or all.
    pub async fn retry_session(&self, id: &str, request: &RetryRequest) -> Result<RetryResponse> {
        self.post(&session_path(id, "/retry"), request).await
    }

    /// Deletes a session that has ended, with all results. It is under way when this returns; [`Client::deletion`] tells how far it has come.
    pub async fn delete_session(&self, id: &str) -> Result<()> {
        self.tell(self.request(Method::DELETE, &session_path(id, ""))).await
    }
}

/// Tasks as the server takes them: `TMS1`, how many, no dependencies, the length of each payload, the payloads. `Invalid` when there is none,
/// or more than [`MAX_SUBMISSION_TASKS`], or one of 4 GiB.
pub fn submission(payloads: &[Bytes]) -> Result<Bytes> {
    if payloads.is_empty() || payloads.len() > MAX_SUBMISSION_TASKS {
        return Err(Error::invalid(format!("a submission has 1 to {MAX_SUBMISSION_TASKS} tasks, and this one {}", payloads.len())));
    }
    let bytes: usize = payloads.iter().map(Bytes::len).sum();
    let mut out = BytesMut::with_capacity(12 + 4 * payloads.len() + bytes);
    out.put_slice(b"TMS1");
    out.put_u32_le(u32::try_from(payloads.len()).unwrap_or(u32::MAX));
    out.put_u32_le(0);
    for (task, payload) in payloads.iter().enumerate() {
        let length = u32::try_from(payload.len());
        out.put_u32_le(length.map_err(|_| Error::invalid(format!("task {task} has {} bytes; put it into an object", payload.len())))?);
    }
    payloads.iter().for_each(|p| out.put_slice(p));
    Ok(out.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_are_written_as_columns() {
        let bytes = submission(&[Bytes::from_static(b"one"), Bytes::new(), Bytes::from_static(b"x")]).unwrap();
        assert_eq!(&bytes[..], b"TMS1\x03\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x01\0\0\0onex");
        assert!(submission(&[]).unwrap_err().message().contains("1 to 1000000"));
    }
}
