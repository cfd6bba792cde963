//! A job as it changes. The connection may break and the server may be restarted; the stream goes on when it is there again.

use std::time::Duration;

use reqwest::header::ACCEPT;
use reqwest::{Method, Response};
use tidemill_api::JobDetail;
use tidemill_base::{Error, ErrorKind, Result};

use crate::Client;
use crate::http::segment;
use crate::sse::SseParser;
use crate::time::{sleep, within};

/// Longer than this a stream does not stay silent; then it is opened anew, which costs one event.
const SILENCE: Duration = Duration::from_secs(60);
/// Between two tries to reach a server that is gone: the first pause, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// After so many tries in a row it is given up: about five minutes.
const MAX_TRIES: u32 = 65;

/// Something about a watched job.
#[derive(Debug)]
pub enum JobEvent {
    /// The job as it is now.
    Job(Box<JobDetail>),
    /// The server went away, and it is tried again. Told once for each time that it goes.
    Lost(Error),
}

/// The changes of one job.
#[derive(Debug)]
pub struct JobEvents {
    client: Client,
    id: String,
    open: Option<Response>,
    parser: SseParser,
    tries: u32,
    over: bool,
}

/// Whether a job in this state will not change by itself any more.
pub fn is_final(state: &str) -> bool {
    matches!(state, "succeeded" | "failed" | "cancelled")
}

impl Client {
    /// Watches a job. The first event is the job as it is.
    pub fn watch(&self, id: &str) -> JobEvents {
        JobEvents { client: self.clone(), id: id.to_owned(), open: None, parser: SseParser::default(), tries: 0, over: false }
    }
}

impl JobEvents {
    /// The next event; `None` after the job's final state. An error other than a server that cannot be reached, or one that stays away,
    /// ends it. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Result<Option<JobEvent>> {
        loop {
            if let Some(data) = self.parser.pop() {
                return self.read(&data).map(Some);
            }
            if self.over {
                return Ok(None);
            }
            match self.advance().await {
                Ok(()) => {}
                Err(e) if e.kind() == ErrorKind::Unavailable && self.tries < MAX_TRIES => {
                    (self.open, self.parser) = (None, SseParser::default());
                    self.tries += 1;
                    if self.tries == 1 {
                        return Ok(Some(JobEvent::Lost(e)));
                    }
                    sleep(PAUSES.0.saturating_mul(1 << self.tries.min(10)).min(PAUSES.1)).await;
                }
                Err(e) => return Err(e),
            }
        }
    }

    fn read(&mut self, data: &[u8]) -> Result<JobEvent> {
        let job: JobDetail = serde_json::from_slice(data)
            .map_err(|e| Error::internal(format!("an event of job `{}` cannot be read", self.id)).with_source(e))?;
        self.tries = 0;
        self.over = is_final(&job.state);
        Ok(JobEvent::Job(Box::new(job)))
    }

    async fn advance(&mut self) -> Result<()> {
        let Some(response) = &mut self.open else {
            let path = format!("/batch/jobs/{}/events", segment(&self.id));
            let request = self.client.request(Method::GET, &path).header(ACCEPT, "text/event-stream");
            self.open = Some(self.client.send(request).await?);
            return Ok(());
        };
        let Some(chunk) = within(SILENCE, response.chunk()).await else {
            (self.open, self.parser) = (None, SseParser::default());
            return Ok(());
        };
        match chunk.map_err(|e| self.client.broken(e))? {
            Some(bytes) => self.parser.push(&bytes),
            None => Err(Error::unavailable("the server ended the stream of events")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    fn job(state: &str) -> String {
        let tasks = r#"{"total":1,"succeeded":0,"failed":0,"running":1,"waiting":0,"retrying":0,"cancelled":0,"skipped":0}"#;
        format!(
            r#"{{"id":"j1","name":"n","user":"u","class":"default","priority":0,"state":"{state}","reason":"","tasks":{tasks},"attempts":0,"submitted_at":"","started_at":null,"finished_at":null,"after":[],"labels":{{}},"cron":null,"cron_parent":null,"stages":[],"cost":0.0,"spec":{{}}}}"#
        )
    }

    /// Answers one connection after the other with these events, and breaks each off.
    async fn serve(listener: TcpListener, answers: Vec<String>) {
        for answer in answers {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut head = [0_u8; 4096];
            let read = socket.read(&mut head).await.unwrap();
            assert!(head[..read].starts_with(b"GET /api/v1/batch/jobs/j1/events "));
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
            socket.write_all(format!("{head}data: {answer}\n\n").as_bytes()).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_broken_stream_is_taken_up_again_until_the_job_has_ended() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = Client::new(&format!("http://{}", listener.local_addr().unwrap()), "t", None).unwrap();
        let watching = async {
            let (mut events, mut seen) = (client.watch("j1"), Vec::new());
            while let Some(event) = events.next().await.unwrap() {
                seen.push(match event {
                    JobEvent::Job(job) => job.state,
                    JobEvent::Lost(_) => "lost".to_owned(),
                });
            }
            seen
        };
        let (seen, ()) = tokio::join!(watching, serve(listener, vec![job("running"), job("succeeded")]));
        assert_eq!(seen, ["running", "lost", "succeeded"]);
    }
}
