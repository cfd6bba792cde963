//! Schema steps: each applied once, in order, and never changed afterwards.

use deadpool_postgres::Object;
use tidemill_base::{Error, Result};
use tidemill_blocks::ledger::Migration;

use crate::error::from_pg;
use crate::link::{Link, Open, lock_key};

/// What has been applied, with a checksum of the text it had then.
const TABLE: &str = "CREATE TABLE IF NOT EXISTS tidemill_migrations (
    name TEXT NOT NULL PRIMARY KEY, checksum TEXT NOT NULL, applied_at TIMESTAMPTZ NOT NULL)";

/// Applies what is missing. A lock makes it safe for several managers to start at once: the second finds the first one's rows.
pub(crate) async fn apply(link: &Link, migrations: &[Migration]) -> Result<()> {
    if migrations.is_empty() || all_applied(link, migrations).await? {
        return Ok(());
    }
    let open = Open::new(link.client().await?);
    let lock = lock_key(&link.target.schema, "migrate", b"");
    match in_transaction(open.client(), lock, migrations).await {
        Ok(()) => drop(open.ended()),
        Err(e) => {
            open.roll_back().await;
            return Err(e);
        }
    }
    Ok(())
}

/// Whether there is nothing to do, which is so at every start but the first.
async fn all_applied(link: &Link, migrations: &[Migration]) -> Result<bool> {
    let client = link.client().await?;
    let there = client.query_one("SELECT to_regclass('tidemill_migrations') IS NOT NULL", &[]).await.map_err(from_pg)?;
    if !there.try_get::<_, bool>(0).map_err(from_pg)? {
        return Ok(false);
    }
    let (names, checksums): (Vec<&str>, Vec<String>) = migrations.iter().map(|m| (m.name, checksum(m))).unzip();
    let sql = "SELECT count(*) FROM unnest($1::text[], $2::text[]) AS w(name, checksum)
               JOIN tidemill_migrations m ON m.name = w.name AND m.checksum = w.checksum";
    let row = client.query_one(sql, &[&names, &checksums]).await.map_err(from_pg)?;
    Ok(usize::try_from(row.try_get::<_, i64>(0).map_err(from_pg)?).ok() == Some(migrations.len()))
}

fn checksum(migration: &Migration) -> String {
    blake3::hash(migration.sql.as_bytes()).to_hex().to_string()
}

async fn in_transaction(client: &Object, lock: i64, migrations: &[Migration]) -> Result<()> {
    let begin = format!("BEGIN; SELECT pg_advisory_xact_lock({lock}); {TABLE}");
    client.batch_execute(&begin).await.map_err(from_pg)?;
    for migration in migrations {
        let sql = "SELECT checksum FROM tidemill_migrations WHERE name = $1";
        let before = client.query_opt(sql, &[&migration.name]).await.map_err(from_pg)?;
        match before.map(|row| row.try_get::<_, String>(0)).transpose().map_err(from_pg)? {
            Some(before) if before == checksum(migration) => {}
            Some(_) => {
                return Err(Error::invalid(format!(
                    "migration {} was applied to this ledger with another text; a released migration is never changed, add a new one",
                    migration.name
                )));
            }
            None => run(client, migration).await.map_err(|e| e.context(format!("migration {}", migration.name)))?,
        }
    }
    client.batch_execute("COMMIT").await.map_err(from_pg)
}

async fn run(client: &Object, migration: &Migration) -> Result<()> {
    client.batch_execute(migration.sql).await.map_err(from_pg)?;
    let sql = "INSERT INTO tidemill_migrations (name, checksum, applied_at) VALUES ($1, $2, statement_timestamp())";
    client.execute(sql, &[&migration.name, &checksum(migration)]).await.map_err(from_pg)?;
    tracing::info!(migration = migration.name, "ledger migration applied");
    Ok(())
}
