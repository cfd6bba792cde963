//! Blocks reached through a manager over HTTP: the driver that workers use when there is no cloud.
//!
//! A worker on another machine needs three of the blocks: the queue it takes ranges from, the table it reports to, and the objects
//! it stages in and out. With AWS behind the system it speaks to the engines itself; without, the manager is the engine, and this
//! crate carries each call of those traits to it as one POST with a postcard body on the manager's one listener.
//!
//! Why not gRPC: calls are made per range of tasks and not per task, so there are few, and plain HTTP needs one port, one
//! certificate, one token and one set of limits, passes every proxy, and leaves waiting for work a parked request.
//!
//! Errors come back with the kind they left the manager's driver with. A manager that cannot be reached, or a proxy that answers in its
//! stead, is `Unavailable`; trying again is the caller's business, who knows what may be repeated.
//!
//! ```no_run
//! # async fn example(token: String) -> tidemill_base::Result<()> {
//! use std::time::Duration;
//! use tidemill_blocks::queue::Receive;
//! use tidemill_remote::{Remote, RemoteSettings};
//!
//! let manager = Remote::connect(RemoteSettings::new("https://mill.example:8080", token)).await?;
//! let queue = manager.queue();
//! let work = queue.receive("batch.work.default", Receive::up_to(4, Duration::from_secs(60)).waiting(Duration::from_secs(20))).await?;
//! println!("{} ranges of work", work.len());
//! # Ok(()) }
//! ```

#[cfg(feature = "fuzz")]
pub mod fuzz;
mod http;
mod objects;
mod queue;
mod settings;
mod table;
pub mod wire;

use std::sync::Arc;

use tidemill_base::Result;
use tidemill_blocks::grants::Credential;
use tidemill_blocks::objects::Objects;
use tidemill_blocks::queue::{Capabilities, Queue};
use tidemill_blocks::table::Table;

use crate::http::Http;
pub use crate::settings::RemoteSettings;

/// A manager, and the blocks behind it. Clones share one pool of connections.
#[derive(Debug, Clone)]
pub struct Remote {
    http: Http,
    capabilities: Capabilities,
    manager_version: String,
}

impl Remote {
    /// Speaks to the manager once, to learn whether it can be reached (`Unavailable` if not), takes the token (`Denied`) and speaks
    /// the same protocol (`Invalid`, naming both versions).
    pub async fn connect(settings: RemoteSettings) -> Result<Self> {
        let http = Http::new(settings)?;
        let welcome = http.call(&wire::Hello {}).await?;
        let q = welcome.queue;
        let capabilities = Capabilities { strict_leases: q.strict_leases, exact_stats: q.exact_stats, exact_browse: q.exact_browse };
        Ok(Self { http, capabilities, manager_version: welcome.version })
    }

    /// The version that the manager said it was when the connection was made.
    pub fn manager_version(&self) -> &str {
        &self.manager_version
    }

    /// The manager's queue, as far as the token reaches.
    pub fn queue(&self) -> Arc<dyn Queue> {
        Arc::new(queue::RemoteQueue { http: self.http.clone(), capabilities: self.capabilities })
    }

    /// The manager's table, as far as the token reaches.
    pub fn table(&self) -> Arc<dyn Table> {
        Arc::new(table::RemoteTable { http: self.http.clone() })
    }

    /// The credential of a task that this worker is about to run. `Denied` when the manager does not see it holding the claim.
    pub async fn task_credential(&self, wanted: &wire::tasks::IssueCredential) -> Result<Credential> {
        self.http.call(wanted).await
    }

    /// The manager's objects, as far as the token reaches.
    pub fn objects(&self) -> Objects {
        Arc::new(objects::RemoteObjects::new(self.http.clone()))
    }
}
