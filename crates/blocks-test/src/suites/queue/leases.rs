//! Leases and receipts.

use std::collections::BTreeMap;
use std::slice::from_ref;
use std::sync::Arc;
use std::time::Duration;

use tidemill_base::Result;
use tidemill_blocks::queue::{NewMessage, Queue, Receipt, ReceiptOutcome, Receive};

use super::{LONG, SHORT, bodies, expect_none, fill, new_queue, receipts, take, take_one};
use crate::Harness;

/// A leased message is hidden; when the lease ends it comes again, the same message under another receipt.
pub async fn a_lease_hides_and_ends(q: &Arc<dyn Queue>, h: &Harness) -> Result<()> {
    let queue = new_queue(q, h).await?;
    fill(q, &queue, 1).await?;
    let first = take_one(q, &queue, Duration::from_secs(2)).await?;
    expect_none(q, &queue).await?;
    h.pass(Duration::from_secs(2)).await;
    let second = take_one(q, &queue, LONG).await?;
    assert_eq!((&second.id, &second.body, second.sent_at), (&first.id, &first.body, first.sent_at));
    assert_ne!(second.receipt, first.receipt);
    Ok(())
}

/// An extended lease ends later.
pub async fn extension_keeps_a_message_hidden(q: &Arc<dyn Queue>, h: &Harness) -> Result<()> {
    let queue = new_queue(q, h).await?;
    fill(q, &queue, 1).await?;
    let got = take_one(q, &queue, Duration::from_secs(2)).await?;
    h.pass(Duration::from_millis(500)).await;
    assert_eq!(q.extend(&queue, from_ref(&got.receipt), Duration::from_secs(4)).await?, [ReceiptOutcome::Done]);
    h.pass(Duration::from_secs(2)).await;
    expect_none(q, &queue).await?;
    assert_eq!(q.extend(&queue, from_ref(&got.receipt), LONG).await?, [ReceiptOutcome::Done], "it may be extended again");
    assert_eq!(q.ack(&queue, &[got.receipt]).await?, [ReceiptOutcome::Done], "the receipt is still good");
    Ok(())
}

/// The new lease counts from now, also when it ends earlier than the old one.
pub async fn extension_may_shorten_a_lease(q: &Arc<dyn Queue>, h: &Harness) -> Result<()> {
    let queue = new_queue(q, h).await?;
    fill(q, &queue, 1).await?;
    let got = take_one(q, &queue, LONG).await?;
    assert_eq!(q.extend(&queue, &[got.receipt], SHORT).await?, [ReceiptOutcome::Done]);
    h.pass(SHORT).await;
    assert_eq!(take_one(q, &queue, LONG).await?.receives, 2);
    Ok(())
}

/// Extending by zero gives the message back.
pub async fn a_message_given_back_is_there_at_once(q: &Arc<dyn Queue>, h: &Harness) -> Result<()> {
    let queue = new_queue(q, h).await?;
    fill(q, &queue, 2).await?;
    let got = take(q, &queue, 2, LONG).await?;
    assert_eq!(q.extend(&queue, &receipts(&got[..1]), Duration::ZERO).await?, [ReceiptOutcome::Done]);
    let again = take_one(q, &queue, LONG).await?;
    assert_eq!((&again.id, again.receives), (&got[0].id, 2));
    expect_none(q, &queue).await
}

/// A lease that has ended may still be acknowledged as long as nobody else has received the message.
pub async fn a_late_ack_is_good_until_redelivery(q: &Arc<dyn Queue>, h: &Harness) -> Result<()> {
    let queue = new_queue(q, h).await?;
    fill(q, &queue, 1).await?;
    let got = take_one(q, &queue, SHORT).await?;
    h.pass(SHORT).await;
    assert_eq!(q.ack(&queue, &[got.receipt]).await?, [ReceiptOutcome::Done]);
    expect_none(q, &queue).await
}

/// A lease that has ended may be taken up again as long as nobody else has received the message.
pub async fn a_late_extension_is_good_until_redelivery(q: &Arc<dyn Queue>, h: &Harness) -> Result<()> {
    if !q.capabilities().strict_leases {
        return h.skip("strict_leases");
    }
    let queue = new_queue(q, h).await?;
    fill(q, &queue, 1).await?;
    let got = take_one(q, &queue, SHORT).await?;
    h.pass(SHORT).await;
    assert_eq!(q.extend(&queue, from_ref(&got.receipt), LONG).await?, [ReceiptOutcome::Done]);
    expect_none(q, &queue).await?;
    assert_eq!(q.ack(&queue, &[got.receipt]).await?, [ReceiptOutcome::Done]);
    Ok(())
}

/// Redelivery makes the receipts of earlier deliveries stale: they neither remove the message nor touch its lease.
pub async fn receipts_go_stale_with_redelivery(q: &Arc<dyn Queue>, h: &Harness) -> Result<()> {
    if !q.capabilities().strict_leases {
        return h.skip("strict_leases");
    }
    let queue = new_queue(q, h).await?;
    fill(q, &queue, 1).await?;
    let old = take_one(q, &queue, SHORT).await?;
    h.pass(SHORT).await;
    let new = take_one(q, &queue, Duration::from_secs(2)).await?;
    assert_eq!(q.extend(&queue, from_ref(&old.receipt), Duration::ZERO).await?, [ReceiptOutcome::Stale]);
    expect_none(q, &queue).await?;
    assert_eq!(q.extend(&queue, from_ref(&old.receipt), LONG).await?, [ReceiptOutcome::Stale]);
    assert_eq!(q.ack(&queue, &[old.receipt]).await?, [ReceiptOutcome::Stale]);
    h.pass(Duration::from_secs(2)).await;
    let newest = take_one(q, &queue, LONG).await?;
    assert_eq!((&newest.id, newest.receives), (&new.id, 3));
    assert_eq!(q.ack(&queue, &[new.receipt, newest.receipt]).await?, [ReceiptOutcome::Stale, ReceiptOutcome::Done]);
    Ok(())
}

/// An acknowledged message does not come back when its lease would have ended, and a second `ack` is stale.
pub async fn acknowledged_messages_stay_away(q: &Arc<dyn Queue>, h: &Harness) -> Result<()> {
    let queue = new_queue(q, h).await?;
    fill(q, &queue, 3).await?;
    let got = take(q, &queue, 3, SHORT).await?;
    assert_eq!(q.ack(&queue, &receipts(&got)).await?, [ReceiptOutcome::Done; 3]);
    if q.capabilities().strict_leases {
        assert_eq!(q.ack(&queue, &receipts(&got)).await?, [ReceiptOutcome::Stale; 3]);
        assert_eq!(q.extend(&queue, &receipts(&got), Duration::ZERO).await?, [ReceiptOutcome::Stale; 3]);
    }
    h.pass(SHORT).await;
    expect_none(q, &queue).await
}

/// A receipt of another queue, or of no queue at all, is stale and does no harm.
pub async fn foreign_receipts_are_stale(q: &Arc<dyn Queue>, h: &Harness) -> Result<()> {
    if !q.capabilities().strict_leases {
        return h.skip("strict_leases");
    }
    let (mine, other) = (new_queue(q, h).await?, new_queue(q, h).await?);
    fill(q, &mine, 1).await?;
    fill(q, &other, 1).await?;
    let got = take_one(q, &mine, SHORT).await?;
    take_one(q, &other, SHORT).await?;
    for foreign in [got.receipt.0.as_str(), "", "nonsense", "1", "0", "-1", "1-1", "99999999999999999999", "\u{1F30A}"] {
        let foreign = [Receipt(foreign.to_owned())];
        assert_eq!(q.ack(&other, &foreign).await?, [ReceiptOutcome::Stale], "{foreign:?}");
        assert_eq!(q.extend(&other, &foreign, LONG).await?, [ReceiptOutcome::Stale], "{foreign:?}");
    }
    h.pass(SHORT).await;
    assert_eq!((take_one(q, &mine, LONG).await?.receives, take_one(q, &other, LONG).await?.receives), (2, 2));
    Ok(())
}

/// `ack` and `extend` answer in the order of the receipts, good and stale mixed.
pub async fn outcomes_come_in_the_order_given(q: &Arc<dyn Queue>, h: &Harness) -> Result<()> {
    use ReceiptOutcome::{Done, Stale};
    if !q.capabilities().strict_leases {
        return h.skip("strict_leases");
    }
    let queue = new_queue(q, h).await?;
    fill(q, &queue, 3).await?;
    let r = receipts(&take(q, &queue, 3, LONG).await?);
    q.ack(&queue, &r[1..2]).await?;
    let asked = [r[1].clone(), r[2].clone(), r[1].clone(), r[0].clone()];
    assert_eq!(q.extend(&queue, &asked, LONG).await?, [Stale, Done, Stale, Done]);
    assert_eq!(q.ack(&queue, &asked).await?, [Stale, Done, Stale, Done]);
    Ok(())
}

/// Each delivery counts, whether the lease ended or the message was given back.
pub async fn receives_are_counted(q: &Arc<dyn Queue>, h: &Harness) -> Result<()> {
    let queue = new_queue(q, h).await?;
    fill(q, &queue, 1).await?;
    assert_eq!(take_one(q, &queue, SHORT).await?.receives, 1);
    h.pass(SHORT).await;
    let second = take_one(q, &queue, LONG).await?;
    assert_eq!(second.receives, 2);
    q.extend(&queue, &[second.receipt], Duration::ZERO).await?;
    assert_eq!(take_one(q, &queue, LONG).await?.receives, 3);
    if q.capabilities().exact_browse {
        assert_eq!(q.browse(&queue, 1).await?[0].receives, 3);
    }
    Ok(())
}

/// Many senders and receivers at once: everything sent is received, and with strict leases by just one receiver.
pub async fn concurrent_receivers_never_share(q: &Arc<dyn Queue>, h: &Harness) -> Result<()> {
    const SENDERS: usize = 4;
    const EACH: usize = 50;
    let queue = new_queue(q, h).await?;
    let call = |n: usize| {
        let (q, queue) = (q.clone(), queue.clone());
        async move {
            if n < SENDERS {
                for m in 0..EACH {
                    q.send(&queue, vec![NewMessage::now(format!("{n}/{m}"))]).await?;
                }
                return Ok(Vec::new());
            }
            let mut got = Vec::new();
            loop {
                let more = q.receive(&queue, Receive::up_to(7, LONG).waiting(Duration::from_secs(2))).await?;
                if more.is_empty() {
                    return Ok(got);
                }
                q.ack(&queue, &receipts(&more[..more.len() / 2])).await?;
                got.extend(more);
            }
        }
    };
    let answers: Vec<_> = h.all_at_once(SENDERS + 6, call).await.into_iter().collect::<Result<_>>()?;
    let all: Vec<_> = answers.concat();
    assert_eq!(bodies(&all).len(), SENDERS * EACH, "everything sent is received");
    if q.capabilities().strict_leases {
        let mut times = BTreeMap::<_, u32>::new();
        for d in &all {
            *times.entry(&d.id).or_default() += 1;
        }
        times.retain(|_, n| *n > 1);
        assert!(times.is_empty(), "received more than once under a running lease: {times:?}");
    }
    Ok(())
}
