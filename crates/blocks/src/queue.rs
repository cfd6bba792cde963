//! Durable messages with leases.
//!
//! The words are those of SQS: a message is *received* under a *lease* (visibility timeout), *acknowledged* (deleted) or left to
//! be delivered again; after `max_receives` deliveries it goes to the *dead-letter* queue.
//!
//! Promises: what `send` answered survives a crash; each message is delivered at least once; no message is delivered to a second
//! receiver while its lease runs, and none comes back that was acknowledged, except after a crash or by a driver that says so
//! ([`Capabilities::strict_leases`] is false for SQS, where a server that missed a deletion may give the message once more). Not promised:
//! order.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tidemill_base::{Result, Timestamp};

/// The largest body a driver takes, 256 KiB (SQS's limit of old). Larger ones travel by reference: see [`crate::payload`].
pub const MAX_BODY_BYTES: usize = 256 * 1024;
/// The shortest lease that `receive` gives.
pub const MIN_LEASE: Duration = Duration::from_secs(1);
/// The longest lease (SQS's limit).
pub const MAX_LEASE: Duration = Duration::from_secs(12 * 3600);
/// The longest wait for a first message (SQS's limit).
pub const MAX_WAIT: Duration = Duration::from_secs(20);
/// The most messages in one call of `send`, `ack` or `extend`. Drivers cut this up to fit their engine (SQS: ten).
pub const MAX_BATCH: usize = 1000;

/// What a queue is set to. `ensure` with other settings changes them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueSettings {
    /// Deliveries before a message goes to `dead_letter`. `None`: never.
    pub max_receives: Option<u32>,
    /// The queue that takes the dead; it must exist.
    pub dead_letter: Option<String>,
    /// Messages older than this are dropped. SQS: 14 days at most.
    pub retention: Duration,
    /// Whoever sends here can find out later what was sent, and sends it again after a loss of power. Then a driver need not wait for the
    /// disk before it answers: what it has answered survives the end of its process, not that of its machine. Drivers over engines that do
    /// not know the difference keep it as any other.
    pub recoverable: bool,
}

impl Default for QueueSettings {
    fn default() -> Self {
        Self { max_receives: None, dead_letter: None, retention: Duration::from_secs(14 * 24 * 3600), recoverable: false }
    }
}

/// A message to send.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewMessage {
    /// At most [`MAX_BODY_BYTES`].
    pub body: Bytes,
    /// Not delivered before this has passed. Drivers whose engine has a shorter limit (SQS: 15 minutes) re-delay it themselves.
    pub delay: Duration,
}

impl NewMessage {
    /// To be delivered at once.
    pub fn now(body: impl Into<Bytes>) -> Self {
        Self { body: body.into(), delay: Duration::ZERO }
    }

    /// To be delivered after `delay`.
    pub fn after(body: impl Into<Bytes>, delay: Duration) -> Self {
        Self { body: body.into(), delay }
    }
}

/// Names a message within its queue for as long as it exists, through all deliveries.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MessageId(pub String);

/// Names one delivery. It is good for `ack` and `extend` until the message is delivered anew.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Receipt(pub String);

/// How to receive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receive {
    /// At most this many messages, 1 to [`MAX_BATCH`].
    pub max: usize,
    /// How long they are leased, 1 s to 12 h.
    pub lease: Duration,
    /// How long to wait for the first one, up to 20 s. Zero: answer at once.
    pub wait: Duration,
}

impl Receive {
    /// Up to `max` messages, without waiting.
    pub const fn up_to(max: usize, lease: Duration) -> Self {
        Self { max, lease, wait: Duration::ZERO }
    }

    /// The same, waiting up to `wait` for the first message.
    #[must_use]
    pub const fn waiting(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }
}

/// A message under lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// Which message.
    pub id: MessageId,
    /// Which delivery of it.
    pub receipt: Receipt,
    /// What was sent.
    pub body: Bytes,
    /// How often it has been delivered, this time included. Approximate on SQS.
    pub receives: u32,
    /// When it was sent.
    pub sent_at: Timestamp,
}

/// What became of one receipt in `ack` or `extend`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReceiptOutcome {
    /// Done.
    Done,
    /// The lease had ended and the message is gone, or has been delivered to somebody else. Stop working on it.
    Stale,
}

/// Counts of one queue. Approximate on SQS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct QueueStats {
    /// Can be received now.
    pub ready: u64,
    /// Waiting for their delay to pass.
    pub delayed: u64,
    /// Under lease.
    pub in_flight: u64,
    /// Since the oldest message that is not acknowledged was sent. `None` when empty.
    pub oldest_age: Option<Duration>,
}

/// A queue and its counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueInfo {
    /// Its name.
    pub name: String,
    /// Its settings.
    pub settings: QueueSettings,
    /// Its counts.
    pub stats: QueueStats,
}

/// A message looked at without a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Browsed {
    /// Which message.
    pub id: MessageId,
    /// What was sent.
    pub body: Bytes,
    /// How often it was delivered, in this queue or in the one it died in.
    pub receives: u32,
    /// When it was first sent.
    pub sent_at: Timestamp,
    /// The queue it died in, for a dead letter.
    pub died_in: Option<String>,
}

/// Which messages of a dead-letter queue to redrive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Redrive {
    /// All that are there now.
    All,
    /// These; unknown ones are passed over.
    Only(Vec<MessageId>),
}

/// What a driver's engine does beyond the common promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// No second delivery while a lease runs, none after an acknowledgement, unless the driver has crashed.
    pub strict_leases: bool,
    /// `stats` is exact.
    pub exact_stats: bool,
    /// `browse` sees every message, in order of sending.
    pub exact_browse: bool,
}

/// The queue block. Names are 1 to 80 characters of `a-z 0-9 - _ .` and queues are made by `ensure`; every other call on a queue
/// that does not exist answers `NotFound`. Bodies over the limit, batches over [`MAX_BATCH`] and names out of shape answer
/// `Invalid`. `Unavailable` may mean that the call took effect.
#[async_trait]
pub trait Queue: Send + Sync + std::fmt::Debug {
    /// What this driver does beyond the common promise.
    fn capabilities(&self) -> Capabilities;

    /// Makes the queue, or changes its settings. Its messages stay.
    async fn ensure(&self, queue: &str, settings: QueueSettings) -> Result<()>;

    /// Sends all or nothing of `messages` (on SQS: each ten of them). They are durable when it returns. Ids in the order given.
    async fn send(&self, queue: &str, messages: Vec<NewMessage>) -> Result<Vec<MessageId>>;

    /// Takes up to `how.max` messages under lease, possibly fewer than there are, none when `how.wait` passed without one.
    async fn receive(&self, queue: &str, how: Receive) -> Result<Vec<Delivery>>;

    /// Removes what was delivered. Outcomes in the order given; durable when it returns.
    async fn ack(&self, queue: &str, receipts: &[Receipt]) -> Result<Vec<ReceiptOutcome>>;

    /// Lets the leases end `lease` from now; zero gives the messages back at once. Outcomes in the order given.
    async fn extend(&self, queue: &str, receipts: &[Receipt], lease: Duration) -> Result<Vec<ReceiptOutcome>>;

    /// The queue's counts.
    async fn stats(&self, queue: &str) -> Result<QueueStats>;

    /// Every queue, by name.
    async fn list(&self) -> Result<Vec<QueueInfo>>;

    /// Looks at up to `max` messages without leasing them.
    async fn browse(&self, queue: &str, max: usize) -> Result<Vec<Browsed>>;

    /// Moves messages from the dead-letter queue `from` into `to`, or each into the queue it died in when `to` is `None`; their
    /// receive counts start anew. Returns how many moved. No message is lost if it fails midway; some may then be in both.
    async fn redrive(&self, from: &str, which: Redrive, to: Option<&str>) -> Result<u64>;

    /// Drops every message. Returns how many.
    async fn purge(&self, queue: &str) -> Result<u64>;
}

/// Checks a queue's name; see [`Queue`].
pub fn check_name(name: &str) -> Result<()> {
    let fits = (1..=80).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b));
    if fits {
        Ok(())
    } else {
        Err(tidemill_base::Error::invalid(format!("queue name `{name}` must be 1 to 80 characters of a-z 0-9 - _ .")))
    }
}

/// Checks a batch against the limits; see [`Queue`].
pub fn check_batch(messages: &[NewMessage]) -> Result<()> {
    use tidemill_base::Error;
    if messages.len() > MAX_BATCH {
        return Err(Error::invalid(format!("{} messages in one call; send at most {MAX_BATCH}", messages.len())));
    }
    match messages.iter().find(|m| m.body.len() > MAX_BODY_BYTES) {
        Some(m) => Err(Error::invalid(format!(
            "message body of {} bytes is over the limit of {MAX_BODY_BYTES}; store it as an object and send its key",
            m.body.len()
        ))),
        None => Ok(()),
    }
}

/// Checks how to receive: one to [`MAX_BATCH`] messages, leased for 1 s to 12 h, waiting for 20 s at most. `Invalid` otherwise.
pub fn check_receive(how: &Receive) -> Result<()> {
    use tidemill_base::Error;
    if how.max == 0 || how.max > MAX_BATCH {
        return Err(Error::invalid(format!("cannot receive {} messages in one call; ask for 1 to {MAX_BATCH}", how.max)));
    }
    if how.wait > MAX_WAIT {
        return Err(Error::invalid(format!("cannot wait {:?} for a message; wait {MAX_WAIT:?} at most and ask again", how.wait)));
    }
    if how.lease < MIN_LEASE {
        return Err(Error::invalid(format!("a lease of {:?} is too short; take {MIN_LEASE:?} at least", how.lease)));
    }
    check_lease(how.lease)
}

/// Checks the lease given to `extend`: 12 h at most. `Invalid` otherwise.
pub fn check_lease(lease: Duration) -> Result<()> {
    if lease <= MAX_LEASE {
        Ok(())
    } else {
        Err(tidemill_base::Error::invalid(format!("a lease of {lease:?} is too long; take {MAX_LEASE:?} at most and extend it")))
    }
}
