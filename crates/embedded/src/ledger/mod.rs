//! The ledger block on SQLite: one file, write-ahead log, `synchronous=FULL`.
//!
//! SQLite has one writer at a time and pays one `fsync` per commit, so there is one writer thread and it commits in groups: whatever
//! waits in its queue goes into one outer transaction, each caller's statements in a savepoint of their own, and one commit
//! answers them all. A caller whose statements fail is rolled back alone. Queries run on a few connections of their own; in the
//! write-ahead log they neither wait for the writer nor hold it up, and each sees every commit that was answered before it began.

mod migrate;
mod reader;
mod sql;
#[cfg(test)]
mod tests;
mod writer;

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
use tidemill_base::{Env, Error, ErrorKind, Result};
use tidemill_blocks::ledger::{Ledger, Migration, Row, Statement, Value};

use reader::Readers;
use sql::from_sqlite;
use writer::{Work, Writer};

/// How many queries run at once.
const READERS: usize = 4;
/// How long another process may hold the file's write lock before a transaction answers `Unavailable`.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// Prepared statements kept per connection.
const PREPARED: usize = 256;

/// A ledger in one SQLite file. Several processes may open the same file; each sees what the others committed.
///
/// ```no_run
/// # async fn example() -> tidemill_base::Result<()> {
/// use tidemill_base::Env;
/// use tidemill_blocks::ledger::{Ledger, Statement};
/// use tidemill_embedded::ledger::SqliteLedger;
///
/// let ledger = SqliteLedger::open("data/ledger.db", Env::system())?;
/// ledger.transact(vec![Statement::new("CREATE TABLE IF NOT EXISTS jobs (id TEXT PRIMARY KEY)", vec![])]).await?;
/// ledger.transact(vec![Statement::new("INSERT INTO jobs VALUES ($1)", vec!["j1".into()]).expecting(1)]).await?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct SqliteLedger {
    path: PathBuf,
    writer: Writer,
    readers: Readers,
}

impl SqliteLedger {
    /// Opens the file, or makes it; its folder must exist. `env` dates the migrations.
    ///
    /// `Corrupt`: the file is no SQLite database. `Unavailable`: another process holds it for too long.
    pub fn open(path: impl AsRef<Path>, env: Env) -> Result<Self> {
        let path = path.as_ref();
        let named = |e: Error| e.context(format!("ledger {}", path.display()));
        let writing = open_writer(path).map_err(named)?;
        let readers = (0..READERS).map(|_| open_reader(path)).collect::<Result<Vec<_>>>().map_err(named)?;
        let writer = Writer::start(writing, env).map_err(named)?;
        Ok(Self { path: path.to_owned(), writer, readers: Readers::new(readers) })
    }

    /// Writes a consistent copy of the ledger as of now to `to`, which must not exist. Writers go on meanwhile.
    ///
    /// The copy is complete and on disk when this returns; before that the name `to` does not exist.
    pub async fn backup(&self, to: &Path) -> Result<()> {
        if to.exists() {
            return Err(Error::new(ErrorKind::Conflict, format!("{} exists already; choose another name for the backup", to.display())));
        }
        let part = with_suffix(to, ".part");
        let target = part.to_str().ok_or_else(|| Error::invalid(format!("{} is not UTF-8", to.display())))?.to_owned();
        let to = to.to_owned();
        self.readers
            .run(move |conn| {
                if part.exists() {
                    std::fs::remove_file(&part)?;
                }
                conn.execute("VACUUM INTO ?1", [&target]).map_err(|e| from_sqlite(&e))?;
                std::fs::File::open(&part)?.sync_all()?;
                std::fs::rename(&part, &to)?;
                sync_folder_of(&to)
            })
            .await
            .map_err(|e| e.context(format!("backup of {}", self.path.display())))
    }
}

#[async_trait]
impl Ledger for SqliteLedger {
    async fn migrate(&self, migrations: &[Migration]) -> Result<()> {
        self.writer.submit(Work::Migrate(migrations.to_vec())).await.map(drop)
    }

    async fn transact(&self, statements: Vec<Statement>) -> Result<Vec<u64>> {
        if statements.is_empty() {
            return Ok(Vec::new());
        }
        for statement in &statements {
            sql::check_writable(&statement.sql)?;
        }
        self.writer.submit(Work::Statements(statements)).await
    }

    async fn query(&self, sql: &str, params: Vec<Value>) -> Result<Vec<Row>> {
        sql::check_query(sql)?;
        let sql = sql.to_owned();
        self.readers.run(move |conn| sql::query(conn, &sql, &params)).await
    }
}

fn open_writer(path: &Path) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags).map_err(|e| from_sqlite(&e))?;
    let prepare = || -> rusqlite::Result<String> {
        conn.busy_timeout(BUSY_TIMEOUT)?;
        let mode = conn.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
        conn.pragma_update(None, "synchronous", "FULL")?;
        // Without this macOS does not wait for the drive's own cache.
        conn.pragma_update(None, "fullfsync", true)?;
        conn.pragma_update(None, "foreign_keys", true)?;
        conn.pragma_update(None, "journal_size_limit", 64 << 20)?;
        keep_statements(&conn)?;
        conn.execute_batch(migrate::TABLE)?;
        Ok(mode)
    };
    let mode = prepare().map_err(|e| from_sqlite(&e))?;
    if !mode.eq_ignore_ascii_case("wal") {
        return Err(Error::invalid("the file system takes no write-ahead log; put the data folder on a local disk"));
    }
    sync_folder_of(path)?;
    Ok(conn)
}

fn open_reader(path: &Path) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags).map_err(|e| from_sqlite(&e))?;
    conn.busy_timeout(BUSY_TIMEOUT).and_then(|()| keep_statements(&conn)).map_err(|e| from_sqlite(&e))?;
    Ok(conn)
}

/// Statements are prepared once. Without the planner's stability guarantee each is prepared anew whenever a parameter that a plan may
/// depend on is bound, which costs more than most of them do (<https://sqlite.org/queryplanner-ng.html#qpstab>).
fn keep_statements(conn: &Connection) -> rusqlite::Result<()> {
    conn.set_prepared_statement_cache_capacity(PREPARED);
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map(drop)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// A new file's name is durable only when its folder is.
fn sync_folder_of(path: &Path) -> Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    std::fs::File::open(folder)?.sync_all()?;
    Ok(())
}
