//! The queue on SQS against the conformance suite on both stand-ins, and what it promises beyond it.

#![allow(clippy::unwrap_used, reason = "a test ends where something fails")]

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tidemill_aws::{Aws, AwsSettings};
use tidemill_base::{ErrorKind, Result};
use tidemill_blocks::queue::{Delivery, NewMessage, Queue, QueueSettings, Receipt, ReceiptOutcome, Receive};
use tidemill_blocks_test::{Harness, Skip, queue_suite};
use tidemill_runtime::Stopwatch;

use support::proxy::{BROKEN, EXPIRED, Fault, THROTTLED};
use support::{MINISTACK, settings, through_proxy};

mod ministack {
    use super::*;

    async fn make(h: &Harness) -> Result<Arc<dyn Queue>, Skip> {
        Ok(support::connect(h, support::MINISTACK).await?.queue())
    }

    queue_suite!(real, make);
}

mod moto {
    use super::*;

    const LIES: &[(&str, &str)] = &[
        ("batches_up_to_the_limit", "gives a message to two requests that come at once"),
        ("extension_keeps_a_message_hidden", "takes a second for a request under load, and the lease of two seconds ends"),
    ];

    async fn make(h: &Harness) -> Result<Arc<dyn Queue>, Skip> {
        Ok(support::connect_moto(h, LIES).await?.queue())
    }

    queue_suite!(real, make);
}

const LONG: Duration = Duration::from_secs(60);
const WAIT: Duration = Duration::from_secs(3);

async fn new_queue(h: &Harness, aws: &Aws) -> (Arc<dyn Queue>, String) {
    let (queue, name) = (aws.queue(), h.name("q"));
    queue.ensure(&name, QueueSettings::default()).await.unwrap();
    (queue, name)
}

fn numbered(count: usize) -> Vec<NewMessage> {
    (0..count).map(|n| NewMessage::now(n.to_string())).collect()
}

/// Receives until nothing comes any more.
async fn drain(queue: &Arc<dyn Queue>, name: &str) -> Vec<Delivery> {
    let mut out = Vec::new();
    loop {
        let got = queue.receive(name, Receive::up_to(100, LONG).waiting(Duration::from_secs(1))).await.unwrap();
        if got.is_empty() {
            return out;
        }
        out.extend(got);
    }
}

fn receipts(got: &[Delivery]) -> Vec<Receipt> {
    got.iter().map(|d| d.receipt.clone()).collect()
}

#[test]
fn throttles_and_errors_are_sat_out_and_counted() {
    through_proxy("throttles_and_errors_are_sat_out_and_counted", async |h, aws, proxy| {
        let (queue, name) = new_queue(h, aws).await;
        for operation in ["SendMessageBatch", "ReceiveMessage", "ChangeMessageVisibilityBatch", "DeleteMessageBatch", "GetQueueAttributes"]
        {
            proxy.next(operation, [THROTTLED, BROKEN, Fault::Late(Duration::from_millis(200))]);
        }
        queue.send(&name, numbered(3)).await.unwrap();
        let got = queue.receive(&name, Receive::up_to(3, LONG).waiting(WAIT)).await.unwrap();
        assert_eq!(queue.extend(&name, &receipts(&got), LONG).await.unwrap(), vec![ReceiptOutcome::Done; got.len()]);
        assert_eq!(queue.ack(&name, &receipts(&got)).await.unwrap(), vec![ReceiptOutcome::Done; got.len()]);
        queue.stats(&name).await.unwrap();
        assert!(proxy.is_done(), "each fault was met");
        let sent = aws.calls().counts()[&("sqs", "SendMessageBatch".to_owned())];
        assert_eq!((sent.attempts, sent.throttled, sent.failed), (3, 1, 1));
    });
}

#[test]
fn without_end_to_the_throttling_it_is_unavailable() {
    through_proxy("without_end_to_the_throttling_it_is_unavailable", async |h, aws, proxy| {
        let (queue, name) = new_queue(h, aws).await;
        proxy.next("SendMessageBatch", vec![THROTTLED; 50]);
        let error = queue.send(&name, numbered(1)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        assert!(error.message().contains("throttled"), "{error:?}");
    });
}

#[test]
fn entries_that_sqs_failed_go_again() {
    through_proxy("entries_that_sqs_failed_go_again", async |h, aws, proxy| {
        let (queue, name) = new_queue(h, aws).await;
        for operation in ["SendMessageBatch", "ChangeMessageVisibilityBatch", "DeleteMessageBatch"] {
            proxy.next(operation, vec![Fault::EntriesFailed; 3]);
        }
        let ids = queue.send(&name, numbered(25)).await.unwrap();
        let got = drain(&queue, &name).await;
        assert_eq!(got.iter().map(|d| &d.id).collect::<BTreeSet<_>>(), ids.iter().collect(), "all came, none twice");
        assert_eq!(got.len(), 25);
        assert_eq!(queue.extend(&name, &receipts(&got), LONG).await.unwrap(), vec![ReceiptOutcome::Done; 25]);
        assert_eq!(queue.ack(&name, &receipts(&got)).await.unwrap(), vec![ReceiptOutcome::Done; 25]);
        assert!(proxy.is_done() && drain(&queue, &name).await.is_empty());
    });
}

#[test]
fn a_send_whose_answer_was_lost_repeats_the_message_under_one_id() {
    through_proxy("a_send_whose_answer_was_lost_repeats_the_message_under_one_id", async |h, aws, proxy| {
        let (queue, name) = new_queue(h, aws).await;
        proxy.next("SendMessageBatch", [Fault::AnswerLost]);
        let ids = queue.send(&name, numbered(3)).await.unwrap();
        let got = drain(&queue, &name).await;
        assert_eq!(got.len(), 6, "the engine carried it out twice");
        assert_eq!(got.iter().map(|d| &d.id).collect::<BTreeSet<_>>(), ids.iter().collect(), "a receiver can tell");
    });
}

#[test]
fn what_was_received_by_nobody_comes_again() {
    through_proxy("what_was_received_by_nobody_comes_again", async |h, aws, proxy| {
        let (queue, name) = new_queue(h, aws).await;
        queue.send(&name, numbered(5)).await.unwrap();
        proxy.next("ReceiveMessage", [Fault::AnswerLost]);
        let lease = Duration::from_secs(2);
        let got = queue.receive(&name, Receive::up_to(5, lease).waiting(Duration::from_secs(10))).await.unwrap();
        let more = queue.receive(&name, Receive::up_to(5, lease).waiting(WAIT)).await.unwrap();
        let bodies: BTreeSet<_> = got.iter().chain(&more).map(|d| d.body.clone()).collect();
        assert_eq!(bodies.len(), 5);
    });
}

#[test]
fn an_ack_whose_answer_was_lost_is_done() {
    through_proxy("an_ack_whose_answer_was_lost_is_done", async |h, aws, proxy| {
        let (queue, name) = new_queue(h, aws).await;
        queue.send(&name, numbered(2)).await.unwrap();
        let got = queue.receive(&name, Receive::up_to(2, Duration::from_secs(2)).waiting(WAIT)).await.unwrap();
        proxy.next("DeleteMessageBatch", [Fault::AnswerLost, Fault::Cut]);
        queue.ack(&name, &receipts(&got)).await.unwrap();
        h.pass(Duration::from_secs(2)).await;
        let left = drain(&queue, &name).await;
        assert_eq!(left.len(), 2 - got.len(), "what was acknowledged does not come back");
    });
}

#[test]
fn expired_credentials_are_denied_with_what_to_do() {
    through_proxy("expired_credentials_are_denied_with_what_to_do", async |h, aws, proxy| {
        let (queue, name) = new_queue(h, aws).await;
        proxy.next("ReceiveMessage", vec![EXPIRED; 10]);
        let error = queue.receive(&name, Receive::up_to(1, LONG)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
        assert!(error.message().contains("renew"), "{error:?}");
    });
}

#[test]
fn a_dead_service_is_unavailable() {
    tidemill_blocks_test::run_real(async |h: &Harness| {
        let aws = Aws::connect(settings("http://127.0.0.1:1"), h.env().clone()).await.unwrap();
        let error = aws.queue().stats("q").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    });
}

/// A client of SQS without the driver, and the URL of the driver's queue `name`.
async fn raw(h: &Harness, endpoint: &str, name: &str) -> (aws_sdk_sqs::Client, String) {
    let aws = Aws::connect(settings(endpoint), h.env().clone()).await.unwrap();
    aws.queue().ensure(name, QueueSettings::default()).await.unwrap();
    let config = aws_sdk_sqs::Config::builder()
        .behavior_version(aws_sdk_sqs::config::BehaviorVersion::latest())
        .region(aws_sdk_sqs::config::Region::new("us-east-1"))
        .endpoint_url(endpoint)
        .credentials_provider(aws_sdk_sqs::config::Credentials::new("test", "test", None, None, "test"))
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .build();
    let client = aws_sdk_sqs::Client::from_conf(config);
    let url = client.get_queue_url().queue_name(format!("tidemill-{name}")).send().await.unwrap().queue_url.unwrap();
    (client, url)
}

#[test]
fn what_surfaces_before_it_is_due_waits_on() {
    through_proxy("what_surfaces_before_it_is_due_waits_on", async |h, aws, proxy| {
        let name = h.name("q");
        let (client, url) = raw(h, &proxy.endpoint(), &name).await;
        let now = h.env().now();
        let due = now + Duration::from_secs(3);
        // As the driver leaves it in SQS for a delay of more than 15 minutes, when these have passed.
        let body = format!("tidemill1 m1 {} {} {name} t\nlater", now.millis(), due.millis());
        client.send_message().queue_url(url).message_body(body).send().await.unwrap();
        let queue = aws.queue();
        let waited = Stopwatch::start();
        let got = queue.receive(&name, Receive::up_to(10, LONG).waiting(Duration::from_secs(10))).await.unwrap();
        assert_eq!(got.len(), 1);
        assert_eq!((got[0].id.0.as_str(), got[0].body.as_ref(), got[0].receives), ("m1", &b"later"[..], 1));
        assert!(h.env().now() >= due, "after {:?}", waited.elapsed());
        assert_eq!(got[0].sent_at.millis(), now.millis());
        queue.ack(&name, &receipts(&got)).await.unwrap();
        assert!(drain(&queue, &name).await.is_empty(), "the early copy is gone");
    });
}

#[test]
fn what_others_send_is_delivered_as_it_is() {
    through_proxy("what_others_send_is_delivered_as_it_is", async |h, aws, proxy| {
        let name = h.name("q");
        let (client, url) = raw(h, &proxy.endpoint(), &name).await;
        client.send_message().queue_url(url).message_body("{\"Records\":[]}").send().await.unwrap();
        let got = drain(&aws.queue(), &name).await;
        assert_eq!(got.len(), 1);
        assert_eq!(got[0].body.as_ref(), b"{\"Records\":[]}");
        assert!(!got[0].id.0.is_empty());
    });
}

#[test]
fn text_and_bytes_of_all_kinds_pass_the_engine() {
    through_proxy("text_and_bytes_of_all_kinds_pass_the_engine", async |h, aws, _proxy| {
        let (queue, name) = new_queue(h, aws).await;
        let bodies: [&[u8]; 6] =
            [b"", b"plain", "\u{1F30A} \u{FFFD} \u{E000}".as_bytes(), "\u{FFFE}".as_bytes(), b"a\r\nb\x0b", b"\xff\x00"];
        queue.send(&name, bodies.iter().map(|b| NewMessage::now(b.to_vec())).collect()).await.unwrap();
        let got: BTreeSet<_> = drain(&queue, &name).await.into_iter().map(|d| d.body.to_vec()).collect();
        assert_eq!(got, bodies.iter().map(|b| b.to_vec()).collect());
    });
}

#[test]
fn installations_of_other_prefixes_are_not_seen() {
    through_proxy("installations_of_other_prefixes_are_not_seen", async |h, aws, proxy| {
        let (_, name) = new_queue(h, aws).await;
        let other = AwsSettings { prefix: "tidemill2".to_owned(), ..settings(&proxy.endpoint()) };
        let other = Aws::connect(other, h.env().clone()).await.unwrap().queue();
        assert_eq!(other.stats(&name).await.unwrap_err().kind(), ErrorKind::NotFound);
        assert!(other.list().await.unwrap().iter().all(|q| q.name != name));
    });
}

#[test]
fn browsing_never_brings_a_message_nearer_to_its_death() {
    through_proxy("browsing_never_brings_a_message_nearer_to_its_death", async |h, aws, _proxy| {
        let (queue, dead) = new_queue(h, aws).await;
        let name = h.name("q");
        let mortal = QueueSettings { max_receives: Some(1), dead_letter: Some(dead.clone()), ..QueueSettings::default() };
        queue.ensure(&name, mortal).await.unwrap();
        queue.send(&name, numbered(1)).await.unwrap();
        for _ in 0..3 {
            assert!(queue.browse(&name, 10).await.unwrap().is_empty());
        }
        let got = drain(&queue, &name).await;
        assert_eq!(got[0].receives, 1);
        queue.extend(&name, &receipts(&got), Duration::ZERO).await.unwrap();
        assert!(drain(&queue, &name).await.is_empty(), "it died of its one delivery");
        let seen = queue.browse(&dead, 10).await.unwrap();
        assert_eq!(seen.len(), 1);
        assert_eq!((seen[0].died_in.as_deref(), &seen[0].id), (Some(name.as_str()), &got[0].id));
    });
}

#[test]
fn chosen_dead_letters_are_redriven_and_the_rest_is_given_back() {
    use tidemill_blocks::queue::{MessageId, Redrive};
    through_proxy("chosen_dead_letters_are_redriven_and_the_rest_is_given_back", async |h, aws, _proxy| {
        let (queue, dead) = new_queue(h, aws).await;
        let name = h.name("q");
        let mortal = QueueSettings { max_receives: Some(1), dead_letter: Some(dead.clone()), ..QueueSettings::default() };
        queue.ensure(&name, mortal).await.unwrap();
        let ids = queue.send(&name, numbered(12)).await.unwrap();
        let got = drain(&queue, &name).await;
        queue.extend(&name, &receipts(&got), Duration::ZERO).await.unwrap();
        assert!(drain(&queue, &name).await.is_empty());
        let chosen = vec![ids[3].clone(), MessageId("unknown".to_owned()), ids[7].clone()];
        assert_eq!(queue.redrive(&dead, Redrive::Only(chosen), None).await.unwrap(), 2);
        let revived = drain(&queue, &name).await;
        assert_eq!(revived.iter().map(|d| &d.id).collect::<BTreeSet<_>>(), [&ids[3], &ids[7]].into());
        assert!(revived.iter().all(|d| d.receives == 1));
        assert_eq!(queue.browse(&dead, 100).await.unwrap().len(), 10, "the rest can be seen at once");
    });
}

#[test]
fn a_second_purge_within_a_minute_drops_what_it_can_reach() {
    through_proxy("a_second_purge_within_a_minute_drops_what_it_can_reach", async |h, aws, proxy| {
        let (queue, name) = new_queue(h, aws).await;
        queue.send(&name, numbered(5)).await.unwrap();
        assert_eq!(queue.purge(&name).await.unwrap(), 5);
        assert_eq!(proxy.seen("PurgeQueue"), 0, "a few are dropped one by one");
        queue.send(&name, vec![NewMessage::after("later", LONG), NewMessage::now("now")]).await.unwrap();
        proxy.next("PurgeQueue", [Fault::Refused(403, "PurgeQueueInProgress")]);
        assert_eq!(queue.purge(&name).await.unwrap(), 1, "the delayed one is out of reach");
        queue.purge(&name).await.unwrap();
        assert_eq!(proxy.seen("PurgeQueue"), 2);
        let stats = queue.stats(&name).await.unwrap();
        assert_eq!(stats.ready + stats.delayed + stats.in_flight, 0);
    });
}

#[test]
fn a_poll_that_fails_beside_others_loses_nothing() {
    through_proxy("a_poll_that_fails_beside_others_loses_nothing", async |h, aws, proxy| {
        let (queue, name) = new_queue(h, aws).await;
        queue.send(&name, numbered(60)).await.unwrap();
        // The first brings ten; of those beside each other two are denied.
        proxy.next("ReceiveMessage", [Fault::None, EXPIRED, Fault::None, EXPIRED]);
        let got = queue.receive(&name, Receive::up_to(60, LONG)).await.unwrap();
        assert_eq!(got.len(), 40);
        assert_eq!(drain(&queue, &name).await.len(), 20);
    });
}

#[test]
fn a_check_finds_the_services_and_says_when_it_is_not_let_in() {
    use tidemill_blocks::check::Found;
    through_proxy("a_check_finds_the_services_and_says_when_it_is_not_let_in", async |h, _aws, proxy| {
        let own = AwsSettings { prefix: h.env().id("t"), ..settings(&proxy.endpoint()) };
        let aws = Aws::connect(own, h.env().clone()).await.unwrap();
        let name = h.name("t");
        aws.table().ensure(&name).await.unwrap();
        let found = aws.check(true).await;
        for what in ["AWS credentials", "SQS queues", "DynamoDB tables"] {
            let finding = found.iter().find(|f| f.what == what).unwrap();
            assert_eq!(finding.found, Found::Ready, "{finding:?}");
        }
        assert!(found.iter().all(|f| !f.what.contains(&name)), "nothing is wrong with a table that we made: {found:?}");
        assert!(found.iter().any(|f| f.what.contains("tidemill-test")), "the bucket is looked for: {found:?}");
        proxy.next("ListTables", [EXPIRED]);
        let found = aws.check(false).await;
        let tables = found.iter().find(|f| f.what == "DynamoDB tables").unwrap();
        assert!(tables.found == Found::Denied && tables.note.contains("renew"), "{tables:?}");

        let wrong = AwsSettings { access_key: Some("AKIAUNKNOWN".to_owned()), ..settings(&proxy.endpoint()) };
        let found = Aws::connect(wrong, h.env().clone()).await.unwrap().check(true).await;
        assert_eq!(found.len(), 1, "without credentials nothing else is asked: {found:?}");
        assert_eq!(found[0].found, Found::Denied, "{found:?}");
    });
}

#[test]
fn the_address_of_the_engine_is_the_only_thing_skipped_for() {
    // Guards the tests above: with an engine named they run, and do not pass by being skipped.
    if std::env::var(MINISTACK).is_err() {
        println!("SKIPPED the_address_of_the_engine_is_the_only_thing_skipped_for: {MINISTACK} is not set");
        return;
    }
    let mut ran = false;
    through_proxy("guard", async |_, _, _| ran = true);
    assert!(ran);
}
