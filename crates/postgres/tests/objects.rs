//! Objects on PostgreSQL: the conformance suite, and what is promised beyond it.

#![allow(clippy::unwrap_used, reason = "a test ends where something fails")]

mod support;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, integration};
use support::{admin, connect, on_postgres};
use tidemill_blocks::objects;

mod suite {
    use object_store::ObjectStore;
    use std::sync::Arc;

    use tidemill_blocks_test::{Harness, Skip, objects_suite};

    async fn make(h: &Harness) -> Result<Arc<dyn ObjectStore>, Skip> {
        super::support::postgres(h).await.map(|postgres| postgres.objects())
    }

    objects_suite!(real, make);
}

/// More than is kept in the object's own row.
fn large(seed: u64, len: usize) -> Bytes {
    let mut out = vec![0; len];
    fastrand::Rng::with_seed(seed).fill(&mut out);
    out.into()
}

macro_rules! upstream {
    ($($name:ident($($arg:expr),*);)*) => { $(
        #[test]
        fn $name() {
            on_postgres(stringify!($name), async |h, settings| {
                let store = connect(&settings, h.env()).await.objects();
                integration::$name(&*store $(, $arg)*).await;
            });
        }
    )* };
}

upstream! {
    put_get_delete_list();
    put_get_attributes();
    get_opts();
    put_opts(true);
    stream_get();
    list_uses_directories_correctly();
    list_with_delimiter();
    rename_and_copy();
    copy_if_not_exists();
    copy_rename_nonexistent_object();
    multipart_race_condition(true);
    multipart_out_of_order();
    list_with_offset_exclusivity();
}

#[test]
fn readers_finish_what_was_overwritten_meanwhile() {
    on_postgres("readers_finish_what_was_overwritten_meanwhile", async |h, settings| {
        let postgres = connect(&settings, h.env()).await;
        let store = postgres.objects();
        let (path, old) = (Path::from("b/object"), large(1, 9 << 20));
        objects::put(&*store, &path, old.clone()).await.unwrap();
        let mut reading = store.get(&path).await.unwrap().into_stream();
        let first = reading.next().await.unwrap().unwrap();
        objects::put(&*store, &path, large(2, 3 << 20)).await.unwrap();
        postgres.sweep().await.unwrap();
        let rest: Vec<Bytes> = reading.try_collect().await.unwrap();
        assert!([vec![first], rest].concat().concat() == old, "the old object, whole");
        assert!(objects::get(&*store, &path).await.unwrap() == large(2, 3 << 20));
    });
}

#[test]
fn what_no_object_names_is_swept_when_its_time_has_come() {
    on_postgres("what_no_object_names_is_swept_when_its_time_has_come", async |h, settings| {
        let postgres = connect(&settings, h.env()).await;
        let store = postgres.objects();
        let client = admin(&settings.url).await;
        client.batch_execute(&format!("SET search_path TO {}", settings.schema)).await.unwrap();
        let blobs = async || {
            let sql = "SELECT count(DISTINCT blob), (SELECT count(*) FROM tidemill_garbage) FROM tidemill_chunks";
            let row = client.query_one(sql, &[]).await.unwrap();
            (row.get::<_, i64>(0), row.get::<_, i64>(1))
        };
        for name in ["kept", "overwritten", "deleted"] {
            objects::put(&*store, &Path::from(name), large(3, 2 << 20)).await.unwrap();
        }
        let mut upload = store.put_multipart(&Path::from("abandoned")).await.unwrap();
        upload.put_part(large(4, 2 << 20).into()).await.unwrap();
        drop(upload);
        objects::put(&*store, &Path::from("overwritten"), Bytes::from_static(b"small")).await.unwrap();
        objects::delete(&*store, &Path::from("deleted")).await.unwrap();
        postgres.sweep().await.unwrap();
        assert_eq!(blobs().await, (4, 3), "readers may need them still");
        client.batch_execute("UPDATE tidemill_garbage SET due = now()").await.unwrap();
        postgres.sweep().await.unwrap();
        assert_eq!(blobs().await, (1, 0));
        assert!(objects::get(&*store, &Path::from("kept")).await.unwrap() == large(3, 2 << 20));
    });
}

#[test]
fn an_upload_whose_parts_have_gone_is_refused_whole() {
    on_postgres("an_upload_whose_parts_have_gone_is_refused_whole", async |h, settings| {
        let postgres = connect(&settings, h.env()).await;
        let (store, path) = (postgres.objects(), Path::from("object"));
        objects::put(&*store, &path, Bytes::from_static(b"old")).await.unwrap();
        let mut upload = store.put_multipart(&path).await.unwrap();
        upload.put_part(large(5, 6 << 20).into()).await.unwrap();
        let client = admin(&settings.url).await;
        client.batch_execute(&format!("UPDATE {}.tidemill_garbage SET due = now()", settings.schema)).await.unwrap();
        postgres.sweep().await.unwrap();
        assert!(upload.complete().await.is_err());
        assert_eq!(objects::get(&*store, &path).await.unwrap(), "old");
    });
}

#[test]
fn one_of_many_updates_of_an_entity_tag_wins() {
    on_postgres("one_of_many_updates_of_an_entity_tag_wins", async |h, settings| {
        let store = connect(&settings, h.env()).await.objects();
        let path = Path::from("counter");
        let put = store.put(&path, "0".into()).await.unwrap();
        let call = |n: usize| {
            let (store, path, version) = (store.clone(), path.clone(), put.clone().into());
            async move {
                let options = PutOptions { mode: PutMode::Update(version), ..PutOptions::default() };
                store.put_opts(&path, format!("by {n}").into(), options).await
            }
        };
        let answers = h.all_at_once(8, call).await;
        assert_eq!(answers.iter().filter(|a| a.is_ok()).count(), 1, "{answers:?}");
        assert!(
            answers.iter().flat_map(|a| a.as_ref().err()).all(|e| matches!(e, object_store::Error::Precondition { .. })),
            "{answers:?}"
        );
    });
}

#[test]
fn a_folder_of_many_is_one_prefix() {
    on_postgres("a_folder_of_many_is_one_prefix", async |h, settings| {
        let store = connect(&settings, h.env()).await.objects();
        let client = admin(&settings.url).await;
        // Around the end of a page: objects just beside the folder in the order of names.
        let fill = format!(
            "INSERT INTO {}.tidemill_objects (path, size, etag, modified, attributes, contents)
             SELECT p, 0, '', now(), '{{}}', '' FROM (SELECT 'a/' || n AS p FROM generate_series(1, 2500) n
             UNION ALL SELECT unnest(ARRAY['a', 'a.', 'a0', 'a/\u{10FFFF}', 'a1/x', 'b'])) names",
            settings.schema
        );
        client.batch_execute(&fill).await.unwrap();
        let listed = store.list_with_delimiter(None).await.unwrap();
        let names = |paths: Vec<&Path>| paths.into_iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(names(listed.objects.iter().map(|m| &m.location).collect()), ["a", "a.", "a0", "b"]);
        assert_eq!(names(listed.common_prefixes.iter().collect()), ["a", "a1"]);
        assert_eq!(store.list(Some(&Path::from("a"))).count().await, 2501);
    });
}
