//! The objects driver against upstream's own expectations, and what it promises beyond them.

#![allow(clippy::unwrap_used, reason = "a test ends where something fails")]

use std::path::Path as FilePath;
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, integration};
use tempfile::TempDir;
use tidemill_base::{Env, ErrorKind};
use tidemill_blocks::objects;
use tidemill_embedded::Embedded;
use tidemill_embedded::objects::{EmbeddedObjects, ListRequest};
use tidemill_runtime::{Stopwatch, sleep};

fn open() -> (TempDir, Embedded) {
    let folder = TempDir::new().unwrap();
    let embedded = Embedded::open(folder.path(), Env::system()).unwrap();
    (folder, embedded)
}

/// More than is kept in the store itself.
fn large(seed: u8) -> Bytes {
    (0..700_000_u32).map(|n| (n.wrapping_mul(31) >> 3) as u8 ^ seed).collect()
}

fn files(folder: &FilePath) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for shelf in std::fs::read_dir(folder.join("objects")).unwrap() {
        found.extend(std::fs::read_dir(shelf.unwrap().path()).unwrap().map(|f| f.unwrap().path()));
    }
    found
}

/// Removing files is left to a thread of its own.
async fn files_become(folder: &FilePath, count: usize) {
    let watch = Stopwatch::start();
    while files(folder).len() != count {
        assert!(watch.elapsed() < Duration::from_secs(5), "still {} files, expected {count}", files(folder).len());
        sleep(Duration::from_millis(5)).await;
    }
}

async fn read(store: &EmbeddedObjects, path: &str) -> Bytes {
    store.get(&Path::from(path)).await.unwrap().bytes().await.unwrap()
}

macro_rules! upstream {
    ($($name:ident($($arg:expr),*);)*) => { $(
        #[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            let (_folder, embedded) = open();
            let store = embedded.local_objects();
            integration::$name(store.as_ref() $(, $arg)*).await;
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

#[tokio::test(flavor = "multi_thread")]
async fn multipart_by_id() {
    let (_folder, embedded) = open();
    let store = embedded.local_objects();
    integration::multipart(store.as_ref(), store.as_ref()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn small_and_large_objects_read_back_whole_in_ranges_and_as_streams() {
    let (folder, embedded) = open();
    let store = embedded.local_objects();
    for (name, contents, on_disk) in [("empty", Bytes::new(), 0), ("small", Bytes::from_static(b"abc"), 0), ("large", large(1), 1)] {
        let path = Path::from(name);
        let put = store.put(&path, contents.clone().into()).await.unwrap();
        use md5::Digest;
        assert_eq!(put.e_tag.unwrap(), hex::encode(md5::Md5::digest(&contents)));
        assert_eq!(read(&store, name).await, contents);
        assert_eq!(files(folder.path()).len(), on_disk);
        let streamed: Vec<Bytes> = store.get(&path).await.unwrap().into_stream().try_collect().await.unwrap();
        assert_eq!(streamed.concat(), contents);
        assert!(streamed.iter().all(|chunk| chunk.len() <= 256 << 10), "a chunk is too large");
    }
    let ranges = [0..1, 262_140..262_150, 699_000..700_000];
    let read = store.get_ranges(&Path::from("large"), &ranges).await.unwrap();
    for (range, bytes) in ranges.iter().zip(read) {
        assert_eq!(bytes, large(1)[range.start as usize..range.end as usize]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn overwritten_and_deleted_files_go_once_nobody_reads_them() {
    let (folder, embedded) = open();
    let store = embedded.local_objects();
    let path = Path::from("a");
    store.put(&path, large(1).into()).await.unwrap();
    let reader = store.get(&path).await.unwrap();
    store.put(&path, large(2).into()).await.unwrap();
    sleep(Duration::from_millis(50)).await;
    assert_eq!(files(folder.path()).len(), 2, "the old contents must stay while they are read");
    assert_eq!(reader.bytes().await.unwrap(), large(1));
    files_become(folder.path(), 1).await;
    assert_eq!(read(&store, "a").await, large(2));
    store.delete(&path).await.unwrap();
    files_become(folder.path(), 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn just_one_of_many_creators_wins_and_the_files_of_the_others_go() {
    let (folder, embedded) = open();
    let store = embedded.local_objects();
    let create = |n: u8| {
        let store = store.clone();
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        async move { (n, store.put_opts(&Path::from("one"), large(n).into(), options).await) }
    };
    let outcomes = futures::future::join_all((0..16).map(create)).await;
    let winners: Vec<u8> = outcomes.iter().filter(|(_, r)| r.is_ok()).map(|(n, _)| *n).collect();
    assert_eq!(winners.len(), 1, "{outcomes:?}");
    assert!(outcomes.iter().all(|(_, r)| matches!(r, Ok(_) | Err(object_store::Error::AlreadyExists { .. }))));
    assert_eq!(read(&store, "one").await, large(winners[0]));
    files_become(folder.path(), 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_outlive_their_source_and_renaming_moves_no_bytes() {
    let (folder, embedded) = open();
    let store = embedded.local_objects();
    store.put(&Path::from("a"), large(1).into()).await.unwrap();
    store.copy(&Path::from("a"), &Path::from("b")).await.unwrap();
    store.copy(&Path::from("b"), &Path::from("b")).await.unwrap();
    store.delete(&Path::from("a")).await.unwrap();
    files_become(folder.path(), 1).await;
    let before = files(folder.path());
    store.rename(&Path::from("b"), &Path::from("c")).await.unwrap();
    store.rename(&Path::from("c"), &Path::from("c")).await.unwrap();
    assert_eq!(files(folder.path()), before);
    assert_eq!(read(&store, "c").await, large(1));
    assert_eq!(store.local_path(&Path::from("c")).unwrap(), before.first().cloned());
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_names_never_meet_the_file_system() {
    let (folder, embedded) = open();
    let store = embedded.local_objects();
    let names = ["a", "a/b", "a/b/c", "con", "space here", "x:y*?|\"<>", "日本語/🦀", &"long/".repeat(150)];
    for name in names {
        store.put(&Path::from(name), large(3).into()).await.unwrap();
    }
    assert_eq!(files(folder.path()).len(), names.len());
    for name in names {
        assert_eq!(read(&store, name).await, large(3));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn listings_come_in_order_and_page_by_page() {
    let (_folder, embedded) = open();
    let store = embedded.local_objects();
    let mut names: Vec<String> = (0..1200).map(|n| format!("d/{n:05}")).collect();
    names.extend(["a".into(), "d".into(), "d-e".into(), "e/1".into(), "e/2".into()]);
    for name in &names {
        store.put(&Path::from(name.as_str()), "x".into()).await.unwrap();
    }
    names.sort();
    let listed: Vec<String> = store.list(None).map_ok(|m| m.location.to_string()).try_collect().await.unwrap();
    assert_eq!(listed, names);
    let mut request = ListRequest { prefix: "d".into(), delimited: true, max: 2, after: None };
    let first = store.list_page(request.clone()).await.unwrap();
    assert_eq!(first.objects.iter().map(|m| m.location.as_ref()).collect::<Vec<_>>(), ["d", "d-e"]);
    request.after = first.next;
    let second = store.list_page(request).await.unwrap();
    assert_eq!((second.prefixes, second.next), (vec!["d/".to_owned()], None));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_by_id_survives_reopening_and_names_what_is_wrong() {
    let folder = TempDir::new().unwrap();
    let path = Path::from("big");
    let (id, part) = {
        let embedded = Embedded::open(folder.path(), Env::system()).unwrap();
        let store = embedded.local_objects();
        let id = store.create_upload(&path, PutMultipartOptions::default()).await.unwrap();
        store.upload_part(&path, &id, 2, large(9).into()).await.unwrap();
        let part = store.upload_part(&path, &id, 2, large(2).into()).await.unwrap();
        store.upload_part(&path, &id, 7, large(7).into()).await.unwrap();
        (id, part)
    };
    let embedded = Embedded::open(folder.path(), Env::system()).unwrap();
    let store = embedded.local_objects();
    let first = store.upload_part(&path, &id, 1, large(1).into()).await.unwrap();
    let numbers: Vec<u32> = store.uploaded_parts(&path, &id).await.unwrap().iter().map(|p| p.number).collect();
    assert_eq!(numbers, [1, 2, 7]);
    let wrong = store.complete_upload(&path, &id, vec![(1, part.e_tag.clone())], PutMode::Create).await.unwrap_err();
    assert_eq!(objects::error("complete", &path, wrong).kind(), ErrorKind::Invalid);
    let elsewhere = store.upload_part(&Path::from("other"), &id, 1, "x".into()).await.unwrap_err();
    assert!(matches!(elsewhere, object_store::Error::NotFound { .. }), "{elsewhere}");
    let named = vec![(1, first.e_tag), (2, part.e_tag)];
    let put = store.complete_upload(&path, &id, named.clone(), PutMode::Create).await.unwrap();
    assert!(put.e_tag.unwrap().ends_with("-2"));
    assert_eq!(read(&store, "big").await, [large(1), large(2)].concat());
    // The part that was replaced and the one that was not named are gone.
    files_become(folder.path(), 2).await;
    let again = store.complete_upload(&path, &id, named, PutMode::Overwrite).await.unwrap_err();
    assert!(matches!(again, object_store::Error::NotFound { .. }), "{again}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_aborted_or_let_go_leaves_no_files() {
    let (folder, embedded) = open();
    let store = embedded.local_objects();
    let path = Path::from("never");
    let id = store.create_multipart(&path).await.unwrap();
    store.put_part(&path, &id, 0, large(1).into()).await.unwrap();
    store.abort_multipart(&path, &id).await.unwrap();
    let mut upload = store.put_multipart(&path).await.unwrap();
    upload.put_part(large(1).into()).await.unwrap();
    drop(upload);
    files_become(folder.path(), 0).await;
    assert!(store.get(&path).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_is_named() {
    let (folder, embedded) = open();
    let store = embedded.local_objects();
    let path = Path::from("a");
    store.put(&path, large(1).into()).await.unwrap();
    let file = files(folder.path()).remove(0);
    std::fs::remove_file(&file).unwrap();
    std::fs::write(&file, b"short").unwrap();
    let e = objects::get(store.as_ref(), &path).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Corrupt);
    assert!(e.chain().contains(file.to_str().unwrap()), "{}", e.chain());
}
