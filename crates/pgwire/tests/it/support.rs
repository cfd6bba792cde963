//! An endpoint on loopback with a few tables.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use object_store::memory::InMemory;
use tidemill_base::{Env, Error, Result};
use tidemill_pgwire::{Endpoint, Gate, Pass, Settings, serve};
use tidemill_query::{ColumnValues, Engine, EngineSettings, Scan, Scanned, Source, TableData, TableSchema, Type};
use tidemill_runtime::{Kind, Shutdown, Tasks};
use tokio_postgres::{Client, NoTls};

pub(crate) const PASSWORD: &str = "sesame";
/// A statement that would run for hours.
pub(crate) const FOREVER: &str = "SELECT count(*) FROM jobs a, jobs b, jobs c, jobs d WHERE a.n + b.n + c.n + d.n = 7";
/// A statement that would run for hours, and gives way often while it does.
pub(crate) const PATIENT: &str = "SELECT sum(value) FROM generate_series(1, 1000000000000)";
/// Rows of `batch.jobs`.
pub(crate) const ROWS: usize = 3_000;

#[derive(Debug)]
struct Guest(String, Arc<AtomicBool>);

#[async_trait]
impl Pass for Guest {
    fn user(&self) -> &str {
        &self.0
    }

    async fn check(&self) -> Result<()> {
        if self.1.load(Ordering::SeqCst) { Err(Error::denied("the token was revoked")) } else { Ok(()) }
    }
}

struct Door(Arc<AtomicBool>);

#[async_trait]
impl Gate for Door {
    async fn admit(&self, user: &str, password: &str, _from: IpAddr) -> Result<Box<dyn Pass>> {
        if password == PASSWORD {
            Ok(Box::new(Guest(user.to_owned(), Arc::clone(&self.0))))
        } else {
            Err(Error::denied("the token is not valid"))
        }
    }
}

/// `batch.jobs`: every fifth `id` is null, `at` is a second apart from new year 2026 on.
struct Jobs;

#[async_trait]
impl Source for Jobs {
    fn schema(&self) -> TableSchema {
        TableSchema::new(&[("id", Type::Text), ("n", Type::UInt), ("d", Type::Real), ("ok", Type::Bool), ("at", Type::Time)])
    }

    async fn scan(&self, _want: &Scan) -> Result<Scanned> {
        let rows = || 0..i64::try_from(ROWS).unwrap();
        Ok(TableData::with_rows(ROWS)
            .column("id", ColumnValues::TextOpt(rows().map(|i| (i % 5 != 4).then(|| format!("j{i}"))).collect()))?
            .column("n", ColumnValues::UInt(rows().map(|i| u64::try_from(i).unwrap()).collect()))?
            .column("d", ColumnValues::Real(rows().map(|i| i as f64 / 4.0).collect()))?
            .column("ok", ColumnValues::Bool(rows().map(|i| i % 2 == 0).collect()))?
            .column("at", ColumnValues::TimeMicros(rows().map(|i| 1_767_225_600_000_000 + i * 1_000_000).collect()))?
            .into())
    }
}

/// An endpoint at work.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) tasks: Tasks,
    /// Makes every pass invalid.
    pub(crate) revoked: Arc<AtomicBool>,
}

pub(crate) async fn start(settings: Settings, engine: EngineSettings) -> Running {
    let engine = Engine::new(Arc::new(InMemory::new()), EngineSettings { default_schema: "batch".to_owned(), ..engine }).unwrap();
    for (schema, table) in [("batch", "jobs"), ("batch", "tasks"), ("fleet", "workers"), ("grid", "tasks")] {
        engine.register(schema, table, Arc::new(Jobs));
    }
    let revoked = Arc::new(AtomicBool::new(false));
    let endpoint = Endpoint::new(Arc::new(engine), Arc::new(Door(Arc::clone(&revoked))), Env::system(), settings);
    let tasks = Tasks::new("pgwire-test", Shutdown::new());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let inner = tasks.clone();
    tasks.spawn("sql", Kind::Essential, async move { serve(listener, endpoint, &inner).await });
    Running { address, tasks, revoked }
}

pub(crate) async fn plain() -> Running {
    start(Settings::default(), EngineSettings::default()).await
}

impl Running {
    pub(crate) fn config(&self) -> tokio_postgres::Config {
        let mut config = tokio_postgres::Config::new();
        config.host("127.0.0.1").port(self.address.port()).user("tidemill").password(PASSWORD).dbname("tidemill");
        config
    }

    pub(crate) async fn client(&self) -> Client {
        self.client_of(&self.config()).await.unwrap()
    }

    pub(crate) async fn client_of(&self, config: &tokio_postgres::Config) -> std::result::Result<Client, tokio_postgres::Error> {
        let (client, connection) = config.connect(NoTls).await?;
        self.tasks.spawn("driver", Kind::Request, async move {
            // The driver's own side ends with the session, however that ends.
            let _ = connection.await;
            Ok(())
        });
        Ok(client)
    }
}

/// The state and message of a refusal.
pub(crate) fn said(error: &tokio_postgres::Error) -> (String, String) {
    let db = error.as_db_error().unwrap_or_else(|| panic!("no answer of the server's: {error:?}"));
    (db.code().code().to_owned(), db.message().to_owned())
}

/// Texts of a simple query's rows.
pub(crate) async fn texts(client: &Client, sql: &str) -> Vec<Vec<Option<String>>> {
    let messages = client.simple_query(sql).await.unwrap_or_else(|e| panic!("{sql}: {e:?}"));
    let row = |m: tokio_postgres::SimpleQueryMessage| match m {
        tokio_postgres::SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|i| row.get(i).map(str::to_owned)).collect()),
        _ => None,
    };
    messages.into_iter().filter_map(row).collect()
}

pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tidemill_runtime::timeout(Duration::from_secs(30), what, future).await.unwrap()
}
