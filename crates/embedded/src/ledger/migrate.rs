//! Schema steps: each applied once, in order, and never changed afterwards.

use rusqlite::{Connection, OptionalExtension};
use tidemill_base::{Env, Error, Result};
use tidemill_blocks::ledger::Migration;

use super::sql::from_sqlite;

/// What has been applied, with a checksum of the text it had then.
pub(super) const TABLE: &str = "CREATE TABLE IF NOT EXISTS tidemill_migrations (
    name TEXT NOT NULL PRIMARY KEY, checksum TEXT NOT NULL, applied_us INTEGER NOT NULL) STRICT, WITHOUT ROWID";

/// Applies what is missing, inside the transaction that the caller has open. The write lock of that transaction is what makes
/// it safe for two managers to start at once: the second finds the first one's rows.
pub(super) fn apply(conn: &Connection, migrations: &[Migration], env: &Env) -> Result<()> {
    for migration in migrations {
        let checksum = blake3::hash(migration.sql.as_bytes()).to_hex();
        match applied(conn, migration.name)? {
            Some(before) if before == checksum.as_str() => {}
            Some(_) => {
                return Err(Error::invalid(format!(
                    "migration {} was applied to this ledger with another text; a released migration is never changed, add a new one",
                    migration.name
                )));
            }
            None => {
                run(conn, migration, checksum.as_str(), env)
                    .map_err(|e| from_sqlite(&e).context(format!("migration {}", migration.name)))?;
                tracing::info!(migration = migration.name, "ledger migration applied");
            }
        }
    }
    Ok(())
}

fn applied(conn: &Connection, name: &str) -> Result<Option<String>> {
    conn.query_row("SELECT checksum FROM tidemill_migrations WHERE name = ?1", [name], |row| row.get(0))
        .optional()
        .map_err(|e| from_sqlite(&e))
}

fn run(conn: &Connection, migration: &Migration, checksum: &str, env: &Env) -> rusqlite::Result<()> {
    conn.execute_batch(migration.sql)?;
    conn.execute("INSERT INTO tidemill_migrations VALUES (?1, ?2, ?3)", (migration.name, checksum, env.now().micros()))?;
    Ok(())
}
