//! Delays and long polls.

use std::sync::Arc;
use std::time::Duration;

use tidemill_base::Result;
use tidemill_blocks::queue::{NewMessage, Queue, Receipt, Receive, Redrive};
use tidemill_runtime::{Stopwatch, timeout};

use super::{LONG, SHORT, bodies, expect_none, fill, kill, mortal_queue, new_queue, take_one};
use crate::Harness;

const LONGEST: Duration = Duration::from_secs(20);
/// A waiter that is woken answers well before this; one that is not waits for [`LONGEST`].
const PROMPT: Duration = Duration::from_secs(5);

/// Waits for a message while `cause` happens a second later; answers whether the waiter was woken in time.
async fn woken_by(q: &Arc<dyn Queue>, h: &Harness, queue: &str, cause: impl AsyncFnOnce() -> Result<()>) -> Result<()> {
    let started = Stopwatch::start();
    let wait = q.receive(queue, Receive::up_to(10, LONG).waiting(LONGEST));
    let happen = async {
        h.pass(Duration::from_secs(1)).await;
        cause().await
    };
    let (got, happened) = futures::join!(wait, happen);
    happened?;
    assert_eq!(got?.len(), 1, "the waiter gets the message");
    assert!(started.elapsed() < PROMPT, "the waiter was woken only after {:?}", started.elapsed());
    Ok(())
}

/// A delayed message is not delivered before its time.
pub async fn a_delay_hides(q: &Arc<dyn Queue>, h: &Harness) -> Result<()> {
    let queue = new_queue(q, h).await?;
    q.send(&queue, vec![NewMessage::after("later", Duration::from_secs(2)), NewMessage::now("now")]).await?;
    assert_eq!(take_one(q, &queue, LONG).await?.body, "now");
    expect_none(q, &queue).await?;
    h.pass(Duration::from_secs(2)).await;
    let got = take_one(q, &queue, LONG).await?;
    assert_eq!((got.body.as_ref(), got.receives), (&b"later"[..], 1));
    Ok(())
}

/// A wait on an empty queue takes its time and answers nothing.
pub async fn a_wait_ends_without_a_message(q: &Arc<dyn Queue>, h: &Harness) -> Result<()> {
    let queue = new_queue(q, h).await?;
    let started = Stopwatch::start();
    let got = q.receive(&queue, Receive::up_to(1, LONG).waiting(Duration::from_secs(2))).await?;
    let took = started.elapsed();
    assert!(got.is_empty());
    assert!(took >= Duration::from_millis(1900) && took < PROMPT, "waited {took:?} of 2 s");
    Ok(())
}

/// A message that is sent reaches a waiter at once.
pub async fn a_send_wakes_a_waiter(q: &Arc<dyn Queue>, h: &Harness) -> Result<()> {
    let queue = new_queue(q, h).await?;
    woken_by(q, h, &queue, async || q.send(&queue, vec![NewMessage::now("x")]).await.map(drop)).await
}

/// A lease that ends reaches a waiter.
pub async fn an_ended_lease_wakes_a_waiter(q: &Arc<dyn Queue>, h: &Harness) -> Result<()> {
    let queue = new_queue(q, h).await?;
    fill(q, &queue, 1).await?;
    take_one(q, &queue, Duration::from_secs(2)).await?;
    woken_by(q, h, &queue, async || Ok(())).await
}

/// A delay that ends reaches a waiter, also when it was sent during the wait.
pub async fn an_ended_delay_wakes_a_waiter(q: &Arc<dyn Queue>, h: &Harness) -> Result<()> {
    let queue = new_queue(q, h).await?;
    woken_by(q, h, &queue, async || q.send(&queue, vec![NewMessage::after("x", SHORT)]).await.map(drop)).await
}

/// A message that is given back reaches a waiter.
pub async fn a_given_back_message_wakes_a_waiter(q: &Arc<dyn Queue>, h: &Harness) -> Result<()> {
    let queue = new_queue(q, h).await?;
    fill(q, &queue, 1).await?;
    let held: [Receipt; 1] = [take_one(q, &queue, LONG).await?.receipt];
    woken_by(q, h, &queue, async || q.extend(&queue, &held, Duration::ZERO).await.map(drop)).await
}

/// A redriven message reaches a waiter.
pub async fn a_redrive_wakes_a_waiter(q: &Arc<dyn Queue>, h: &Harness) -> Result<()> {
    let (queue, dead) = mortal_queue(q, h, 1).await?;
    fill(q, &queue, 1).await?;
    kill(q, &queue, 1, 1).await?;
    woken_by(q, h, &queue, async || q.redrive(&dead, Redrive::All, None).await.map(drop)).await
}

/// As many waiters as messages: each gets one, none is forgotten.
pub async fn every_waiter_gets_its_message(q: &Arc<dyn Queue>, h: &Harness) -> Result<()> {
    const WAITERS: usize = 6;
    let queue = new_queue(q, h).await?;
    let started = Stopwatch::start();
    let call = |n: usize| {
        let (q, queue) = (q.clone(), queue.clone());
        async move {
            if n < WAITERS {
                return q.receive(&queue, Receive::up_to(1, LONG).waiting(LONGEST)).await;
            }
            tidemill_runtime::sleep(SHORT).await;
            fill(&q, &queue, WAITERS).await.map(|_| Vec::new())
        }
    };
    let got: Vec<_> = h.all_at_once(WAITERS + 1, call).await.into_iter().collect::<Result<_>>()?;
    assert!(started.elapsed() < PROMPT, "the last waiter was woken only after {:?}", started.elapsed());
    assert_eq!(bodies(&got.concat()).len(), WAITERS);
    Ok(())
}

/// A waiter that goes away (a caller that gave up) does not keep a message that comes later.
pub async fn an_abandoned_wait_takes_nothing(q: &Arc<dyn Queue>, h: &Harness) -> Result<()> {
    if !q.capabilities().strict_leases {
        return h.skip("strict_leases");
    }
    let queue = new_queue(q, h).await?;
    let abandoned = timeout(Duration::from_millis(500), "wait", q.receive(&queue, Receive::up_to(1, LONG).waiting(LONGEST))).await;
    assert!(abandoned.is_err(), "the wait was given up");
    q.send(&queue, vec![NewMessage::now("x")]).await?;
    assert_eq!(take_one(q, &queue, LONG).await?.body, "x");
    Ok(())
}
