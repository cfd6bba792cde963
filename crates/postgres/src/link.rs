//! The pool of connections, and calls that cost one round trip.
//!
//! Statements are prepared once per connection. A call that needs a transaction sends `BEGIN`, its statements and `COMMIT` together
//! without waiting for the answers in between; when one of them fails the server skips the rest and `COMMIT` rolls back.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use deadpool_postgres::{Hook, Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime};
use tidemill_base::{Env, Error, HumanDuration, Result, RetryPolicy};
use tidemill_runtime::{Stopwatch, sleep};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Row, Statement};

use crate::error::{from_connect, from_pg, is_contention, is_lost, is_stale_plan, is_standby};
use crate::settings::Target;

/// How long a call waits for a free connection.
const WAIT: Duration = Duration::from_secs(30);
/// How long a call that others keep undoing is tried again.
const CONTENTION: Duration = Duration::from_secs(30);
/// Prepared statements kept per connection; a caller that makes up texts must not fill the server's memory.
const PREPARED: usize = 512;

pub(crate) use crate::open::{Open, discard};

pub(crate) type PgError = tokio_postgres::Error;
pub(crate) type Params<'a> = &'a [&'a (dyn ToSql + Sync)];

/// On whose behalf a round trip is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Block {
    Ledger,
    Queue,
    Table,
    Objects,
}

/// Round trips to the database since the start, by block. Preparing a statement on a new connection is not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Calls {
    /// Of the ledger.
    pub ledger: u64,
    /// Of the queue, polls included.
    pub queue: u64,
    /// Of the table, polls of the feed included.
    pub table: u64,
    /// Of objects.
    pub objects: u64,
}

#[derive(Debug, Default)]
struct Counters([AtomicU64; 4]);

/// The way to the database.
pub(crate) struct Link {
    pool: Pool,
    counters: Counters,
    /// Texts whose parameters the server cannot tell the types of.
    pub(crate) ambiguous: Mutex<BTreeSet<String>>,
    pub(crate) target: Target,
    pub(crate) env: Env,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Link({}, schema {})", self.target.place, self.target.schema)
    }
}

/// What every new connection is told.
///
/// Statements here touch few rows by key. A plan is kept for long, and one that was made while a table was small would go on
/// reading all of it; so plans that read whole tables or queues, be it to join them, are made as expensive as can be, and compiling
/// plans is left out.
fn session(schema: &str) -> String {
    format!(
        "SET search_path TO \"{schema}\"; SET enable_seqscan TO off; SET enable_bitmapscan TO off; SET enable_hashjoin TO off;
         SET enable_mergejoin TO off; SET enable_material TO off; SET jit TO off; SET random_page_cost TO 1.1;
         SET idle_in_transaction_session_timeout TO '60s';
         SET tcp_keepalives_idle TO 30; SET tcp_keepalives_interval TO 10; SET tcp_keepalives_count TO 3;
         SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') IN ('off', 'local')"
    )
}

impl Link {
    /// Connects to nothing yet.
    pub(crate) fn new(target: Target, env: Env) -> Result<Self> {
        let manager = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = Manager::from_config(target.config.clone(), target.tls.clone(), manager);
        let session = session(&target.schema);
        let prepare = Hook::async_fn(move |client: &mut deadpool_postgres::ClientWrapper, _| {
            let session = session.clone();
            Box::pin(async move { client.batch_execute(&session).await.map_err(deadpool_postgres::HookError::Backend) })
        });
        let pool = Pool::builder(manager)
            .max_size(target.pool)
            .wait_timeout(Some(WAIT))
            .create_timeout(Some(WAIT))
            .runtime(Runtime::Tokio1)
            .post_create(prepare)
            .build()
            .map_err(|e| Error::internal("set up a pool of connections").with_source(e))?;
        Ok(Self { pool, counters: Counters::default(), ambiguous: Mutex::default(), target, env })
    }

    /// A connection of the caller's own until it is dropped.
    pub(crate) async fn client(&self) -> Result<Object> {
        let place = &self.target.place;
        self.pool.get().await.map_err(|e| match e {
            PoolError::Backend(e) | PoolError::PostCreateHook(deadpool_postgres::HookError::Backend(e)) => from_connect(e, place),
            PoolError::Timeout(deadpool_postgres::TimeoutType::Wait) => Error::unavailable(format!(
                "all {} connections to PostgreSQL at {place} were in use for {WAIT:?}; allow more, or ask for less at a time",
                self.target.pool
            )),
            other => Error::unavailable(format!("no connection to PostgreSQL at {place}")).with_source(other),
        })
    }

    pub(crate) fn count(&self, block: Block) {
        self.counters.0[block as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn calls(&self) -> Calls {
        let [ledger, queue, table, objects] = [0, 1, 2, 3].map(|at: usize| self.counters.0[at].load(Ordering::Relaxed));
        Calls { ledger, queue, table, objects }
    }

    /// Runs one statement by itself.
    pub(crate) async fn write(&self, block: Block, sql: &str, params: Params<'_>) -> Result<Vec<Row>> {
        let mut tries = Tries::new(&self.env);
        loop {
            let client = self.client().await?;
            self.count(block);
            match query(&client, sql, params).await {
                Ok(rows) => return Ok(rows),
                Err(e) => tries.again(client, e).await?,
            }
        }
    }

    /// Runs one statement that changes nothing; it is asked once more when the connection turns out to be broken.
    pub(crate) async fn read(&self, block: Block, sql: &str, params: Params<'_>) -> Result<Vec<Row>> {
        let mut tries = Tries::new(&self.env).reading();
        loop {
            let client = self.client().await?;
            self.count(block);
            match query(&client, sql, params).await {
                Ok(rows) => return Ok(rows),
                Err(e) => tries.again(client, e).await?,
            }
        }
    }

    /// Runs one statement while holding `locks`, which must be in ascending order so that no two callers wait for each other. The
    /// statement sees everything that earlier holders have written.
    pub(crate) async fn locked(&self, block: Block, locks: &[i64], sql: &str, params: Params<'_>) -> Result<Vec<Row>> {
        let mut tries = Tries::new(&self.env);
        loop {
            let client = self.client().await?;
            self.count(block);
            match locked(&client, locks, sql, params).await {
                Ok(rows) => return Ok(rows),
                Err(e) => tries.again(client, e).await?,
            }
        }
    }
}

/// Prepares a statement, once per connection.
pub(crate) async fn prepared(client: &Object, sql: &str) -> Result<Statement, PgError> {
    prepared_typed(client, sql, &[]).await
}

/// The same with parameters of these types; the server tells those that are missing or unknown.
pub(crate) async fn prepared_typed(client: &Object, sql: &str, types: &[Type]) -> Result<Statement, PgError> {
    if client.statement_cache.size() >= PREPARED {
        client.statement_cache.clear();
    }
    client.prepare_typed_cached(sql, types).await
}

async fn query(client: &Object, sql: &str, params: Params<'_>) -> Result<Vec<Row>, PgError> {
    let statement = prepared(client, sql).await?;
    client.query(&statement, params).await
}

const LOCK: &str = "SELECT pg_advisory_xact_lock(k) FROM unnest($1::bigint[]) AS k";

async fn locked(client: &Object, locks: &[i64], sql: &str, params: Params<'_>) -> Result<Vec<Row>, PgError> {
    let lock = prepared(client, LOCK).await?;
    let statement = prepared(client, sql).await?;
    let keys: [&(dyn ToSql + Sync); 1] = [&locks];
    // Each future sends its message when it is first polled, and these are polled in the order in which they stand.
    let (began, held, rows, ended) = futures::future::join4(
        client.batch_execute("BEGIN"),
        client.execute(&lock, &keys),
        client.query(&statement, params),
        client.batch_execute("COMMIT"),
    )
    .await;
    began?;
    held?;
    let rows = rows?;
    ended?;
    Ok(rows)
}

/// Decides whether a call that failed is made again.
pub(crate) struct Tries<'e> {
    env: &'e Env,
    started: Stopwatch,
    attempt: u32,
    reconnects: u32,
    stale: u32,
}

impl<'e> Tries<'e> {
    pub(crate) fn new(env: &'e Env) -> Self {
        Self { env, started: Stopwatch::start(), attempt: 0, reconnects: 0, stale: 3 }
    }

    /// For calls that change nothing.
    pub(crate) const fn reading(mut self) -> Self {
        self.reconnects = 1;
        self
    }

    /// Returns after a pause when the call is to be made again, which is so only where the server has undone it or it changes
    /// nothing; the error otherwise.
    pub(crate) async fn again(&mut self, client: Object, e: PgError) -> Result<()> {
        if is_stale_plan(&e) && self.stale > 0 {
            self.stale -= 1;
            client.statement_cache.clear();
            return Ok(());
        }
        if is_contention(&e) && self.started.elapsed() < CONTENTION {
            drop(client);
            self.attempt += 1;
            let policy = RetryPolicy {
                attempts: u32::MAX,
                base: HumanDuration(Duration::from_millis(2)),
                cap: HumanDuration(Duration::from_millis(100)),
            };
            sleep(policy.delay(self.attempt, self.env)).await;
            return Ok(());
        }
        if is_lost(&e) && self.reconnects > 0 {
            self.reconnects -= 1;
            discard(client);
            return Ok(());
        }
        if is_lost(&e) || is_standby(&e) {
            discard(client);
        }
        Err(from_pg(e))
    }
}

/// A number for an advisory lock of this schema.
pub(crate) fn lock_key(schema: &str, what: &str, name: &[u8]) -> i64 {
    let mut hash = blake3::Hasher::new();
    for part in [schema.as_bytes(), what.as_bytes(), name] {
        hash.update(&part.len().to_be_bytes()).update(part);
    }
    let mut first = [0; 8];
    first.copy_from_slice(&hash.finalize().as_bytes()[..8]);
    i64::from_be_bytes(first)
}
