//! The results of a session as they come. The connection may break and the server may be restarted; the stream goes on after the last
//! delivery that was seen.

use std::time::Duration;

use bytes::Bytes;
use reqwest::{Method, Response};
use tidemill_base::{Error, ErrorKind, Result};

use crate::Client;
use crate::frames::{Frame, FrameParser, TaskOutcome};
use crate::grid::session_path;
use crate::time::{sleep, within};

/// The server says that it is alive every few seconds; longer than this it does not stay silent.
const SILENCE: Duration = Duration::from_secs(60);
/// One call follows for so many seconds; then there is another.
const WAIT: u64 = 300;
/// Between two tries to reach a server that is gone: the first pause, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// After so many tries in a row it is given up: about five minutes.
const MAX_TRIES: u32 = 65;

/// Something about the results of a session.
#[derive(Debug)]
pub enum ResultEvent {
    /// What was counted together.
    Delivery {
        /// Its number: the cursor to go on after.
        n: u64,
        /// The outcomes, each task's last one for good unless somebody asks for a retry.
        outcomes: Vec<TaskOutcome>,
    },
    /// The session has ended in this state.
    End(String),
    /// The server went away, and it is tried again. Told once for each time that it goes.
    Lost(Error),
}

/// Results of one session, in the order in which they were counted.
#[derive(Debug)]
pub struct Results {
    client: Client,
    id: String,
    after: u64,
    follow: bool,
    open: Option<Response>,
    parser: FrameParser,
    tries: u32,
    over: bool,
}

impl Client {
    /// The results of a session that were delivered after number `after` (0: all). With `follow` until the session ends, else those there are.
    pub fn session_results(&self, id: &str, after: u64, follow: bool) -> Results {
        let id = id.to_owned();
        Results { client: self.clone(), id, after, follow, open: None, parser: FrameParser::default(), tries: 0, over: false }
    }
}

impl Results {
    /// The last delivery that was handed out: where to go on another time.
    pub const fn cursor(&self) -> u64 {
        self.after
    }

    /// The next event; `None` at the end. An error other than a server that cannot be reached, or one that stays away, ends it. Dropping the
    /// future loses nothing.
    pub async fn next(&mut self) -> Result<Option<ResultEvent>> {
        loop {
            match self.parser.pop() {
                // What is sent again after a break is not handed out twice.
                Some(Frame::Results { n, .. }) if n <= self.after => continue,
                Some(Frame::Results { n, outcomes }) => {
                    (self.after, self.tries) = (n, 0);
                    return Ok(Some(ResultEvent::Delivery { n, outcomes }));
                }
                Some(Frame::End { state, .. }) => {
                    self.over = true;
                    return Ok(Some(ResultEvent::End(state)));
                }
                Some(Frame::Nothing { .. }) => {
                    self.tries = 0;
                    continue;
                }
                None if self.over => return Ok(None),
                None => {}
            }
            match self.advance().await {
                Ok(()) => {}
                Err(e) if e.kind() == ErrorKind::Unavailable && self.tries < MAX_TRIES => {
                    (self.open, self.parser) = (None, FrameParser::default());
                    self.tries += 1;
                    if self.tries == 1 {
                        return Ok(Some(ResultEvent::Lost(e)));
                    }
                    sleep(PAUSES.0.saturating_mul(1 << self.tries.min(10)).min(PAUSES.1)).await;
                }
                Err(e) => return Err(e),
            }
        }
    }

    async fn advance(&mut self) -> Result<()> {
        let Some(response) = &mut self.open else {
            let wait = if self.follow { WAIT } else { 0 };
            let query = [("after", self.after), ("wait", wait)];
            let request = self.client.request(Method::GET, &session_path(&self.id, "/results")).query(&query);
            (self.open, self.parser) = (Some(self.client.send(request).await?), FrameParser::default());
            return Ok(());
        };
        let chunk: Option<Bytes> = match within(SILENCE, response.chunk()).await {
            Some(chunk) => chunk.map_err(|e| self.client.broken(e))?,
            None => return Err(Error::unavailable("the server has fallen silent")),
        };
        match chunk {
            Some(bytes) => self.parser.push(&bytes),
            None if self.follow => {
                self.open = None;
                // A server that ends one call after the other is about to go; it is not asked without a pause.
                sleep(PAUSES.0).await;
                Ok(())
            }
            None => {
                self.over = true;
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frames::tests::{delivery, end};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    /// Answers one connection after the other with these bytes and breaks each off; returns the cursors that were asked for.
    async fn serve(listener: TcpListener, answers: Vec<Vec<u8>>) -> Vec<String> {
        let mut asked = Vec::new();
        for answer in answers {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut head = [0_u8; 4096];
            let read = socket.read(&mut head).await.unwrap();
            let text = String::from_utf8_lossy(&head[..read]).into_owned();
            asked.push(text.split(' ').nth(1).unwrap().to_owned());
            // More is promised than comes.
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", answer.len() + 1);
            socket.write_all(&[head.as_bytes(), &answer].concat()).await.unwrap();
        }
        asked
    }

    #[tokio::test]
    async fn a_broken_stream_goes_on_after_what_was_seen() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = Client::new(&format!("http://{}", listener.local_addr().unwrap()), "t", None).unwrap();
        let first = delivery(1, &[(0, true, b"a")]);
        let second = delivery(2, &[(1, true, b"b"), (2, false, b"{}")]);
        // The second delivery is cut in two; then both come again, as a careless proxy might send them.
        let answers = vec![[&first[..], &second[..20]].concat(), [first, second, end(2, "failed")].concat()];
        let reading = async {
            let (mut results, mut seen) = (client.session_results("s 1", 0, true), Vec::new());
            while let Some(event) = results.next().await.unwrap() {
                seen.push(match event {
                    ResultEvent::Delivery { n, outcomes } => format!("{n}:{}", outcomes.len()),
                    ResultEvent::End(state) => state,
                    ResultEvent::Lost(_) => "lost".to_owned(),
                });
            }
            (seen, results.cursor())
        };
        let ((seen, cursor), asked) = tokio::join!(reading, serve(listener, answers));
        assert_eq!((seen, cursor), (["1:1", "lost", "2:2", "failed"].map(str::to_owned).to_vec(), 2));
        assert_eq!(asked, ["/api/v1/grid/sessions/s%201/results?after=0&wait=300", "/api/v1/grid/sessions/s%201/results?after=1&wait=300"]);
    }
}
