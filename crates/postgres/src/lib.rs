//! PostgreSQL drivers: ledger, queue, table and objects in one database, PostgreSQL 13 or later or a service that speaks like it (RDS).
//!
//! They are for whoever runs several managers, or wants a managed database to hold the state, and for whoever has a database and
//! nothing else: every block but grants and fleet is here. All processes that use one database and schema see the same blocks.
//!
//! What is promised rests on the server. An answer is given after its commit, with `synchronous_commit` on. Leases, delays and
//! expiries are decided by the database's clock, since the clocks of several managers differ; a manager's own clock decides nothing.
//! Calls cost one round trip where they can ([`Postgres::calls`] counts them): statements are prepared once per connection, batches
//! travel as arrays, and a transaction is sent whole. Those who wait are woken by `LISTEN` and `NOTIFY`, and look by themselves once
//! a second in case that was lost.
//!
//! ```no_run
//! # async fn example() -> tidemill_base::Result<()> {
//! use tidemill_base::Env;
//! use tidemill_blocks::queue::{NewMessage, QueueSettings};
//! use tidemill_postgres::{Postgres, PostgresSettings};
//!
//! let settings = PostgresSettings::new("postgres://tidemill:secret@db.example/tidemill?sslmode=verify-full");
//! let postgres = Postgres::connect(settings, Env::system()).await?;
//! postgres.queue().ensure("mail", QueueSettings::default()).await?;
//! postgres.queue().send("mail", vec![NewMessage::now("hello")]).await?;
//! # Ok(()) }
//! ```

mod bell;
mod check;
mod error;
mod ledger;
mod link;
mod names;
mod objects;
mod open;
mod queue;
mod schema;
mod settings;
mod source;
mod sweep;
mod table;
mod time;
mod tls;

use std::sync::Arc;

use tidemill_base::{Env, Error, Result};
use tidemill_blocks::check::Finding;
use tidemill_blocks::ledger::Ledger;
use tidemill_blocks::objects::Objects;
use tidemill_blocks::queue::Queue;
use tidemill_blocks::table::Table;
use tidemill_runtime::{Shutdown, Tasks};

use bell::Bell;
pub use link::Calls;
use link::Link;
pub use settings::PostgresSettings;
pub use source::SourceRows;

/// What a column of [`SourceRows`] holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceKind {
    /// True or false.
    Bool,
    /// A whole number of up to 64 bits.
    Int,
    /// Any other number.
    Real,
    /// A day.
    Date,
    /// A time without a zone.
    LocalTime,
    /// An instant.
    Time,
    /// Anything else, as the database writes it.
    Text,
}

/// The blocks in one schema of one database. Clones share the pool of connections.
#[derive(Debug, Clone)]
pub struct Postgres {
    shared: Arc<Shared>,
    ledger: Arc<ledger::PostgresLedger>,
    queue: Arc<queue::PostgresQueue>,
    table: Arc<table::PostgresTable>,
    objects: Arc<objects::PostgresObjects>,
}

/// What all drivers stand on. The tasks behind it end when the last driver is dropped.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) link: Arc<Link>,
    pub(crate) bell: Arc<Bell>,
    pub(crate) tasks: Tasks,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.tasks.shutdown().close();
    }
}

impl Postgres {
    /// Connects, makes the tables that are missing, and starts the tasks that listen, notify and sweep. Any number of processes may
    /// do so at once.
    ///
    /// `Invalid`: the settings, the server's version or the database's encoding will not do. `Denied`: the password is wrong, or the
    /// user may not make tables. `NotFound`: there is no such database. `Unavailable`: the server cannot be reached.
    pub async fn connect(settings: PostgresSettings, env: Env) -> Result<Self> {
        let postgres = Self::prepare(&settings, env)?;
        let shared = &postgres.shared;
        schema::set_up(&shared.link).await?;
        shared.bell.start(&shared.link, &shared.tasks);
        sweep::start(&shared.link, &shared.tasks);
        Ok(postgres)
    }

    /// Reads the settings and connects to nothing yet: for [`check`](Self::check) before anything is made. The blocks work once the
    /// tables are there, but nobody who waits is woken before its next look.
    pub fn prepare(settings: &PostgresSettings, env: Env) -> Result<Self> {
        let link = Arc::new(Link::new(settings::Target::new(settings)?, env)?);
        let bell = Arc::new(Bell::new(&link));
        let shared = Arc::new(Shared { link, bell, tasks: Tasks::new("postgres", Shutdown::new()) });
        Ok(Self {
            ledger: Arc::new(ledger::PostgresLedger::new(Arc::clone(&shared))),
            queue: Arc::new(queue::PostgresQueue::new(Arc::clone(&shared))),
            table: Arc::new(table::PostgresTable::new(Arc::clone(&shared))),
            objects: Arc::new(objects::PostgresObjects::new(Arc::clone(&shared))),
            shared,
        })
    }

    /// The ledger block.
    pub fn ledger(&self) -> Arc<dyn Ledger> {
        self.ledger.clone()
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

    /// What the drivers need of the server and how it was found; what is missing is made if `create`.
    pub async fn check(&self, create: bool) -> Vec<Finding> {
        check::check(&self.shared.link, create).await
    }

    /// The secret of this name: made when it is first asked for, and from then on the same for every process.
    pub async fn secret(&self, name: &str) -> Result<[u8; 32]> {
        let link = &self.shared.link;
        let client = link.client().await?;
        let fresh = link.env.secret(32);
        // Written first and read in a statement of its own, which sees what another process may have written meanwhile.
        let insert = "INSERT INTO tidemill_secrets (name, value, made_at) VALUES ($1, $2, statement_timestamp()) ON CONFLICT DO NOTHING";
        client.execute(insert, &[&name, &fresh.0]).await.map_err(error::from_pg)?;
        let row = client.query_one("SELECT value FROM tidemill_secrets WHERE name = $1", &[&name]).await.map_err(error::from_pg)?;
        let value: &[u8] = row.try_get(0).map_err(error::from_pg)?;
        value.try_into().map_err(|_| Error::corrupt(format!("the secret `{name}` has {} bytes instead of 32", value.len())))
    }

    /// Removes what has expired and what nobody needs any more, now. It happens by itself every half minute.
    pub async fn sweep(&self) -> Result<()> {
        sweep::sweep(&self.shared.link).await
    }

    /// Round trips to the database since the start.
    pub fn calls(&self) -> Calls {
        self.shared.link.calls()
    }
}
