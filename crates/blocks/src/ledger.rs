//! Relational records: jobs, stages, workers, users, audit.
//!
//! Statements are the common subset of SQLite and PostgreSQL: `$1` parameters, `INSERT ... ON CONFLICT ... DO`, `RETURNING`,
//! types BIGINT, DOUBLE PRECISION, TEXT and BYTEA (`BLOB` in SQLite takes the same name). Booleans are BIGINT 0 and 1, times are
//! BIGINT microseconds. A transaction is a list of statements sent as one, so that it costs one round trip and one commit; what
//! it must find true is said with [`Expect`].

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tidemill_base::{Error, Result};

/// A value in or out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Value {
    /// SQL NULL.
    Null,
    /// BIGINT.
    Int(i64),
    /// DOUBLE PRECISION.
    Real(f64),
    /// TEXT.
    Text(String),
    /// BYTEA.
    Blob(Vec<u8>),
}

macro_rules! value_from {
    ($($t:ty => |$v:ident| $e:expr),* $(,)?) => { $( impl From<$t> for Value { fn from($v: $t) -> Self { $e } } )* };
}
value_from! {
    i64 => |v| Self::Int(v),
    u64 => |v| Self::Int(i64::try_from(v).unwrap_or(i64::MAX)),
    u32 => |v| Self::Int(i64::from(v)),
    i32 => |v| Self::Int(i64::from(v)),
    bool => |v| Self::Int(i64::from(v)),
    f64 => |v| Self::Real(v),
    &str => |v| Self::Text(v.to_owned()),
    String => |v| Self::Text(v),
    Vec<u8> => |v| Self::Blob(v),
    tidemill_base::Timestamp => |v| Self::Int(v.micros()),
}

impl<T: Into<Self>> From<Option<T>> for Value {
    fn from(v: Option<T>) -> Self {
        v.map_or(Self::Null, Into::into)
    }
}

/// How many rows a statement must touch for the transaction to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Expect {
    /// Any number.
    Any,
    /// Exactly so many; otherwise the transaction answers `Conflict` and nothing has changed.
    Rows(u64),
}

/// One statement with its parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Statement {
    /// SQL with `$1`, `$2`...
    pub sql: String,
    /// The parameters.
    pub params: Vec<Value>,
    /// What must be touched.
    pub expect: Expect,
}

impl Statement {
    /// A statement that may touch any number of rows.
    pub fn new(sql: impl Into<String>, params: Vec<Value>) -> Self {
        Self { sql: sql.into(), params, expect: Expect::Any }
    }

    /// The transaction fails with `Conflict` unless just `rows` rows are touched.
    #[must_use]
    pub const fn expecting(mut self, rows: u64) -> Self {
        self.expect = Expect::Rows(rows);
        self
    }
}

/// A row of a query's answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row(pub Vec<Value>);

impl Row {
    fn bad(&self, at: usize, want: &str) -> Error {
        Error::corrupt(format!("ledger column {at} holds {:?}, expected {want}", self.0.get(at)))
    }

    /// The integer in column `at`.
    pub fn int(&self, at: usize) -> Result<i64> {
        match self.0.get(at) {
            Some(Value::Int(v)) => Ok(*v),
            _ => Err(self.bad(at, "an integer")),
        }
    }

    /// The integer in column `at`, which is not negative.
    pub fn uint(&self, at: usize) -> Result<u64> {
        u64::try_from(self.int(at)?).map_err(|_| self.bad(at, "a non-negative integer"))
    }

    /// The number in column `at`.
    pub fn real(&self, at: usize) -> Result<f64> {
        match self.0.get(at) {
            Some(Value::Real(v)) => Ok(*v),
            Some(Value::Int(v)) => Ok(*v as f64),
            _ => Err(self.bad(at, "a number")),
        }
    }

    /// The text in column `at`.
    pub fn text(&self, at: usize) -> Result<&str> {
        match self.0.get(at) {
            Some(Value::Text(v)) => Ok(v),
            _ => Err(self.bad(at, "text")),
        }
    }

    /// The bytes in column `at`.
    pub fn blob(&self, at: usize) -> Result<&[u8]> {
        match self.0.get(at) {
            Some(Value::Blob(v)) => Ok(v),
            _ => Err(self.bad(at, "bytes")),
        }
    }

    /// The boolean in column `at`.
    pub fn bool(&self, at: usize) -> Result<bool> {
        Ok(self.int(at)? != 0)
    }

    /// The time in column `at`.
    pub fn time(&self, at: usize) -> Result<tidemill_base::Timestamp> {
        self.int(at).map(tidemill_base::Timestamp)
    }

    /// Whether column `at` is NULL.
    pub fn is_null(&self, at: usize) -> bool {
        matches!(self.0.get(at), Some(Value::Null) | None)
    }

    /// The text in column `at`, or `None` for NULL.
    pub fn text_opt(&self, at: usize) -> Result<Option<&str>> {
        if self.is_null(at) { Ok(None) } else { self.text(at).map(Some) }
    }

    /// The integer in column `at`, or `None` for NULL.
    pub fn int_opt(&self, at: usize) -> Result<Option<i64>> {
        if self.is_null(at) { Ok(None) } else { self.int(at).map(Some) }
    }
}

/// A step of a system's schema. Steps of one system are applied in order, each once, and never changed after release.
#[derive(Debug, Clone, Copy)]
pub struct Migration {
    /// `system-NNN-what`, unique and ascending within a system.
    pub name: &'static str,
    /// Statements separated by `;`.
    pub sql: &'static str,
}

/// The ledger block. Transactions are serialisable. `Invalid`: the statement is wrong; `Conflict`: an expectation or a
/// constraint (unique, foreign key) did not hold, and nothing has changed; `Unavailable`: it may have taken effect.
#[async_trait]
pub trait Ledger: Send + Sync + std::fmt::Debug {
    /// Applies what has not been applied yet. Safe to call from several managers at once.
    async fn migrate(&self, migrations: &[Migration]) -> Result<()>;

    /// Runs the statements as one transaction, durable when it returns. Returns the rows touched by each, in order.
    async fn transact(&self, statements: Vec<Statement>) -> Result<Vec<u64>>;

    /// Runs one query. It sees every transaction that was answered before.
    async fn query(&self, sql: &str, params: Vec<Value>) -> Result<Vec<Row>>;
}
