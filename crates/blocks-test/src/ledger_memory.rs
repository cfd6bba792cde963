//! A ledger without files or threads, for the simulator: SQLite in memory, called on the caller's thread.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ErrorCode, ToSql};
use tidemill_base::{Error, ErrorKind, Result};
use tidemill_blocks::ledger::{Expect, Ledger, Migration, Row, Statement, Value};

/// SQLite in memory. Every call runs to its end before it returns to the executor, one after the other, so that a simulation of it
/// depends on nothing but the order of the calls.
pub struct SqliteMemoryLedger(Mutex<Connection>);

impl fmt::Debug for SqliteMemoryLedger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteMemoryLedger").finish_non_exhaustive()
    }
}

impl SqliteMemoryLedger {
    /// An empty ledger.
    pub fn open() -> Result<Self> {
        let conn = Connection::open_in_memory().map_err(|e| failed(&e))?;
        conn.pragma_update(None, "foreign_keys", true).map_err(|e| failed(&e))?;
        conn.set_prepared_statement_cache_capacity(256);
        conn.execute_batch("CREATE TABLE tidemill_migrations (name TEXT PRIMARY KEY, sql TEXT NOT NULL)").map_err(|e| failed(&e))?;
        Ok(Self(Mutex::new(conn)))
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `work` as one transaction: all of it or nothing.
    fn whole<T>(&self, work: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        let mut conn = self.lock();
        let transaction = conn.transaction().map_err(|e| failed(&e))?;
        let done = work(&transaction)?;
        transaction.commit().map_err(|e| failed(&e))?;
        Ok(done)
    }
}

#[async_trait]
impl Ledger for SqliteMemoryLedger {
    async fn migrate(&self, migrations: &[Migration]) -> Result<()> {
        self.whole(|conn| migrations.iter().try_for_each(|m| migrate(conn, m)))
    }

    async fn transact(&self, statements: Vec<Statement>) -> Result<Vec<u64>> {
        self.whole(|conn| statements.iter().map(|s| execute(conn, s)).collect())
    }

    async fn query(&self, sql: &str, params: Vec<Value>) -> Result<Vec<Row>> {
        query(&self.lock(), sql, &params)
    }
}

fn migrate(conn: &Connection, migration: &Migration) -> Result<()> {
    let applied = query(conn, "SELECT sql FROM tidemill_migrations WHERE name = $1", &[migration.name.into()])?;
    match applied.first().map(|row| row.text(0)).transpose()? {
        Some(sql) if sql == migration.sql => Ok(()),
        Some(_) => Err(Error::invalid(format!("migration `{}` was applied with another text; add a new one instead", migration.name))),
        None => {
            conn.execute_batch(migration.sql).map_err(|e| failed(&e).context(format!("migration {}", migration.name)))?;
            let sql = "INSERT INTO tidemill_migrations (name, sql) VALUES ($1, $2)";
            execute(conn, &Statement::new(sql, vec![migration.name.into(), migration.sql.into()])).map(drop)
        }
    }
}

fn execute(conn: &Connection, statement: &Statement) -> Result<u64> {
    let word = statement.sql.trim_start().split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default().to_ascii_uppercase();
    if ["BEGIN", "COMMIT", "END", "ROLLBACK", "SAVEPOINT", "RELEASE"].contains(&word.as_str()) {
        return Err(Error::invalid(format!("{word} has no place in a transaction, which begins and commits by itself")));
    }
    let mut prepared = conn.prepare_cached(&statement.sql).map_err(|e| failed(&e))?;
    bind(&mut prepared, &statement.params)?;
    let touched = if prepared.column_count() > 0 {
        // With RETURNING the rows that come back are counted, as PostgreSQL does.
        let mut rows = prepared.raw_query();
        let mut count = 0;
        while rows.next().map_err(|e| failed(&e))?.is_some() {
            count += 1;
        }
        count
    } else {
        let before = conn.total_changes();
        let changed = prepared.raw_execute().map_err(|e| failed(&e))?;
        // A statement that changes no rows leaves the count of the one before it standing.
        if conn.total_changes() == before { 0 } else { u64::try_from(changed).unwrap_or(u64::MAX) }
    };
    match statement.expect {
        Expect::Rows(rows) if rows != touched => {
            Err(Error::conflict(format!("a statement touched {touched} rows, {rows} were expected; nothing has changed")))
        }
        _ => Ok(touched),
    }
}

fn query(conn: &Connection, sql: &str, params: &[Value]) -> Result<Vec<Row>> {
    let mut prepared = conn.prepare_cached(sql).map_err(|e| failed(&e))?;
    if !prepared.readonly() || prepared.column_count() == 0 {
        return Err(Error::invalid("a query must read and not change anything; send changes as a transaction"));
    }
    bind(&mut prepared, params)?;
    let columns = prepared.column_count();
    let mut rows = prepared.raw_query();
    let mut out = Vec::new();
    while let Some(row) = rows.next().map_err(|e| failed(&e))? {
        out.push(Row((0..columns).map(|at| row.get_ref(at).map_err(|e| failed(&e)).and_then(read)).collect::<Result<_>>()?));
    }
    Ok(out)
}

/// Binds by name: SQLite numbers `$2` as its first parameter when it is the first to appear.
fn bind(prepared: &mut rusqlite::Statement<'_>, params: &[Value]) -> Result<()> {
    let mut highest = 0;
    for index in 1..=prepared.parameter_count() {
        let name = prepared.parameter_name(index).unwrap_or("?").to_owned();
        let number: usize = name
            .strip_prefix('$')
            .and_then(|n| n.parse().ok())
            .filter(|n| *n > 0)
            .ok_or_else(|| Error::invalid(format!("parameter `{name}` is not understood; write $1, $2 and so on")))?;
        let value = params.get(number - 1).ok_or_else(|| wrong_count(number, params.len()))?;
        prepared.raw_bind_parameter(index, Bound(value)).map_err(|e| failed(&e))?;
        highest = highest.max(number);
    }
    if highest < params.len() { Err(wrong_count(highest, params.len())) } else { Ok(()) }
}

fn wrong_count(highest: usize, given: usize) -> Error {
    Error::invalid(format!("the statement has parameters up to ${highest}, {given} were given"))
}

struct Bound<'v>(&'v Value);

impl ToSql for Bound<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self.0 {
            Value::Null => ValueRef::Null,
            Value::Int(v) => ValueRef::Integer(*v),
            Value::Real(v) => ValueRef::Real(*v),
            Value::Text(v) => ValueRef::Text(v.as_bytes()),
            Value::Blob(v) => ValueRef::Blob(v),
        }))
    }
}

fn read(value: ValueRef<'_>) -> Result<Value> {
    Ok(match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(v) => Value::Int(v),
        ValueRef::Real(v) => Value::Real(v),
        ValueRef::Blob(v) => Value::Blob(v.to_vec()),
        ValueRef::Text(v) => {
            let text = std::str::from_utf8(v).map_err(|e| Error::corrupt("a text in the ledger is not UTF-8").with_source(e))?;
            Value::Text(text.to_owned())
        }
    })
}

fn failed(e: &rusqlite::Error) -> Error {
    let kind = match e.sqlite_error_code() {
        Some(ErrorCode::ConstraintViolation) => ErrorKind::Conflict,
        Some(ErrorCode::OutOfMemory | ErrorCode::TooBig) => ErrorKind::Exhausted,
        _ => ErrorKind::Invalid,
    };
    Error::new(kind, format!("the ledger refused a statement: {e}"))
}
