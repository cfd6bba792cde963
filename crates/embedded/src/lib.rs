//! Embedded drivers: queue, table, objects, ledger, grants, fleet and schedule in one data folder.
//!
//! They need nothing installed and keep what the blocks promise on one machine: what was answered survives `kill -9` and power
//! loss. Queue, table and the index of objects share one store ([`Embedded`]) with one writer, so that a put, a send and a
//! transaction that come at the same time cost one sync of the disk between them.
//!
//! ```no_run
//! # async fn example() -> tidemill_base::Result<()> {
//! use std::path::Path;
//! use tidemill_base::Env;
//! use tidemill_blocks::queue::{NewMessage, QueueSettings};
//! use tidemill_embedded::Embedded;
//!
//! let embedded = Embedded::open(Path::new("data"), Env::system())?;
//! embedded.queue().ensure("mail", QueueSettings::default()).await?;
//! embedded.queue().send("mail", vec![NewMessage::now("hello")]).await?;
//! embedded.close();
//! # Ok(()) }
//! ```

pub mod fleet;
pub mod grants;
pub mod ledger;
pub mod objects;
pub mod queue;
pub mod table;

mod store;

use std::path::Path;
use std::sync::Arc;

use tidemill_base::{Env, Result};
use tidemill_blocks::objects::Objects;
use tidemill_blocks::queue::Queue;
use tidemill_blocks::table::Table;

use objects::EmbeddedObjects;
use queue::EmbeddedQueue;
pub use store::Counters;
use store::Store;
use table::EmbeddedTable;

/// Queue, table and objects over one data folder: `store/` holds the database and `objects/` the contents of large objects.
#[derive(Debug, Clone)]
pub struct Embedded {
    store: Arc<Store>,
    queue: Arc<EmbeddedQueue>,
    table: Arc<EmbeddedTable>,
    objects: Arc<EmbeddedObjects>,
}

impl Embedded {
    /// Opens the data folder, and makes it if it is not there. Blocks while it reads back what was being written when it was last
    /// used. `Unavailable` when another process has the folder, `Corrupt` when it cannot be read back as it was written.
    pub fn open(data: &Path, env: Env) -> Result<Self> {
        let store = Arc::new(Store::open(&data.join("store"), env.clone())?);
        Ok(Self {
            queue: Arc::new(EmbeddedQueue::open(store.clone(), env.clone())?),
            table: Arc::new(EmbeddedTable::open(store.clone(), env.clone())?),
            objects: Arc::new(EmbeddedObjects::open(store.clone(), &data.join("objects"), env)?),
            store,
        })
    }

    /// The queue block.
    pub fn queue(&self) -> Arc<dyn Queue> {
        self.queue.clone()
    }

    /// The table block.
    pub fn table(&self) -> Arc<dyn Table> {
        self.table.clone()
    }

    /// The objects block.
    pub fn objects(&self) -> Objects {
        self.objects.clone()
    }

    /// The objects block with what it can do beyond the trait: multipart uploads by id, listings by page, local files.
    pub fn local_objects(&self) -> Arc<EmbeddedObjects> {
        self.objects.clone()
    }

    /// What the store's writer has done since it was opened.
    pub fn counters(&self) -> Counters {
        self.store.counters()
    }

    /// Removes what has expired, now. It happens by itself every half minute.
    pub async fn sweep(&self) -> Result<()> {
        self.store.sweep().await
    }

    /// Answers what has been asked so far and stops the writer; later writes through any handle answer `Unavailable`. Dropping the
    /// last handle does the same. The folder is free for another process when the last handle is gone.
    pub fn close(&self) {
        self.store.close();
    }
}
