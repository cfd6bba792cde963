//! Packages in the object store.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::ObjectStoreExt as _;
use object_store::path::Path;
use tidemill_base::{Env, Error, Result, Timestamp};
use tidemill_batch::model::PackagePin;
use tidemill_blocks::objects::{self, Objects};

use super::{Manifest, PackageFile, Stored, check_name, check_version};

/// Requests to the store at once.
const AT_ONCE: usize = 32;
/// Bytes that no manifest names are kept for so long: whoever sent them may be about to publish.
const KEEP_UNNAMED: Duration = Duration::from_secs(24 * 3600);
/// Removing takes no longer; what is left is for the next time.
const REMOVING: Duration = Duration::from_secs(300);
/// A mark of a removal that is older belongs to a process that has died.
const DEAD_MARK: Duration = Duration::from_secs(600);
/// How often somebody who publishes looks whether a removal is over.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Where the bytes with this SHA-256 lie.
pub fn blob_path(sha256: &str) -> Path {
    Path::from_iter(["packages", "blobs", sha256])
}

fn manifest_path(name: &str, version: &str) -> Path {
    Path::from_iter(["packages", name, &format!("{version}.json")])
}

fn marks() -> Path {
    Path::from_iter(["packages", "deleting"])
}

/// The packages of an installation.
#[derive(Debug, Clone)]
pub struct Packages {
    objects: Objects,
    env: Env,
}

impl Packages {
    /// Those in this store.
    pub fn new(objects: Objects, env: Env) -> Self {
        Self { objects, env }
    }

    /// Which files' bytes have to be sent before the manifest can be published; by SHA-256, each once.
    pub async fn missing(&self, manifest: &Manifest) -> Result<Vec<String>> {
        let wanted: BTreeSet<(String, u64)> = manifest.files.iter().map(|f| (f.sha256.clone(), f.size)).collect();
        let look = wanted.into_iter().map(|(sha256, size)| async move {
            let found = match self.objects.head(&blob_path(&sha256)).await {
                Ok(meta) => meta.size == size,
                Err(object_store::Error::NotFound { .. }) => false,
                Err(e) => return Err(objects::error("look for", &blob_path(&sha256), e)),
            };
            Ok((!found).then_some(sha256))
        });
        let found: Vec<Option<String>> = futures::stream::iter(look).buffered(AT_ONCE).try_collect().await?;
        Ok(found.into_iter().flatten().collect())
    }

    /// Publishes a checked manifest, whose bytes must be there. The same content again is no error and answers `false`. `Conflict` when the
    /// version holds something else, `Invalid` when bytes are missing.
    pub async fn publish(&self, manifest: Manifest, user: &str) -> Result<(Stored, bool)> {
        self.all_there(&manifest).await?;
        let (name, version) = (manifest.name.clone(), manifest.version.clone());
        let digest = manifest.digest()?;
        let stored = Stored { manifest, published_at: self.env.now(), published_by: user.to_owned() };
        let text = serde_json::to_vec(&stored).map_err(|e| Error::internal("write a manifest as JSON").with_source(e))?;
        let path = manifest_path(&name, &version);
        if !objects::put_new(self.objects.as_ref(), &path, Bytes::from(text)).await? {
            let there = self.get(&name, &version).await?;
            if there.manifest.digest()? == digest {
                return Ok((there, false));
            }
            return Err(Error::conflict(format!(
                "package {name}@{version} is published with other content, and a version never changes; publish under another version"
            )));
        }
        // Somebody may have been removing bytes that nothing named a moment ago. Whoever begins from here on sees the manifest.
        self.nobody_removes().await?;
        if let Err(e) = self.all_there(&stored.manifest).await {
            objects::delete(self.objects.as_ref(), &path).await?;
            return Err(e);
        }
        Ok((stored, true))
    }

    async fn all_there(&self, manifest: &Manifest) -> Result<()> {
        let missing = self.missing(manifest).await?;
        let Some(first) = missing.first() else { return Ok(()) };
        let path = manifest.files.iter().find(|f| f.sha256 == *first).map_or("", |f| f.path.as_str());
        Err(Error::invalid(format!(
            "package {}@{}: the bytes of {} of its files are not there, of `{path}` for one; send them and publish again",
            manifest.name,
            manifest.version,
            missing.len()
        )))
    }

    /// A version. `NotFound` says which there are.
    pub async fn get(&self, name: &str, version: &str) -> Result<Stored> {
        check_name(name)?;
        check_version(version)?;
        if let Some(bytes) = objects::get_opt(self.objects.as_ref(), &manifest_path(name, version)).await? {
            return read(&bytes, name, version);
        }
        let versions: Vec<String> = self.versions(name).await?.into_iter().map(|s| s.manifest.version).collect();
        let known =
            if versions.is_empty() { "there is no package of that name".to_owned() } else { format!("there are {}", versions.join(", ")) };
        Err(Error::not_found(format!("there is no package {name}@{version}; {known} (`tidemill grid package list`)")))
    }

    /// All versions of a package, the newest last. Empty when there is none.
    pub async fn versions(&self, name: &str) -> Result<Vec<Stored>> {
        check_name(name)?;
        let folder = Path::from_iter(["packages", name]);
        let failed = |e| objects::error("list", &folder, e);
        let found: Vec<_> = self.objects.list(Some(&folder)).try_collect().await.map_err(failed)?;
        let read_one = |path: Path| async move {
            let Some(version) = path.filename().and_then(|f| f.strip_suffix(".json")).map(str::to_owned) else { return Ok(None) };
            // One that is deleted at this moment is not there.
            let Some(bytes) = objects::get_opt(self.objects.as_ref(), &path).await? else { return Ok(None) };
            read(&bytes, name, &version).map(Some)
        };
        let all = futures::stream::iter(found.into_iter().map(|meta| read_one(meta.location))).buffered(AT_ONCE);
        let all: Vec<Option<Stored>> = all.try_collect().await?;
        let mut all: Vec<Stored> = all.into_iter().flatten().collect();
        all.sort_by(|a, b| (a.published_at, &a.manifest.version).cmp(&(b.published_at, &b.manifest.version)));
        Ok(all)
    }

    /// The names of all packages, in order.
    pub async fn names(&self) -> Result<Vec<String>> {
        let folder = Path::from("packages");
        let listed = self.objects.list_with_delimiter(Some(&folder)).await.map_err(|e| objects::error("list", &folder, e))?;
        let names = listed.common_prefixes.iter().filter_map(|p| p.filename().map(str::to_owned));
        Ok(names.filter(|n| check_name(n).is_ok()).collect::<BTreeSet<_>>().into_iter().collect())
    }

    /// Every version of every package, by name and age.
    pub async fn all(&self) -> Result<Vec<Stored>> {
        let mut all = Vec::new();
        for name in self.names().await? {
            all.extend(self.versions(&name).await?);
        }
        Ok(all)
    }

    /// What a session that names this is to pin: the newest version where none is named. `NotFound` when it is not there, `Conflict` when a
    /// digest is given and is another one's.
    pub async fn resolve(&self, wanted: &PackagePin) -> Result<PackagePin> {
        let stored = if wanted.version.is_empty() {
            let newest = self.versions(&wanted.name).await?.pop();
            newest.ok_or_else(|| {
                Error::not_found(format!("there is no package `{}`; publish it with `tidemill grid package push`", wanted.name))
            })?
        } else {
            self.get(&wanted.name, &wanted.version).await?
        };
        let pin = stored.pin()?;
        if !wanted.digest.is_empty() && wanted.digest != pin.digest {
            return Err(Error::conflict(format!(
                "package {}@{} has the digest {}, and the session pins {}; pin what is there, or leave the digest out",
                pin.name, pin.version, pin.digest, wanted.digest
            )));
        }
        Ok(pin)
    }

    /// Deletes a version, and the bytes that nothing names any more. `in_use` says who needs the version with this pin; it is asked before
    /// and after the manifest has gone, so that a session that is being opened in between keeps it. `Conflict` when somebody does.
    pub async fn delete<F: Future<Output = Result<Option<String>>>>(
        &self,
        name: &str,
        version: &str,
        in_use: impl Fn(PackagePin) -> F,
    ) -> Result<()> {
        let stored = self.get(name, version).await?;
        let pin = stored.pin()?;
        let needed = |by: &str| Error::conflict(format!("package {name}@{version} is pinned by {by}; delete it when that has ended"));
        if let Some(by) = in_use(pin.clone()).await? {
            return Err(needed(&by));
        }
        let path = manifest_path(name, version);
        objects::delete(self.objects.as_ref(), &path).await?;
        let asked = in_use(pin).await;
        if !matches!(asked, Ok(None)) {
            let text = serde_json::to_vec(&stored).map_err(|e| Error::internal("write a manifest as JSON").with_source(e))?;
            objects::put_new(self.objects.as_ref(), &path, Bytes::from(text)).await?;
            return Err(asked?.map_or_else(|| Error::internal("nobody needs the package"), |by| needed(&by)));
        }
        self.remove_unnamed(&stored.manifest.files).await
    }

    /// Removes bytes that no manifest names: those of `files`, and those of uploads that came to nothing.
    async fn remove_unnamed(&self, files: &[PackageFile]) -> Result<()> {
        let mark = marks().join(self.env.id("d").as_str());
        let began = self.env.now();
        objects::put(self.objects.as_ref(), &mark, Bytes::from(began.micros().to_string())).await?;
        let removed = self.remove_marked(files, began).await;
        objects::delete(self.objects.as_ref(), &mark).await?;
        removed
    }

    async fn remove_marked(&self, files: &[PackageFile], began: Timestamp) -> Result<()> {
        let named: BTreeSet<String> = self.all().await?.into_iter().flat_map(|s| s.manifest.files).map(|f| f.sha256).collect();
        let ours: BTreeSet<&str> = files.iter().map(|f| f.sha256.as_str()).collect();
        let folder = Path::from_iter(["packages", "blobs"]);
        let mut found = self.objects.list(Some(&folder));
        while let Some(meta) = found.try_next().await.map_err(|e| objects::error("list", &folder, e))? {
            let Some(sha256) = meta.location.filename() else { continue };
            let age = self.env.now().micros().saturating_sub(meta.last_modified.timestamp_micros());
            let old = u128::try_from(age).is_ok_and(|age| age > KEEP_UNNAMED.as_micros());
            if named.contains(sha256) || !(old || ours.contains(sha256)) {
                continue;
            }
            let spent = self.env.now().micros().saturating_sub(began.micros());
            if u128::try_from(spent).is_ok_and(|spent| spent > REMOVING.as_micros()) {
                break;
            }
            objects::delete(self.objects.as_ref(), &meta.location).await?;
        }
        Ok(())
    }

    /// Waits until no removal that may not have seen what was just written goes on.
    async fn nobody_removes(&self) -> Result<()> {
        let folder = marks();
        loop {
            let found: Vec<_> = self.objects.list(Some(&folder)).try_collect().await.map_err(|e| objects::error("list", &folder, e))?;
            let mut waits = false;
            for mark in found {
                let Some(text) = objects::get_opt(self.objects.as_ref(), &mark.location).await? else { continue };
                let began = std::str::from_utf8(&text).ok().and_then(|t| t.parse::<i64>().ok()).unwrap_or_default();
                let age = self.env.now().micros().saturating_sub(began);
                if u128::try_from(age).is_ok_and(|age| age > DEAD_MARK.as_micros()) {
                    objects::delete(self.objects.as_ref(), &mark.location).await?;
                } else {
                    waits = true;
                }
            }
            if !waits {
                return Ok(());
            }
            tidemill_runtime::sleep(LOOK_AGAIN).await;
        }
    }
}

fn read(bytes: &[u8], name: &str, version: &str) -> Result<Stored> {
    let damaged =
        |why: String| Error::corrupt(format!("the manifest of package {name}@{version} is damaged: {why}; publish another version"));
    let stored: Stored = serde_json::from_slice(bytes).map_err(|e| damaged(e.to_string()))?;
    if stored.manifest.name != name || stored.manifest.version != version {
        return Err(damaged(format!("it is that of {}@{}", stored.manifest.name, stored.manifest.version)));
    }
    Ok(stored)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use object_store::memory::InMemory;
    use sha2::{Digest as _, Sha256};
    use tidemill_base::ErrorKind;

    use super::super::hex;
    use super::*;

    fn packages() -> (Packages, Objects) {
        let objects: Objects = Arc::new(InMemory::new());
        (Packages::new(Arc::clone(&objects), Env::system()), objects)
    }

    fn manifest(version: &str, files: &[(&str, &str)]) -> Manifest {
        let files = files.iter().map(|(path, text)| PackageFile {
            path: (*path).to_owned(),
            size: text.len() as u64,
            sha256: hex(&Sha256::digest(text)),
            executable: false,
        });
        Manifest { name: "calendars".into(), version: version.into(), files: files.collect(), engine: None }.checked().unwrap()
    }

    async fn publish(p: &Packages, objects: &Objects, version: &str, files: &[(&str, &str)]) -> Result<(Stored, bool)> {
        for (_, text) in files {
            objects::put(objects.as_ref(), &blob_path(&hex(&Sha256::digest(text))), Bytes::from((*text).to_owned())).await?;
        }
        p.publish(manifest(version, files), "ann").await
    }

    async fn nobody(_: PackagePin) -> Result<Option<String>> {
        Ok(None)
    }

    #[tokio::test]
    async fn a_version_never_changes_and_the_same_again_is_no_error() {
        let (p, objects) = packages();
        let missing = p.missing(&manifest("1", &[("a", "x"), ("b", "x"), ("c", "y")])).await.unwrap();
        assert_eq!(missing.len(), 2, "bytes that are there twice are sent once");
        let e = p.publish(manifest("1", &[("a", "x")]), "ann").await.unwrap_err();
        assert!(e.kind() == ErrorKind::Invalid && e.message().contains("`a`"), "{e}");
        assert!(publish(&p, &objects, "1", &[("a", "x")]).await.unwrap().1);
        assert!(!publish(&p, &objects, "1", &[("a", "x")]).await.unwrap().1);
        let e = publish(&p, &objects, "1", &[("a", "other")]).await.unwrap_err();
        assert!(e.kind() == ErrorKind::Conflict && e.message().contains("another version"), "{e}");
        assert_eq!(p.names().await.unwrap(), ["calendars"]);
    }

    #[tokio::test]
    async fn sessions_pin_the_newest_or_what_they_name() {
        let (p, objects) = packages();
        // In the order of publishing, which is not that of the words.
        let first = publish(&p, &objects, "v10", &[("a", "x")]).await.unwrap().0.pin().unwrap();
        let second = publish(&p, &objects, "v9", &[("a", "y")]).await.unwrap().0.pin().unwrap();
        let named = |version: &str, digest: &str| PackagePin { name: "calendars".into(), version: version.into(), digest: digest.into() };
        assert_eq!(p.resolve(&named("", "")).await.unwrap(), second);
        assert_eq!(p.resolve(&named("v10", "")).await.unwrap(), first);
        assert_eq!(p.resolve(&named("v10", &first.digest)).await.unwrap(), first);
        assert_eq!(p.resolve(&named("v10", &second.digest)).await.unwrap_err().kind(), ErrorKind::Conflict);
        let e = p.resolve(&named("v11", "")).await.unwrap_err();
        assert!(e.kind() == ErrorKind::NotFound && e.message().contains("there are v10, v9"), "{e}");
    }

    #[tokio::test]
    async fn what_is_pinned_stays_and_bytes_go_with_the_last_version_that_names_them() {
        let (p, objects) = packages();
        publish(&p, &objects, "1", &[("a", "shared"), ("b", "one")]).await.unwrap();
        publish(&p, &objects, "2", &[("a", "shared")]).await.unwrap();
        let e = p.delete("calendars", "1", |_| async { Ok(Some("session j7".to_owned())) }).await.unwrap_err();
        assert!(e.kind() == ErrorKind::Conflict && e.message().contains("session j7"), "{e}");
        // Opened between the question and the deletion.
        let asked = std::cell::Cell::new(0);
        let later = |_| {
            asked.set(asked.get() + 1);
            let found = (asked.get() > 1).then(|| "session j8".to_owned());
            async move { Ok(found) }
        };
        assert_eq!(p.delete("calendars", "1", later).await.unwrap_err().kind(), ErrorKind::Conflict);
        p.get("calendars", "1").await.unwrap();
        p.delete("calendars", "1", nobody).await.unwrap();
        assert_eq!(p.get("calendars", "1").await.unwrap_err().kind(), ErrorKind::NotFound);
        let there = async |text: &str| objects.head(&blob_path(&hex(&Sha256::digest(text)))).await.is_ok();
        assert!(there("shared").await && !there("one").await);
        p.delete("calendars", "2", nobody).await.unwrap();
        assert!(!there("shared").await && p.names().await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn who_publishes_waits_for_a_removal_and_not_for_a_dead_one() {
        let (p, objects) = packages();
        let now = Env::system().now().micros();
        objects::put(objects.as_ref(), &marks().join("dead"), Bytes::from((now - 3_600_000_000).to_string())).await.unwrap();
        publish(&p, &objects, "1", &[("a", "x")]).await.unwrap();
        let live = marks().join("live");
        objects::put(objects.as_ref(), &live, Bytes::from(now.to_string())).await.unwrap();
        let waiting = publish(&p, &objects, "2", &[("a", "x")]);
        let over = async {
            tidemill_runtime::sleep(Duration::from_millis(250)).await;
            assert!(p.get("calendars", "2").await.is_ok(), "it is there for whoever begins to remove");
            // What the removal took is found missing, and the version is not published.
            objects::delete(objects.as_ref(), &blob_path(&hex(&Sha256::digest("x")))).await.unwrap();
            objects::delete(objects.as_ref(), &live).await.unwrap();
        };
        let (published, ()) = futures::join!(waiting, over);
        assert_eq!(published.unwrap_err().kind(), ErrorKind::Invalid);
        assert_eq!(p.get("calendars", "2").await.unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[tokio::test]
    async fn damage_is_said() {
        let (p, objects) = packages();
        publish(&p, &objects, "1", &[("a", "x")]).await.unwrap();
        objects::put(objects.as_ref(), &manifest_path("calendars", "1"), Bytes::from_static(b"{}")).await.unwrap();
        assert_eq!(p.get("calendars", "1").await.unwrap_err().kind(), ErrorKind::Corrupt);
    }
}
