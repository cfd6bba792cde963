use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use bytes::Bytes;
use object_store::memory::InMemory;
use object_store::throttle::{ThrottleConfig, ThrottledStore};
use sha2::{Digest as _, Sha256};
use tidemill_blocks::objects;
use tidemill_grid::packages::{PackageFile, Packages, blob_path, hex};

use super::*;

struct Rig {
    objects: Objects,
    root: tempfile::TempDir,
}

impl Rig {
    fn new() -> Self {
        Self { objects: Arc::new(InMemory::new()), root: tempfile::tempdir().unwrap() }
    }

    fn cache(&self, limit: u64) -> PackageCache {
        PackageCache::open(self.root.path().join("packages"), limit, Arc::clone(&self.objects), Env::system())
    }

    async fn publish(&self, name: &str, version: &str, files: &[(&str, &[u8])]) -> PackagePin {
        let mut list = Vec::new();
        for (path, content) in files {
            let sha256 = hex(&Sha256::digest(content));
            objects::put(self.objects.as_ref(), &blob_path(&sha256), Bytes::from(content.to_vec())).await.unwrap();
            list.push(PackageFile { path: (*path).to_owned(), size: content.len() as u64, sha256, executable: path.starts_with("bin/") });
        }
        let manifest = Manifest { name: name.into(), version: version.into(), files: list, engine: None }.checked().unwrap();
        let stored = Packages::new(Arc::clone(&self.objects), Env::system()).publish(manifest, "ann").await.unwrap().0;
        stored.pin().unwrap()
    }

    fn folders(&self) -> Vec<String> {
        disk::folders(&self.root.path().join("packages")).into_iter().map(|(name, _)| name).collect()
    }
}

#[tokio::test]
async fn files_are_there_read_only_and_fetched_once_for_all_who_ask() {
    let rig = Rig::new();
    let pin = rig.publish("lib", "1", &[("a/b.csv", b"one"), ("bin/run", b"#!/bin/sh\n"), ("empty", b"")]).await;
    let cache = rig.cache(1 << 30);
    let (one, two, three) = futures::join!(cache.get(&pin), cache.get(&pin), cache.get(&pin));
    let one = one.unwrap();
    assert!(Arc::ptr_eq(&one, &two.unwrap()) && Arc::ptr_eq(&one, &three.unwrap()));
    assert_eq!(fs::read(one.files().join("a/b.csv")).unwrap(), b"one");
    let mode = |path: &str| fs::metadata(one.files().join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("a/b.csv"), mode("bin/run"), mode("empty"), mode("a")), (0o444, 0o555, 0o444, 0o555));
    assert_eq!(rig.folders(), std::slice::from_ref(&pin.digest), "no draft is left");
    let package = one.package();
    assert_eq!((package.name.as_str(), package.version.as_str()), ("lib", "1"));
}

#[tokio::test]
async fn damage_on_disk_is_found_after_a_restart_and_fetched_again() {
    let rig = Rig::new();
    let pin = rig.publish("lib", "1", &[("a", b"one"), ("b", b"two")]).await;
    let file = rig.cache(1 << 30).get(&pin).await.unwrap().files().join("a");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&file, b"oNe").unwrap();
    let again = rig.cache(1 << 30).get(&pin).await.unwrap();
    assert_eq!(fs::read(again.files().join("a")).unwrap(), b"one");
    // Without the store what is whole is used as it is.
    let gone = Rig { objects: Arc::new(InMemory::new()), root: rig.root };
    gone.cache(1 << 30).get(&pin).await.unwrap();
    // And what is damaged is not used at all.
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&file, b"xxx").unwrap();
    assert_eq!(gone.cache(1 << 30).get(&pin).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(gone.folders(), [""; 0]);
}

#[tokio::test]
async fn stored_bytes_that_are_not_what_was_published_reach_no_engine() {
    let rig = Rig::new();
    let pin = rig.publish("lib", "1", &[("a", b"one"), ("b", b"two")]).await;
    for wrong in [&b"onE"[..], b"on", b"one and more"] {
        objects::put(rig.objects.as_ref(), &blob_path(&hex(&Sha256::digest(b"one"))), Bytes::from_static(wrong)).await.unwrap();
        let e = rig.cache(1 << 30).get(&pin).await.unwrap_err();
        assert!(e.kind() == ErrorKind::Corrupt && e.message().contains("`a`") && e.message().contains("lib@1"), "{e}");
        assert_eq!(rig.folders(), [""; 0]);
    }
    let other = PackagePin { digest: "0".repeat(64), ..pin };
    assert_eq!(rig.cache(1 << 30).get(&other).await.unwrap_err().kind(), ErrorKind::Corrupt, "the pin decides");
}

#[tokio::test(start_paused = true)]
async fn who_dies_in_the_middle_of_a_download_leaves_nothing_that_looks_whole() {
    let rig = Rig::new();
    let pin = rig.publish("lib", "1", &[("a", b"one"), ("b", b"two")]).await;
    let memory = InMemory::new();
    let path = object_store::path::Path::from("packages/lib/1.json");
    let manifest = objects::get(rig.objects.as_ref(), &path).await.unwrap();
    objects::put(&memory, &path, manifest).await.unwrap();
    for content in [&b"one"[..], b"two"] {
        objects::put(&memory, &blob_path(&hex(&Sha256::digest(content))), Bytes::from_static(content)).await.unwrap();
    }
    let slow = ThrottleConfig { wait_get_per_call: std::time::Duration::from_secs(5), ..ThrottleConfig::default() };
    let slow: Objects = Arc::new(ThrottledStore::new(memory, slow));
    let cache = PackageCache::open(rig.root.path().join("packages"), 1 << 30, slow, Env::system());
    let limit = std::time::Duration::from_secs(7);
    assert!(tidemill_runtime::timeout(limit, "the download", cache.get(&pin)).await.is_err());
    assert!(rig.folders().iter().any(|f| f.starts_with("new-")), "it had begun");
    drop(cache);
    let cache = rig.cache(1 << 30);
    assert_eq!(rig.folders(), [""; 0], "a new start clears it away");
    cache.get(&pin).await.unwrap();
}

#[tokio::test]
async fn what_nobody_holds_makes_room_for_what_is_asked_for() {
    let rig = Rig::new();
    let content = |n: u8| vec![n; 1000];
    let one = rig.publish("one", "1", &[("a", &content(1))]).await;
    let two = rig.publish("two", "1", &[("a", &content(2))]).await;
    let three = rig.publish("three", "1", &[("a", &content(3))]).await;
    let cache = rig.cache(2000);
    let held = cache.get(&one).await.unwrap();
    drop(cache.get(&two).await.unwrap());
    let last = cache.get(&three).await.unwrap();
    let mut want = vec![one.digest.clone(), three.digest.clone()];
    want.sort();
    assert_eq!(rig.folders(), want, "the oldest is held, so the second goes");
    drop((held, last));
    drop(cache.get(&two).await.unwrap());
    assert!(!rig.folders().contains(&one.digest) && rig.folders().len() == 2);
    // Larger than all: it is there while it is used.
    let large = rig.publish("large", "1", &[("a", &vec![4; 5000])]).await;
    let held = cache.get(&large).await.unwrap();
    assert_eq!(rig.folders(), std::slice::from_ref(&large.digest));
    assert_eq!(fs::read(held.files().join("a")).unwrap().len(), 5000);
    // What is there is counted after a restart as before.
    drop((held, cache));
    let cache = rig.cache(2000);
    drop(cache.get(&one).await.unwrap());
    assert_eq!(rig.folders(), std::slice::from_ref(&one.digest));
}

#[tokio::test]
async fn wheels_are_unpacked_for_the_python_that_asks() {
    let Some(python) =
        std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).map(|f| f.join("python3")).find(|f| f.is_file())
    else {
        println!("SKIPPED wheels_are_unpacked_for_the_python_that_asks: there is no python3");
        return;
    };
    let rig = Rig::new();
    let file = rig.root.path().join("x.whl");
    let make = "import sys, zipfile\nz = zipfile.ZipFile(sys.argv[1], 'w')\nz.writestr('quant/__init__.py', 'rate = 7')\n\
                z.writestr('quant-1.data/purelib/extra.py', 'more = 8')\nz.writestr('quant-1.data/scripts/tool', 'x')\nz.close()";
    assert!(std::process::Command::new(&python).args(["-c", make]).arg(&file).status().unwrap().success());
    let wheel = fs::read(&file).unwrap();
    let cache = rig.cache(1 << 30);
    let pin = rig.publish("quant", "1", &[("quant-1-py3-none-any.whl", &wheel)]).await;
    let package = cache.get(&pin).await.unwrap();
    let path = package.python_path(&python).await.unwrap().unwrap();
    assert_eq!(package.python_path(&python).await.unwrap().unwrap(), path, "once");
    let said = std::process::Command::new(&python)
        .env("PYTHONPATH", &path)
        .args(["-B", "-c", "import quant, extra; print(quant.rate + extra.more)"])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&said.stdout).trim(), "15");
    assert!(!path.join("quant-1.data").exists());
    let pin = rig.publish("other", "1", &[("other-1-cp27-cp27m-win32.whl", &wheel)]).await;
    let e = cache.get(&pin).await.unwrap().python_path(&python).await.unwrap_err();
    assert!(e.message().contains("other@1") && e.message().contains("another Python"), "{e}");
    let pin = rig.publish("plain", "1", &[("a.csv", b"1")]).await;
    assert_eq!(cache.get(&pin).await.unwrap().python_path(&python).await.unwrap(), None);
}
