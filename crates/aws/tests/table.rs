//! The table on DynamoDB against the conformance suite on both stand-ins, and what it promises beyond it.

#![allow(clippy::unwrap_used, reason = "a test ends where something fails")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use tidemill_aws::{Aws, AwsSettings};
use tidemill_base::{Env, ErrorKind, ManualClock};
use tidemill_blocks::queue::{NewMessage, QueueSettings, Receive};
use tidemill_blocks::table::{Condition, Cursor, Key, MAX_VALUE_BYTES, Table, Write};
use tidemill_blocks_test::{Harness, Skip, table_suite};

use support::proxy::{BROKEN, EXPIRED, Fault, THROTTLED};
use support::{settings, through_proxy};

mod ministack {
    use super::*;

    async fn make(h: &Harness) -> Result<Arc<dyn Table>, Skip> {
        Ok(support::connect(h, support::MINISTACK).await?.table())
    }

    table_suite!(real, make);
}

mod moto {
    use super::*;

    const BASE64: &str = "encodes binary attributes twice in a stream's records";
    const STEPS: &str = "checks a condition and stores the item in two steps, and another write may come between";
    const LIES: &[(&str, &str)] = &[
        ("one_of_many_writers_wins", STEPS),
        ("concurrent_counters_lose_nothing", STEPS),
        ("the_feed_of_a_busy_partition_is_whole", STEPS),
        ("concurrent_transactions_move_whole_amounts", "undoes what others wrote meanwhile when it cancels a transaction"),
        ("refused_writes_are_not_in_the_feed", BASE64),
        ("the_feed_comes_in_pages", BASE64),
        ("the_feed_end_is_after_everything", BASE64),
        ("the_feed_has_each_change_in_order", BASE64),
        ("the_feed_resumes_at_its_cursor", BASE64),
    ];

    async fn make(h: &Harness) -> Result<Arc<dyn Table>, Skip> {
        Ok(support::connect_moto(h, LIES).await?.table())
    }

    table_suite!(real, make);
}

fn key(sort: &str) -> Key {
    Key::new("p", sort.to_owned())
}

async fn new_table(h: &Harness, aws: &Aws) -> (Arc<dyn Table>, String) {
    let (table, name) = (aws.table(), h.name("t"));
    table.ensure(&name).await.unwrap();
    (table, name)
}

async fn value(table: &Arc<dyn Table>, name: &str, sort: &str) -> Option<String> {
    table.get(name, &key(sort)).await.unwrap().map(|i| String::from_utf8_lossy(&i.value).into_owned())
}

#[test]
fn throttles_and_errors_are_sat_out_and_counted() {
    through_proxy("throttles_and_errors_are_sat_out_and_counted", async |h, aws, proxy| {
        let (table, name) = new_table(h, aws).await;
        for operation in ["PutItem", "GetItem", "Query", "TransactWriteItems", "BatchWriteItem", "BatchGetItem", "DeleteItem"] {
            proxy.next(operation, [THROTTLED, BROKEN, Fault::Late(Duration::from_millis(100))]);
        }
        let put = |sort: &str| Write::put(key(sort), "v", Condition::Any);
        table.transact(&name, vec![put("a")]).await.unwrap();
        table.transact(&name, vec![put("b"), put("c")]).await.unwrap();
        table.write_many(&name, vec![put("d")]).await.unwrap();
        table.transact(&name, vec![Write::delete(key("d"), Condition::Any)]).await.unwrap();
        assert!(table.get(&name, &key("a")).await.unwrap().is_some());
        assert_eq!(table.get_many(&name, &[key("b"), key("d")]).await.unwrap().iter().flatten().count(), 1);
        let page = table.range(&name, tidemill_blocks::table::Range::all("p", 10)).await.unwrap();
        assert_eq!(page.items.len(), 3);
        assert!(proxy.is_done(), "each fault was met");
        let put = aws.calls().counts()[&("dynamodb", "PutItem".to_owned())];
        assert_eq!((put.attempts, put.throttled, put.failed), (3, 1, 1));
    });
}

#[test]
fn a_conditional_write_whose_answer_was_lost_is_done() {
    through_proxy("a_conditional_write_whose_answer_was_lost_is_done", async |h, aws, proxy| {
        let (table, name) = new_table(h, aws).await;
        proxy.next("PutItem", [Fault::AnswerLost, BROKEN, Fault::AnswerLost]);
        let created = table.transact(&name, vec![Write::put(key("k"), "first", Condition::Absent)]).await.unwrap()[0];
        let stored = table.get(&name, &key("k")).await.unwrap().unwrap();
        assert_eq!((stored.version, stored.value.as_ref()), (created, &b"first"[..]));
        proxy.next("PutItem", [Fault::AnswerLost]);
        let changed = table.transact(&name, vec![Write::put(key("k"), "second", Condition::Version(created))]).await.unwrap()[0];
        assert_eq!(table.get(&name, &key("k")).await.unwrap().unwrap().version, changed);
        assert!(changed > created && proxy.is_done());
        proxy.next("PutItem", [Fault::AnswerLost]);
        table.transact(&name, vec![Write::put(key("k"), "third", Condition::Any)]).await.unwrap();
        assert_eq!(value(&table, &name, "k").await.as_deref(), Some("third"));
    });
}

#[test]
fn a_refusal_after_a_lost_answer_is_no_conflict() {
    through_proxy("a_refusal_after_a_lost_answer_is_no_conflict", async |h, aws, proxy| {
        let (table, name) = new_table(h, aws).await;
        let put = |value: &'static str, condition| vec![Write::put(key("k"), value, condition)];
        let was = table.transact(&name, put("theirs", Condition::Absent)).await.unwrap()[0];
        assert_eq!(table.transact(&name, put("ours", Condition::Absent)).await.unwrap_err().kind(), ErrorKind::Conflict);
        // The first try is cut off. For all the driver knows it took effect and was overwritten since.
        proxy.next("PutItem", [Fault::Cut]);
        assert_eq!(table.transact(&name, put("ours", Condition::Absent)).await.unwrap_err().kind(), ErrorKind::Unavailable);
        // A removal leaves nothing to tell by.
        proxy.next("DeleteItem", [Fault::AnswerLost]);
        let removed = table.transact(&name, vec![Write::delete(key("k"), Condition::Version(was))]).await;
        assert_eq!(removed.unwrap_err().kind(), ErrorKind::Unavailable);
        assert_eq!(value(&table, &name, "k").await, None);
        // Being throttled is clear: nothing was done.
        proxy.next("DeleteItem", [THROTTLED]);
        let gone = table.transact(&name, vec![Write::delete(key("k"), Condition::Version(was))]).await;
        assert_eq!(gone.unwrap_err().kind(), ErrorKind::Conflict);
    });
}

#[test]
fn a_transaction_whose_answer_was_lost_is_done_once() {
    through_proxy("a_transaction_whose_answer_was_lost_is_done_once", async |h, aws, proxy| {
        let (table, name) = new_table(h, aws).await;
        proxy.next("TransactWriteItems", [Fault::AnswerLost, BROKEN, Fault::AnswerLost]);
        let writes = vec![Write::put(key("a"), "1", Condition::Absent), Write::put(key("b"), "2", Condition::Absent)];
        let versions = table.transact(&name, writes.clone()).await.unwrap();
        let stored = table.get_many(&name, &[key("a"), key("b")]).await.unwrap();
        assert_eq!(stored.into_iter().map(|i| i.unwrap().version).collect::<Vec<_>>(), versions);
        assert_eq!(table.transact(&name, writes).await.unwrap_err().kind(), ErrorKind::Conflict);
        assert!(proxy.is_done());
    });
}

#[test]
fn what_is_left_unprocessed_goes_again() {
    through_proxy("what_is_left_unprocessed_goes_again", async |h, aws, proxy| {
        let (table, name) = new_table(h, aws).await;
        proxy.next("BatchWriteItem", vec![Fault::EntriesFailed; 4]);
        proxy.next("BatchGetItem", vec![Fault::EntriesFailed; 4]);
        let keys: Vec<Key> = (0..60).map(|n| key(&n.to_string())).collect();
        table.write_many(&name, keys.iter().map(|k| Write::put(k.clone(), "v", Condition::Any)).collect()).await.unwrap();
        assert!(table.get_many(&name, &keys).await.unwrap().iter().all(Option::is_some));
        assert!(proxy.is_done());
    });
}

#[test]
fn without_end_to_the_throttling_it_is_unavailable_and_expiry_is_denied() {
    through_proxy("without_end_to_the_throttling_it_is_unavailable_and_expiry_is_denied", async |h, aws, proxy| {
        let (table, name) = new_table(h, aws).await;
        proxy.next("GetItem", [EXPIRED]);
        let error = table.get(&name, &key("k")).await.unwrap_err();
        assert!(error.kind() == ErrorKind::Denied && error.message().contains("renew"), "{error:?}");
        proxy.next("PutItem", vec![THROTTLED; 50]);
        let error = table.transact(&name, vec![Write::put(key("k"), "v", Condition::Any)]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        assert_eq!(value(&table, &name, "none").await, None);
    });
}

/// A driver whose clock is `ahead` of the machine's.
async fn clocked(endpoint: &str, h: &Harness, ahead: Duration) -> (Arc<dyn Table>, Arc<ManualClock>) {
    let (env, clock) = Env::manual(h.env().now() + ahead, h.env().random_u64());
    (Aws::connect(settings(endpoint), env).await.unwrap().table(), clock)
}

#[test]
fn versions_grow_whatever_the_clocks_say() {
    through_proxy("versions_grow_whatever_the_clocks_say", async |h, aws, proxy| {
        let (right, name) = new_table(h, aws).await;
        for (sort, ahead) in [("a little", 30), ("an hour", 3600), ("a year", 365 * 24 * 3600)] {
            let (fast, _clock) = clocked(&proxy.endpoint(), h, Duration::from_secs(ahead)).await;
            let mut last = 0;
            for round in 0..4 {
                let writer = if round % 2 == 0 { &fast } else { &right };
                let version = writer.transact(&name, vec![Write::put(key(sort), "v", Condition::Any)]).await.unwrap()[0];
                assert!(version > last, "{sort}, round {round}: {version} after {last}");
                last = version;
            }
            let several = vec![Write::put(key(sort), "w", Condition::Version(last)), Write::put(key("other"), "w", Condition::Any)];
            let version = right.transact(&name, several).await.unwrap()[0];
            assert!(version > last);
            // What is refused for its version alone goes again, in a transaction too.
            let several = |v: &'static str| vec![Write::put(key(sort), v, Condition::Present), Write::put(key("other"), v, Condition::Any)];
            let ahead = fast.transact(&name, several("x")).await.unwrap();
            let after = right.transact(&name, several("y")).await.unwrap();
            assert!(ahead.iter().zip(&after).all(|(a, b)| a < b), "{ahead:?} {after:?}");
            // A removal by the fast one is told to the slow one by the condition it removes under.
            let removed = right.transact(&name, vec![Write::delete(key(sort), Condition::Version(after[0]))]).await;
            removed.unwrap();
        }
    });
}

#[test]
fn two_that_create_at_once_under_lost_answers_do_not_both_win() {
    through_proxy("two_that_create_at_once_under_lost_answers_do_not_both_win", async |h, aws, proxy| {
        let (_, name) = new_table(h, aws).await;
        for round in 0..10 {
            proxy.next("PutItem", [Fault::AnswerLost, Fault::Cut, Fault::AnswerLost, BROKEN]);
            let call = |n: usize| {
                let (table, name) = (aws.table(), name.clone());
                async move { table.transact(&name, vec![Write::put(key(&format!("k{round}")), n.to_string(), Condition::Absent)]).await }
            };
            let answers = h.all_at_once(4, call).await;
            let winners: Vec<usize> = (0..4).filter(|n| answers[*n].is_ok()).collect();
            assert!(winners.len() <= 1, "{answers:?}");
            let stored = value(&aws.table(), &name, &format!("k{round}")).await.unwrap();
            assert!(winners.iter().all(|w| w.to_string() == stored), "{winners:?} and {stored} is stored");
            let clear =
                answers.iter().filter_map(|a| a.as_ref().err()).all(|e| matches!(e.kind(), ErrorKind::Conflict | ErrorKind::Unavailable));
            assert!(clear, "{answers:?}");
        }
    });
}

#[test]
fn a_transaction_over_four_megabytes_is_refused_before_it_is_sent() {
    through_proxy("a_transaction_over_four_megabytes_is_refused_before_it_is_sent", async |h, aws, proxy| {
        let (table, name) = new_table(h, aws).await;
        let big = |n: usize| Write::put(key(&n.to_string()), vec![0; MAX_VALUE_BYTES], Condition::Any);
        let error = table.transact(&name, (0..11).map(big).collect()).await.unwrap_err();
        assert!(error.kind() == ErrorKind::Invalid && error.message().contains("objects"), "{error:?}");
        assert_eq!(proxy.seen("TransactWriteItems"), 0);
        // Seven pass; ministack counts bytes as base64, so that ten would be too many for it.
        table.transact(&name, (0..7).map(big).collect()).await.unwrap();
    });
}

#[test]
fn installations_of_other_prefixes_are_not_seen() {
    through_proxy("installations_of_other_prefixes_are_not_seen", async |h, aws, proxy| {
        let (_, name) = new_table(h, aws).await;
        let other = AwsSettings { prefix: "tidemill2".to_owned(), ..settings(&proxy.endpoint()) };
        let other = Aws::connect(other, h.env().clone()).await.unwrap().table();
        assert_eq!(other.get(&name, &key("k")).await.unwrap_err().kind(), ErrorKind::NotFound);
    });
}

#[test]
fn a_follower_survives_throttles_and_lost_answers() {
    through_proxy("a_follower_survives_throttles_and_lost_answers", async |h, aws, proxy| {
        let (table, name) = new_table(h, aws).await;
        let mut cursor = table.feed_end(&name).await.unwrap();
        let mut told = Vec::new();
        for n in 0..6 {
            table.transact(&name, vec![Write::put(key("k"), n.to_string(), Condition::Any)]).await.unwrap();
            proxy.next("GetRecords", [THROTTLED, Fault::AnswerLost, BROKEN]);
            let page = table.feed(&name, &cursor, 10, Duration::from_secs(10)).await.unwrap();
            told.extend(page.entries.into_iter().map(|e| String::from_utf8_lossy(&e.value.unwrap()).into_owned()));
            cursor = page.next;
        }
        assert_eq!(told, ["0", "1", "2", "3", "4", "5"]);
        let again = table.feed(&name, &Cursor::default(), 100, Duration::ZERO).await.unwrap();
        assert_eq!(again.entries.len(), 6);
    });
}

#[test]
fn followers_at_the_end_share_what_one_reads() {
    const FOLLOWERS: usize = 30;
    through_proxy("followers_at_the_end_share_what_one_reads", async |h, aws, proxy| {
        let (table, name) = new_table(h, aws).await;
        table.transact(&name, vec![Write::put(key("before"), "v", Condition::Any)]).await.unwrap();
        let call = |n: usize| {
            let (table, name) = (table.clone(), name.clone());
            async move {
                if n == FOLLOWERS {
                    tidemill_runtime::sleep(Duration::from_secs(3)).await;
                    table.transact(&name, vec![Write::put(key("k"), "news", Condition::Any)]).await.unwrap();
                    return (Vec::new(), Cursor::default());
                }
                let end = table.feed_end(&name).await.unwrap();
                let page = table.feed(&name, &end, 10, Duration::from_secs(20)).await.unwrap();
                (page.entries, page.next)
            }
        };
        let mut answers = h.all_at_once(FOLLOWERS + 1, call).await;
        answers.pop();
        for (entries, _) in &answers {
            assert_eq!(entries.iter().map(|e| e.value.clone().unwrap()).collect::<Vec<_>>(), ["news"]);
        }
        // Four seconds at two and a half questions a second, those of `feed_end`, and leeway.
        let asked = proxy.seen("GetRecords");
        assert!(asked <= 20, "{FOLLOWERS} followers asked {asked} times");

        // Another process knows nothing of this one's tail and goes on all the same.
        let other = Aws::connect(settings(&proxy.endpoint()), h.env().clone()).await.unwrap().table();
        for table in [&table, &other] {
            table.transact(&name, vec![Write::put(key("k"), "more", Condition::Any)]).await.unwrap();
        }
        for table in [other, table] {
            let mut cursor = answers[0].1.clone();
            let mut told = 0;
            while told < 2 {
                let page = table.feed(&name, &cursor, 1, Duration::from_secs(5)).await.unwrap();
                assert_eq!(page.entries.len(), 1);
                (cursor, told) = (page.next, told + 1);
            }
            assert!(table.feed(&name, &cursor, 1, Duration::ZERO).await.unwrap().entries.is_empty());
        }
    });
}

/// A stream as AWS has it and no stand-in does: shards that end and have children, iterators that go stale, records that are no
/// longer kept. The words are those of the API's reference.
mod stream {
    use super::*;
    use serde_json::{Value, json};

    const NAME: &str = "a_follower_goes_from_shard_to_shard_and_over_stale_iterators";

    fn shards() -> Value {
        let shard = |id: &str, parent: Value, range: Value| json!({"ShardId": id, "ParentShardId": parent, "SequenceNumberRange": range});
        json!({"StreamDescription": {"StreamArn": "a", "Shards": [
            shard("shard-a", json!("shard-forgotten"), json!({"StartingSequenceNumber": "1", "EndingSequenceNumber": "200"})),
            shard("shard-b", json!("shard-a"), json!({"StartingSequenceNumber": "201"})),
        ]}})
    }

    fn record(number: u64, value: &str, by: Value) -> Value {
        use base64::Engine;
        let value = base64::engine::general_purpose::STANDARD.encode(value);
        let keys = json!({"p": {"S": "p"}, "s": {"B": "aw=="}});
        let image = json!({"p": {"S": "p"}, "s": {"B": "aw=="}, "d": {"B": value}, "v": {"N": number.to_string()}});
        json!({"eventID": "e", "eventName": "MODIFY", "userIdentity": by, "dynamodb": {
            "Keys": keys, "NewImage": image, "SequenceNumber": number.to_string(), "ApproximateCreationDateTime": 1_763_741_234.0}})
    }

    fn records(records: Vec<Value>, next: Value) -> Fault {
        Fault::Said(json!({"Records": records, "NextShardIterator": next}))
    }

    fn iterator(name: &str) -> Fault {
        Fault::Said(json!({ "ShardIterator": name }))
    }

    async fn told(table: &Arc<dyn Table>, name: &str, cursor: &mut Cursor) -> Vec<String> {
        let page = table.feed(name, cursor, 10, Duration::from_secs(5)).await.unwrap();
        *cursor = page.next;
        page.entries
            .into_iter()
            .map(|e| e.value.map_or_else(|| "removed".to_owned(), |v| String::from_utf8_lossy(&v).into_owned()))
            .collect()
    }

    #[test]
    fn a_follower_goes_from_shard_to_shard_and_over_stale_iterators() {
        through_proxy(NAME, async |h, aws, proxy| {
            let (table, name) = new_table(h, aws).await;
            let mut cursor = Cursor::default();
            proxy.next("DescribeStream", [Fault::Said(shards())]);
            // The parent is read to its end before the child is begun.
            proxy.next("GetShardIterator", [iterator("a1")]);
            proxy.next("GetRecords", [records(vec![record(100, "1", Value::Null), record(101, "2", Value::Null)], Value::Null)]);
            assert_eq!(told(&table, &name, &mut cursor).await, ["1", "2"]);
            proxy.next("GetShardIterator", [iterator("b1")]);
            // What DynamoDB removes because it has expired is not told.
            let expired = json!({"Type": "Service", "PrincipalId": "dynamodb.amazonaws.com"});
            proxy.next("GetRecords", [records(vec![record(201, "3", Value::Null), record(202, "x", expired)], json!("b2"))]);
            assert_eq!(told(&table, &name, &mut cursor).await, ["3"]);
            // A stale iterator is made anew from the last record's number.
            proxy.next(
                "GetRecords",
                [Fault::Refused(400, "ExpiredIteratorException"), records(vec![record(203, "4", Value::Null)], json!("b4"))],
            );
            proxy.next("GetShardIterator", [iterator("b3")]);
            assert_eq!(told(&table, &name, &mut cursor).await, ["4"]);
            assert!(cursor.0.contains("203") && !cursor.0.contains("shard-a"), "{cursor:?}");
            // What is no longer kept is said, not passed over.
            proxy.next("GetRecords", [Fault::Refused(400, "ExpiredIteratorException")]);
            proxy.next("GetShardIterator", [Fault::Refused(400, "TrimmedDataAccessException")]);
            let error = table.feed(&name, &cursor, 10, Duration::from_secs(5)).await.unwrap_err();
            assert!(error.kind() == ErrorKind::Invalid && error.message().contains("24 hours"), "{error:?}");
            assert!(proxy.is_done());
        });
    }
}

/// What a range of tasks costs on AWS by itself: its message is sent, received and acknowledged, and the table has its claim, its
/// report and its end.
#[test]
fn a_range_of_tasks_costs_six_requests() {
    through_proxy("a_range_of_tasks_costs_six_requests", async |h, aws, _proxy| {
        let (table, tables) = new_table(h, aws).await;
        let (queue, queues) = (aws.queue(), h.name("q"));
        queue.ensure(&queues, QueueSettings::default()).await.unwrap();
        let before = aws.calls();
        let (requests, price) = (before.total(), before.list_price_usd());

        queue.send(&queues, vec![NewMessage::now(vec![b'x'; 400])]).await.unwrap();
        let how = Receive::up_to(10, Duration::from_secs(60)).waiting(Duration::from_secs(5));
        let got = queue.receive(&queues, how).await.unwrap();
        let put = |condition| vec![Write::put(key("range"), vec![b'x'; 600], condition)];
        let claim = table.transact(&tables, put(Condition::Absent)).await.unwrap()[0];
        let report = table.transact(&tables, put(Condition::Version(claim))).await.unwrap()[0];
        table.transact(&tables, put(Condition::Version(report))).await.unwrap();
        queue.ack(&queues, &[got[0].receipt.clone()]).await.unwrap();

        let after = aws.calls();
        assert_eq!(after.total() - requests, 6, "{:?}", after.counts());
        for (service, operation, count) in
            [("sqs", "SendMessageBatch", 1), ("sqs", "ReceiveMessage", 1), ("sqs", "DeleteMessageBatch", 1), ("dynamodb", "PutItem", 3)]
        {
            assert_eq!(after.attempts(service, operation), count, "{operation}");
        }
        // Three requests of SQS at 0.40 USD a million and three write units at 0.625 USD a million.
        let per_million = (after.list_price_usd() - price) * 1e6;
        assert!((per_million - 3.075).abs() < 1e-6, "{per_million} USD for a million ranges");
    });
}
