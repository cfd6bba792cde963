//! The remote driver against a server in this process: the blocks' suites, and what only the wire can get wrong.
#![allow(clippy::unwrap_used, reason = "a failure is a failed test")]

mod support;

use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{
    Attribute, Attributes, Error, GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, UpdateVersion,
};
use support::{Mill, start, start_with};
use tidemill_base::{ByteSize, ErrorKind};
use tidemill_batch::service::OpenInputs;
use tidemill_blocks::ledger::Statement;
use tidemill_blocks::queue::{NewMessage, QueueSettings, Receive};
use tidemill_blocks::table::{Condition, Key, Write};
use tidemill_blocks_test::run_real;
use tidemill_remote::wire::{self, Call, PROTOCOL, PROTOCOL_HEADER};
use tidemill_remote::{Remote, RemoteSettings};
use tidemill_runtime::{Stopwatch, timeout};
use tidemill_server::Edges;
use tidemill_server::auth::Role;

mod queue {
    use std::sync::Arc;

    use tidemill_blocks::queue::Queue;
    use tidemill_blocks_test::{Harness, queue_suite};

    async fn make(_: &Harness) -> Arc<dyn Queue> {
        super::start().await.remote().await.queue()
    }

    queue_suite!(real, make);
}

mod table {
    use std::sync::Arc;

    use tidemill_blocks::table::Table;
    use tidemill_blocks_test::{Harness, table_suite};

    async fn make(_: &Harness) -> Arc<dyn Table> {
        super::start().await.remote().await.table()
    }

    table_suite!(real, make);
}

mod objects {
    use tidemill_blocks::objects::Objects;
    use tidemill_blocks_test::{Harness, objects_suite};

    async fn make(_: &Harness) -> Objects {
        super::start().await.remote().await.objects()
    }

    objects_suite!(real, make);
}

fn pattern(len: usize) -> Bytes {
    (0..len).map(|i| u8::try_from(i % 251).unwrap()).collect::<Vec<_>>().into()
}

#[test]
fn contents_of_every_size_come_back_whole_and_in_ranges() {
    run_real(async |_| {
        let store = start().await.remote().await.objects();
        // The part size is 64 KiB: the last two go up in parts.
        for len in [0, 1, 65_536, 65_537, 5_000_000] {
            let (path, content) = (Path::from(format!("jobs/a/{len} b%20\u{e9}")), pattern(len));
            store.put(&path, content.clone().into()).await.unwrap();
            let got = store.get(&path).await.unwrap();
            assert_eq!((got.meta.size, got.meta.location.clone()), (len as u64, path.clone()));
            assert!(got.bytes().await.unwrap() == content, "{len} bytes differ");
        }
        let path = Path::from("jobs/a/5000000 b%20\u{e9}");
        let content = pattern(5_000_000);
        for (range, want) in [
            (GetRange::Bounded(4_000_000..4_000_010), 4_000_000..4_000_010),
            (GetRange::Offset(4_999_990), 4_999_990..5_000_000),
            (GetRange::Suffix(5), 4_999_995..5_000_000),
        ] {
            let got = store.get_opts(&path, GetOptions { range: Some(range), ..Default::default() }).await.unwrap();
            assert_eq!(got.range, want.start as u64..want.end as u64);
            assert_eq!(got.bytes().await.unwrap(), content.slice(want));
        }
        assert_eq!(store.head(&path).await.unwrap().size, 5_000_000);
    });
}

#[test]
fn conditions_answer_across_the_wire_as_beside_the_store() {
    run_real(async |_| {
        let store = start().await.remote().await.objects();
        let path = Path::from("jobs/c");
        let create = || PutOptions { mode: PutMode::Create, ..Default::default() };
        let first = store.put_opts(&path, "one".into(), create()).await.unwrap();
        assert!(matches!(store.put_opts(&path, "two".into(), create()).await, Err(Error::AlreadyExists { .. })));
        let update = PutMode::Update(UpdateVersion { e_tag: first.e_tag.clone(), version: None });
        store.put_opts(&path, "three".into(), PutOptions { mode: update.clone(), ..Default::default() }).await.unwrap();
        let stale = store.put_opts(&path, "four".into(), PutOptions { mode: update, ..Default::default() }).await;
        assert!(matches!(stale, Err(Error::Precondition { .. })), "{stale:?}");
        let tag = store.head(&path).await.unwrap().e_tag;
        let unchanged = store.get_opts(&path, GetOptions { if_none_match: tag, ..Default::default() }).await;
        assert!(matches!(unchanged, Err(Error::NotModified { .. })), "{unchanged:?}");
        let other = store.get_opts(&path, GetOptions { if_match: first.e_tag, ..Default::default() }).await;
        assert!(matches!(other, Err(Error::Precondition { .. })), "{other:?}");
        assert!(matches!(store.get(&Path::from("jobs/none")).await, Err(Error::NotFound { .. })));
        assert!(matches!(store.copy_if_not_exists(&path, &path).await, Err(Error::AlreadyExists { .. })));
        store.copy(&path, &Path::from("jobs/d")).await.unwrap();
        assert_eq!(store.get(&Path::from("jobs/d")).await.unwrap().bytes().await.unwrap(), "three");
    });
}

#[test]
fn attributes_listings_and_deletions_survive_the_wire() {
    run_real(async |_| {
        let store = start().await.remote().await.objects();
        let attributes = Attributes::from_iter([
            (Attribute::ContentType, "text/csv; charset=utf-8"),
            (Attribute::Metadata("owner".into()), "J\u{fc}rgen \u{2014} \"x\""),
        ]);
        let path = Path::from("jobs/l/attributes");
        store.put_opts(&path, "x".into(), PutOptions { attributes: attributes.clone(), ..Default::default() }).await.unwrap();
        assert_eq!(store.get(&path).await.unwrap().attributes, attributes);
        let many: Vec<Path> = (0..1203).map(|n| Path::from(format!("jobs/l/many/{n:05}"))).collect();
        for path in &many {
            store.put(path, PutPayload::new()).await.unwrap();
        }
        let prefix = Path::from("jobs/l");
        let listed: Vec<Path> = store.list(Some(&prefix)).map_ok(|m| m.location).try_collect().await.unwrap();
        assert_eq!(listed.len(), 1204);
        let after: Vec<_> = store.list_with_offset(Some(&prefix), &many[1199]).map_ok(|m| m.location).try_collect().await.unwrap();
        assert_eq!(after, many[1200..]);
        let folder = store.list_with_delimiter(Some(&prefix)).await.unwrap();
        assert_eq!((folder.common_prefixes, folder.objects.len()), (vec![Path::from("jobs/l/many")], 1));
        let gone: Vec<Path> =
            store.delete_stream(Box::pin(futures::stream::iter(many.clone().into_iter().map(Ok)))).try_collect().await.unwrap();
        assert_eq!(gone, many);
        assert_eq!(store.list(Some(&prefix)).try_collect::<Vec<_>>().await.unwrap().len(), 1);
    });
}

#[test]
fn parts_may_arrive_in_any_order_and_a_missing_one_is_noticed() {
    run_real(async |_| {
        let store = start().await.remote().await.objects();
        let path = Path::from("jobs/parts");
        let content = pattern(200_000);
        let mut upload = store.put_multipart(&path).await.unwrap();
        let parts: Vec<_> = (0..4).map(|n| upload.put_part(content.slice(n * 50_000..(n + 1) * 50_000).into())).collect();
        for part in parts.into_iter().rev() {
            part.await.unwrap();
        }
        upload.complete().await.unwrap();
        assert!(store.get(&path).await.unwrap().bytes().await.unwrap() == content);

        let mut upload = store.put_multipart(&Path::from("jobs/torn")).await.unwrap();
        drop(upload.put_part("never sent".into()));
        upload.put_part("sent".into()).await.unwrap();
        assert!(upload.complete().await.is_err());
        upload.abort().await.unwrap();
        assert!(matches!(store.head(&Path::from("jobs/torn")).await, Err(Error::NotFound { .. })));
    });
}

#[test]
fn errors_keep_their_kind_and_an_absent_manager_is_unavailable() {
    run_real(async |_| {
        let mill = start().await;
        let remote = mill.remote().await;
        assert_eq!(remote.queue().stats("nowhere").await.unwrap_err().kind(), ErrorKind::NotFound);
        remote.table().ensure("t").await.unwrap();
        let write = || Write::put(Key::new("p", "s"), "v", Condition::Absent);
        remote.table().transact("t", vec![write()]).await.unwrap();
        assert_eq!(remote.table().transact("t", vec![write()]).await.unwrap_err().kind(), ErrorKind::Conflict);
        let e = Remote::connect(mill.settings("tm_k1_00")).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Denied);

        mill.state.shutdown.drain();
        mill.state.shutdown.close();
        support::eventually("the end of the server", async || {
            remote.queue().stats("nowhere").await.unwrap_err().kind() == ErrorKind::Unavailable
        })
        .await;
        let e = Remote::connect(RemoteSettings::new("http://127.0.0.1:1", "t")).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Unavailable);
        assert!(e.message().contains("cannot reach the manager at http://127.0.0.1:1"), "{e}");
    });
}

#[test]
fn a_worker_reaches_the_fleets_work_and_nothing_else() {
    run_real(async |_| {
        let mill = start().await;
        let (queue, table) = (&mill.state.blocks.queue, &mill.state.blocks.table);
        queue.ensure("batch.work.a", QueueSettings::default()).await.unwrap();
        queue.ensure("mail", QueueSettings::default()).await.unwrap();
        table.ensure("files").await.unwrap();
        let worker = mill.worker().await;
        let denied = |e: tidemill_base::Error| assert_eq!(e.kind(), ErrorKind::Denied, "{e:?}");
        worker.queue().send("batch.work.a", vec![NewMessage::now("x")]).await.unwrap();
        denied(worker.queue().send("mail", vec![NewMessage::now("x")]).await.unwrap_err());
        denied(worker.queue().purge("batch.work.a").await.unwrap_err());
        denied(worker.queue().ensure("batch.work.a", QueueSettings::default()).await.unwrap_err());
        denied(worker.queue().list().await.unwrap_err());
        denied(worker.table().get("files", &Key::new("p", "s")).await.unwrap_err());
        worker.table().ensure("batch-state").await.unwrap();
        let objects = worker.objects();
        objects.put(&Path::from("jobs/j1/out/a"), "x".into()).await.unwrap();
        let definition = objects.put(&Path::from("jobs/j1/definition/0.json"), "x".into()).await;
        assert!(matches!(definition, Err(Error::PermissionDenied { .. })), "{definition:?}");
        let secret = Path::from("secrets/a");
        assert!(matches!(objects.put(&secret, "x".into()).await, Err(Error::PermissionDenied { .. })));
        assert!(matches!(objects.get(&secret).await, Err(Error::PermissionDenied { .. })));
        assert!(matches!(objects.put_multipart(&secret).await, Err(Error::PermissionDenied { .. })));
        assert!(matches!(objects.copy(&secret, &Path::from("jobs/j1/out/b")).await, Err(Error::PermissionDenied { .. })));
        assert!(matches!(objects.list(None).try_collect::<Vec<_>>().await, Err(Error::PermissionDenied { .. })));
        // People's tokens are no workers', whatever their role.
        let e = Remote::connect(mill.settings(&mill.token(Role::Operator).await)).await.unwrap_err();
        denied(e);
    });
}

#[test]
fn a_worker_reads_what_jobs_under_way_name_and_no_longer() {
    run_real(async |_| {
        let mill = start().await;
        let ledger = &mill.state.blocks.ledger;
        ledger.migrate(tidemill_batch::store::MIGRATIONS).await.unwrap();
        let text = "name = \"n\"\n[[stage]]\nobjects = [\"claims/2026/*.csv\"]\ncommand = [\"true\"]\n\
                    [[stage]]\nname = \"l\"\nlines = \"lists/urls\"\ncommand = [\"true\"]";
        let spec = tidemill_batch::spec::from_toml(text, mill.state.env.now()).unwrap();
        let spec = serde_json::to_string(&spec).unwrap();
        // Submitting refuses it; a record that has it all the same opens nothing.
        let spec = spec.replace("\"claims/2026/*.csv\"", "\"claims/2026/*.csv\",\"system/**\"");
        assert!(spec.contains("system/**"));
        let insert =
            "INSERT INTO batch_jobs (id, name, user_name, class, priority, state, wanted, reason, cut, spec, submitted_us, start_after_us)
                      VALUES ('j1', 'n', 'u', 'default', 0, 'running', 'run', '', 1, $1, 0, 0)";
        let inputs = OpenInputs::new(ledger.clone());
        assert!(!inputs.hold("lists/urls").await.unwrap());
        ledger.transact(vec![Statement::new(insert, vec![spec.into()])]).await.unwrap();
        for (path, held) in [
            ("claims/2026/a.csv", true),
            ("lists/urls", true),
            ("claims/2026/a.key", false),
            ("claims/2025/a.csv", false),
            ("lists/urls2", false),
            ("system/multipart/b/u1/00001", false),
        ] {
            assert_eq!(inputs.hold(path).await.unwrap(), held, "{path}");
        }
        ledger.transact(vec![Statement::new("UPDATE batch_jobs SET state = 'succeeded'", vec![])]).await.unwrap();
        inputs.hold("no/such").await.unwrap();
        assert!(!inputs.hold("claims/2026/a.csv").await.unwrap());
    });
}

#[test]
fn another_protocol_is_refused_naming_both() {
    run_real(async |_| {
        let mill = start().await;
        let ask = |version: Option<String>| {
            let mut request = reqwest::Client::new().post(mill.at(wire::Hello::PATH)).bearer_auth(&mill.admin);
            if let Some(version) = version {
                request = request.header(PROTOCOL_HEADER, version);
            }
            request.body(wire::encode(&wire::Hello {}).unwrap()).send()
        };
        let (status, kind, message) = support::envelope(ask(Some("77".to_owned())).await.unwrap()).await;
        assert_eq!((status, kind.as_str()), (400, "invalid"));
        assert!(message.contains("speaks protocol 77") && message.contains(&format!("speaks protocol {PROTOCOL};")), "{message}");
        let (status, _, message) = support::envelope(ask(None).await.unwrap()).await;
        assert!(status == 400 && message.contains("names no protocol"), "{message}");
        assert_eq!(ask(Some(PROTOCOL.to_string())).await.unwrap().status(), 200);
    });
}

#[test]
fn a_parked_receive_is_woken_by_a_message_and_let_go_by_a_drain() {
    run_real(async |_| {
        let mill: Mill = start().await;
        mill.state.blocks.queue.ensure("batch.w", QueueSettings::default()).await.unwrap();
        let queue = mill.worker().await.queue();
        let how = Receive::up_to(1, Duration::from_secs(30)).waiting(Duration::from_secs(20));
        let send = async {
            tidemill_runtime::sleep(Duration::from_millis(1500)).await;
            mill.state.blocks.queue.send("batch.w", vec![NewMessage::now("late")]).await.unwrap();
        };
        let clock = Stopwatch::start();
        let (got, ()) = tokio::join!(queue.receive("batch.w", how), send);
        assert_eq!(got.unwrap()[0].body, "late");
        assert!(clock.elapsed() < Duration::from_secs(4), "{:?}", clock.elapsed());
        let drain = async {
            tidemill_runtime::sleep(Duration::from_millis(200)).await;
            mill.state.shutdown.drain();
        };
        let both = async { tokio::join!(queue.receive("batch.w", how), drain) };
        let (got, ()) = timeout(Duration::from_secs(5), "the parked receive", both).await.unwrap();
        assert!(got.unwrap().is_empty());
    });
}

#[test]
fn a_body_over_the_limit_is_refused_with_the_way_out() {
    run_real(async |_| {
        let mill = start_with(|c| c.limits.max_worker_body = ByteSize(100_000), Edges::new(), None).await;
        let remote = mill.remote().await;
        remote.queue().ensure("q", QueueSettings::default()).await.unwrap();
        let e = remote.queue().send("q", vec![NewMessage::now(pattern(200_000))]).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Exhausted, "{e:?}");
        // Objects go up in parts of 64 KiB and are not held to it; a conditional put cannot be cut.
        let store = remote.objects();
        store.put(&Path::from("a"), pattern(300_000).into()).await.unwrap();
        let e = store
            .put_opts(&Path::from("b"), pattern(300_000).into(), PutOptions { mode: PutMode::Create, ..Default::default() })
            .await
            .unwrap_err();
        assert!(format!("{e:?}").contains("limits.max-worker-body"), "{e:?}");
    });
}
