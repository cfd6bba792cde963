//! Uploads in parts that workers have open. The store's own upload takes parts in order and lives in memory, so these do too: an upload
//! that a restart interrupts is started again by the worker.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::try_join_all;
use object_store::{MultipartUpload, PutPayload};
use tidemill_base::{Env, Error, Result, Timestamp};
use tidemill_remote::wire::objects::Written;
use tokio::sync::Mutex as AsyncMutex;

/// Uploads open at once.
const MAX_OPEN: usize = 1024;
/// An upload that nobody has spoken of for so long is given up.
const IDLE: Duration = Duration::from_secs(3600);
/// Bytes of one upload that may wait for an earlier part.
const MAX_AHEAD: usize = 128 << 20;

/// Every open upload.
#[derive(Debug)]
pub(super) struct Uploads {
    env: Env,
    open: Mutex<BTreeMap<String, Open>>,
}

#[derive(Debug)]
struct Open {
    owner: String,
    touched: Timestamp,
    upload: Arc<Upload>,
}

/// One upload.
#[derive(Debug)]
pub(super) struct Upload(AsyncMutex<Progress>);

#[derive(Debug)]
struct Progress {
    store: Box<dyn MultipartUpload>,
    /// The part that the store takes next.
    next: u64,
    /// Parts that came before their turn.
    ahead: BTreeMap<u64, PutPayload>,
    /// Parts that the store has taken for good.
    stored: u64,
}

impl Uploads {
    pub(super) const fn new(env: Env) -> Self {
        Self { env, open: Mutex::new(BTreeMap::new()) }
    }

    /// Gives up what has been idle too long. `Exhausted` when there are too many even so.
    pub(super) async fn make_room(&self) -> Result<()> {
        let idle: Vec<_> = {
            let now = self.env.now();
            let mut open = self.lock();
            open.extract_if(.., |_, o| now.since(o.touched) > IDLE).map(|(_, o)| o.upload).collect()
        };
        for upload in idle {
            if let Err(e) = upload.abort().await {
                tracing::warn!(error = e.chain(), "an upload that was given up could not be cleared away");
            }
        }
        if self.lock().len() < MAX_OPEN {
            return Ok(());
        }
        Err(Error::new(tidemill_base::ErrorKind::Exhausted, format!("{MAX_OPEN} uploads are open; finish or abort some")))
    }

    /// Keeps an upload for whoever has the token `owner`, and names it.
    pub(super) fn start(&self, owner: &str, store: Box<dyn MultipartUpload>) -> String {
        let id = self.env.id("u");
        let progress = Progress { store, next: 0, ahead: BTreeMap::new(), stored: 0 };
        let upload = Arc::new(Upload(AsyncMutex::new(progress)));
        self.lock().insert(id.clone(), Open { owner: owner.to_owned(), touched: self.env.now(), upload });
        id
    }

    /// The owner's upload of that name.
    pub(super) fn find(&self, owner: &str, id: &str) -> Result<Arc<Upload>> {
        let mut open = self.lock();
        match open.get_mut(id).filter(|o| o.owner == owner) {
            Some(found) => {
                found.touched = self.env.now();
                Ok(found.upload.clone())
            }
            None => Err(Error::not_found(format!("there is no upload `{}`; start it again", id.escape_debug()))),
        }
    }

    pub(super) fn forget(&self, id: &str) {
        self.lock().remove(id);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Upload {
    /// Takes part `number` (from 0). One that comes before its turn waits in memory and is stored with the part it waited for; whether
    /// it went well shows at [`Upload::complete`].
    pub(super) async fn part(&self, number: u64, payload: PutPayload) -> Result<()> {
        let stores: Vec<_> = {
            let mut p = self.0.lock().await;
            if number < p.next || p.ahead.contains_key(&number) {
                return Err(Error::conflict(format!("part {number} has been sent before")));
            }
            let waiting: usize = p.ahead.values().map(PutPayload::content_length).sum();
            if number > p.next && waiting + payload.content_length() > MAX_AHEAD {
                let what = format!("{waiting} bytes wait for part {}; send parts nearer to their order", p.next);
                return Err(Error::new(tidemill_base::ErrorKind::Exhausted, what));
            }
            p.ahead.insert(number, payload);
            p.take_in_order()
        };
        let taken = stores.len() as u64;
        try_join_all(stores).await.map_err(|e| Error::unavailable(format!("store part {number}")).with_source(e))?;
        self.0.lock().await.stored += taken;
        Ok(())
    }

    /// Makes the object of the parts, all `parts` of which must have been stored.
    pub(super) async fn complete(&self, parts: u64) -> Result<Written> {
        let mut p = self.0.lock().await;
        if p.stored != parts || p.next != parts {
            return Err(Error::conflict(format!("{} of {parts} parts were stored; start the upload again", p.stored)));
        }
        p.store.complete().await.map(Written::from).map_err(|e| Error::unavailable("complete the upload").with_source(e))
    }

    /// Clears the parts away.
    pub(super) async fn abort(&self) -> Result<()> {
        self.0.lock().await.store.abort().await.map_err(|e| Error::unavailable("abort the upload").with_source(e))
    }
}

impl Progress {
    fn take_in_order(&mut self) -> Vec<object_store::UploadPart> {
        let mut stores = Vec::new();
        while let Some(payload) = self.ahead.remove(&self.next) {
            stores.push(self.store.put_part(payload));
            self.next += 1;
        }
        stores
    }
}
