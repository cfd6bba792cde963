//! Sessions in cold storage, and their way back.
//!
//! An archive is a folder of objects, `archive/<session>/`: a manifest, and parts packed with zstd, each with its length and SHA-256. It holds
//! all that is needed to read the results without the session, and to run it once more: results and failures in the order in which they
//! were delivered, submissions as they came, the packed function, the data that is kept warm, and what is known of the session. The manifest
//! is written last, so an archive is whole or not there; archiving again gives the same parts, byte for byte.
//!
//! What is archived is read after it has been asked for: a retrieval is due after the delay that the storage has, and its results can be
//! read until it ends. That is kept beside the archive, so that every manager knows it and it outlives them.
//!
//! The folder lies in the block of objects, so that it is where they are. A storage class is passed on to stores that have classes.

#[cfg(feature = "fuzz")]
pub mod fuzz;
mod parts;

use std::time::Duration;

use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{Attribute, Attributes, ObjectStore as _, PutOptions};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tidemill_base::{Error, HumanDuration, Result, Timestamp};
use tidemill_blocks::objects::{self, Objects};

use crate::Record;
use parts::{Cutter, pack, unpack};

/// The bucket of archives.
pub const BUCKET: &str = "archive";
const MANIFEST: &str = "manifest.json";
const RETRIEVAL: &str = "retrieval.json";
const VERSION: u32 = 1;

/// What a part holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Holds {
    /// What became of tasks.
    Results,
    /// Submissions.
    Inputs,
    /// The packed function.
    Function,
    /// The packed function that makes what is kept warm.
    SetupFunction,
    /// The data that it is made from.
    Setup,
}

/// One object of an archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Its name in the archive's folder.
    pub name: String,
    /// What it holds.
    pub holds: Holds,
    /// Its length.
    pub bytes: u64,
    /// Its hash, SHA-256 in hex.
    pub sha256: String,
    /// Its length unpacked.
    pub unpacked: u64,
}

/// What an archive holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The layout.
    pub version: u32,
    /// The session.
    pub session: String,
    /// When it was archived, microseconds since the epoch.
    pub archived_us: i64,
    /// Tasks that ended, with results and without.
    pub records: u64,
    /// Tasks that were submitted.
    pub tasks: u64,
    /// What is known of the session, as its interface shows it.
    pub facts: serde_json::Value,
    /// The job that it was.
    pub spec: serde_json::Value,
    /// The objects, in the order in which they are read.
    pub parts: Vec<Part>,
}

/// A retrieval that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retrieval {
    /// When its results can be read, microseconds since the epoch.
    pub due_us: i64,
    /// Until when.
    pub until_us: i64,
}

/// Where an archive stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Away.
    Archived,
    /// Asked for, and not there yet.
    Restoring(Retrieval),
    /// To be read.
    Restored(Retrieval),
}

impl Standing {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Archived => "archived",
            Self::Restoring(_) => "restoring",
            Self::Restored(_) => "restored",
        }
    }
}

/// What goes into an archive.
#[derive(Debug, Clone)]
pub struct Contents {
    /// The session.
    pub session: String,
    /// See [`Manifest::facts`].
    pub facts: serde_json::Value,
    /// See [`Manifest::spec`].
    pub spec: serde_json::Value,
    /// Function and set-up, as far as there are any.
    pub blobs: Vec<(Holds, bytes::Bytes)>,
}

/// The archive of sessions.
#[derive(Debug, Clone)]
pub struct Archive {
    objects: Objects,
    /// For stores that have classes; empty: none is said.
    storage_class: String,
}

impl Archive {
    /// In this object store, with this storage class if it is not empty.
    pub fn new(objects: Objects, storage_class: &str) -> Self {
        Self { objects, storage_class: storage_class.to_owned() }
    }

    /// Archives a session.
    pub async fn write(
        &self,
        contents: Contents,
        mut records: BoxStream<'_, Result<Vec<Record>>>,
        mut inputs: BoxStream<'_, Result<bytes::Bytes>>,
        now: Timestamp,
    ) -> Result<Manifest> {
        let Contents { session, facts, spec, blobs } = contents;
        let mut manifest =
            Manifest { version: VERSION, session, archived_us: now.micros(), records: 0, tasks: 0, facts, spec, parts: Vec::new() };
        for (holds, bytes) in blobs {
            self.add(&mut manifest, holds, bytes.to_vec()).await?;
        }
        let mut cutter = Cutter::default();
        while let Some(submission) = inputs.try_next().await? {
            manifest.tasks += tidemill_batch::protocol::Submission::parse(submission.clone())?.len() as u64;
            if let Some(part) = cutter.submission(&submission)? {
                self.add(&mut manifest, Holds::Inputs, part).await?;
            }
        }
        if let Some(part) = cutter.rest() {
            self.add(&mut manifest, Holds::Inputs, part).await?;
        }
        while let Some(page) = records.try_next().await? {
            for record in page {
                manifest.records += 1;
                if let Some(part) = cutter.record(&record)? {
                    self.add(&mut manifest, Holds::Results, part).await?;
                }
            }
        }
        if let Some(part) = cutter.rest() {
            self.add(&mut manifest, Holds::Results, part).await?;
        }
        let text = serde_json::to_vec_pretty(&manifest).map_err(|e| Error::internal("encode a manifest").with_source(e))?;
        objects::put(self.objects.as_ref(), &path(&manifest.session, MANIFEST), bytes::Bytes::from(text)).await?;
        Ok(manifest)
    }

    async fn add(&self, manifest: &mut Manifest, holds: Holds, plain: Vec<u8>) -> Result<()> {
        let name = format!("{:05}-{}.zst", manifest.parts.len(), word(holds));
        let packed = pack(&plain)?;
        manifest.parts.push(Part {
            name: name.clone(),
            holds,
            bytes: packed.len() as u64,
            sha256: format!("{:x}", Sha256::digest(&packed)),
            unpacked: plain.len() as u64,
        });
        let mut options = PutOptions::default();
        if !self.storage_class.is_empty() {
            options.attributes = Attributes::from_iter([(Attribute::StorageClass, self.storage_class.clone())]);
        }
        let at = path(&manifest.session, &name);
        self.objects.put_opts(&at, packed.into(), options).await.map(drop).map_err(|e| objects::error("archive", &at, e))
    }

    /// The manifest of a session's archive. `NotFound` when there is none.
    pub async fn manifest(&self, session: &str) -> Result<Manifest> {
        self.find(session).await?.ok_or_else(|| {
            Error::not_found(format!(
                "session `{}` is not archived; `tidemill grid archive ID` archives one that has ended",
                session.escape_debug()
            ))
        })
    }

    /// The manifest of a session's archive, if it has one.
    pub async fn find(&self, session: &str) -> Result<Option<Manifest>> {
        if session.is_empty() || !session.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Ok(None);
        }
        let Some(bytes) = objects::get_opt(self.objects.as_ref(), &path(session, MANIFEST)).await? else { return Ok(None) };
        let manifest: Manifest = serde_json::from_slice(&bytes)
            .map_err(|e| Error::corrupt(format!("the manifest of the archive of session {session} does not decode")).with_source(e))?;
        if manifest.version != VERSION {
            let what = format!("the archive of session {session} has layout {}, and this program reads {VERSION}", manifest.version);
            return Err(Error::invalid(what));
        }
        Ok(Some(manifest))
    }

    /// The sessions that are archived, in order.
    pub async fn sessions(&self) -> Result<Vec<String>> {
        let folder = Path::from(BUCKET);
        let listed = self.objects.list_with_delimiter(Some(&folder)).await.map_err(|e| objects::error("list", &folder, e))?;
        let mut names: Vec<String> = listed.common_prefixes.iter().filter_map(|p| p.filename().map(str::to_owned)).collect();
        names.sort();
        Ok(names)
    }

    /// Asks for an archive: its results can be read after `delay`, for `readable`. Asking again while it is on its way changes nothing, and
    /// while it can be read lengthens that.
    pub async fn restore(&self, session: &str, now: Timestamp, delay: Duration, readable: Duration) -> Result<Standing> {
        self.manifest(session).await?;
        let due = match self.standing(session, now).await? {
            standing @ Standing::Restoring(_) => return Ok(standing),
            Standing::Restored(retrieval) => Timestamp(retrieval.due_us),
            Standing::Archived => now + delay,
        };
        let retrieval = Retrieval { due_us: due.micros(), until_us: (due.max(now) + readable).micros() };
        let text = serde_json::to_vec(&retrieval).map_err(|e| Error::internal("encode a retrieval").with_source(e))?;
        objects::put(self.objects.as_ref(), &path(session, RETRIEVAL), bytes::Bytes::from(text)).await?;
        self.standing(session, now).await
    }

    /// Where the archive of a session stands.
    pub async fn standing(&self, session: &str, now: Timestamp) -> Result<Standing> {
        let Some(bytes) = objects::get_opt(self.objects.as_ref(), &path(session, RETRIEVAL)).await? else { return Ok(Standing::Archived) };
        let retrieval: Retrieval = serde_json::from_slice(&bytes)
            .map_err(|e| Error::corrupt(format!("the retrieval of session {session} does not decode")).with_source(e))?;
        Ok(match now.micros() {
            now if now >= retrieval.until_us => Standing::Archived,
            now if now >= retrieval.due_us => Standing::Restored(retrieval),
            _ => Standing::Restoring(retrieval),
        })
    }

    /// The manifest of an archive that can be read. `Conflict` says what to do, or how long to wait.
    pub async fn readable(&self, session: &str, now: Timestamp) -> Result<Manifest> {
        let manifest = self.manifest(session).await?;
        match self.standing(session, now).await? {
            Standing::Restored(_) => Ok(manifest),
            Standing::Restoring(retrieval) => {
                let wait = HumanDuration(Timestamp(retrieval.due_us).since(now));
                Err(Error::conflict(format!("session {session} is being restored; it can be read in {wait}")))
            }
            Standing::Archived => {
                Err(Error::conflict(format!("session {session} is archived; `tidemill grid restore {session}` brings it back")))
            }
        }
    }

    /// What became of the tasks, page by page, in the order in which it was delivered. `Corrupt` names a part that is not what was archived.
    pub fn records(&self, manifest: &Manifest) -> BoxStream<'static, Result<Vec<Record>>> {
        self.parts(manifest, Holds::Results).map(|part| parts::records(&part?)).boxed()
    }

    /// The submissions, in order.
    pub fn inputs(&self, manifest: &Manifest) -> BoxStream<'static, Result<Vec<bytes::Bytes>>> {
        self.parts(manifest, Holds::Inputs).map(|part| parts::submissions(&part?)).boxed()
    }

    /// Function or set-up, if the session has it.
    pub async fn blob(&self, manifest: &Manifest, holds: Holds) -> Result<Option<bytes::Bytes>> {
        self.parts(manifest, holds).try_next().await
    }

    fn parts(&self, manifest: &Manifest, holds: Holds) -> BoxStream<'static, Result<bytes::Bytes>> {
        let (store, session) = (self.objects.clone(), manifest.session.clone());
        let parts: Vec<Part> = manifest.parts.iter().filter(|p| p.holds == holds).cloned().collect();
        futures::stream::iter(parts)
            .then(move |part| {
                let (store, at) = (store.clone(), path(&session, &part.name));
                async move { unpack(&part, &objects::get(store.as_ref(), &at).await?) }
            })
            .boxed()
    }

    /// Reads every part and checks it against the manifest.
    pub async fn verify(&self, manifest: &Manifest) -> Result<()> {
        let mut records = self.records(manifest);
        let mut found = 0;
        while let Some(page) = records.try_next().await? {
            found += page.len() as u64;
        }
        if found != manifest.records {
            let what = format!("the archive of session {} has {found} records where there were {}", manifest.session, manifest.records);
            return Err(Error::corrupt(what));
        }
        for holds in [Holds::Inputs, Holds::Function, Holds::SetupFunction, Holds::Setup] {
            let mut parts = self.parts(manifest, holds);
            while parts.try_next().await?.is_some() {}
        }
        Ok(())
    }

    /// Removes an archive. The manifest goes first, so that nobody sees half of one.
    pub async fn delete(&self, session: &str) -> Result<()> {
        let store = self.objects.as_ref();
        objects::delete(store, &path(session, MANIFEST)).await?;
        let folder = Path::from_iter([BUCKET, session]);
        let mut listed = store.list(Some(&folder));
        let mut names = Vec::new();
        while let Some(meta) = listed.try_next().await.map_err(|e| objects::error("list", &folder, e))? {
            names.push(meta.location);
        }
        for name in names {
            objects::delete(store, &name).await?;
        }
        Ok(())
    }

    /// Removes archives that are older than `keep`; how many.
    pub async fn retire(&self, now: Timestamp, keep: Duration) -> Result<u64> {
        let mut removed = 0;
        for session in self.sessions().await? {
            if let Some(manifest) = self.find(&session).await?
                && Timestamp(manifest.archived_us) + keep <= now
            {
                self.delete(&session).await?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}

fn path(session: &str, name: &str) -> Path {
    Path::from_iter([BUCKET, session, name])
}

const fn word(holds: Holds) -> &'static str {
    match holds {
        Holds::Results => "results",
        Holds::Inputs => "inputs",
        Holds::Function => "function",
        Holds::SetupFunction => "setup-function",
        Holds::Setup => "setup",
    }
}

#[cfg(test)]
mod tests;
