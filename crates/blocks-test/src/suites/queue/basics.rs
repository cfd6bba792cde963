//! Names, limits, sending, looking.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tidemill_base::{ErrorKind, Result};
use tidemill_blocks::queue::{
    MAX_BATCH, MAX_BODY_BYTES, NewMessage, Queue, QueueSettings, QueueStats, Receipt, ReceiptOutcome, Receive, Redrive,
};

use super::{LONG, bodies, expect_none, fill, new_queue, receipts, take, take_one};
use crate::Harness;
use crate::suites::fails;

/// Names have 1 to 80 characters of `a-z 0-9 - _ .`; others are `Invalid`, whatever is asked of them.
pub async fn names_are_checked(q: &Arc<dyn Queue>, h: &Harness) -> Result<()> {
    for bad in ["", "Upper", "with space", "a/b", "ü", "a\0b", &"x".repeat(81)] {
        fails(ErrorKind::Invalid, bad, q.ensure(bad, QueueSettings::default()).await);
        fails(ErrorKind::Invalid, bad, q.send(bad, vec![NewMessage::now("x")]).await);
        fails(ErrorKind::Invalid, bad, q.stats(bad).await);
    }
    let longest = format!("{:x<80}", h.name("a.b-c_9"));
    q.ensure(&longest, QueueSettings::default()).await?;
    q.send(&longest, vec![NewMessage::now("x")]).await?;
    assert_eq!(take_one(q, &longest, LONG).await?.body, "x");
    Ok(())
}

/// Every call on a queue that was not made is `NotFound`.
pub async fn unknown_queues_are_not_found(q: &Arc<dyn Queue>, h: &Harness) -> Result<()> {
    let (no, known) = (&h.name("no"), &new_queue(q, h).await?);
    let receipt = &[Receipt("r".into())];
    fails(ErrorKind::NotFound, "send", q.send(no, vec![NewMessage::now("x")]).await);
    fails(ErrorKind::NotFound, "receive", q.receive(no, Receive::up_to(1, LONG)).await);
    fails(ErrorKind::NotFound, "waiting receive", q.receive(no, Receive::up_to(1, LONG).waiting(Duration::from_secs(2))).await);
    fails(ErrorKind::NotFound, "ack", q.ack(no, receipt).await);
    fails(ErrorKind::NotFound, "extend", q.extend(no, receipt, LONG).await);
    fails(ErrorKind::NotFound, "stats", q.stats(no).await);
    fails(ErrorKind::NotFound, "browse", q.browse(no, 1).await);
    fails(ErrorKind::NotFound, "redrive", q.redrive(no, Redrive::All, Some(known)).await);
    fails(ErrorKind::NotFound, "purge", q.purge(no).await);
    Ok(())
}

/// What was sent is received once, with its data, and is gone when acknowledged.
pub async fn send_receive_ack(q: &Arc<dyn Queue>, h: &Harness) -> Result<()> {
    let queue = new_queue(q, h).await?;
    let body = Bytes::from_static(b"\0\xff not text\n");
    let before = h.env().now();
    let ids = q.send(&queue, vec![NewMessage::now(body.clone())]).await?;
    let got = take_one(q, &queue, LONG).await?;
    assert_eq!((&got.id, &got.body, got.receives), (&ids[0], &body, 1));
    let leeway = Duration::from_secs(60);
    assert!(got.sent_at + leeway >= before && got.sent_at <= h.env().now() + leeway, "sent at {}", got.sent_at);
    expect_none(q, &queue).await?;
    assert_eq!(q.ack(&queue, &[got.receipt]).await?, vec![ReceiptOutcome::Done]);
    expect_none(q, &queue).await
}

/// `send` answers the ids in the order of the messages, all different.
pub async fn ids_come_in_the_order_given(q: &Arc<dyn Queue>, h: &Harness) -> Result<()> {
    let queue = new_queue(q, h).await?;
    let mut ids = fill(q, &queue, 25).await?;
    assert_eq!(ids.len(), 25);
    for d in take(q, &queue, 25, LONG).await? {
        let n = ids.iter().position(|id| *id == d.id).expect("the id of a delivery is one that send gave");
        assert_eq!(d.body, format!("m{n}"), "the id belongs to the body");
    }
    ids.extend(fill(q, &queue, 5).await?);
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), 30);
    Ok(())
}

/// Calls with nothing in them succeed and change nothing.
pub async fn empty_calls_do_nothing(q: &Arc<dyn Queue>, h: &Harness) -> Result<()> {
    let queue = new_queue(q, h).await?;
    assert!(q.send(&queue, vec![]).await?.is_empty());
    assert!(q.ack(&queue, &[]).await?.is_empty());
    assert!(q.extend(&queue, &[], LONG).await?.is_empty());
    assert!(q.browse(&queue, 10).await?.is_empty());
    assert_eq!(q.stats(&queue).await?, QueueStats::default());
    assert_eq!(q.purge(&queue).await?, 0);
    expect_none(q, &queue).await
}

/// A body of the limit passes whole; a longer one is `Invalid` and takes its batch with it.
pub async fn bodies_up_to_the_limit(q: &Arc<dyn Queue>, h: &Harness) -> Result<()> {
    let queue = new_queue(q, h).await?;
    let over = NewMessage::now(vec![7; MAX_BODY_BYTES + 1]);
    fails(ErrorKind::Invalid, "send", q.send(&queue, vec![NewMessage::now("fits"), over]).await);
    let largest: Bytes = (0..MAX_BODY_BYTES).map(|n| (n % 251) as u8).collect();
    q.send(&queue, vec![NewMessage::now(largest.clone())]).await?;
    let got = take(q, &queue, 2, LONG).await?;
    assert_eq!(got.len(), 1, "nothing of a refused batch is sent");
    assert!(got[0].body == largest, "the largest body comes back as it was sent");
    Ok(())
}

/// A batch of the limit passes in one call; a larger one is `Invalid` and nothing of it is sent.
pub async fn batches_up_to_the_limit(q: &Arc<dyn Queue>, h: &Harness) -> Result<()> {
    let queue = new_queue(q, h).await?;
    fails(ErrorKind::Invalid, "send", fill(q, &queue, MAX_BATCH + 1).await);
    expect_none(q, &queue).await?;
    assert_eq!(fill(q, &queue, MAX_BATCH).await?.len(), MAX_BATCH);
    let got = take(q, &queue, MAX_BATCH, LONG).await?;
    assert_eq!(bodies(&got).len(), MAX_BATCH);
    let mut all = receipts(&got);
    assert!(q.extend(&queue, &all, LONG).await?.iter().all(|o| *o == ReceiptOutcome::Done));
    all.push(Receipt("one too many".into()));
    fails(ErrorKind::Invalid, "extend", q.extend(&queue, &all, LONG).await);
    fails(ErrorKind::Invalid, "ack", q.ack(&queue, &all).await);
    all.pop();
    assert!(q.ack(&queue, &all).await?.iter().all(|o| *o == ReceiptOutcome::Done));
    expect_none(q, &queue).await
}

/// `receive` and `extend` keep to the limits of number, lease and wait.
pub async fn receive_limits_are_checked(q: &Arc<dyn Queue>, h: &Harness) -> Result<()> {
    let queue = new_queue(q, h).await?;
    fill(q, &queue, 1).await?;
    let (second, hour) = (Duration::from_secs(1), Duration::from_secs(3600));
    for bad in [
        Receive::up_to(0, LONG),
        Receive::up_to(MAX_BATCH + 1, LONG),
        Receive::up_to(1, Duration::ZERO),
        Receive::up_to(1, hour * 12 + second),
        Receive::up_to(1, LONG).waiting(Duration::from_secs(21)),
    ] {
        fails(ErrorKind::Invalid, &format!("{bad:?}"), q.receive(&queue, bad).await);
    }
    let got = take_one(q, &queue, hour * 12).await?;
    fails(ErrorKind::Invalid, "extend", q.extend(&queue, &[got.receipt], hour * 12 + second).await);
    Ok(())
}

/// Messages stay in their queue.
pub async fn queues_are_separate(q: &Arc<dyn Queue>, h: &Harness) -> Result<()> {
    let (a, b) = (new_queue(q, h).await?, new_queue(q, h).await?);
    q.send(&a, vec![NewMessage::now("for a")]).await?;
    q.send(&b, vec![NewMessage::now("for b")]).await?;
    assert_eq!(take_one(q, &b, LONG).await?.body, "for b");
    expect_none(q, &b).await?;
    assert_eq!(q.purge(&b).await?, 1);
    assert_eq!(take_one(q, &a, LONG).await?.body, "for a");
    Ok(())
}

/// Looking leaves messages where they are and counts no delivery.
pub async fn browse_does_not_lease(q: &Arc<dyn Queue>, h: &Harness) -> Result<()> {
    let queue = new_queue(q, h).await?;
    let ids = fill(q, &queue, 5).await?;
    assert!(q.browse(&queue, 3).await?.len() <= 3);
    if q.capabilities().exact_browse {
        let seen = q.browse(&queue, 100).await?;
        assert_eq!(seen.iter().map(|b| &b.id).collect::<Vec<_>>(), ids.iter().collect::<Vec<_>>());
        assert_eq!(seen.iter().map(|b| b.body.clone()).collect::<Vec<_>>(), ["m0", "m1", "m2", "m3", "m4"]);
        assert!(seen.iter().all(|b| b.receives == 0 && b.died_in.is_none()), "{seen:?}");
        assert_eq!(q.browse(&queue, 2).await?, seen[..2]);
        q.receive(&queue, Receive::up_to(1, LONG)).await?;
        q.send(&queue, vec![NewMessage::after("later", LONG)]).await?;
        assert_eq!(q.browse(&queue, 100).await?.len(), 6, "leased and delayed messages are seen too");
        assert_eq!(take(q, &queue, 4, LONG).await?.len(), 4);
    } else {
        h.skip("exact_browse")?;
        assert_eq!(bodies(&take(q, &queue, 5, LONG).await?).len(), 5);
    }
    Ok(())
}

/// Ready, delayed and leased messages are counted apart.
pub async fn stats_count_each_state(q: &Arc<dyn Queue>, h: &Harness) -> Result<()> {
    if !q.capabilities().exact_stats {
        return h.skip("exact_stats");
    }
    let queue = new_queue(q, h).await?;
    let counts = async || q.stats(&queue).await.map(|s| (s.ready, s.delayed, s.in_flight));
    fill(q, &queue, 5).await?;
    q.send(&queue, vec![NewMessage::after("later", Duration::from_secs(3)), NewMessage::after("much later", LONG)]).await?;
    assert_eq!(counts().await?, (5, 2, 0));
    let got = take(q, &queue, 3, LONG).await?;
    assert_eq!(counts().await?, (2, 2, 3));
    q.ack(&queue, &receipts(&got[..1])).await?;
    q.extend(&queue, &receipts(&got[1..2]), Duration::ZERO).await?;
    assert_eq!(counts().await?, (3, 2, 1));
    h.pass(Duration::from_secs(3)).await;
    assert_eq!(counts().await?, (4, 1, 1), "a passed delay makes a message ready");
    let short = take(q, &queue, 4, Duration::from_secs(1)).await?;
    assert_eq!(short.len(), 4);
    h.pass(Duration::from_secs(1)).await;
    assert_eq!(counts().await?, (4, 1, 1), "an ended lease makes a message ready");
    let listed = q.list().await?;
    let listed = listed.iter().find(|info| info.name == queue).expect("the queue is listed");
    assert_eq!((listed.stats.ready, listed.stats.delayed, listed.stats.in_flight), (4, 1, 1));
    Ok(())
}

/// The age is that of the oldest message not acknowledged, leased or not.
pub async fn oldest_age_is_since_the_oldest_send(q: &Arc<dyn Queue>, h: &Harness) -> Result<()> {
    if !q.capabilities().exact_stats {
        return h.skip("exact_stats");
    }
    let queue = new_queue(q, h).await?;
    assert_eq!(q.stats(&queue).await?.oldest_age, None);
    q.send(&queue, vec![NewMessage::now("old")]).await?;
    h.pass(Duration::from_secs(2)).await;
    q.send(&queue, vec![NewMessage::now("young")]).await?;
    let mut got = take(q, &queue, 2, LONG).await?;
    let age = q.stats(&queue).await?.oldest_age.expect("there is an oldest message");
    assert!(age >= Duration::from_secs(2), "{age:?}");
    got.retain(|d| d.body == "old");
    q.ack(&queue, &receipts(&got)).await?;
    let age = q.stats(&queue).await?.oldest_age.expect("there is a message left");
    assert!(age < Duration::from_secs(2), "{age:?}");
    Ok(())
}

/// `purge` drops ready, delayed and leased messages; their receipts are stale.
pub async fn purge_drops_everything(q: &Arc<dyn Queue>, h: &Harness) -> Result<()> {
    let queue = new_queue(q, h).await?;
    fill(q, &queue, 3).await?;
    q.send(&queue, vec![NewMessage::after("later", Duration::from_secs(1))]).await?;
    let leased = take_one(q, &queue, Duration::from_secs(1)).await?;
    let dropped = q.purge(&queue).await?;
    if q.capabilities().exact_stats {
        assert_eq!(dropped, 4);
        assert_eq!(q.stats(&queue).await?, QueueStats::default());
    }
    h.pass(Duration::from_secs(1)).await;
    expect_none(q, &queue).await?;
    if q.capabilities().strict_leases {
        assert_eq!(q.ack(&queue, &[leased.receipt]).await?, [ReceiptOutcome::Stale]);
    }
    q.send(&queue, vec![NewMessage::now("after")]).await?;
    assert_eq!(take_one(q, &queue, LONG).await?.body, "after");
    Ok(())
}

/// `ensure` of a queue that is there changes its settings and leaves its messages.
pub async fn settings_change_and_messages_stay(q: &Arc<dyn Queue>, h: &Harness) -> Result<()> {
    let (queue, dead) = (new_queue(q, h).await?, new_queue(q, h).await?);
    fill(q, &queue, 2).await?;
    let settings = QueueSettings { retention: Duration::from_secs(3600), ..super::mortal(&dead, 7) };
    q.ensure(&queue, settings.clone()).await?;
    let listed = q.list().await?;
    let listed = listed.iter().find(|info| info.name == queue).expect("the queue is listed");
    assert_eq!(listed.settings, settings);
    q.ensure(&queue, settings).await?;
    assert_eq!(bodies(&take(q, &queue, 2, LONG).await?).len(), 2);
    Ok(())
}

/// `list` has every queue once, in order of the name.
pub async fn list_is_by_name(q: &Arc<dyn Queue>, h: &Harness) -> Result<()> {
    let base = h.name("l");
    let names: Vec<String> = ["c", "a", "b.1", "b-1", "b_1"].iter().map(|n| format!("{base}{n}")).collect();
    for name in &names {
        q.ensure(name, QueueSettings::default()).await?;
        q.ensure(name, QueueSettings::default()).await?;
    }
    let listed: Vec<String> = q.list().await?.into_iter().map(|info| info.name).filter(|n| n.starts_with(&base)).collect();
    let mut sorted = names;
    sorted.sort();
    assert_eq!(listed, sorted);
    Ok(())
}

/// Messages older than the retention are dropped.
pub async fn old_messages_are_dropped(q: &Arc<dyn Queue>, h: &Harness) -> Result<()> {
    if !q.capabilities().exact_stats {
        return h.skip("exact_stats");
    }
    let queue = h.name("q");
    q.ensure(&queue, QueueSettings { retention: Duration::from_secs(2), ..QueueSettings::default() }).await?;
    q.send(&queue, vec![NewMessage::now("old")]).await?;
    h.pass(Duration::from_secs(2)).await;
    q.send(&queue, vec![NewMessage::now("young")]).await?;
    assert_eq!(take_one(q, &queue, LONG).await?.body, "young");
    expect_none(q, &queue).await?;
    let stats = q.stats(&queue).await?;
    assert_eq!((stats.ready, stats.in_flight), (0, 1));
    Ok(())
}
