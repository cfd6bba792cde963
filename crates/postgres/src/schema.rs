//! The tables of the drivers, made when the first manager connects.

use tidemill_base::{Error, ErrorKind, Result};
use tidemill_blocks::ledger::Migration;

use crate::error::from_pg;
use crate::ledger::migrate;
use crate::link::{Link, lock_key};

/// The oldest server with everything that is used here: 64-bit transaction numbers came with 13.
pub(crate) const OLDEST: i32 = 130_000;

/// What must be there, for `check`.
pub(crate) const TABLES: &[&str] = &[
    "tidemill_migrations",
    "tidemill_secrets",
    "tidemill_queues",
    "tidemill_messages",
    "tidemill_tables",
    "tidemill_items",
    "tidemill_feed",
    "tidemill_objects",
    "tidemill_chunks",
    "tidemill_garbage",
];

/// Never changed after a release; a change is a step of its own.
const STEPS: &[Migration] = &[Migration { name: "postgres-001-drivers", sql: FIRST }];

const FIRST: &str = r#"
CREATE FUNCTION tidemill_expect(touched BIGINT, wanted BIGINT) RETURNS BIGINT LANGUAGE plpgsql VOLATILE AS $$
BEGIN
  IF touched <> wanted THEN
    RAISE EXCEPTION USING ERRCODE = 'TM001', MESSAGE = format('touched %s rows, expected %s', touched, wanted);
  END IF;
  RETURN touched;
END $$;

CREATE TABLE tidemill_secrets (name TEXT PRIMARY KEY, value BYTEA NOT NULL, made_at TIMESTAMPTZ NOT NULL);

CREATE TABLE tidemill_queues (
  id INT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name TEXT COLLATE "C" NOT NULL UNIQUE,
  max_receives BIGINT, dead_letter INT REFERENCES tidemill_queues (id), retention_us BIGINT NOT NULL);

-- A message is ready when it is due: a delay and a lease are both a time until which it is not. `delivery` only ever grows, so that a
-- receipt of an earlier delivery, in whatever queue that was, never fits again.
CREATE TABLE tidemill_messages (
  queue INT NOT NULL, id BIGINT GENERATED ALWAYS AS IDENTITY, due TIMESTAMPTZ NOT NULL, delivery BIGINT NOT NULL DEFAULT 0,
  receives BIGINT NOT NULL DEFAULT 0, sent_at TIMESTAMPTZ NOT NULL, arrived_at TIMESTAMPTZ NOT NULL,
  died_in INT, died_receives BIGINT NOT NULL DEFAULT 0, body BYTEA NOT NULL, PRIMARY KEY (queue, id));
CREATE INDEX tidemill_messages_due ON tidemill_messages (queue, due, id);
ALTER TABLE tidemill_messages ALTER COLUMN body SET STORAGE EXTERNAL;
ALTER TABLE tidemill_messages SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000,
  autovacuum_vacuum_cost_delay = 0, autovacuum_analyze_scale_factor = 0.05);

CREATE TABLE tidemill_tables (id INT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name TEXT COLLATE "C" NOT NULL UNIQUE);
CREATE SEQUENCE tidemill_versions;
CREATE TABLE tidemill_items (
  tbl INT NOT NULL, partition BYTEA NOT NULL, sort BYTEA NOT NULL, version BIGINT NOT NULL, expires TIMESTAMPTZ, value BYTEA NOT NULL,
  PRIMARY KEY (tbl, partition, sort));
CREATE INDEX tidemill_items_expiry ON tidemill_items (expires) WHERE expires IS NOT NULL;
ALTER TABLE tidemill_items SET (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);

-- In order of the writing transactions' numbers; see the driver for why a number of its own would not do.
CREATE TABLE tidemill_feed (
  tbl INT NOT NULL, xid BIGINT NOT NULL, version BIGINT NOT NULL, at TIMESTAMPTZ NOT NULL, partition BYTEA NOT NULL, sort BYTEA NOT NULL,
  value BYTEA, PRIMARY KEY (tbl, xid, version));
ALTER TABLE tidemill_feed SET (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);

CREATE SEQUENCE tidemill_blobs;
CREATE TABLE tidemill_objects (
  path TEXT COLLATE "C" PRIMARY KEY, blob BIGINT, size BIGINT NOT NULL, etag TEXT NOT NULL, modified TIMESTAMPTZ NOT NULL,
  attributes TEXT NOT NULL, contents BYTEA);
ALTER TABLE tidemill_objects ALTER COLUMN contents SET STORAGE EXTERNAL;
CREATE TABLE tidemill_chunks (blob BIGINT NOT NULL, at BIGINT NOT NULL, size INT NOT NULL, data BYTEA NOT NULL, PRIMARY KEY (blob, at));
ALTER TABLE tidemill_chunks ALTER COLUMN data SET STORAGE EXTERNAL;
-- Contents that no object names, and when they may go: those being uploaded, and those overwritten that somebody may still read.
CREATE TABLE tidemill_garbage (blob BIGINT PRIMARY KEY, due TIMESTAMPTZ NOT NULL);
CREATE INDEX tidemill_garbage_due ON tidemill_garbage (due);
"#;

/// What the server is and has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Server {
    pub(crate) version: i32,
    pub(crate) encoding: String,
    pub(crate) has_schema: bool,
    pub(crate) may_create_schema: bool,
    pub(crate) may_create_tables: bool,
    pub(crate) missing: Vec<String>,
}

/// Asks the server what it is and has. Nothing is changed.
pub(crate) async fn look(link: &Link) -> Result<Server> {
    let client = link.client().await?;
    let sql = "SELECT current_setting('server_version_num')::int, current_setting('server_encoding'), to_regnamespace($1) IS NOT NULL,
                 has_database_privilege(current_database(), 'CREATE'),
                 COALESCE((SELECT has_schema_privilege(n.oid, 'CREATE') FROM pg_namespace n WHERE n.nspname = $1), false),
                 ARRAY(SELECT t FROM unnest($2::text[]) AS t
                       WHERE NOT EXISTS (SELECT FROM pg_tables p WHERE p.schemaname = $1 AND p.tablename = t))";
    let tables: Vec<&str> = TABLES.to_vec();
    let row = client.query_one(sql, &[&link.target.schema, &tables]).await.map_err(from_pg)?;
    let read = || -> Result<Server, tokio_postgres::Error> {
        Ok(Server {
            version: row.try_get(0)?,
            encoding: row.try_get(1)?,
            has_schema: row.try_get(2)?,
            may_create_schema: row.try_get(3)?,
            may_create_tables: row.try_get(4)?,
            missing: row.try_get(5)?,
        })
    };
    read().map_err(from_pg)
}

impl Server {
    /// Refuses a server that cannot do what is needed.
    pub(crate) fn fit(&self, place: &str) -> Result<()> {
        if self.version < OLDEST {
            let version = self.version / 10_000;
            return Err(Error::invalid(format!("PostgreSQL at {place} has version {version}; 13 or later is needed")));
        }
        if self.encoding != "UTF8" {
            let encoding = &self.encoding;
            return Err(Error::invalid(format!(
                "the database at {place} is encoded in {encoding}; make one with CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0"
            )));
        }
        Ok(())
    }
}

/// Makes what is missing. Any number of processes may do so at once.
pub(crate) async fn set_up(link: &Link) -> Result<()> {
    let server = look(link).await?;
    server.fit(&link.target.place)?;
    if !server.has_schema {
        make_schema(link).await.map_err(|e| match e.kind() {
            ErrorKind::Denied => e.context(format!(
                "schema `{0}` is not there and this user may not make it; let an administrator run CREATE SCHEMA {0} AUTHORIZATION this user",
                link.target.schema
            )),
            _ => e,
        })?;
    }
    migrate::apply(link, STEPS).await.map_err(|e| match e.kind() {
        ErrorKind::Denied => e.context(format!(
            "this user may not make tables in schema `{0}`; let an administrator run GRANT CREATE, USAGE ON SCHEMA {0}",
            link.target.schema
        )),
        _ => e,
    })?;
    forget_foreign_feed(link).await
}

async fn make_schema(link: &Link) -> Result<()> {
    let (client, schema) = (link.client().await?, &link.target.schema);
    let lock = lock_key(schema, "schema", b"");
    // One message of several statements is one transaction.
    let sql = format!("SELECT pg_advisory_xact_lock({lock}); CREATE SCHEMA IF NOT EXISTS \"{schema}\"");
    client.batch_execute(&sql).await.map_err(from_pg)
}

/// A database that was restored from a dump numbers its transactions anew, and would tell the changes of the old one only when it
/// gets there.
async fn forget_foreign_feed(link: &Link) -> Result<()> {
    let client = link.client().await?;
    let sql = "DELETE FROM tidemill_feed f USING tidemill_tables t
               WHERE f.tbl = t.id AND f.xid >= pg_snapshot_xmax(pg_current_snapshot())::text::bigint";
    client.execute(sql, &[]).await.map(drop).map_err(from_pg)
}
