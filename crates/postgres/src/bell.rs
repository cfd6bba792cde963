//! Waking those who wait: within this process at once, in other processes by `LISTEN` and `NOTIFY`.
//!
//! A transaction that notifies takes a lock of the whole server until it is on the disk, so that such transactions come one after
//! the other. So nothing here notifies inside a transaction that writes: what is to be told is gathered and sent by a task of its own
//! after the commit, many at once, in a transaction that writes nothing. What gets lost that way, or while the listener's connection
//! is down, is found by those who wait: they look by themselves every [`POLL`].

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use tidemill_base::{Error, HumanDuration, Result, RetryPolicy};
use tidemill_runtime::{Kind, Stopwatch, Tasks, sleep};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio_postgres::AsyncMessage;

use crate::error::from_pg;
use crate::link::Link;

/// How often those who wait look by themselves.
pub(crate) const POLL: Duration = Duration::from_secs(1);
/// The listener reconnects after pauses that grow to this.
const RECONNECT: RetryPolicy =
    RetryPolicy { attempts: u32::MAX, base: HumanDuration(Duration::from_millis(50)), cap: HumanDuration(Duration::from_secs(5)) };

/// What can be waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Topic {
    /// Messages of a queue.
    Queue(i32),
    /// Changes of a table.
    Table(i32),
}

impl Topic {
    fn parse(text: &str) -> Option<Self> {
        let id = text.get(1..)?.parse().ok()?;
        match text.as_bytes().first()? {
            b'q' => Some(Self::Queue(id)),
            b't' => Some(Self::Table(id)),
            _ => None,
        }
    }

    fn text(self) -> String {
        match self {
            Self::Queue(id) => format!("q{id}"),
            Self::Table(id) => format!("t{id}"),
        }
    }
}

/// Those who wait for one topic in this process.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    notify: Notify,
    count: AtomicUsize,
}

impl Waiters {
    /// Counts the caller as waiting until the answer is dropped.
    pub(crate) fn enter(&self) -> Waiting<'_> {
        self.count.fetch_add(1, Ordering::SeqCst);
        Waiting(self)
    }

    fn wake(&self, topic: Topic, count: usize) {
        match topic {
            // Every follower wants every change, while a message is for one receiver only.
            Topic::Table(_) => self.notify.notify_waiters(),
            Topic::Queue(_) => (0..count.min(self.count.load(Ordering::SeqCst))).for_each(|_| self.notify.notify_one()),
        }
    }
}

/// One who waits.
#[derive(Debug)]
pub(crate) struct Waiting<'a>(&'a Waiters);

impl<'a> Waiting<'a> {
    /// What is rung after this is called ends the wait, even before it is polled if it is enabled.
    pub(crate) fn notified(&self) -> Notified<'a> {
        self.0.notify.notified()
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The bell that everything in one process shares.
#[derive(Debug)]
pub(crate) struct Bell {
    channel: String,
    /// Tells our own notifications from those of others; they have been rung here already.
    me: String,
    waiters: Mutex<BTreeMap<Topic, Arc<Waiters>>>,
    outbox: Mutex<BTreeMap<Topic, usize>>,
    filled: Notify,
}

impl Bell {
    pub(crate) fn new(link: &Link) -> Self {
        let (channel, me) = (format!("tidemill_{}", link.target.schema), link.env.id("p"));
        Self { channel, me, waiters: Mutex::default(), outbox: Mutex::default(), filled: Notify::new() }
    }

    /// Those who wait for `topic`.
    pub(crate) fn waiters(&self, topic: Topic) -> Arc<Waiters> {
        Arc::clone(self.waiters.lock().unwrap_or_else(PoisonError::into_inner).entry(topic).or_default())
    }

    /// Says, after the commit, that there is something for up to `count` of those who wait for `topic`.
    pub(crate) fn ring(&self, topic: Topic, count: usize) {
        self.waiters(topic).wake(topic, count);
        *self.outbox.lock().unwrap_or_else(PoisonError::into_inner).entry(topic).or_default() += count;
        self.filled.notify_one();
    }

    /// Says so within this process only.
    pub(crate) fn ring_here(&self, topic: Topic, count: usize) {
        self.waiters(topic).wake(topic, count);
    }

    fn heard(&self, payload: &str) {
        let mut words = payload.split(' ');
        let (Some(topic), Some(count), Some(from)) = (words.next().and_then(Topic::parse), words.next(), words.next()) else { return };
        if from != self.me {
            self.ring_here(topic, count.parse().unwrap_or(1));
        }
    }

    fn everybody(&self) {
        for (topic, waiters) in &*self.waiters.lock().unwrap_or_else(PoisonError::into_inner) {
            waiters.wake(*topic, usize::MAX);
        }
    }

    /// Starts the tasks that listen and tell.
    pub(crate) fn start(self: &Arc<Self>, link: &Arc<Link>, tasks: &Tasks) {
        let (bell, link_, shutdown) = (Arc::clone(self), Arc::clone(link), tasks.shutdown().clone());
        tasks.spawn("listen", Kind::Request, async move {
            tokio::select! {
                biased;
                () = shutdown.closing() => {}
                () = bell.listen_for_ever(&link_) => {}
            }
            Ok(())
        });
        let (bell, link, shutdown) = (Arc::clone(self), Arc::clone(link), tasks.shutdown().clone());
        tasks.spawn("notify", Kind::Request, async move {
            tokio::select! {
                biased;
                () = shutdown.closing() => {}
                () = bell.tell_for_ever(&link) => {}
            }
            Ok(())
        });
    }

    async fn tell_for_ever(&self, link: &Link) {
        loop {
            self.filled.notified().await;
            let news = std::mem::take(&mut *self.outbox.lock().unwrap_or_else(PoisonError::into_inner));
            if let Err(e) = self.tell(link, news).await {
                tracing::debug!(error = %e.chain(), "other processes could not be notified; they look by themselves");
            }
        }
    }

    async fn tell(&self, link: &Link, news: BTreeMap<Topic, usize>) -> Result<()> {
        let payloads: Vec<String> = news.into_iter().map(|(topic, count)| format!("{} {count} {}", topic.text(), self.me)).collect();
        let client = link.client().await?;
        let sql = "SELECT pg_notify($1, p) FROM unnest($2::text[]) AS p";
        let statement = crate::link::prepared(&client, sql).await.map_err(from_pg)?;
        client.query(&statement, &[&self.channel, &payloads]).await.map(drop).map_err(from_pg)
    }

    async fn listen_for_ever(&self, link: &Link) {
        let mut attempt = 0;
        loop {
            let started = Stopwatch::start();
            if let Err(e) = self.listen(link).await {
                tracing::debug!(error = %e.chain(), "the connection that listens to PostgreSQL has ended; it is made again");
            }
            attempt = if started.elapsed() > RECONNECT.cap.0 { 1 } else { attempt + 1 };
            sleep(RECONNECT.delay(attempt, &link.env)).await;
        }
    }

    /// Listens until the connection ends.
    async fn listen(&self, link: &Link) -> Result<()> {
        let (client, mut connection) = link.target.config.connect(link.target.tls.clone()).await.map_err(from_pg)?;
        let mut messages = futures::stream::poll_fn(move |cx| connection.poll_message(cx));
        let listen = format!("LISTEN \"{}\"", self.channel);
        let mut begin = pin!(client.batch_execute(&listen));
        let mut listening = false;
        loop {
            tokio::select! {
                biased;
                begun = &mut begin, if !listening => {
                    begun.map_err(from_pg)?;
                    listening = true;
                    // What was told before is lost, so everybody looks.
                    self.everybody();
                }
                message = messages.next() => match message {
                    Some(Ok(AsyncMessage::Notification(n))) => self.heard(n.payload()),
                    Some(Ok(_)) => {}
                    Some(Err(e)) => return Err(from_pg(e)),
                    None => return Err(Error::unavailable("the server has closed the connection")),
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_survive_the_wire() {
        for topic in [Topic::Queue(0), Topic::Queue(i32::MAX), Topic::Table(17)] {
            assert_eq!(Topic::parse(&topic.text()), Some(topic));
        }
        for foreign in ["", "q", "x1", "q-", "ü", "tq"] {
            assert_eq!(Topic::parse(foreign), None, "{foreign}");
        }
    }
}
