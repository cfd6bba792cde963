//! Dead letters and redriving them.

use std::slice::from_ref;
use std::sync::Arc;
use std::time::Duration;

use tidemill_base::{ErrorKind, Result};
use tidemill_blocks::queue::{MessageId, NewMessage, Queue, QueueSettings, ReceiptOutcome, Redrive};

use super::{LONG, SHORT, bodies, expect_none, fill, kill, mortal, mortal_queue, new_queue, take, take_one};
use crate::Harness;
use crate::suites::fails;

/// After the last allowed delivery has ended without `ack`, the message is in the dead-letter queue, whole and with its story.
pub async fn dead_after_the_last_receive(q: &Arc<dyn Queue>, h: &Harness) -> Result<()> {
    let (queue, dead) = mortal_queue(q, h, 2).await?;
    q.send(&queue, vec![NewMessage::now("poison")]).await?;
    let first = take_one(q, &queue, SHORT).await?;
    h.pass(SHORT).await;
    let last = take_one(q, &queue, SHORT).await?;
    expect_none(q, &dead).await?;
    h.pass(SHORT).await;
    expect_none(q, &queue).await?;
    if q.capabilities().exact_browse {
        let seen = q.browse(&dead, 10).await?;
        assert_eq!(seen.len(), 1);
        let told = (seen[0].died_in.as_deref(), seen[0].receives, seen[0].sent_at);
        assert_eq!(told, (Some(queue.as_str()), 2, first.sent_at));
    }
    if q.capabilities().strict_leases {
        assert_eq!(q.ack(&queue, &[last.receipt]).await?, [ReceiptOutcome::Stale], "the dead are gone from the queue");
    }
    assert_eq!(take_one(q, &dead, LONG).await?.body, "poison");
    Ok(())
}

/// While the last lease runs or is extended, and when it is acknowledged, nothing dies.
pub async fn the_living_do_not_die_early(q: &Arc<dyn Queue>, h: &Harness) -> Result<()> {
    let (queue, dead) = mortal_queue(q, h, 1).await?;
    fill(q, &queue, 1).await?;
    let got = take_one(q, &queue, Duration::from_secs(2)).await?;
    q.extend(&queue, from_ref(&got.receipt), Duration::from_secs(6)).await?;
    h.pass(Duration::from_secs(3)).await;
    expect_none(q, &queue).await?;
    expect_none(q, &dead).await?;
    assert_eq!(q.ack(&queue, &[got.receipt]).await?, [ReceiptOutcome::Done]);
    h.pass(Duration::from_secs(3)).await;
    expect_none(q, &queue).await?;
    expect_none(q, &dead).await
}

/// A dead-letter queue must exist, be another queue, and the limit must be at least one.
pub async fn dead_letter_queues_must_exist(q: &Arc<dyn Queue>, h: &Harness) -> Result<()> {
    let (name, dead) = (h.name("q"), new_queue(q, h).await?);
    match q.ensure(&name, mortal(&h.name("no"), 3)).await {
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::Invalid) => {}
        other => panic!("a dead-letter queue that does not exist was answered with {other:?}"),
    }
    fails(ErrorKind::NotFound, "the refused queue", q.stats(&name).await);
    fails(ErrorKind::Invalid, "no receives at all", q.ensure(&name, mortal(&dead, 0)).await);
    fails(ErrorKind::Invalid, "its own dead-letter queue", q.ensure(&dead, mortal(&dead, 3)).await);
    Ok(())
}

/// Without a target each message goes back into the queue it died in, with its receives counted anew.
pub async fn redrive_all_goes_back_where_it_died(q: &Arc<dyn Queue>, h: &Harness) -> Result<()> {
    let (a, dead) = mortal_queue(q, h, 1).await?;
    let b = h.name("q");
    q.ensure(&b, mortal(&dead, 2)).await?;
    q.send(&a, vec![NewMessage::now("a1"), NewMessage::now("a2")]).await?;
    q.send(&b, vec![NewMessage::now("b1")]).await?;
    kill(q, &a, 2, 1).await?;
    kill(q, &b, 1, 2).await?;
    assert_eq!(q.redrive(&dead, Redrive::All, None).await?, 3);
    expect_none(q, &dead).await?;
    let (got_a, got_b) = (take(q, &a, 2, LONG).await?, take(q, &b, 1, LONG).await?);
    assert_eq!(bodies(&got_a), ["a1".into(), "a2".into()].into());
    assert_eq!(bodies(&got_b), ["b1".into()].into());
    assert!(got_a.iter().chain(&got_b).all(|d| d.receives == 1), "receives start anew");
    assert_eq!(q.redrive(&dead, Redrive::All, None).await?, 0);
    Ok(())
}

/// Only the chosen messages move; unknown ones are passed over.
pub async fn redrive_chosen_leaves_the_rest(q: &Arc<dyn Queue>, h: &Harness) -> Result<()> {
    if !q.capabilities().exact_browse {
        return h.skip("exact_browse");
    }
    let (queue, dead) = mortal_queue(q, h, 1).await?;
    fill(q, &queue, 5).await?;
    kill(q, &queue, 5, 1).await?;
    let seen = q.browse(&dead, 10).await?;
    assert_eq!(seen.len(), 5);
    let chosen: Vec<_> = seen.iter().filter(|b| b.body == "m1" || b.body == "m3").map(|b| b.id.clone()).collect();
    let asked = [chosen, vec![MessageId("unknown".into())]].concat();
    assert_eq!(q.redrive(&dead, Redrive::Only(asked.clone()), None).await?, 2);
    assert_eq!(bodies(&take(q, &queue, 2, LONG).await?), ["m1".into(), "m3".into()].into());
    expect_none(q, &queue).await?;
    assert_eq!(q.browse(&dead, 10).await?.len(), 3);
    assert_eq!(q.redrive(&dead, Redrive::Only(asked), None).await?, 0, "what has moved is not there any more");
    Ok(())
}

/// With a target all go there.
pub async fn redrive_to_a_named_queue(q: &Arc<dyn Queue>, h: &Harness) -> Result<()> {
    let (queue, dead) = mortal_queue(q, h, 1).await?;
    let other = new_queue(q, h).await?;
    fill(q, &queue, 2).await?;
    kill(q, &queue, 2, 1).await?;
    assert_eq!(q.redrive(&dead, Redrive::All, Some(&other)).await?, 2);
    expect_none(q, &queue).await?;
    expect_none(q, &dead).await?;
    let got = take(q, &other, 2, LONG).await?;
    assert_eq!(bodies(&got).len(), 2);
    assert!(got.iter().all(|d| d.receives == 1));
    Ok(())
}

/// A target that does not exist is `NotFound`, and nothing has moved.
pub async fn redrive_checks_its_queues(q: &Arc<dyn Queue>, h: &Harness) -> Result<()> {
    let (queue, dead) = mortal_queue(q, h, 1).await?;
    fill(q, &queue, 1).await?;
    kill(q, &queue, 1, 1).await?;
    fails(ErrorKind::NotFound, "redrive", q.redrive(&dead, Redrive::All, Some(&h.name("no"))).await);
    assert_eq!(bodies(&take(q, &dead, 1, LONG).await?).len(), 1);
    Ok(())
}

/// A redriven message has all its lives again, and then dies again.
pub async fn a_redriven_message_can_die_again(q: &Arc<dyn Queue>, h: &Harness) -> Result<()> {
    let (queue, dead) = mortal_queue(q, h, 2).await?;
    fill(q, &queue, 1).await?;
    for _ in 0..2 {
        kill(q, &queue, 1, 2).await?;
        assert_eq!(q.redrive(&dead, Redrive::All, None).await?, 1);
    }
    assert_eq!(take_one(q, &queue, LONG).await?.body, "m0");
    Ok(())
}

/// A limit set later counts the deliveries made before.
pub async fn lowered_limits_apply_to_old_messages(q: &Arc<dyn Queue>, h: &Harness) -> Result<()> {
    let (queue, dead) = (new_queue(q, h).await?, new_queue(q, h).await?);
    fill(q, &queue, 1).await?;
    for _ in 0..3 {
        let got = take_one(q, &queue, LONG).await?;
        q.extend(&queue, &[got.receipt], Duration::ZERO).await?;
    }
    q.ensure(&queue, mortal(&dead, 2)).await?;
    expect_none(q, &queue).await?;
    assert_eq!(take_one(q, &dead, LONG).await?.body, "m0");
    q.ensure(&queue, QueueSettings::default()).await?;
    fill(q, &queue, 1).await?;
    for _ in 0..3 {
        let got = take_one(q, &queue, LONG).await?;
        q.extend(&queue, &[got.receipt], Duration::ZERO).await?;
    }
    assert_eq!(take_one(q, &queue, LONG).await?.receives, 4, "without a limit nothing dies");
    Ok(())
}
