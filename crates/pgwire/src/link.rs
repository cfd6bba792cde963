//! A connection: messages in, messages out, and what can come in between.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::BytesMut;
use tidemill_base::Error;
use tidemill_runtime::{Shutdown, sleep, timeout};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;

use crate::error::{CANCELLED, SqlError};
use crate::wire::{Frontend, Malformed, Reply, frame, message};

/// The largest message of a signed-in client, in bytes: a statement with its values.
const MAX_MESSAGE: usize = 8 << 20;
/// The largest message of anybody else.
pub(crate) const MAX_FIRST: usize = 10 << 10;
/// What a client may send ahead while a statement runs, in bytes; more waits in the network.
const MAX_AHEAD: usize = 64 << 10;
/// How long a client may take to read what is sent before the connection is given up.
const READING: Duration = Duration::from_secs(60);
/// Answers are sent when they have become so long, in bytes.
pub(crate) const SEND_AT: usize = 64 << 10;
/// What one read takes from the network at most, in bytes.
const READ: usize = 16 << 10;

/// TCP with or without TLS.
pub(crate) trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// Why something did not come to its end.
#[derive(Debug)]
pub(crate) enum Halt {
    /// The statement failed; the session goes on.
    Error(SqlError),
    /// The session ends with this.
    Fatal(SqlError),
    /// There is nobody there any more.
    Gone,
}

impl From<SqlError> for Halt {
    fn from(error: SqlError) -> Self {
        Self::Error(error)
    }
}

impl From<Error> for Halt {
    fn from(error: Error) -> Self {
        Self::Error(error.into())
    }
}

impl From<io::Error> for Halt {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

impl From<Malformed> for Halt {
    fn from(malformed: Malformed) -> Self {
        Self::Fatal(SqlError::new("08P01", format!("protocol error: {}", malformed.0)))
    }
}

/// What comes next.
#[derive(Debug)]
pub(crate) enum Event {
    Message(Frontend),
    /// The time that was asked for is over.
    Woken,
}

/// A connection after its encryption is settled.
pub(crate) struct Link {
    pub(crate) stream: Box<dyn Io>,
    pub(crate) input: BytesMut,
    pub(crate) reply: Reply,
    pub(crate) peer: SocketAddr,
    pub(crate) shutdown: Shutdown,
    pub(crate) idle: Duration,
    pub(crate) signed_in: bool,
}

impl Link {
    /// The next message. What waits to be sent goes first. `wake` returns earlier.
    pub(crate) async fn next(&mut self, wake: Option<Duration>) -> Result<Event, Halt> {
        let max = if self.signed_in { MAX_MESSAGE } else { MAX_FIRST };
        let idle = self.idle;
        loop {
            if let Some((tag, body)) = frame(&mut self.input, max)? {
                return Ok(Event::Message(message(tag, body)?));
            }
            self.flush().await?;
            self.input.reserve(READ);
            tokio::select! {
                biased;
                () = self.shutdown.closing() => return Err(closing()),
                got = self.stream.read_buf(&mut self.input) => if got? == 0 { return Err(Halt::Gone) },
                () = sleep(wake.unwrap_or(idle).min(idle)) => {
                    if wake.is_some_and(|w| w < idle) {
                        return Ok(Event::Woken);
                    }
                    return Err(Halt::Fatal(SqlError::new("57P05", format!("terminating connection that was idle for {idle:?}"))));
                }
            }
        }
    }

    /// Sends what waits.
    pub(crate) async fn flush(&mut self) -> Result<(), Halt> {
        if self.reply.len() == 0 {
            return Ok(());
        }
        let out = self.reply.take();
        let send = async {
            self.stream.write_all(&out).await?;
            self.stream.flush().await
        };
        match timeout(READING, "a client that reads", send).await {
            Ok(sent) => Ok(sent?),
            Err(_) => Err(Halt::Gone),
        }
    }

    /// The value of `work`, unless its statement is to end before: it was cancelled, the client is gone, or the server closes. What the
    /// client sends meanwhile is kept.
    pub(crate) async fn attend<T>(&mut self, asked: &mut watch::Receiver<u64>, work: impl Future<Output = T>) -> Result<T, Halt> {
        let mut work = std::pin::pin!(work);
        loop {
            let listens = self.input.len() < MAX_AHEAD;
            if listens {
                self.input.reserve(READ);
            }
            tokio::select! {
                biased;
                // The sender lives as long as this session's entry.
                _ = asked.changed() => return Err(Halt::Error(SqlError::new(CANCELLED, "canceling statement due to user request"))),
                () = self.shutdown.closing() => return Err(closing()),
                value = &mut work => return Ok(value),
                got = self.stream.read_buf(&mut self.input), if listens => if got? == 0 { return Err(Halt::Gone) },
            }
        }
    }
}

pub(crate) fn closing() -> Halt {
    Halt::Fatal(SqlError::new("57P01", "terminating connection, since the server is stopping"))
}
