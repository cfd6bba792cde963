//! The queue on PostgreSQL: the conformance suite, and what is promised beyond it.

#![allow(clippy::unwrap_used, reason = "a test ends where something fails")]

mod support;

use std::time::Duration;

use support::{admin, connect, kill, named, on_postgres, unavailable};
use tidemill_blocks::queue::{NewMessage, QueueSettings, Receive};
use tidemill_runtime::{Stopwatch, sleep};

mod suite {
    use std::sync::Arc;

    use tidemill_blocks::queue::Queue;
    use tidemill_blocks_test::{Harness, Skip, queue_suite};

    async fn make(h: &Harness) -> Result<Arc<dyn Queue>, Skip> {
        super::support::postgres(h).await.map(|postgres| postgres.queue())
    }

    queue_suite!(real, make);
}

const LONG: Duration = Duration::from_secs(60);

#[test]
fn a_send_of_another_process_wakes_a_waiter_at_once() {
    on_postgres("a_send_of_another_process_wakes_a_waiter_at_once", async |h, settings| {
        let (here, there) = (connect(&settings, h.env()).await, connect(&settings, h.env()).await);
        let (receiver, sender) = (here.queue(), there.queue());
        receiver.ensure("q", QueueSettings::default()).await.unwrap();
        let mut waited = Duration::ZERO;
        for round in 0..8 {
            let wait = receiver.receive("q", Receive::up_to(1, LONG).waiting(Duration::from_secs(10)));
            let send = async {
                sleep(Duration::from_millis(300)).await;
                sender.send("q", vec![NewMessage::now(format!("m{round}"))]).await.unwrap();
                Stopwatch::start()
            };
            let (got, sent) = futures::join!(wait, send);
            assert_eq!(got.unwrap()[0].body, format!("m{round}"));
            // When the wait ended before the send was answered, `sent` is younger than both.
            waited += sent.elapsed();
        }
        // By looking once a second alone they would have waited for four seconds or more.
        assert!(waited < Duration::from_secs(2), "{waited:?} for eight messages");
    });
}

#[test]
fn two_processes_share_a_queue_and_no_message() {
    on_postgres("two_processes_share_a_queue_and_no_message", async |h, settings| {
        const MESSAGES: usize = 2000;
        let both = [connect(&settings, h.env()).await, connect(&settings, h.env()).await];
        both[0].queue().ensure("q", QueueSettings::default()).await.unwrap();
        for some in (0..MESSAGES).collect::<Vec<_>>().chunks(500) {
            both[1].queue().send("q", some.iter().map(|n| NewMessage::now(n.to_string())).collect()).await.unwrap();
        }
        let taker = |n: usize| {
            let queue = both[n % 2].queue();
            async move {
                let mut bodies = Vec::new();
                loop {
                    let got = queue.receive("q", Receive::up_to(17, LONG)).await.unwrap();
                    if got.is_empty() {
                        return bodies;
                    }
                    let receipts: Vec<_> = got.iter().map(|d| d.receipt.clone()).collect();
                    queue.ack("q", &receipts).await.unwrap();
                    bodies.extend(got.into_iter().map(|d| String::from_utf8(d.body.to_vec()).unwrap().parse::<usize>().unwrap()));
                }
            }
        };
        let mut all = h.all_at_once(6, taker).await.concat();
        all.sort_unstable();
        assert_eq!(all, (0..MESSAGES).collect::<Vec<_>>(), "each message just once");
    });
}

#[test]
fn a_batch_is_one_round_trip() {
    on_postgres("a_batch_is_one_round_trip", async |h, settings| {
        let postgres = connect(&settings, h.env()).await;
        let queue = postgres.queue();
        queue.ensure("q", QueueSettings::default()).await.unwrap();
        queue.send("q", vec![NewMessage::now("first")]).await.unwrap();
        let before = postgres.calls().queue;
        queue.send("q", (0..1000).map(|n| NewMessage::now(n.to_string())).collect()).await.unwrap();
        let got = queue.receive("q", Receive::up_to(1000, LONG)).await.unwrap();
        let receipts: Vec<_> = got.iter().map(|d| d.receipt.clone()).collect();
        queue.extend("q", &receipts, LONG).await.unwrap();
        queue.ack("q", &receipts).await.unwrap();
        assert_eq!((got.len(), postgres.calls().queue - before), (1000, 4));
    });
}

#[test]
fn waiters_survive_the_end_of_every_connection() {
    on_postgres("waiters_survive_the_end_of_every_connection", async |h, settings| {
        let doomed = named(&settings, &h.name("doomed"));
        let (here, there) = (connect(&doomed, h.env()).await, connect(&settings, h.env()).await);
        let (receiver, sender) = (here.queue(), there.queue());
        receiver.ensure("q", QueueSettings::default()).await.unwrap();
        let application = doomed.url.rsplit('=').next().unwrap().to_owned();
        let client = admin(&settings.url).await;
        let wait = async {
            loop {
                match receiver.receive("q", Receive::up_to(1, LONG).waiting(Duration::from_secs(20))).await {
                    Err(e) => assert!(unavailable(&e), "{e:?}"),
                    Ok(got) => return got,
                }
            }
        };
        let cause = async {
            sleep(Duration::from_millis(300)).await;
            assert!(kill(&client, &application).await >= 2, "the pool's connections and the listener");
            sleep(Duration::from_millis(1500)).await;
            sender.send("q", vec![NewMessage::now("after")]).await.unwrap();
            Stopwatch::start()
        };
        let (got, sent) = futures::join!(wait, cause);
        assert_eq!(got[0].body, "after");
        assert!(sent.elapsed() < Duration::from_secs(2), "{:?}", sent.elapsed());
    });
}

#[test]
fn what_nobody_receives_is_swept_after_its_retention() {
    on_postgres("what_nobody_receives_is_swept_after_its_retention", async |h, settings| {
        let postgres = connect(&settings, h.env()).await;
        let queue = postgres.queue();
        let brief = QueueSettings { retention: Duration::from_secs(1), ..QueueSettings::default() };
        queue.ensure("brief", brief).await.unwrap();
        queue.ensure("long", QueueSettings::default()).await.unwrap();
        for name in ["brief", "long"] {
            queue.send(name, (0..5).map(|n| NewMessage::now(n.to_string())).collect()).await.unwrap();
        }
        sleep(Duration::from_millis(1200)).await;
        postgres.sweep().await.unwrap();
        let client = admin(&settings.url).await;
        let sql = format!("SELECT count(*) FROM {}.tidemill_messages", settings.schema);
        assert_eq!(client.query_one(&sql, &[]).await.unwrap().get::<_, i64>(0), 5);
        assert_eq!(queue.stats("long").await.unwrap().ready, 5);
    });
}
