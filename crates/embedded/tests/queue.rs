//! The queue driver against the conformance suite, and what it promises beyond it.

#![allow(clippy::unwrap_used, reason = "a test ends where something fails")]

use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tidemill_base::{Env, ErrorKind, ManualClock, Timestamp};
use tidemill_blocks::queue::{MAX_BATCH, NewMessage, Queue, QueueSettings, Receipt, ReceiptOutcome, Receive, Redrive};
use tidemill_blocks_test::{Harness, queue_suite};
use tidemill_embedded::Embedded;

async fn make(h: &Harness) -> Arc<dyn Queue> {
    Embedded::open(&h.fresh_path("data"), h.env().clone()).unwrap().queue()
}

queue_suite!(real, make);

const START: Timestamp = Timestamp::from_millis(1_700_000_000_000);
const LEASE: Duration = Duration::from_secs(60);

/// A data folder whose clock is moved by hand, with the queue `q`.
async fn by_hand() -> (TempDir, Embedded, Arc<ManualClock>) {
    let folder = TempDir::new().unwrap();
    let (env, clock) = Env::manual(START, 1);
    let embedded = Embedded::open(folder.path(), env).unwrap();
    embedded.queue().ensure("q", QueueSettings::default()).await.unwrap();
    (folder, embedded, clock)
}

async fn send(queue: &Arc<dyn Queue>, count: usize) {
    queue.send("q", (0..count).map(|n| NewMessage::now(n.to_string())).collect()).await.unwrap();
}

fn reopen(folder: &TempDir, embedded: Embedded, clock: &Arc<ManualClock>) -> Embedded {
    drop(embedded);
    Embedded::open(folder.path(), Env::seeded(clock.clone(), 2)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn reopening_keeps_messages_leases_delays_and_counts() {
    let (folder, embedded, clock) = by_hand().await;
    let queue = embedded.queue();
    send(&queue, 4).await;
    queue.send("q", vec![NewMessage::after("later", LEASE * 2)]).await.unwrap();
    let held = queue.receive("q", Receive::up_to(2, LEASE)).await.unwrap();
    queue.ack("q", &[held[0].receipt.clone()]).await.unwrap();
    let before = queue.stats("q").await.unwrap();
    assert_eq!((before.ready, before.delayed, before.in_flight), (2, 1, 1));
    drop(queue);

    let embedded = reopen(&folder, embedded, &clock);
    let queue = embedded.queue();
    assert_eq!(queue.stats("q").await.unwrap(), before);
    let rest = queue.receive("q", Receive::up_to(10, LEASE)).await.unwrap();
    let bodies: Vec<&[u8]> = rest.iter().map(|d| &d.body[..]).collect();
    assert_eq!(bodies, [b"2", b"3"], "what is under lease must not be delivered before the lease ends");
    // The receipt of before is still good.
    assert_eq!(queue.extend("q", &[held[1].receipt.clone()], LEASE * 3).await.unwrap(), [ReceiptOutcome::Done]);
    drop(queue);

    clock.advance(LEASE * 4);
    let embedded = reopen(&folder, embedded, &clock);
    let queue = embedded.queue();
    let again = queue.receive("q", Receive::up_to(10, LEASE)).await.unwrap();
    let seen: Vec<_> = again.iter().map(|d| (&d.body[..], d.receives)).collect();
    assert_eq!(seen, [(&b"1"[..], 2), (b"2", 2), (b"3", 2), (b"later", 1)]);
    assert_eq!(queue.ack("q", &[held[1].receipt.clone()]).await.unwrap(), [ReceiptOutcome::Stale]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_keeps_its_past_through_reopening_and_redrive() {
    let (folder, embedded, clock) = by_hand().await;
    let queue = embedded.queue();
    queue.ensure("dead", QueueSettings::default()).await.unwrap();
    let mortal = QueueSettings { max_receives: Some(1), dead_letter: Some("dead".into()), ..QueueSettings::default() };
    queue.ensure("q", mortal).await.unwrap();
    queue.send("q", vec![NewMessage::now("poison"), NewMessage::now("bad")]).await.unwrap();
    queue.receive("q", Receive::up_to(2, LEASE)).await.unwrap();
    clock.advance(LEASE + Duration::from_secs(1));
    assert_eq!(queue.stats("q").await.unwrap().oldest_age, None);
    drop(queue);

    let embedded = reopen(&folder, embedded, &clock);
    let queue = embedded.queue();
    let dead = queue.browse("dead", 10).await.unwrap();
    assert_eq!(dead.len(), 2);
    for letter in &dead {
        assert_eq!((letter.receives, letter.sent_at, letter.died_in.as_deref()), (1, START, Some("q")));
    }
    let unknown = tidemill_blocks::queue::MessageId("nothing".into());
    assert_eq!(queue.redrive("dead", Redrive::Only(vec![dead[1].id.clone(), unknown, dead[1].id.clone()]), None).await.unwrap(), 1);
    assert_eq!(queue.browse("dead", 10).await.unwrap().len(), 1);
    let revived = queue.receive("q", Receive::up_to(10, LEASE)).await.unwrap();
    assert_eq!((&revived[0].body[..], revived[0].receives, revived[0].sent_at), (&b"bad"[..], 1, START));
    assert_eq!(revived.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_dead_letters_and_more_are_redriven_and_purged() {
    let (_folder, embedded, _clock) = by_hand().await;
    let queue = embedded.queue();
    queue.ensure("other", QueueSettings::default()).await.unwrap();
    for _ in 0..3 {
        send(&queue, 900).await;
    }
    queue.receive("q", Receive::up_to(100, LEASE)).await.unwrap();
    assert_eq!(queue.redrive("q", Redrive::All, Some("other")).await.unwrap(), 2600, "held messages stay");
    assert_eq!(queue.stats("other").await.unwrap().ready, 2600);
    assert_eq!(queue.purge("other").await.unwrap(), 2600);
    assert_eq!(queue.purge("q").await.unwrap(), 100);
    assert!(queue.browse("q", 10).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn opening_finds_everything_behind_many_acknowledged_messages() {
    let (folder, embedded, clock) = by_hand().await;
    let queue = embedded.queue();
    queue.ensure("dead", QueueSettings::default()).await.unwrap();
    send(&queue, 1).await;
    // Was sent before all others, and arrives among the dead after the low mark there has moved.
    let mortal = QueueSettings { max_receives: Some(1), dead_letter: Some("dead".into()), ..QueueSettings::default() };
    queue.ensure("q", mortal).await.unwrap();
    queue.receive("q", Receive::up_to(1, LEASE)).await.unwrap();
    for _ in 0..20 {
        queue.send("dead", vec![NewMessage::now("x"); MAX_BATCH]).await.unwrap();
        let got = queue.receive("dead", Receive::up_to(MAX_BATCH, LEASE)).await.unwrap();
        queue.send("dead", vec![NewMessage::now("kept")]).await.unwrap();
        let receipts: Vec<Receipt> = got.into_iter().filter(|d| &d.body[..] == b"x").map(|d| d.receipt).collect();
        queue.ack("dead", &receipts).await.unwrap();
    }
    let kept = queue.stats("dead").await.unwrap();
    clock.advance(LEASE * 2);
    queue.stats("q").await.unwrap();
    drop(queue);
    let embedded = reopen(&folder, embedded, &clock);
    let found = embedded.queue().stats("dead").await.unwrap();
    assert_eq!(found.ready, kept.ready + kept.in_flight + 1, "the kept ones and the dead letter");
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_are_never_given_twice() {
    let (folder, embedded, clock) = by_hand().await;
    let first = embedded.queue().send("q", vec![NewMessage::now("a")]).await.unwrap();
    embedded.queue().purge("q").await.unwrap();
    let embedded = reopen(&folder, embedded, &clock);
    let second = embedded.queue().send("q", vec![NewMessage::now("b")]).await.unwrap();
    assert!(first < second, "{first:?} {second:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_overfull_batch_is_refused_whole() {
    let (_folder, embedded, _clock) = by_hand().await;
    let queue = embedded.queue();
    let e = queue.send("q", vec![NewMessage::now("x"); MAX_BATCH + 1]).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Invalid);
    let e = queue.send("q", vec![NewMessage::now("x"), NewMessage::now(vec![0; 300_000])]).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Invalid);
    assert_eq!(queue.stats("q").await.unwrap().ready, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_be_sent_again_does_not_wait_for_the_disk_and_survives_the_process() {
    let (folder, embedded, clock) = by_hand().await;
    let queue = embedded.queue();
    queue.ensure("r", QueueSettings { recoverable: true, ..QueueSettings::default() }).await.unwrap();
    let before = embedded.counters();
    queue.send("r", vec![NewMessage::now("1"), NewMessage::now("2")]).await.unwrap();
    let got = queue.receive("r", Receive::up_to(1, LEASE)).await.unwrap();
    queue.ack("r", &[got[0].receipt.clone()]).await.unwrap();
    assert_eq!(embedded.counters().syncs, before.syncs);
    send(&queue, 1).await;
    assert_eq!(embedded.counters().syncs, before.syncs + 1, "any other queue does");
    drop(queue);

    let embedded = reopen(&folder, embedded, &clock);
    let left = embedded.queue().receive("r", Receive::up_to(10, LEASE)).await.unwrap();
    assert_eq!(left.iter().map(|d| &d.body[..]).collect::<Vec<_>>(), [b"2"]);
}
