//! Statements, values and errors between the block's terms and SQLite's.

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ErrorCode, ToSql};
use tidemill_base::{Error, ErrorKind, Result};
use tidemill_blocks::ledger::{Expect, Row, Statement, Value};

/// They would end or change the transaction that other callers' statements are in.
const NOT_IN_A_TRANSACTION: &[&str] =
    &["BEGIN", "COMMIT", "END", "ROLLBACK", "SAVEPOINT", "RELEASE", "PRAGMA", "ATTACH", "DETACH", "VACUUM"];
const QUERIES: &[&str] = &["SELECT", "WITH", "VALUES", "EXPLAIN"];

/// Refuses what has no place in a transaction.
pub(super) fn check_writable(sql: &str) -> Result<()> {
    let word = first_word(sql);
    if word.is_empty() {
        return Err(Error::invalid("an empty statement; write SQL, or leave it out"));
    }
    if NOT_IN_A_TRANSACTION.iter().any(|w| word.eq_ignore_ascii_case(w)) {
        return Err(Error::invalid(format!("{word} cannot be used in a ledger transaction, which begins and commits by itself")));
    }
    Ok(())
}

/// Refuses what is no query.
pub(super) fn check_query(sql: &str) -> Result<()> {
    let word = first_word(sql);
    if QUERIES.iter().any(|w| word.eq_ignore_ascii_case(w)) {
        return Ok(());
    }
    Err(Error::invalid(format!("a ledger query starts with SELECT, WITH or VALUES, not `{word}`; changes go through a transaction")))
}

/// The first word after blanks and comments.
fn first_word(sql: &str) -> &str {
    let mut rest = sql;
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == ';');
        let after = if let Some(comment) = rest.strip_prefix("--") {
            comment.split_once('\n').map_or("", |(_, after)| after)
        } else if let Some(comment) = rest.strip_prefix("/*") {
            comment.split_once("*/").map_or("", |(_, after)| after)
        } else {
            let end = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
            return if end == 0 { rest.get(..1).unwrap_or(rest) } else { &rest[..end] };
        };
        rest = after;
    }
}

/// Runs one statement of a transaction and checks what it touched.
pub(super) fn execute(conn: &Connection, number: usize, statement: &Statement) -> Result<u64> {
    let touched = touch(conn, statement).map_err(|e| e.context(format!("statement {number}")))?;
    match statement.expect {
        Expect::Rows(rows) if rows != touched => {
            Err(Error::new(ErrorKind::Conflict, format!("statement {number} touched {touched} rows, expected {rows}")))
        }
        _ => Ok(touched),
    }
}

fn touch(conn: &Connection, statement: &Statement) -> Result<u64> {
    let mut prepared = conn.prepare_cached(&statement.sql).map_err(|e| from_sqlite(&e))?;
    bind(&mut prepared, &statement.params)?;
    if prepared.column_count() > 0 {
        // A SELECT or a RETURNING clause: PostgreSQL counts the rows that come back, and so do we.
        let mut rows = prepared.raw_query();
        let mut count = 0;
        while rows.next().map_err(|e| from_sqlite(&e))?.is_some() {
            count += 1;
        }
        return Ok(count);
    }
    let before = conn.total_changes();
    let changed = prepared.raw_execute().map_err(|e| from_sqlite(&e))?;
    // SQLite leaves the count of the last change standing when a statement such as CREATE TABLE changes no rows.
    Ok(if conn.total_changes() == before { 0 } else { u64::try_from(changed).unwrap_or(u64::MAX) })
}

/// Runs one query to its end, so that no snapshot stays open behind it.
pub(super) fn query(conn: &Connection, sql: &str, params: &[Value]) -> Result<Vec<Row>> {
    let mut prepared = conn.prepare_cached(sql).map_err(|e| from_sqlite(&e))?;
    if !prepared.readonly() {
        return Err(Error::invalid("a ledger query cannot change data; changes go through a transaction"));
    }
    bind(&mut prepared, params)?;
    let columns = prepared.column_count();
    let mut rows = prepared.raw_query();
    let mut out = Vec::new();
    while let Some(row) = rows.next().map_err(|e| from_sqlite(&e))? {
        let mut values = Vec::with_capacity(columns);
        for at in 0..columns {
            values.push(read(row.get_ref(at).map_err(|e| from_sqlite(&e))?)?);
        }
        out.push(Row(values));
    }
    Ok(out)
}

/// Binds `$n` to the n-th parameter. SQLite numbers names in the order in which they appear, so `$2` may be its first.
fn bind(prepared: &mut rusqlite::Statement<'_>, params: &[Value]) -> Result<()> {
    let mut highest = 0;
    for index in 1..=prepared.parameter_count() {
        let name = prepared.parameter_name(index).unwrap_or("?").to_owned();
        let number = name.strip_prefix('$').and_then(|n| n.parse::<usize>().ok()).filter(|n| *n > 0);
        let Some(number) = number else {
            let hint = if name.contains("::") { "write CAST($1 AS BIGINT) instead of $1::BIGINT" } else { "write $1, $2 and so on" };
            return Err(Error::invalid(format!("parameter `{name}` is not understood; {hint}")));
        };
        highest = highest.max(number);
        let value = params.get(number - 1).ok_or_else(|| Error::invalid(wrong_count(number, params.len())))?;
        prepared.raw_bind_parameter(index, Bound(value)).map_err(|e| from_sqlite(&e))?;
    }
    if highest < params.len() {
        return Err(Error::invalid(wrong_count(highest, params.len())));
    }
    Ok(())
}

fn wrong_count(highest: usize, given: usize) -> String {
    format!("the statement asks for parameters up to ${highest}, and {given} were given")
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
        ValueRef::Text(v) => {
            let text = std::str::from_utf8(v).map_err(|e| Error::corrupt("a text in the ledger is not UTF-8").with_source(e))?;
            Value::Text(text.to_owned())
        }
        ValueRef::Blob(v) => Value::Blob(v.to_vec()),
    })
}

/// What a failure of SQLite means to the caller. Parameters never show in the message.
pub(super) fn from_sqlite(e: &rusqlite::Error) -> Error {
    use rusqlite::Error as E;
    let (code, extended, text) = match e {
        E::SqliteFailure(code, text) => (code.code, code.extended_code, text.clone().unwrap_or_else(|| code.to_string())),
        E::SqlInputError { error, msg, sql, offset } => {
            (error.code, error.extended_code, format!("{msg}, near byte {offset} of `{}`", shorten(sql)))
        }
        E::MultipleStatement => return Error::invalid("several statements in one; send each as a statement of its own"),
        other => return Error::invalid(format!("the statement was refused: {other}")),
    };
    let kind = match code {
        ErrorCode::ConstraintViolation if extended == rusqlite::ffi::SQLITE_CONSTRAINT_DATATYPE => ErrorKind::Invalid,
        ErrorCode::ConstraintViolation => ErrorKind::Conflict,
        ErrorCode::DiskFull | ErrorCode::OutOfMemory | ErrorCode::TooBig => ErrorKind::Exhausted,
        ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => ErrorKind::Corrupt,
        ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::AuthorizationForStatementDenied => ErrorKind::Denied,
        ErrorCode::CannotOpen if text.contains("unable to open") => ErrorKind::NotFound,
        ErrorCode::DatabaseBusy
        | ErrorCode::DatabaseLocked
        | ErrorCode::SystemIoFailure
        | ErrorCode::CannotOpen
        | ErrorCode::OperationAborted
        | ErrorCode::OperationInterrupted
        | ErrorCode::SchemaChanged
        | ErrorCode::FileLockingProtocolFailed => ErrorKind::Unavailable,
        ErrorCode::InternalMalfunction => ErrorKind::Internal,
        _ => ErrorKind::Invalid,
    };
    Error::new(kind, text)
}

fn shorten(sql: &str) -> String {
    let line = sql.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= 120 { line } else { line.chars().take(120).chain("...".chars()).collect() }
}
