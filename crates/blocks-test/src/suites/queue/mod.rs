//! What a queue must do.

mod basics;
mod dead;
mod leases;
mod waiting;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tidemill_base::Result;
use tidemill_blocks::queue::{Delivery, MessageId, NewMessage, Queue, QueueSettings, Receipt, Receive};

use crate::Harness;

pub use basics::*;
pub use dead::*;
pub use leases::*;
pub use waiting::*;

/// Tests a queue driver: `queue_suite!(real, make)` or `queue_suite!(simulated, make)`, `make` being
/// `async fn(&Harness) -> Arc<dyn Queue>`.
#[macro_export]
macro_rules! queue_suite {
    ($mode:ident $(, $make:path)?) => {
        $crate::__behaviours! {queue, $mode, $($make,)?
            names_are_checked unknown_queues_are_not_found send_receive_ack ids_come_in_the_order_given empty_calls_do_nothing
            bodies_up_to_the_limit batches_up_to_the_limit receive_limits_are_checked queues_are_separate browse_does_not_lease
            stats_count_each_state oldest_age_is_since_the_oldest_send purge_drops_everything settings_change_and_messages_stay
            list_is_by_name old_messages_are_dropped
            a_lease_hides_and_ends extension_keeps_a_message_hidden extension_may_shorten_a_lease
            a_message_given_back_is_there_at_once
            a_late_ack_is_good_until_redelivery a_late_extension_is_good_until_redelivery
            receipts_go_stale_with_redelivery acknowledged_messages_stay_away foreign_receipts_are_stale
            outcomes_come_in_the_order_given receives_are_counted concurrent_receivers_never_share
            dead_after_the_last_receive the_living_do_not_die_early dead_letter_queues_must_exist
            redrive_all_goes_back_where_it_died redrive_chosen_leaves_the_rest redrive_to_a_named_queue
            redrive_checks_its_queues a_redriven_message_can_die_again lowered_limits_apply_to_old_messages
            a_delay_hides a_wait_ends_without_a_message a_send_wakes_a_waiter an_ended_lease_wakes_a_waiter
            an_ended_delay_wakes_a_waiter a_given_back_message_wakes_a_waiter a_redrive_wakes_a_waiter every_waiter_gets_its_message
            an_abandoned_wait_takes_nothing
        }
    };
}

/// A lease that does not end within a test.
pub(super) const LONG: Duration = Duration::from_secs(600);
/// The shortest lease there is.
pub(super) const SHORT: Duration = Duration::from_secs(1);
/// How long to look for a message that must be there; an engine that asks only some of its machines may need a few calls.
const SEARCH: Duration = Duration::from_secs(5);

/// A queue with default settings.
pub(super) async fn new_queue(q: &Arc<dyn Queue>, h: &Harness) -> Result<String> {
    let name = h.name("q");
    q.ensure(&name, QueueSettings::default()).await?;
    Ok(name)
}

/// A queue whose messages die after `max_receives`, and the queue that takes them.
pub(super) async fn mortal_queue(q: &Arc<dyn Queue>, h: &Harness, max_receives: u32) -> Result<(String, String)> {
    let dead = new_queue(q, h).await?;
    let name = h.name("q");
    q.ensure(&name, mortal(&dead, max_receives)).await?;
    Ok((name, dead))
}

/// Settings of a queue whose messages die.
pub(super) fn mortal(dead: &str, max_receives: u32) -> QueueSettings {
    QueueSettings { max_receives: Some(max_receives), dead_letter: Some(dead.to_owned()), ..QueueSettings::default() }
}

/// Sends `m0`, `m1`...
pub(super) async fn fill(q: &Arc<dyn Queue>, queue: &str, count: usize) -> Result<Vec<MessageId>> {
    q.send(queue, (0..count).map(|n| NewMessage::now(format!("m{n}"))).collect()).await
}

/// Receives until there are `count` messages or a search has brought no more.
pub(super) async fn take(q: &Arc<dyn Queue>, queue: &str, count: usize, lease: Duration) -> Result<Vec<Delivery>> {
    let mut got: Vec<Delivery> = Vec::new();
    while got.len() < count {
        let more = q.receive(queue, Receive::up_to(count - got.len(), lease).waiting(SEARCH)).await?;
        assert!(more.len() <= count - got.len(), "asked for {} messages, got {}", count - got.len(), more.len());
        if more.is_empty() {
            break;
        }
        got.extend(more);
    }
    Ok(got)
}

/// Receives the one message there must be.
pub(super) async fn take_one(q: &Arc<dyn Queue>, queue: &str, lease: Duration) -> Result<Delivery> {
    let mut got = take(q, queue, 1, lease).await?;
    assert_eq!(got.len(), 1, "a message must be there");
    Ok(got.remove(0))
}

/// Expects nothing to be ready.
pub(super) async fn expect_none(q: &Arc<dyn Queue>, queue: &str) -> Result<()> {
    let got = q.receive(queue, Receive::up_to(10, SHORT)).await?;
    assert!(got.is_empty(), "nothing should be ready, got {got:?}");
    Ok(())
}

/// The distinct bodies.
pub(super) fn bodies(got: &[Delivery]) -> BTreeSet<Bytes> {
    got.iter().map(|d| d.body.clone()).collect()
}

/// The receipts, in order.
pub(super) fn receipts(got: &[Delivery]) -> Vec<Receipt> {
    got.iter().map(|d| d.receipt.clone()).collect()
}

/// Delivers the queue's messages until none is left alive: receives, and gives back without working on them.
pub(super) async fn kill(q: &Arc<dyn Queue>, queue: &str, count: usize, max_receives: u32) -> Result<()> {
    for _ in 0..max_receives {
        let got = take(q, queue, count, LONG).await?;
        assert_eq!(got.len(), count, "all are alive until the last delivery has ended");
        q.extend(queue, &receipts(&got), Duration::ZERO).await?;
    }
    // An engine may bury a message only when somebody asks for it.
    expect_none(q, queue).await
}
