//! The queue on SQS: one standard queue for each of ours.
//!
//! | ours | SQS's |
//! |---|---|
//! | `send`, `ack`, `extend` | the batch calls, ten messages or one MiB at a time, eight in flight |
//! | `receive` | long polls of up to 20 s; more than ten messages by further polls at once, if the first brought ten |
//! | a lease | the visibility timeout, in whole seconds, rounded up |
//! | a delay up to 15 minutes | `DelaySeconds` |
//! | a longer delay | the driver sends the message anew when it surfaces too early |
//! | dead letters | a redrive policy: SQS itself moves what was received too often |
//! | `redrive` | the driver sends copies and deletes; SQS's own cannot choose messages |
//! | `stats` | queue attributes; they lag by up to a minute |
//!
//! The role needs, on queues that begin with the prefix: `sqs:` `CreateQueue`, `TagQueue`, `ListQueueTags`, `GetQueueUrl`,
//! `GetQueueAttributes`, `SetQueueAttributes`, `SendMessage`, `ReceiveMessage`, `DeleteMessage`, `ChangeMessageVisibility`,
//! `PurgeQueue`; and `ListQueues` for `list` and [`Aws::check`].
//!
//! What SQS does not promise, [`Capabilities`] does not claim: a message may be delivered twice within a lease; a receipt that has
//! gone stale is answered `Done` when SQS does so, though the message comes again; counts are approximate. SQS does not tell the age
//! of the oldest message: [`QueueStats::oldest_age`] is the age of the oldest among the last messages that this process received
//! from the queue, and before it has received any, the time since it first saw some there. A redelivered message of long ago that
//! waits behind others is not known to it.
//!
//! `browse` receives and gives back, which SQS counts as a delivery. In a queue whose messages die after so many of them, looking
//! would kill, so there `browse` sees nothing. Dead-letter queues have no such limit, as a rule.

mod batches;
mod dead;
mod envelope;
mod names;
mod receipts;
mod receive;
mod settings;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_sqs::types::QueueAttributeName as Name;
use futures::{StreamExt, TryStreamExt, stream};
use tidemill_base::{Error, ErrorKind, Result, Timestamp};
use tidemill_blocks::queue::{
    Browsed, Capabilities, Delivery, MAX_BATCH, MessageId, NewMessage, Queue, QueueInfo, QueueSettings, QueueStats, Receipt,
    ReceiptOutcome, Receive, Redrive, check_batch, check_lease, check_receive,
};

use crate::connect::{Aws, Inner};
use crate::error::error;
use batches::{IN_FLIGHT, Sealed};
use envelope::Envelope;
use receipts::{Handle, seconds};
use settings::Attributes;

/// SQS's longest delay.
const MAX_DELAY: Duration = Duration::from_secs(15 * 60);

impl Aws {
    /// The queue block on SQS.
    pub fn queue(&self) -> Arc<dyn Queue> {
        Arc::new(SqsQueue { inner: self.inner.clone(), known: Mutex::default() })
    }
}

/// The queue block on SQS; see the module's documentation.
#[derive(Debug)]
pub(crate) struct SqsQueue {
    inner: Arc<Inner>,
    known: Mutex<BTreeMap<String, Known>>,
}

/// What this process knows of a queue.
#[derive(Debug, Clone)]
struct Known {
    url: String,
    /// When the oldest of the last messages received was sent, or when the queue was first seen with messages in it.
    oldest: Option<Timestamp>,
}

impl SqsQueue {
    fn known(&self) -> MutexGuard<'_, BTreeMap<String, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The queue's URL; `NotFound` when there is no such queue.
    async fn url(&self, queue: &str) -> Result<String> {
        let name = names::physical(&self.inner.settings.prefix, queue)?;
        if let Some(known) = self.known().get(queue) {
            return Ok(known.url.clone());
        }
        let got = self.inner.sqs.get_queue_url().queue_name(name).send().await;
        let got = got.map_err(|e| self.named(queue, error(format!("find queue `{queue}`"), e)))?;
        let url = got.queue_url.ok_or_else(|| Error::unavailable(format!("SQS answers no URL for queue `{queue}`; try again")))?;
        self.known().insert(queue.to_owned(), Known { url: url.clone(), oldest: None });
        Ok(url)
    }

    /// Says which of our queues is missing, and forgets it.
    fn named(&self, queue: &str, e: Error) -> Error {
        if e.kind() != ErrorKind::NotFound {
            return e;
        }
        self.known().remove(queue);
        Error::not_found(format!("queue `{queue}` does not exist; make it with ensure")).with_source(e)
    }

    async fn attributes(&self, queue: &str) -> Result<Attributes> {
        let url = self.url(queue).await?;
        let got = self.inner.sqs.get_queue_attributes().queue_url(url).attribute_names(Name::All).send().await;
        let got = got.map_err(|e| self.named(queue, error(format!("look at queue `{queue}`"), e)))?;
        Ok(got.attributes.unwrap_or_default())
    }

    async fn arn(&self, queue: &str) -> Result<String> {
        let missing = || Error::unavailable(format!("SQS answers no ARN for queue `{queue}`; try again"));
        self.attributes(queue).await?.remove(&Name::QueueArn).ok_or_else(missing)
    }

    /// Makes the queue unless it is there.
    async fn create(&self, queue: &str, wanted: &BTreeMap<&'static str, (Name, String)>) -> Result<()> {
        let name = names::physical(&self.inner.settings.prefix, queue)?;
        let mut asked = self.inner.sqs.create_queue().queue_name(&name);
        for (attribute, value) in wanted.values().filter(|(_, value)| !value.is_empty()) {
            asked = asked.attributes(attribute.clone(), value);
        }
        if names::is_cut(&name) {
            asked = asked.tags(names::NAME_TAG, queue);
        }
        match asked.send().await.map_err(|e| error(format!("create queue `{queue}`"), e)) {
            Ok(made) => {
                if let Some(url) = made.queue_url {
                    self.known().insert(queue.to_owned(), Known { url, oldest: None });
                }
                Ok(())
            }
            // Somebody else has made it, with other settings.
            Err(e) if e.kind() == ErrorKind::Conflict => self.set(queue, wanted).await,
            Err(e) => Err(e),
        }
    }

    async fn set(&self, queue: &str, wanted: &BTreeMap<&'static str, (Name, String)>) -> Result<()> {
        let mut asked = self.inner.sqs.set_queue_attributes().queue_url(self.url(queue).await?);
        for (attribute, value) in wanted.values() {
            asked = asked.attributes(attribute.clone(), value);
        }
        let set = asked.send().await;
        set.map(drop).map_err(|e| self.named(queue, error(format!("change the settings of queue `{queue}`"), e)))
    }

    /// Counts with the estimated age; see the module's documentation.
    fn stats_of(&self, queue: &str, found: &Attributes) -> QueueStats {
        let mut stats = settings::stats(found);
        let now = self.inner.env.now();
        if let Some(known) = self.known().get_mut(queue) {
            if stats.ready + stats.delayed + stats.in_flight == 0 {
                known.oldest = None;
            } else {
                stats.oldest_age = Some(now.since(*known.oldest.get_or_insert(now)));
            }
        }
        stats
    }

    async fn info(&self, queue: String) -> Result<Option<QueueInfo>> {
        let found = match self.attributes(&queue).await {
            Ok(found) => found,
            // Removed since it was listed.
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        let (max_receives, dead_letter) = match settings::redrive(&found) {
            Some((arn, n)) => (Some(n), Some(self.name_of(names::last_part(&arn)).await?.unwrap_or(arn))),
            None => (None, None),
        };
        let settings = QueueSettings { max_receives, dead_letter, retention: settings::retention(&found), recoverable: false };
        Ok(Some(QueueInfo { stats: self.stats_of(&queue, &found), name: queue, settings }))
    }

    /// Our name of one of SQS's queues; `None` when it is not ours.
    async fn name_of(&self, physical: &str) -> Result<Option<String>> {
        if !names::is_cut(physical) {
            return Ok(names::logical(&self.inner.settings.prefix, physical));
        }
        let failed = |e| Error::context(e, format!("find what queue `{physical}` stands for"));
        let url = self.inner.sqs.get_queue_url().queue_name(physical).send().await.map_err(|e| failed(error("find it", e)))?;
        let tags =
            self.inner.sqs.list_queue_tags().set_queue_url(url.queue_url).send().await.map_err(|e| failed(error("read its tags", e)))?;
        Ok(tags.tags.and_then(|mut tags| tags.remove(names::NAME_TAG)))
    }

    /// A fresh message's id: the time, and randomness enough for all senders of a moment.
    fn fresh_id(&self) -> String {
        format!("{}{:013x}", self.inner.env.id("m"), self.inner.env.random_u64() >> 12)
    }

    /// As SQS is to have it now: what is due in more than 15 minutes surfaces before, and is sent anew then.
    fn sealed(envelope: &Envelope, now: Timestamp) -> Sealed {
        let left = envelope.due.map_or(Duration::ZERO, |due| due.since(now));
        Sealed { body: envelope.seal(), delay: seconds(left.min(MAX_DELAY)) }
    }
}

/// Receipts of this driver, each with its place among all.
fn handles(receipts: &[Receipt]) -> Result<(Vec<usize>, Vec<Handle>)> {
    if receipts.len() > MAX_BATCH {
        return Err(Error::invalid(format!("{} receipts in one call; send at most {MAX_BATCH}", receipts.len())));
    }
    Ok(receipts.iter().enumerate().filter_map(|(at, r)| Some((at, Handle::read(r)?))).unzip())
}

/// Outcomes of all receipts: what is no receipt of this driver is stale.
fn spread(count: usize, places: Vec<usize>, outcomes: Vec<ReceiptOutcome>) -> Vec<ReceiptOutcome> {
    let mut out = vec![ReceiptOutcome::Stale; count];
    for (at, outcome) in places.into_iter().zip(outcomes) {
        out[at] = outcome;
    }
    out
}

#[async_trait]
impl Queue for SqsQueue {
    fn capabilities(&self) -> Capabilities {
        Capabilities { strict_leases: false, exact_stats: false, exact_browse: false }
    }

    async fn ensure(&self, queue: &str, settings: QueueSettings) -> Result<()> {
        names::physical(&self.inner.settings.prefix, queue)?;
        settings::check(queue, &settings)?;
        let dead = match &settings.dead_letter {
            Some(dead) => Some(self.arn(dead).await.map_err(|e| e.context(format!("dead-letter queue of `{queue}`")))?),
            None => None,
        };
        let wanted = settings::attributes(&settings, dead.as_deref());
        match self.attributes(queue).await {
            Ok(found) if settings::same(&found, &wanted) => Ok(()),
            Ok(_) => self.set(queue, &wanted).await,
            Err(e) if e.kind() == ErrorKind::NotFound => self.create(queue, &wanted).await,
            Err(e) => Err(e),
        }
    }

    async fn send(&self, queue: &str, messages: Vec<NewMessage>) -> Result<Vec<MessageId>> {
        check_batch(&messages)?;
        let now = self.inner.env.now();
        let (mut ids, mut bodies) = (Vec::with_capacity(messages.len()), Vec::with_capacity(messages.len()));
        for m in messages {
            let id = self.fresh_id();
            let due = (!m.delay.is_zero()).then(|| now + m.delay);
            // Within SQS's limit the delay is SQS's alone to keep, so that clocks do not matter.
            let kept = due.filter(|_| m.delay > MAX_DELAY);
            let envelope = Envelope { id: id.clone(), sent_at: now, due: kept, queue: queue.to_owned(), body: m.body };
            bodies.push(Sealed { delay: seconds(m.delay.min(MAX_DELAY)), ..Self::sealed(&envelope, now) });
            ids.push(MessageId(id));
        }
        batches::send(self, queue, &bodies).await?;
        Ok(ids)
    }

    async fn receive(&self, queue: &str, how: Receive) -> Result<Vec<Delivery>> {
        check_receive(&how)?;
        receive::receive(self, queue, how).await
    }

    async fn ack(&self, queue: &str, receipts: &[Receipt]) -> Result<Vec<ReceiptOutcome>> {
        let (places, handles) = handles(receipts)?;
        Ok(spread(receipts.len(), places, batches::delete(self, queue, &handles).await?))
    }

    async fn extend(&self, queue: &str, receipts: &[Receipt], lease: Duration) -> Result<Vec<ReceiptOutcome>> {
        check_lease(lease)?;
        let (places, handles) = handles(receipts)?;
        Ok(spread(receipts.len(), places, batches::lease(self, queue, &handles, lease).await?))
    }

    async fn stats(&self, queue: &str) -> Result<QueueStats> {
        let found = self.attributes(queue).await?;
        Ok(self.stats_of(queue, &found))
    }

    async fn list(&self) -> Result<Vec<QueueInfo>> {
        let (mut found, mut from) = (Vec::new(), None);
        loop {
            let asked = self.inner.sqs.list_queues().queue_name_prefix(format!("{}-", self.inner.settings.prefix));
            let got = asked.max_results(1000).set_next_token(from).send().await.map_err(|e| error("list queues", e))?;
            for url in got.queue_urls.unwrap_or_default() {
                found.extend(self.name_of(names::last_part(&url)).await?);
            }
            from = got.next_token.filter(|t| !t.is_empty());
            if from.is_none() {
                break;
            }
        }
        let asked: Vec<_> = found.into_iter().map(|name| self.info(name)).collect();
        let infos: Vec<Option<QueueInfo>> = stream::iter(asked).buffer_unordered(IN_FLIGHT).try_collect().await?;
        let mut infos: Vec<QueueInfo> = infos.into_iter().flatten().collect();
        infos.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(infos)
    }

    async fn browse(&self, queue: &str, max: usize) -> Result<Vec<Browsed>> {
        dead::browse(self, queue, max).await
    }

    async fn redrive(&self, from: &str, which: Redrive, to: Option<&str>) -> Result<u64> {
        dead::redrive(self, from, &which, to).await
    }

    async fn purge(&self, queue: &str) -> Result<u64> {
        dead::purge(self, queue).await
    }
}
