//! A database to test on: `TIDEMILL_TEST_POSTGRES`, a URL whose user may make schemas. Every test has a schema of its own; those that
//! earlier runs left are removed after an hour.

#![allow(dead_code, reason = "every test program uses some of it")]
#![allow(clippy::unwrap_used, reason = "a test ends where something fails")]

use std::sync::atomic::{AtomicU32, Ordering};

use tidemill_base::{Env, Error};
use tidemill_blocks_test::{Harness, Skip, engine, run_real};
use tidemill_postgres::{Postgres, PostgresSettings};
use tokio_postgres::{Client, NoTls};

/// The variable that names the database.
pub(crate) const VARIABLE: &str = "TIDEMILL_TEST_POSTGRES";

static SCHEMAS: AtomicU32 = AtomicU32::new(0);
const PREFIX: &str = "tidemill_test_";

/// A fresh schema, not made yet.
pub(crate) async fn settings() -> Result<PostgresSettings, Skip> {
    let url = engine(VARIABLE)?;
    let n = SCHEMAS.fetch_add(1, Ordering::Relaxed);
    let now = Env::system().now().millis() / 1000;
    if n == 0 {
        remove_old(&admin(&url).await, now).await;
    }
    let schema = format!("{PREFIX}{now}_{}_{n}", std::process::id());
    Ok(PostgresSettings { schema, pool: 8, ..PostgresSettings::new(url) })
}

/// The drivers in a schema of their own.
pub(crate) async fn postgres(h: &Harness) -> Result<Postgres, Skip> {
    Ok(connect(&settings().await?, h.env()).await)
}

/// The drivers once more, as another process has them.
pub(crate) async fn connect(settings: &PostgresSettings, env: &Env) -> Postgres {
    Postgres::connect(settings.clone(), env.clone()).await.unwrap()
}

/// A connection beside the drivers.
pub(crate) async fn admin(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    #[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
    drop(tokio::spawn(connection));
    client
}

async fn remove_old(client: &Client, now: i64) {
    let rows = client.query("SELECT nspname::text FROM pg_namespace WHERE nspname LIKE 'tidemill_test_%'", &[]).await.unwrap();
    for row in rows {
        let name: String = row.get(0);
        let made = name.strip_prefix(PREFIX).and_then(|rest| rest.split('_').next()).and_then(|s| s.parse::<i64>().ok());
        if made.is_none_or(|at| at + 3600 < now) {
            // Another test program may be removing it too.
            drop(client.batch_execute(&format!("DROP SCHEMA IF EXISTS {name} CASCADE")).await);
        }
    }
}

/// Runs a test on a fresh schema, or says why it cannot be run.
pub(crate) fn on_postgres(name: &'static str, test: impl AsyncFnOnce(&Harness, PostgresSettings)) {
    run_real(async |h: &Harness| match settings().await {
        Ok(settings) => test(h, settings).await,
        Err(Skip(why)) => println!("SKIPPED {name}: {why}"),
    });
}

/// Ends the server's side of every connection of `application` but the caller's own; how many.
pub(crate) async fn kill(client: &Client, application: &str) -> usize {
    let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1 AND pid <> pg_backend_pid()";
    client.query(sql, &[&application]).await.unwrap().len()
}

/// The url with an application name of the test's own, to find its connections by.
pub(crate) fn named(settings: &PostgresSettings, application: &str) -> PostgresSettings {
    let sign = if settings.url.contains('?') { '&' } else { '?' };
    PostgresSettings { url: format!("{}{sign}application_name={application}", settings.url), ..settings.clone() }
}

/// Whether the error is one after which the same may be tried again.
pub(crate) fn unavailable(e: &Error) -> bool {
    e.kind() == tidemill_base::ErrorKind::Unavailable
}
